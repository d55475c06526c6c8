"""The store: what was added is there, bounded, private, and nobody reads another's file as one."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import threading
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tagclip.runtime.errors import StoreError, StoreFullError
from tagclip.runtime.ids import uuid7
from tagclip.runtime.store import Retention, TrackStore
from tagclip.runtime.store_form import is_store
from tagclip.runtime.store_track import Place, StoredTrack

ENCODER = "a" * 64
DAY_S = 86_400.0


def track(number: int, **values: object) -> StoredTrack:
    vector = np.random.default_rng(number).standard_normal(16)
    base = StoredTrack(
        uuid7(), "north", "aerial", 1e9 + number, 1e9 + number + 5, 1e9 + number + 2, number,
        (1.5, 2.5, 30.0, 60.0), ENCODER, vector / np.linalg.norm(vector), Place(47.1, 8.5, 3.0),
    )  # fmt: skip
    return replace(base, **values)  # type: ignore[arg-type]


def test_what_was_added_is_there_after_opening_again(tmp_path: Path) -> None:
    kept = [track(0), track(1, place=None, camera="süd", view="ground")]
    with TrackStore(tmp_path / "s.db") as store:
        store.add([(t, f"jpeg {t.frame}".encode()) for t in kept])
    with TrackStore(tmp_path / "s.db", read_only=True) as store:
        assert len(store) == 2 and store.encoders() == {ENCODER: 2}
        found = store.get(store.keys())
        assert store.thumbnails(store.keys()) == {1: b"jpeg 0", 2: b"jpeg 1"}
    for was, now in zip(kept, found.values(), strict=True):
        np.testing.assert_array_equal(now.vector, was.vector.astype(np.float16))
        assert replace(now, vector=was.vector) == was


def test_a_track_is_replaced_by_its_id_and_its_key_is_new(tmp_path: Path) -> None:
    with TrackStore(tmp_path / "s.db") as store:
        first, other = track(0), track(1)
        store.add([(first, b"a"), (other, b"b")])
        store.add([(replace(first, end_s=2e9), b"c")])
        assert store.keys().tolist() == [2, 3]
        assert store.get([1, 2, 3])[3].end_s == 2e9 and set(store.get([1, 2, 3])) == {2, 3}
        assert store.thumbnails([1, 2, 3]) == {2: b"b", 3: b"c"}
        assert [key for key, _ in store.since(2)] == [3]


def test_all_of_a_batch_or_none(tmp_path: Path) -> None:
    with TrackStore(tmp_path / "s.db") as store:
        store.add([(track(0), b"a")])
        with pytest.raises(ValueError, match="expected a unit vector"):
            store.add([(track(1), b"b"), (track(2, vector=np.ones(16)), b"c")])
        with pytest.raises(StoreError, match="NOT NULL"):
            store.add([(track(3), b"d"), (track(4), None)])  # type: ignore[list-item]
        assert len(store) == 1
        store.add([(track(5), b"e")])
        assert len(store) == 2


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    with TrackStore(tmp_path / "s.db") as store:
        store.add([(track(0), b"a")])
        for path in tmp_path.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_who_was_seen_too_long_ago_is_deleted_with_the_picture(tmp_path: Path) -> None:
    secret = b"\xff\xd8 a picture of somebody " * 30
    with TrackStore(tmp_path / "s.db", Retention(days=2)) as store:
        now_s = 2e9
        ends = [now_s - 3 * DAY_S, now_s - 1.9 * DAY_S, now_s]
        store.add([(track(k, start_s=end - 9, end_s=end), secret) for k, end in enumerate(ends)])
        assert store.prune(now_s) == 1 and store.prune(now_s) == 0
        assert [t.end_s for t in store.get(store.keys()).values()] == ends[1:]
        assert store.prune(now_s + 10 * DAY_S) == 2
        assert store._one("SELECT count(*) FROM thumbnails") == 0
    assert secret not in (tmp_path / "s.db").read_bytes()  # overwritten, not only unlinked


def test_the_quota_holds_and_the_oldest_make_room(tmp_path: Path) -> None:
    picture = os.urandom(20_000)
    with TrackStore(tmp_path / "s.db", Retention(max_bytes=2 << 20)) as store:
        for number in range(300):
            store.add([(track(number), picture)])
        frames = [t.frame for t in store.get(store.keys()).values()]
        assert store.dropped == 300 - len(frames) > 100
        assert frames == list(range(300 - len(frames), 300))  # the newest, without gaps
        assert (tmp_path / "s.db").stat().st_size <= 2 << 20
        with pytest.raises(
            StoreFullError, match="quota of 2,097,152 bytes is full; free room, or allow more"
        ):
            store.add([(track(999), os.urandom(3 << 20))])


def test_reading_goes_on_while_somebody_writes(tmp_path: Path) -> None:
    writer = TrackStore(tmp_path / "s.db")
    reader = TrackStore(tmp_path / "s.db", read_only=True)
    stop, errors = threading.Event(), []

    def write() -> None:
        try:
            for number in range(200):
                writer.add([(track(number), b"x" * 1000)])
        except StoreError as error:
            errors.append(error)
        stop.set()

    thread = threading.Thread(target=write)
    thread.start()
    counts = []
    while not stop.is_set():
        counts.append(len(reader))
    thread.join()
    assert not errors and len(reader) == 200 and counts == sorted(counts)
    reader.close()
    writer.close()


@pytest.mark.parametrize("content", [b"", b"hello", b"SQLite format 3\x00" + bytes(2000)])
def test_other_files_are_no_stores_and_stay_as_they_are(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(content)
    assert not is_store(path)
    with pytest.raises(StoreError, match="x.db"):
        TrackStore(path, read_only=True)
    if content:
        with pytest.raises(StoreError):
            TrackStore(path)
    assert path.read_bytes() == content


def test_somebody_elses_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE mine (a)")
    db.close()
    before = path.read_bytes()
    for read_only in (True, False):
        with pytest.raises(StoreError, match="is no store of tagclip; name another file"):
            TrackStore(path, read_only=read_only)
    assert path.read_bytes() == before


def test_a_newer_store_is_refused(tmp_path: Path) -> None:
    TrackStore(tmp_path / "s.db").close()
    assert is_store(tmp_path / "s.db")
    with sqlite3.connect(tmp_path / "s.db") as db:
        db.execute("PRAGMA user_version = 7")
    db.close()
    with pytest.raises(StoreError, match=r"made by a newer tagclip \(form 7\); update this one"):
        TrackStore(tmp_path / "s.db")


def test_a_damaged_store_is_named(tmp_path: Path) -> None:
    with TrackStore(tmp_path / "s.db") as store:
        store.add([(track(k), os.urandom(3000)) for k in range(200)])
    data = bytearray((tmp_path / "s.db").read_bytes())
    data[8192:120_000] = os.urandom(120_000 - 8192)
    (tmp_path / "s.db").write_bytes(data)
    with pytest.raises(StoreError, match="cannot be used as a store: .*; move it away to begin anew"):
        with TrackStore(tmp_path / "s.db", read_only=True) as store:
            store.get(store.keys())
            store.thumbnails(range(200))


def test_places_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        StoreError, match="cannot make the store .*No such file or directory; name another place"
    ):
        TrackStore(tmp_path / "no" / "s.db")
    with pytest.raises(StoreError, match="expected a store at .*, found none"):
        TrackStore(tmp_path / "none.db", read_only=True)


def test_another_encoder_takes_over(tmp_path: Path) -> None:
    with TrackStore(tmp_path / "s.db") as store:
        store.add([(track(k), f"{k}".encode()) for k in range(3)])
        vector = np.eye(8)[2]
        store.embed_anew({1: vector, 3: vector}, "b" * 64)
        assert store.encoders() == {ENCODER: 1, "b" * 64: 2}
        again = [t for t in store.get(store.keys()).values() if t.encoder_id == "b" * 64]
        assert [t.frame for t in again] == [0, 2] and all(t.vector.tolist() == vector.tolist() for t in again)
        assert store.thumbnails(store.keys()) == {2: b"1", 4: b"0", 5: b"2"}


def test_ids_are_version_7_and_sort_by_time() -> None:
    ids = [uuid7(1_700_000_000_000 + k) for k in range(50)]
    assert (
        ids == sorted(ids) and {i.version for i in ids} == {7} and {i.variant for i in ids} == {uuid.RFC_4122}
    )
    assert ids[0].int >> 80 == 1_700_000_000_000
    assert len({uuid7(0) for _ in range(1000)}) == 1000
    assert uuid7(-5).int >> 80 == 0 and uuid7(1 << 60).version == 7  # a clock that is wrong breaks nothing
    assert json.loads(json.dumps(str(ids[0])))

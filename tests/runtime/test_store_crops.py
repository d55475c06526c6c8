"""The pictures that made a hit's score: kept with the track, bound by the same rules, and gone with it."""

from __future__ import annotations

import sqlite3
import uuid
from pathlib import Path

import numpy as np
import pytest

from tagclip.runtime.errors import KeyFileError, StoreError, StoreFullError
from tagclip.runtime.health import Health
from tagclip.runtime.picture_key import PictureKeys
from tagclip.runtime.store import Retention, TrackStore
from tagclip.runtime.store_crops import HitCrop
from tagclip.runtime.store_guard import StoreGuard
from tagclip.runtime.store_track import StoredTrack

pytest.importorskip("cryptography")

OLD, NEW = bytes(32), bytes(range(32))
SEEN = b"what must not be read" * 20
HITS = [uuid.UUID(int=100 + k) for k in range(3)]


def track(number: int, end_s: float = 5.0) -> StoredTrack:
    vector = np.eye(8)[number % 8]
    return StoredTrack(uuid.UUID(int=number), "n", "aerial", 0, end_s, 1, 1, (0, 0, 9, 9), "a" * 64, vector)


def crops(count: int, jpeg: bytes = SEEN) -> list[HitCrop]:
    return [HitCrop(10 * k, 1 / count, jpeg + bytes([k])) for k in range(count)]


def version(path: Path) -> int:
    with sqlite3.connect(path) as db:
        (found,) = db.execute("PRAGMA user_version").fetchone()
    db.close()
    return int(found)


def everything(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))


def test_they_come_back_as_they_were_and_a_new_revision_replaces_them(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with TrackStore(path) as store:
        store.add([(track(1), b"j"), (track(2), b"j")])
        assert version(path) == 1 and store.hit_crops.of(HITS[0]) == []  # older ones read it until then
        store.hit_crops.keep(HITS[:2], track(1).id, crops(3))
        store.hit_crops.keep([HITS[1]], track(1).id, crops(2))
        store.add([(track(1), b"later")])  # replaces the track, under a new key
        store.prune(0.0)
    with TrackStore(path, read_only=True) as store:
        assert store.hit_crops.of(HITS[0]) == crops(3)
        assert store.hit_crops.of(HITS[1]) == crops(2)
        assert store.hit_crops.of(HITS[2]) == []
        assert [crop.jpeg for crop in store.hit_crops.of(HITS[1], pictures=False)] == [b"", b""]
    assert version(path) == 3


def test_they_go_with_the_track(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with TrackStore(path, Retention(days=1.0)) as store:
        store.add([(track(1), b"j"), (track(2, 90_000.0), b"j")])
        for hit, person in zip(HITS, (1, 2), strict=False):
            store.hit_crops.keep([hit], track(person).id, crops(2))
        assert store.prune(86_400.0 + 10.0) == 1
        assert store.hit_crops.of(HITS[0]) == [] and store.hit_crops.of(HITS[1]) == crops(2)


def test_the_oldest_that_make_room_take_theirs_along(tmp_path: Path) -> None:
    with TrackStore(tmp_path / "s.db", Retention(max_bytes=1 << 20)) as store:
        store.add([(track(0, 0.0), b"j")])
        store.hit_crops.keep([HITS[0]], track(0).id, crops(2))
        number = 0
        while not store.dropped:
            number += 1
            store.add([(track(number, float(number)), bytes(20_000))])
        assert store.hit_crops.of(HITS[0]) == []


def test_where_there_is_no_room_nobody_is_deleted_for_them(tmp_path: Path) -> None:
    health = Health(camera="n", detector="d", provider="cpu", encoder_id="a" * 64)
    with TrackStore(tmp_path / "s.db", Retention(max_bytes=1 << 20)) as store:
        store.add([(track(0), b"j")])
        large = crops(3, bytes(1 << 20))
        with pytest.raises(StoreFullError):
            store.hit_crops.keep([HITS[0]], track(0).id, large)
        guard = StoreGuard(store, health)
        guard.keep_crops([HITS[0]], track(0).id, large)  # said, and no error
        assert store.hit_crops.of(HITS[0]) == [] and len(store) == 1 and store.dropped == 0
        guard.keep_crops([HITS[0]], track(0).id, crops(2))
        assert store.hit_crops.of(HITS[0]) == crops(2)


def test_they_are_encrypted_like_every_picture(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with TrackStore(path) as store:
        store.add([(track(1), SEEN)])
        store.hit_crops.keep([HITS[0]], track(1).id, crops(2))
    plain = TrackStore(path)  # as a `tagclip run` that goes on without the key
    with TrackStore(path, must_exist=True, keys=PictureKeys([OLD])) as store:
        assert version(path) == 3  # not back to that of a store without them
        store.hit_crops.keep([HITS[1]], track(1).id, crops(3))
        with pytest.raises(KeyFileError, match="pictures are encrypted"):
            plain.hit_crops.keep([HITS[2]], track(1).id, crops(1))
        plain.close()
        assert store.seal_pictures(lambda done, count: None) == 1 + 2
        assert store.hit_crops.of(HITS[0]) == crops(2)
    assert SEEN not in everything(path)
    with TrackStore(path, must_exist=True, keys=PictureKeys([NEW, OLD])) as store:
        assert store.seal_pictures(lambda done, count: None) == 1 + 5
    with TrackStore(path, read_only=True) as store:
        assert [crop.frame for crop in store.hit_crops.of(HITS[1], pictures=False)] == [0, 10, 20]
        with pytest.raises(KeyFileError, match="hit 00000000-0000-0000-0000-000000000065"):
            store.hit_crops.of(HITS[1])
    with sqlite3.connect(path) as db:
        db.execute("UPDATE hit_crops SET number = 9 WHERE number = 0 AND hit_id = ?", (HITS[1].bytes,))
    db.close()
    with TrackStore(path, read_only=True, keys=PictureKeys([NEW])) as store:
        assert store.hit_crops.of(HITS[0]) == crops(2)
        with pytest.raises(StoreError, match="another's put in its place"):
            store.hit_crops.of(HITS[1])

"""Pictures encrypted at rest, at the station, in a store and an outbox; keys that are wrong, lost or changed."""

from __future__ import annotations

import base64
import sqlite3
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("argon2")
pytest.importorskip("cryptography")

from beside import load
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tagclip.runtime.errors import KeyFileError, MissingExtraError, OutputError, StoreError
from tagclip.runtime.outbox import Outbox
from tagclip.runtime.picture_key import (
    HEAD_BYTES,
    NONCE_BYTES,
    OVERHEAD_BYTES,
    PictureKeys,
    new_picture_key,
    opened,
    read_picture_keys,
)
from tagclip.runtime.station.audit import audit_page
from tagclip.runtime.station.database import Database
from tagclip.runtime.station.encrypt import check_keys, seal_pictures
from tagclip.runtime.station.store import Store
from tagclip.runtime.store import TrackStore
from tagclip.runtime.store_track import StoredTrack
from tagclip.runtime.sync_messages import PICTURE, Batch

JPEG = b"\xff\xd8\xff\xe0" + b"here somebody is to be seen " * 400
SEEN = b"somebody is to be seen"
OLD, NEW, OTHER = (bytes([k]) * 32 for k in (1, 2, 3))


def keys(*several: bytes) -> PictureKeys:
    return PictureKeys(several)


def track(number: int) -> StoredTrack:
    vector = np.eye(8, dtype=np.float32)[number % 8]
    box = (1.0, 2.0, 3.0, 4.0)
    return StoredTrack(uuid.UUID(int=number), "north", "ground", 1.0, 2.0, 2.0, 3, box, "e", vector)


def everything(path: Path) -> bytes:
    """All bytes of a database's files."""
    return b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*") if file.is_file())


# ---- keys


def test_what_is_stored_is_aes_256_gcm_with_the_owner_authenticated() -> None:
    """Opened by the library alone, by the form that the module's text describes."""
    stored = keys(NEW).seal(JPEG, b"owner")
    head, nonce = stored[:HEAD_BYTES], stored[HEAD_BYTES : HEAD_BYTES + NONCE_BYTES]
    assert AESGCM(NEW).decrypt(nonce, stored[HEAD_BYTES + NONCE_BYTES :], head + b"owner") == JPEG
    assert len(stored) == len(JPEG) + OVERHEAD_BYTES and SEEN not in stored
    assert keys(NEW).seal(JPEG, b"owner") != stored


def test_every_changed_byte_and_every_other_owner_is_refused() -> None:
    stored = keys(NEW).seal(JPEG[:40], b"owner")
    for at in range(HEAD_BYTES, len(stored)):
        changed = stored[:at] + bytes([stored[at] ^ 1]) + stored[at + 1 :]
        with pytest.raises(StoreError, match="hit 7: the picture is not the one that was encrypted for it"):
            keys(NEW).open(changed, b"owner", "hit 7")
    for cut in (HEAD_BYTES, HEAD_BYTES + 5, len(stored) - 1):
        with pytest.raises(StoreError, match="not the one"):
            keys(NEW).open(stored[:cut], b"owner", "hit 7")
    with pytest.raises(StoreError, match="not the one"):
        keys(NEW).open(stored, b"another", "hit 7")
    with pytest.raises(KeyFileError, match=f"expected key {keys(NEW).id}, found {keys(OLD).id}"):
        keys(OLD).open(stored, b"owner", "hit 7")
    with pytest.raises(
        KeyFileError, match=r"expected key [0-9a-f]{16}, found none; name its file with --picture-key"
    ):
        opened(stored, b"owner", None, "hit 7")
    assert opened(JPEG, b"whoever", None, "") == opened(JPEG, b"whoever", keys(OLD), "") == JPEG


def test_a_key_file_is_for_its_owner_alone_and_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "pictures.key"
    name = new_picture_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    read = read_picture_keys([path])
    assert read is not None and read.id == name and read_picture_keys([]) is None
    before = path.read_bytes()
    with pytest.raises(OutputError, match="File exists"):
        new_picture_key(path)
    assert path.read_bytes() == before
    with pytest.raises(OutputError, match="cannot make the key"):
        new_picture_key(tmp_path / "no" / "key")
    for mode in (0o640, 0o604, 0o620):
        path.chmod(mode)
        with pytest.raises(KeyFileError, match=f"0600.*found mode {mode:04o}; `chmod 600"):
            read_picture_keys([path])
    path.chmod(0o600)
    for text in (b"", before[:-1], before + b"\n", before.upper(), b"-----BEGIN PRIVATE KEY-----\n"):
        path.write_bytes(text)
        with pytest.raises(KeyFileError, match="expected a key for pictures"):
            read_picture_keys([path])
    with pytest.raises(KeyFileError, match="cannot be read"):
        read_picture_keys([tmp_path / "none"])


def test_without_cryptography_nothing_is_stored_in_plain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_picture_key(tmp_path / "key")
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tagclip\[signing\]'"):
        read_picture_keys([tmp_path / "key"])
    with pytest.raises(MissingExtraError):
        new_picture_key(tmp_path / "other")
    assert not (tmp_path / "other").exists()


# ---- a device's store


def test_a_store_keeps_no_picture_in_plain(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with TrackStore(path, keys=keys(NEW)) as store:
        store.add([(track(k), JPEG) for k in range(3)])
        assert set(store.thumbnails(store.keys()).values()) == {JPEG}
        assert store.thumbnail_of(track(1).id) == JPEG
        assert SEEN not in everything(path)
        store.embed_anew(
            {int(store.keys()[0]): track(5).vector}, "other"
        )  # another key of the row, the same owner
        assert set(store.thumbnails(store.keys()).values()) == {JPEG}
    assert SEEN not in everything(path)


def test_a_store_with_encrypted_pictures_takes_no_plain_ones(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with TrackStore(path) as store:
        store.add([(track(0), JPEG)])
    watching = TrackStore(path)  # as a `tagclip run` that goes on without the key
    with TrackStore(path, keys=keys(NEW)) as store:
        store.add([(track(1), JPEG)])
        assert set(store.thumbnails(store.keys()).values()) == {JPEG}  # those of before, too
    with pytest.raises(KeyFileError, match="pictures are encrypted"):
        watching.add([(track(2), JPEG)])
    watching.close()
    for wrong in (None, keys(OLD)):
        with pytest.raises(KeyFileError, match=f"expected key {keys(NEW).id}"):
            TrackStore(path, keys=wrong)
    with TrackStore(path, read_only=True) as store:  # a search that needs no picture
        assert len(store) == 2 and len(store.vectors(store.keys())) == 2
        with pytest.raises(KeyFileError, match="track 00000000-0000-0000-0000-000000000001"):
            store.thumbnails(store.keys())
    with TrackStore(path, must_exist=True) as store:
        assert store.prune(1e12) == 2  # deleting needs no key


def test_another_tracks_picture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with TrackStore(path, keys=keys(NEW)) as store:
        store.add([(track(1), JPEG), (track(2), JPEG[::-1])])
    with sqlite3.connect(path) as db:
        (other,) = db.execute("SELECT jpeg FROM thumbnails WHERE key = 1").fetchone()
        db.execute("UPDATE thumbnails SET jpeg = ? WHERE key = 2", (other,))
    db.close()
    with TrackStore(path, read_only=True, keys=keys(NEW)) as store:
        assert store.thumbnail_of(track(1).id) == JPEG
        with pytest.raises(StoreError, match="another's put in its place"):
            store.thumbnail_of(track(2).id)


def test_a_stores_key_is_changed_and_nothing_of_before_is_left(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with TrackStore(path) as store:
        store.add([(track(k), JPEG) for k in range(100)])
        store.prune(0.0)
    with TrackStore(path, must_exist=True, keys=keys(OLD)) as store:
        assert store.seal_pictures(lambda done, count: None) == 100
    assert SEEN not in everything(path)  # not in free pages either
    with TrackStore(path, must_exist=True, keys=keys(NEW, OLD)) as store:
        store.add([(track(200), JPEG)])
        assert store.sealed_by() == {keys(OLD).id, keys(NEW).id}
        assert store.seal_pictures(lambda done, count: None) == 100
        assert store.seal_pictures(lambda done, count: None) == 0
        assert store.sealed_by() == {keys(NEW).id}
    with TrackStore(path, keys=keys(NEW)) as store:
        assert set(store.thumbnails(store.keys()).values()) == {JPEG} and len(store) == 101


# ---- a device's outbox


WRITER, STATION = load("outbox_writer"), load("test_station_store")


def test_an_outbox_keeps_no_picture_in_plain_and_sends_it_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    with Outbox(path, "drone-1") as outbox:
        outbox.put(WRITER.hit(1), JPEG)
        plain = outbox.take(1 << 30, 10)[-1]
        size = outbox.facts()["bytes"]
    (tmp_path / "o.db").unlink()
    with Outbox(path, "drone-1", keys=keys(NEW)) as outbox:
        outbox.put(WRITER.hit(1), JPEG)
        sent = outbox.take(1 << 30, 10)[-1]
        assert sent.kind == PICTURE and sent.body == plain.body
        assert (
            abs(outbox.facts()["bytes"] - size) < 8
        )  # as they travel; the time they were made has fewer digits or more
        assert SEEN not in everything(path)
    for wrong in (None, keys(OLD)):
        with pytest.raises(KeyFileError, match=f"expected key {keys(NEW).id}"):
            Outbox(path, "drone-1", keys=wrong)
    with Outbox(path, "drone-1", keys=keys(OLD, NEW)) as outbox:
        assert outbox.take(1 << 30, 10)[-1].body == plain.body


def test_a_picture_that_is_damaged_holds_up_nobody(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    with Outbox(path, "drone-1", keys=keys(NEW)) as outbox:
        for number in (1, 2):
            outbox.put(WRITER.hit(number), JPEG)
        first = next(m.id for m in outbox.take(1 << 30, 10) if m.kind == PICTURE)
        outbox._file.db.execute(
            "UPDATE messages SET content = CAST(substr(content, 1, 60) AS BLOB) WHERE id = ?", (first,)
        )
        assert [m.kind for m in outbox.take(1 << 30, 10)].count(PICTURE) == 1
        assert first not in [m.id for m in outbox.take(1 << 30, 10)]
        assert (len(outbox), outbox.facts()["rejected"]) == (3, 1)


# ---- the station


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "records.sqlite")
    yield database
    database.close()


def told(store: Store, count: int) -> list[str]:
    """Hits with pictures, told to the station; their ids."""
    bodies = [STATION.hit_body() for _ in range(count)]
    rows = [STATION.message("d1", "hit", body) for body in bodies]
    rows += [STATION.message("d1", "picture", STATION.picture_body(body["id"], jpeg=JPEG)) for body in bodies]
    assert len(store.take(Batch("d1", rows, {})).acks) == 2 * count
    return [body["id"] for body in bodies]


def test_a_station_with_a_key_stores_no_picture_in_plain(database: Database) -> None:
    check_keys(database, keys(NEW))
    store = Store(database, keys(NEW))
    (one,) = told(store, 1)
    assert store.picture(one, "ann") == JPEG
    assert SEEN not in everything(database.path)
    with pytest.raises(KeyFileError, match="found none"):
        Store(database).picture(one, "ann")
    for wrong in (None, keys(OTHER)):
        with pytest.raises(
            KeyFileError, match=f"the station: pictures are encrypted, expected key {keys(NEW).id}"
        ):
            check_keys(database, wrong)


def test_the_stations_pictures_of_before_stay_readable_and_are_encrypted_by_the_command(
    database: Database,
) -> None:
    plain = told(Store(database), 60)
    check_keys(database, keys(OLD))
    store = Store(database, keys(OLD))
    new = told(store, 3)
    assert {store.picture(one, "ann") for one in plain + new} == {JPEG}
    assert seal_pictures(database, keys(OLD), lambda done, count: None) == 60
    assert SEEN not in everything(database.path)
    with pytest.raises(KeyFileError, match=keys(OLD).id):
        seal_pictures(database, keys(NEW), lambda done, count: None)  # without the old one
    assert seal_pictures(database, keys(NEW, OLD), lambda done, count: None) == 63
    check_keys(database, keys(NEW))
    assert {Store(database, keys(NEW)).picture(one, "ann") for one in plain + new} == {JPEG}
    told_of = [row["facts"] for row in audit_page(database, 0, 1000) if row["action"] == "pictures.encrypt"]
    assert [facts["count"] for facts in told_of] == [60, 63]


def test_a_stations_pictures_cannot_be_swapped(database: Database) -> None:
    store = Store(database, keys(NEW))
    one, other = told(store, 2)
    with database.write() as connection:
        (jpeg,) = connection.execute("SELECT jpeg FROM pictures WHERE hit_id = ?", (one,)).fetchone()
        connection.execute("UPDATE pictures SET jpeg = ? WHERE hit_id = ?", (jpeg, other))
    assert store.picture(one, "ann") == JPEG
    with pytest.raises(StoreError, match=f"hit {other}: the picture is not the one"):
        store.picture(other, "ann")


def test_refused_pictures_are_not_put_aside_in_plain(database: Database) -> None:
    row = {"id": "x", "kind": "picture", "body": {"hit_id": "y", "jpeg": base64.b64encode(JPEG).decode()}}
    Store(database).take(Batch("d1", [row], {}))
    (kept,) = Store(database).quarantine()
    assert '"hit_id": "y"' in kept["raw"] and len(kept["raw"]) < 400

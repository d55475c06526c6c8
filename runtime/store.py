"""What a device keeps of whom it saw: one SQLite file, bounded in time and size.

A track that `add` returned from is on the disk, whatever loses power afterwards (WAL, synchronous=FULL). When the quota
or the disk is full, the oldest tracks make room, and `dropped` counts them.
"""

from __future__ import annotations

import contextlib
import sqlite3
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagclip.runtime import store_form
from tagclip.runtime.errors import StoreError, StoreFullError
from tagclip.runtime.picture_key import PictureKeys, key_id, missing_key, opened, sealed
from tagclip.runtime.sqlite_file import disk_is_full, lay_ballast, transaction
from tagclip.runtime.store_clock import SteadyClock
from tagclip.runtime.store_crops import HitCrops
from tagclip.runtime.store_track import COLUMNS, StoredTrack, row_of, track_of

PAGE_BYTES = 4096
WAL_BYTES = 16 << 20  # the write-ahead log is cut to this after a checkpoint
BALLAST_BYTES = 16 << 20  # given up when the disk is full: SQLite needs room even to delete
MAKE_ROOM = 0.05  # of the tracks go when it is full
SEARCHED = "key, encoder_id, camera, start_s, end_s, latitude_deg, longitude_deg, vector"
AT_ONCE = 4096  # of these rows: some megabytes
SEALED_AT_ONCE = 64  # pictures
SOME = 500  # keys in one statement; SQLite allows 999 everywhere


@dataclass(frozen=True)
class Retention:
    """What is kept at most.

    Attributes:
        days: whoever was last seen longer ago is deleted by `prune`.
        max_bytes: of the store's file; at least 1 MiB.
    """

    days: float = 3.0
    max_bytes: int = 4 << 30


class TrackStore:
    """An open store; `hit_crops` are what made the scores of hits. One process writes, any number may read meanwhile.

    Args:
        path: the file; made when it is not there, with its folder's owner alone allowed to read it.
        retention: bounds, for whoever writes.
        read_only: for searching; nothing is made or changed.
        must_exist: nothing is made either, but it may be changed.
        keys: of its pictures; without them a store whose pictures are encrypted opens for searching, and for deleting.

    Raises:
        StoreError: it is no store, damaged, of a newer tagclip, or cannot be opened.
        KeyFileError: its pictures are encrypted with another key, and it is to be added to.
    """

    def __init__(
        self,
        path: Path,
        retention: Retention | None = None,
        *,
        read_only: bool = False,
        must_exist: bool = False,
        keys: PictureKeys | None = None,
    ) -> None:
        self.path, self._keys = path, keys
        self._ballast = path.with_name(path.name + ".ballast")
        self.retention = retention or Retention()
        self.dropped = 0  # tracks deleted to make room, since opened
        self._clock = SteadyClock()
        if (read_only or must_exist) and not path.is_file():
            raise StoreError(f"expected a store at {path}, found none; `tagclip run --store` makes one")
        if not path.exists():
            store_form.make_private(path)
        try:
            self._open(read_only, must_exist)
        except StoreFullError:
            if read_only or not self.has_ballast:
                raise
            self._ballast.unlink()
            self._open(read_only, must_exist)

    def _open(self, read_only: bool, must_exist: bool) -> None:
        uri = self.path.resolve().as_uri() + ("?mode=ro" if read_only else "")
        with self._named():
            # Autocommit: transactions are ours. Searching threads and the writer share the connection under its lock.
            self._db = sqlite3.connect(
                uri, uri=True, isolation_level=None, check_same_thread=False, timeout=10
            )
        self.hit_crops = HitCrops(self.path, self._db, self._named, self._keys)
        try:
            self._prepare(read_only, must_exist)
        except BaseException:
            self._db.close()
            raise

    def _prepare(self, read_only: bool, must_exist: bool) -> None:
        with self._named():
            mark, version = (self._one(f"PRAGMA {name}") for name in ("application_id", "user_version"))
            fresh = mark == 0 and version == 0 and not self._one("SELECT count(*) FROM sqlite_master")
            if mark != store_form.APPLICATION_ID and (read_only or not fresh):
                raise StoreError(f"{self.path} is no store of tagclip; name another file")
            if version > store_form.NEWEST:
                raise StoreError(f"{self.path} was made by a newer tagclip (form {version}); update this one")
            self._db.execute("PRAGMA foreign_keys = ON")
            if read_only:
                return
            self._db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = FAST"):
                self._db.execute(f"PRAGMA {pragma}")
            self._db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
            if fresh:
                with self._transaction():
                    for statement in store_form.TABLES.split(";"):
                        self._db.execute(statement)
                    self._db.execute(f"PRAGMA application_id = {store_form.APPLICATION_ID}")
                    self._db.execute(f"PRAGMA user_version = {store_form.SCHEMA}")
            pages = max(self.retention.max_bytes, 1 << 20) // self._one("PRAGMA page_size")
            self._db.execute(f"PRAGMA max_page_count = {pages}")
            self._use_keys(must_exist)
        self.lay_ballast()

    def _use_keys(self, must_exist: bool) -> None:
        """See to it that no picture is added in plain, or under a wrong key, where there are encrypted ones."""
        used = self.sealed_by()
        known = self._keys.ids if self._keys else frozenset()
        if (used - known) and (self._keys or not must_exist):
            raise missing_key(str(self.path), used - known, self._keys)
        if self._keys is not None and self._keys.id not in used:
            with self._transaction():
                self._db.execute(store_form.KEYS_TABLE)
                self._db.execute("INSERT INTO picture_keys VALUES (?)", (self._keys.id,))
                version = max(store_form.SEALED_SCHEMA, self._one("PRAGMA user_version"))
                self._db.execute(f"PRAGMA user_version = {version}")

    def sealed_by(self) -> frozenset[str]:
        """Ids of the keys that its pictures may be encrypted with."""
        with self._named():
            if self._one("PRAGMA user_version") < store_form.SEALED_SCHEMA:
                return frozenset()
            return frozenset(name for (name,) in self._db.execute("SELECT id FROM picture_keys"))

    def add(self, tracks: Sequence[tuple[StoredTrack, bytes]]) -> int:
        """Keep tracks with their thumbnails (JPEG), all or none; they are on the disk when this returns.

        Returns:
            How many of them were not there yet.

        Raises:
            StoreFullError: there is no room, even after the oldest made some.
            StoreError: the store is damaged.
        """
        rows = [row_of(track) for track, _ in tracks]
        pictures = [jpeg for _, jpeg in tracks]
        try:
            return self._insert(rows, pictures)
        except StoreFullError:
            if not self._make_room():
                raise
        return self._insert(rows, pictures)

    def prune(self, now_s: float | None = None) -> int:
        """Delete whoever was last seen before the retention's time; how many that were.

        Args:
            now_s: Unix time, UTC. None is for whoever calls it again and again: it goes by the wall clock but for its
                steps (`SteadyClock`), and on a disk too full to delete nobody is deleted until the next call.

        Raises:
            StoreFullError: the disk is too full to delete, and `now_s` is given.
            StoreError: the store is damaged.
        """
        oldest_s = (self._clock.now_s() if now_s is None else now_s) - 86_400 * self.retention.days
        try:
            return self._delete_before(oldest_s)
        except StoreFullError:
            self._ballast.unlink(missing_ok=True)
        try:
            return self._delete_before(oldest_s)
        except StoreFullError:
            if now_s is not None:
                raise
            return 0

    def used(self) -> int:
        """Bytes of its file that hold something; what was deleted is free for others."""
        with self._named():
            pages = self._one("PRAGMA page_count") - self._one("PRAGMA freelist_count")
            return pages * self._one("PRAGMA page_size")

    def __len__(self) -> int:
        with self._named():
            return self._one("SELECT count(*) FROM tracks")

    def keys(self) -> NDArray[np.int64]:
        """Keys of all tracks, ascending; a key is never used again, and a track that is replaced gets a new one."""
        with self._named():
            rows = self._db.execute("SELECT key FROM tracks ORDER BY key")
            return np.fromiter((key for (key,) in rows), np.int64)

    def last_key(self) -> int:
        """Of the track that was added last; 0 for none."""
        with self._named():
            return self._one("SELECT ifnull(max(key), 0) FROM tracks")

    def since(self, key: int) -> Iterator[tuple[int, StoredTrack]]:
        """Key and track of all that were added after `key`, in that order."""
        with self._named():
            for row in self._db.execute(f"SELECT {COLUMNS} FROM tracks WHERE key > ? ORDER BY key", (key,)):
                yield row[0], track_of(row)

    def searched_since(self, key: int) -> Iterator[list[tuple[Any, ...]]]:
        """Rows of SEARCHED of all that were added after `key`, in that order, at most `AT_ONCE` at a time."""
        with self._named():
            found = self._db.execute(f"SELECT {SEARCHED} FROM tracks WHERE key > ? ORDER BY key", (key,))
            while rows := found.fetchmany(AT_ONCE):
                yield rows

    def get(self, keys: Iterable[int]) -> dict[int, StoredTrack]:
        """Tracks by key, as far as they are still there."""
        return {row[0]: track_of(row) for row in self._in_keys(f"SELECT {COLUMNS} FROM tracks", keys)}

    def vectors(self, keys: Iterable[int]) -> dict[int, NDArray[np.float16]]:
        """float16 (D,) by key, as far as they are still there."""
        found = self._in_keys("SELECT key, vector FROM tracks", keys)
        return {key: np.frombuffer(vector, np.float16) for key, vector in found}

    def thumbnails(self, keys: Iterable[int]) -> dict[int, bytes]:
        """JPEG by key, as far as they are still there."""
        rows = self._in_keys("SELECT key, id, jpeg FROM thumbnails JOIN tracks USING (key)", keys)
        return {key: self._opened(id_, jpeg) for key, id_, jpeg in rows}

    def thumbnail_of(self, track_id: uuid.UUID) -> bytes | None:
        """JPEG of a track; None when it is not there, or no longer."""
        rows = self._in_keys("SELECT jpeg FROM thumbnails JOIN tracks USING (key)", [track_id.bytes], "id")
        return next((self._opened(track_id.bytes, jpeg) for (jpeg,) in rows), None)

    def track_of(self, track_id: uuid.UUID) -> StoredTrack | None:
        """A track; None when it is not there, or no longer."""
        rows = self._in_keys(f"SELECT {COLUMNS} FROM tracks", [track_id.bytes], "id")
        return next(map(track_of, rows), None)

    def encoders(self) -> dict[str, int]:
        """How many tracks each encoder embedded."""
        with self._named():
            return dict(self._db.execute("SELECT encoder_id, count(*) FROM tracks GROUP BY encoder_id"))

    def facts(self) -> dict[str, Any]:
        """tracks, bytes; first_s, last_s: Unix time, None when empty; cameras, encoders: tracks by name."""
        with self._named():
            row = self._db.execute("SELECT count(*), min(start_s), max(end_s) FROM tracks").fetchone()
            rows = self._db.execute("SELECT camera, count(*) FROM tracks GROUP BY camera ORDER BY camera")
            cameras = dict(rows)
            size = self._one("PRAGMA page_count") * self._one("PRAGMA page_size")
        return {
            **dict(zip(("tracks", "first_s", "last_s"), row, strict=True)),
            "bytes": size,
            "cameras": cameras,
            "encoders": self.encoders(),
        }

    def embed_anew(self, vectors: dict[int, NDArray[np.floating]], encoder_id: str) -> None:
        """Give tracks, by key, the vectors of another encoder, all or none. Keys change as for any replaced track."""
        tracks, pictures = self.get(vectors), self.thumbnails(vectors)
        anew = {k: replace(t, vector=vectors[k], encoder_id=encoder_id) for k, t in tracks.items()}
        self.add([(track, pictures[key]) for key, track in anew.items()])

    def seal_pictures(self, progress: Callable[[int, int], None]) -> int:
        """Encrypt every picture with the first key that is plain, or by another key; how many that were.

        Done in small transactions, so it can be cut off and begun again. Then the file is written anew, so that
        nothing plain is left in its free pages; that needs as much room again.

        Args:
            progress: called with pictures done and all.

        Raises:
            KeyFileError: a picture's key was not given; that of nobody is changed.
            StoreError, StoreFullError: as `add`.
        """
        assert self._keys is not None
        todo, done = self.keys().tolist(), 0
        for start in range(0, len(todo), SEALED_AT_ONCE):
            part = todo[start : start + SEALED_AT_ONCE]
            with self._named(), self._transaction():
                rows = list(
                    self._in_keys("SELECT key, id, jpeg FROM thumbnails JOIN tracks USING (key)", part)
                )
                for key, id_, stored in rows:
                    if key_id(stored) != self._keys.id:
                        picture = sealed(self._opened(id_, stored), id_, self._keys)
                        self._db.execute("UPDATE thumbnails SET jpeg = ? WHERE key = ?", (picture, key))
                        done += 1
            progress(start + len(part), len(todo))
        done += self.hit_crops.seal()
        with self._named():
            self._db.execute("DELETE FROM picture_keys WHERE id <> ?", (self._keys.id,))
            self._db.execute("VACUUM")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return done

    def close(self) -> None:
        """Fold the log into the file and close it."""
        self._db.close()

    def __enter__(self) -> TrackStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _one(self, statement: str) -> int:
        return int(self._db.execute(statement).fetchone()[0])

    def _in_keys(self, statement: str, keys: Iterable[Any], by: str = "key") -> Iterator[tuple]:  # type: ignore[type-arg]
        wanted = list(keys) if by == "id" else [int(key) for key in keys]
        with self._named():
            for start in range(0, len(wanted), SOME):
                part = wanted[start : start + SOME]
                marks = ", ".join("?" * len(part))
                yield from self._db.execute(f"{statement} WHERE {by} IN ({marks})", part)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with transaction(self._db):
            yield

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """SQLite's errors as ours."""
        try:
            yield
        except sqlite3.Error as error:
            if "full" in str(error) or ("I/O" in str(error) and disk_is_full(self.path)):
                raise StoreFullError(
                    f"{self.path}: the disk or the quota of {self.retention.max_bytes:,} bytes is full; "
                    "free room, or allow more"
                ) from error
            raise StoreError(
                f"{self.path} cannot be used as a store: {error}; move it away to begin anew"
            ) from error

    def _insert(self, rows: list[tuple[object, ...]], pictures: list[bytes]) -> int:
        """Rows of COLUMNS but for the key, in one transaction; how many of them were not there yet."""
        new = len(rows)
        names = COLUMNS.removeprefix("key, ")
        with self._named(), self._transaction():
            if self._keys is None and (used := self.sealed_by()):  # since it was opened, too
                raise missing_key(str(self.path), used, None)
            for row, jpeg in zip(rows, pictures, strict=True):
                new -= self._db.execute("DELETE FROM tracks WHERE id = ?", (row[0],)).rowcount
                marks = ", ".join("?" * len(row))
                key = self._db.execute(f"INSERT INTO tracks ({names}) VALUES ({marks})", row).lastrowid
                track_id = row[0]
                assert isinstance(track_id, bytes)
                picture = sealed(jpeg, track_id, self._keys)
                self._db.execute("INSERT INTO thumbnails VALUES (?, ?)", (key, picture))
        return new

    def _opened(self, track_id: bytes, stored: bytes) -> bytes:
        return opened(stored, track_id, self._keys, f"{self.path}: track {uuid.UUID(bytes=track_id)}")

    def _delete_before(self, oldest_s: float) -> int:
        with self._named(), self._transaction():
            gone = self._db.execute("DELETE FROM tracks WHERE end_s < ?", (oldest_s,)).rowcount
            self.hit_crops.forget_gone()
        return gone

    def _make_room(self) -> bool:
        """Delete the oldest tracks; whether there were any."""
        self._ballast.unlink(missing_ok=True)
        with self._named(), self._transaction():
            oldest = max(1, int(MAKE_ROOM * self._one("SELECT count(*) FROM tracks")))
            gone = self._db.execute(
                "DELETE FROM tracks WHERE key IN (SELECT key FROM tracks ORDER BY end_s LIMIT ?)", (oldest,)
            ).rowcount
            self.hit_crops.forget_gone()
        with self._named():
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self.lay_ballast()
        self.dropped += gone
        return gone > 0

    @property
    def has_ballast(self) -> bool:
        """Whether there is room to give up when the disk is full."""
        return self._ballast.exists()

    def lay_ballast(self) -> None:
        """Room that is given up when the disk is full; none where the disk is full already."""
        lay_ballast(self._ballast, BALLAST_BYTES)

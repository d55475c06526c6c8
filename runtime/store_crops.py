"""The pictures that made a hit's score, in the store beside the track: for `tagclip alerts explain`.

Of a hit's latest revision only, and only as long as the store has the track. A store gets their table with its first
hit; an older tagclip refuses it then, since it would leave these pictures behind when it deletes the track.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from tagclip.runtime.picture_key import PictureKeys, key_id, missing_key, opened, sealed
from tagclip.runtime.sqlite_file import transaction
from tagclip.runtime.store_form import CROPS_SCHEMA, CROPS_TABLE, KEYS_TABLE


@dataclass(frozen=True)
class HitCrop:
    """One picture that counted.

    Attributes:
        frame: number of its frame, from 0.
        weight: in the mean of the person's vector; those of a hit add up to 1.
        jpeg: the picture; empty where it was not asked for.
    """

    frame: int
    weight: float
    jpeg: bytes


class HitCrops:
    """Of an open store.

    Args:
        named: gives SQLite's errors as the store's.
        keys: of pictures.
    """

    def __init__(
        self,
        path: Path,
        db: sqlite3.Connection,
        named: Callable[[], AbstractContextManager[None]],
        keys: PictureKeys | None,
    ) -> None:
        self._path, self._db, self._named, self._keys = path, db, named, keys

    def keep(self, hits: Sequence[uuid.UUID], track_id: uuid.UUID, crops: Sequence[HitCrop]) -> None:
        """Keep the pictures of these hits on a track, instead of those of an earlier revision; all or none.

        Raises:
            StoreFullError: there is no room; nobody is deleted for these.
            StoreError: the store is damaged. KeyFileError: its pictures are encrypted, and no key is given.
        """
        with self._named(), transaction(self._db):
            if not self._there():
                for statement in (
                    KEYS_TABLE,
                    CROPS_TABLE,
                    f"PRAGMA user_version = {CROPS_SCHEMA}",
                ):
                    self._db.execute(statement)
            used = frozenset(name for (name,) in self._db.execute("SELECT id FROM picture_keys"))
            if self._keys is None and used:
                raise missing_key(str(self._path), used, None)
            for hit in hits:
                self._db.execute("DELETE FROM hit_crops WHERE hit_id = ?", (hit.bytes,))
                for number, crop in enumerate(crops):
                    picture = sealed(crop.jpeg, _owner(hit.bytes, number), self._keys)
                    row = (hit.bytes, number, track_id.bytes, crop.frame, crop.weight, picture)
                    self._db.execute("INSERT INTO hit_crops VALUES (?, ?, ?, ?, ?, ?)", row)

    def of(self, hit: uuid.UUID, *, pictures: bool = True) -> list[HitCrop]:
        """Those of a hit's latest revision, in order of time; none where the store has none, or no longer.

        Args:
            pictures: read them; without, an encrypted store needs no key.

        Raises:
            StoreError, KeyFileError: as any picture of the store.
        """
        with self._named():
            if not self._there():
                return []
            rows = self._db.execute(
                "SELECT number, frame, weight, jpeg FROM hit_crops WHERE hit_id = ? ORDER BY number",
                (hit.bytes,),
            ).fetchall()
        return [
            HitCrop(frame, weight, self._opened(hit.bytes, number, jpeg) if pictures else b"")
            for number, frame, weight, jpeg in rows
        ]

    def forget_gone(self) -> None:
        """Delete those of tracks that are gone; to be called in the transaction that deletes tracks."""
        if self._there():
            self._db.execute("DELETE FROM hit_crops WHERE track_id NOT IN (SELECT id FROM tracks)")

    def seal(self) -> int:
        """Encrypt each with the first key that is plain, or by another key; how many that were. Raises: as `of`."""
        assert self._keys is not None
        done = 0
        with self._named(), transaction(self._db):
            names = (
                self._db.execute("SELECT hit_id, number FROM hit_crops").fetchall() if self._there() else []
            )
            for hit, number in names:
                ((stored,),) = self._db.execute(
                    "SELECT jpeg FROM hit_crops WHERE (hit_id, number) = (?, ?)", (hit, number)
                ).fetchall()
                if key_id(stored) != self._keys.id:
                    picture = sealed(self._opened(hit, number, stored), _owner(hit, number), self._keys)
                    self._db.execute(
                        "UPDATE hit_crops SET jpeg = ? WHERE (hit_id, number) = (?, ?)",
                        (picture, hit, number),
                    )
                    done += 1
        return done

    def _there(self) -> bool:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        return bool(version >= CROPS_SCHEMA)

    def _opened(self, hit: bytes, number: int, stored: bytes) -> bytes:
        return opened(
            stored,
            _owner(hit, number),
            self._keys,
            f"{self._path}: picture {number} of hit {uuid.UUID(bytes=hit)}",
        )


def _owner(hit: bytes, number: int) -> bytes:
    return hit + number.to_bytes(2, "big")

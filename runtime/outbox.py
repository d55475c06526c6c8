"""What a device has still to tell the station: kept through power cuts, until the station says that it has it.

A hit that `put` returned from is on the disk. The most remarkable go first, pictures last; when the quota is full the
least remarkable pictures go, then the least remarkable hits, and every one of them is counted.
"""

from __future__ import annotations

import base64
import json
import logging
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tagclip.runtime.errors import StoreFullError
from tagclip.runtime.hit import Hit, hit_of
from tagclip.runtime.ids import uuid7
from tagclip.runtime.outbox_file import BALLAST_BYTES, OutboxFile
from tagclip.runtime.sync_messages import HIT, JPEG, MAX_JPEG_BYTES, PICTURE, Message

KEPT_REJECTED = 1000  # of what the station refused, the newest
MAKE_ROOM = 0.1  # of the bytes go when the disk is full
ROOM_AGAIN = 2  # times the ballast: a disk with more free is full no longer
DROPPED_HITS, DROPPED_PICTURES, REJECTED = "dropped_hits", "dropped_pictures", "rejected"
COUNTERS = (DROPPED_HITS, DROPPED_PICTURES, REJECTED)
COLUMNS = "id, picture, p_value, score, hit, revision, made_s, boot_id, seq, bytes, content"

log = logging.getLogger(__name__)


_Gone = tuple[str, int, int]  # id, picture, bytes of a deleted message


def encode(message: Message) -> bytes:
    """A message as it travels."""
    return _compact(message.to_json())


class Outbox:
    """An open outbox; any thread of the one process that has it open may use it.

    Args:
        path: the file; made when it is not there, for its owner alone.
        device: of DEVICE_NAME.
        max_bytes: of all messages together, as they travel; the file is about as large.

    Attributes:
        boot_id: of this opening.
        news: set by `put`; for whoever waits to send.

    Raises:
        StoreError: it is no outbox, damaged, of a newer tagclip, held by another process, or cannot be opened.
        StoreFullError: the disk is full.
    """

    def __init__(self, path: Path, device: str, max_bytes: int = 256 << 20) -> None:
        self.device, self.max_bytes = device, max_bytes
        self.boot_id = str(uuid7())
        self.news = threading.Event()
        self._seq = 0
        self._room_bytes: int | None = None  # the quota while the disk is full
        self._file = OutboxFile(path)
        with self._file.named():
            # What waits, by the database after each transaction: cheap to ask for at every frame.
            self._depth = int(self._file.one("SELECT count(*) FROM messages"))
            self._bytes = int(self._file.one("SELECT ifnull(sum(bytes), 0) FROM messages"))
            self._counters = dict.fromkeys(COUNTERS, 0)
            self._counters.update(self._file.db.execute("SELECT name, value FROM counters"))

    def put(self, hit: Hit, jpeg: bytes) -> bool:
        """Keep a hit and its picture to be sent; they are on the disk when this returns.

        An older revision of the hit that still waits is replaced, its picture too. A picture that no station takes
        (no JPEG, or over 64 KiB) is left out and counted; so is what the quota has no room for.

        Returns:
            Whether the hit waits to be sent; False when it is too unremarkable for a full quota.

        Raises:
            HitError: a field breaks the form.
            StoreFullError: the disk is full, even after the least remarkable made room.
            StoreError: the outbox is damaged.
        """
        hit_of(hit.to_json())  # nothing is kept that the station would not take
        with self._file.lock:
            try:
                kept = self._put(hit, jpeg)
            except StoreFullError:
                self._make_room()
                kept = self._put(hit, jpeg)
        self.news.set()
        return kept

    def take(self, max_bytes: int, max_messages: int) -> list[Message]:
        """What to send next, in its order, without removing it.

        Args:
            max_bytes: of all of them as they travel; the first is given even if it is larger.
        """
        taken: list[Message] = []
        with self._file.lock, self._file.named():
            rows = self._file.db.execute(
                f"SELECT {COLUMNS} FROM messages ORDER BY picture, p_value, score DESC, key LIMIT ?",
                (max_messages,),
            )
            for row in rows:
                max_bytes -= row[9]
                if taken and max_bytes < 0:
                    break
                taken.append(self._message(row))
            rows.close()
        return taken

    def acked(self, ids: Iterable[str]) -> int:
        """The station has these; how many of them still waited.

        Raises:
            StoreFullError: the disk is too full even to delete; the station will be sent them again.
            StoreError: the outbox is damaged.
        """
        wanted = list(ids)
        try:
            return len(self._remove(wanted, {}))
        except StoreFullError:
            if not self._file.give_ballast():
                raise
        gone = self._remove(wanted, {})
        self._file.checkpoint()
        self._file.lay_ballast()
        return len(gone)

    def rejected(self, reasons: Mapping[str, str]) -> int:
        """The station will never take these: they are put aside, counted, and said; how many still waited.

        Args:
            reasons: by id.
        """
        gone = self._remove(list(reasons), reasons)
        for id_ in gone:
            log.warning("the station refuses message %s for good: %s", id_, reasons[id_])
        return len(gone)

    def facts(self) -> dict[str, Any]:
        """depth, bytes: of what waits; oldest_s: seconds for which the oldest has waited, None when nothing waits.

        dropped_hits, dropped_pictures, rejected: since the file was made.
        """
        with self._file.lock, self._file.named():
            row = self._file.db.execute("SELECT made_s FROM messages ORDER BY key LIMIT 1").fetchone()
            oldest_s = None if row is None else round(max(time.time() - row[0], 0.0), 1)
            return {"depth": self._depth, "bytes": self._bytes, "oldest_s": oldest_s, **self._counters}

    def __len__(self) -> int:
        return self._depth

    def close(self) -> None:
        """Let others open it."""
        self._file.close()

    def __enter__(self) -> Outbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _put(self, hit: Hit, jpeg: bytes) -> bool:
        id_, usable = str(hit.id), jpeg.startswith(JPEG) and len(jpeg) <= MAX_JPEG_BYTES
        newest = "SELECT ifnull(max(revision), 0) FROM messages WHERE hit = ?"
        with self._file.transaction():
            if self._file.one(newest, id_) >= hit.revision:  # put twice, or out of order
                return True
            gone = self._delete("hit = ?", id_)
            sizes = [self._insert(hit, 0, _compact(hit.to_json()))]
            if usable:
                sizes.append(self._insert(hit, 1, jpeg))
            now = self._bytes - sum(size for _, _, size in gone) + sum(sizes)
            dropped = self._drop(now - self._quota())
            counts = self._count(dropped, 0 if usable else 1)
            kept = bool(self._file.one(newest, id_))
        self._committed(gone + dropped, sizes, counts)
        return kept

    def _insert(self, hit: Hit, picture: int, content: bytes) -> int:
        """Its size as it travels."""
        self._seq += 1
        told = (str(hit.id), hit.revision, time.time(), self.boot_id, self._seq)
        row = (str(uuid7()), picture, hit.p_value, hit.score, *told)
        size = len(encode(self._message((*row, 0, content)))) + 1  # with the comma
        self._file.db.execute(
            f"INSERT INTO messages ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*row, size, content),
        )
        return size

    def _message(self, row: tuple[Any, ...]) -> Message:
        """The message of a row of COLUMNS."""
        id_, picture, _, _, hit, revision, made_s, boot_id, seq, _, content = row
        if picture:
            jpeg = base64.b64encode(content).decode("ascii")
            body = {"hit_id": hit, "revision": revision, "jpeg": jpeg}
        else:
            body = json.loads(content)
        return Message(id_, self.device, PICTURE if picture else HIT, round(made_s, 3), boot_id, seq, body)

    def _drop(self, over_bytes: int) -> list[_Gone]:
        """Delete the least remarkable, pictures before hits, until `over_bytes` are free."""
        keys: list[int] = []
        if over_bytes > 0:
            rows = self._file.db.execute(
                "SELECT key, bytes FROM messages ORDER BY picture DESC, p_value DESC, score, key"
            )
            for key, size in rows:
                keys.append(key)
                over_bytes -= size
                if over_bytes <= 0:
                    break
            rows.close()
        return [row for key in keys for row in self._delete("key = ?", key)]

    def _delete(self, where: str, value: object) -> list[_Gone]:
        return self._file.db.execute(
            f"DELETE FROM messages WHERE {where} RETURNING id, picture, bytes", (value,)
        ).fetchall()

    def _count(self, dropped: list[_Gone], pictures: int = 0, rejected: int = 0) -> dict[str, int]:
        """The counters with these added, in the file too."""
        pictures += sum(picture for _, picture, _ in dropped)
        hits = sum(not picture for _, picture, _ in dropped)
        added = {DROPPED_HITS: hits, DROPPED_PICTURES: pictures, REJECTED: rejected}
        for name, more in added.items():
            if more:
                self._file.db.execute(
                    "INSERT INTO counters VALUES (?, ?) "
                    "ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
                    (name, more),
                )
        return {name: self._counters[name] + more for name, more in added.items()}

    def _committed(self, gone: list[_Gone], sizes: list[int], counts: dict[str, int]) -> None:
        """What is remembered of the file follows what is in it."""
        self._depth += len(sizes) - len(gone)
        self._bytes += sum(sizes) - sum(size for _, _, size in gone)
        self._counters = counts

    def _remove(self, ids: Iterable[str], reasons: Mapping[str, str]) -> list[str]:
        """Those that still waited."""
        with self._file.lock:
            with self._file.transaction():
                gone = [row for id_ in ids for row in self._refuse(id_, reasons)]
                counts = self._count([], 0, len(gone) if reasons else 0)
            self._committed(gone, [], counts)
        return [id_ for id_, _, _ in gone]

    def _refuse(self, id_: str, reasons: Mapping[str, str]) -> list[_Gone]:
        """Delete a message; one with a reason is put aside."""
        if id_ in reasons:
            self._file.db.execute(
                "INSERT INTO rejected (id, picture, hit, revision, at_s, reason) "
                "SELECT id, picture, hit, revision, ?, ? FROM messages WHERE id = ?",
                (time.time(), reasons[id_][:1000], id_),
            )
            self._file.db.execute(
                "DELETE FROM rejected WHERE key <= (SELECT max(key) FROM rejected) - ?", (KEPT_REJECTED,)
            )
        return self._delete("id = ?", id_)

    def _make_room(self) -> None:
        """On a full disk: the least remarkable go, and what is left is the quota, as the file cannot grow."""
        self._file.give_ballast()
        with self._file.lock:
            with self._file.transaction():
                gone = self._drop(max(1, int(MAKE_ROOM * self._bytes)))
                counts = self._count(gone)
            self._committed(gone, [], counts)
            self._room_bytes = self._bytes
            self._file.checkpoint()
        self._file.lay_ballast()

    def _quota(self) -> int:
        if self._room_bytes is not None and self._file.free_bytes() > ROOM_AGAIN * BALLAST_BYTES:
            self._room_bytes = None
            self._file.lay_ballast()
        return self.max_bytes if self._room_bytes is None else min(self.max_bytes, self._room_bytes)


def _compact(row: dict[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode("utf-8")

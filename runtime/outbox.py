"""What a device has still to tell the station: kept through power cuts, until the station says that it has it.

A hit that `put` returned from is on the disk. The most remarkable go first, then their pictures, then how everybody
else looked. When the quota is full the oldest tracks go, then the least remarkable pictures, then the least remarkable
hits, and every one of them is counted.
"""

from __future__ import annotations

import base64
import json
import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tagclip.runtime.errors import StoreError, StoreFullError
from tagclip.runtime.hit import Hit, hit_of
from tagclip.runtime.ids import uuid7
from tagclip.runtime.outbox_file import BALLAST_BYTES, OutboxFile
from tagclip.runtime.picture_key import HEAD_BYTES, PictureKeys, key_id, missing_key, opened, sealed
from tagclip.runtime.sync_messages import HIT, JPEG, MAX_JPEG_BYTES, PICTURE, THUMBNAIL, TRACK, Message
from tagclip.runtime.sync_track import ToldTrack

# What is sent first; what goes last when there is no room. A thumbnail is one that the station asked for. HELD is a
# track that is not over: it is not sent, but for that of a run which ended before it could say more.
_HIT, _THUMBNAIL, _PICTURE, _TRACK, _HELD = range(5)
_KINDS = (HIT, THUMBNAIL, PICTURE, TRACK, TRACK)  # of these
KEPT_REJECTED = 1000  # of what the station refused, the newest
MAKE_ROOM = 0.1  # of the bytes go when the disk is full
ROOM_AGAIN = 2  # times the ballast: a disk with more free is full no longer
DROPPED_HITS, DROPPED_PICTURES, DROPPED_TRACKS = "dropped_hits", "dropped_pictures", "dropped_tracks"
REJECTED = "rejected"
COUNTERS = (DROPPED_HITS, DROPPED_PICTURES, DROPPED_TRACKS, REJECTED)
# As what a dropped message counts; a held one not: it is put again when it is over.
_DROPPED = (DROPPED_HITS, DROPPED_PICTURES, DROPPED_PICTURES, DROPPED_TRACKS, None)
COLUMNS = "id, rank, p_value, score, about, revision, made_s, boot_id, seq, bytes, content"

log = logging.getLogger(__name__)


_Gone = tuple[str, int, int]  # id, rank, bytes of a deleted message
_Put = tuple[int, int]  # rank and bytes of a new one


def encode(message: Message) -> bytes:
    """A message as it travels."""
    return _compact(message.to_json())


class Outbox:
    """An open outbox; any thread of the one process that has it open may use it.

    Args:
        path: the file; made when it is not there, for its owner alone.
        device: of DEVICE_NAME.
        max_bytes: of all messages together, as they travel; the file is about as large.
        keys: that its pictures are encrypted with while they wait; None for none.

    Attributes:
        boot_id: of this opening.
        news: set by `put`; for whoever waits to send.

    Raises:
        StoreError: it is no outbox, damaged, of a newer tagclip, held by another process, or cannot be opened.
        StoreFullError: the disk is full.
        KeyFileError: pictures that wait are encrypted with a key that was not given; they stay.
    """

    def __init__(
        self, path: Path, device: str, max_bytes: int = 256 << 20, keys: PictureKeys | None = None
    ) -> None:
        self.device, self.max_bytes, self._keys = device, max_bytes, keys
        self.boot_id = str(uuid7())
        self.news = threading.Event()
        self._seq = 0
        self._room_bytes: int | None = None  # the quota while the disk is full
        self._file = OutboxFile(path)
        with self._file.named():
            # What waits, by the database after each transaction: cheap to ask for at every frame.
            with self._file.transaction():  # whoever was in view when the last run was cut off
                self._file.db.execute("UPDATE messages SET rank = ? WHERE rank = ?", (_TRACK, _HELD))
            self._depth = int(self._file.one("SELECT count(*) FROM messages"))
            self._bytes = int(self._file.one("SELECT ifnull(sum(bytes), 0) FROM messages"))
            self._counters = dict.fromkeys(COUNTERS, 0)
            self._counters.update(self._file.db.execute("SELECT name, value FROM counters"))
            try:
                self._check_keys()
            except BaseException:
                self._file.close()
                raise

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

    def put_tracks(self, tracks: Sequence[ToldTrack], *, over: bool) -> None:
        """Keep tracks to be sent, all or none; they are on the disk when this returns.

        A track that is told again replaces what still waits of it. One that is not `over` waits until it is, or until
        the outbox is opened anew.

        Raises:
            StoreFullError, StoreError: as `put`.
        """
        rank, rows = _TRACK if over else _HELD, [(str(t.track_id), _compact(t.to_json())) for t in tracks]
        self._put_rows([(about, rank, content) for about, content in rows], (_TRACK, _HELD), usable=True)

    def put_thumbnail(self, track_id: str, jpeg: bytes | None) -> None:
        """Keep the picture of a track, which the station wants, to be sent soon; None: it is kept no longer.

        One that still waits is left as it is. A picture that no station takes counts as kept no longer, and is counted.

        Raises:
            StoreFullError, StoreError: as `put`.
        """
        usable = jpeg is None or (jpeg.startswith(JPEG) and len(jpeg) <= MAX_JPEG_BYTES)
        content = jpeg if jpeg and usable else b""
        waits = "SELECT count(*) FROM messages WHERE about = ? AND rank = ?"
        with self._file.lock:
            with self._file.named():
                if self._file.one(waits, track_id, _THUMBNAIL):  # it may be on its way now
                    return
            self._put_rows([(track_id, _THUMBNAIL, content)], (), usable=usable)

    def take(self, max_bytes: int, max_messages: int, *, tracks: bool = True) -> list[Message]:
        """What to send next, in its order, without removing it.

        Args:
            max_bytes: of all of them as they travel; the first is given even if it is larger.
            tracks: they, too.
        """
        taken: list[Message] = []
        damaged: dict[str, str] = {}  # pictures that cannot be decrypted: put aside, they hold up nobody
        with self._file.lock, self._file.named():
            rows = self._file.db.execute(
                f"SELECT {COLUMNS} FROM messages WHERE rank <= ? ORDER BY rank, p_value, score DESC, key LIMIT ?",
                (_TRACK if tracks else _PICTURE, max_messages),
            )
            for row in rows:
                max_bytes -= row[9]
                if taken and max_bytes < 0:
                    break
                try:
                    taken.append(self._message(row))
                except StoreError as error:
                    damaged[row[0]] = str(error)
            rows.close()
            for id_ in self._remove(list(damaged), damaged) if damaged else ():
                log.error("put aside: %s", damaged[id_])
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

        Tracks that are not over count in bytes alone. dropped_hits, dropped_pictures, dropped_tracks, rejected: since
        the file was made.
        """
        with self._file.lock, self._file.named():
            row = self._file.db.execute(
                "SELECT made_s FROM messages WHERE rank < ? ORDER BY key LIMIT 1", (_HELD,)
            ).fetchone()
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
        newest = "SELECT ifnull(max(revision), 0) FROM messages WHERE about = ?"
        with self._file.transaction():
            if self._file.one(newest, id_) >= hit.revision:  # put twice, or out of order
                return True
            gone = self._delete("about = ?", id_)
            told = (hit.p_value, hit.score, id_, hit.revision)
            new = [self._insert(_HIT, *told, _compact(hit.to_json()))]
            if usable:
                new.append(self._insert(_PICTURE, *told, jpeg))
            change = self._settle(gone, new, usable)
            kept = bool(self._file.one(newest, id_))
        self._committed(*change)
        return kept

    def _put_rows(
        self, rows: Sequence[tuple[str, int, bytes]], replaced: tuple[int, ...], *, usable: bool
    ) -> None:
        """Messages (about, rank, content) that go by their age alone; those of the ranks `replaced` make way."""
        with self._file.lock:
            try:
                self._try_rows(rows, replaced, usable)
            except StoreFullError:
                self._make_room()
                self._try_rows(rows, replaced, usable)
        self.news.set()

    def _try_rows(
        self, rows: Sequence[tuple[str, int, bytes]], replaced: tuple[int, ...], usable: bool
    ) -> None:
        gone: list[_Gone] = []
        new: list[_Put] = []
        with self._file.transaction():
            for about, rank, content in rows:
                for old in replaced:
                    gone += self._delete("about = ? AND rank = ?", about, old)
                new.append(self._insert(rank, 0.0, 0.0, about, 1, content))
            change = self._settle(gone, new, usable)
        self._committed(*change)

    def _settle(
        self, gone: list[_Gone], new: list[_Put], usable: bool
    ) -> tuple[list[_Gone], list[_Put], dict[str, int]]:
        """Within a transaction that changed something: what the quota has no room for goes, and is counted."""
        now = self._bytes - sum(size for _, _, size in gone) + sum(size for _, size in new)
        dropped = self._drop(now - self._quota())
        return gone + dropped, new, self._count(dropped, 0 if usable else 1)

    def _insert(
        self, rank: int, p_value: float, score: float, about: str, revision: int, content: bytes
    ) -> _Put:
        """Its rank, and its size as it travels."""
        self._seq += 1
        row = (str(uuid7()), rank, p_value, score, about, revision, time.time(), self.boot_id, self._seq)
        size = len(encode(self._message((*row, 0, content)))) + 1  # with the comma
        if rank in (_PICTURE, _THUMBNAIL) and content:
            content = sealed(content, row[0].encode("ascii"), self._keys)
        self._file.db.execute(
            f"INSERT INTO messages ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*row, size, content),
        )
        return rank, size

    def _message(self, row: tuple[Any, ...]) -> Message:
        """The message of a row of COLUMNS."""
        id_, rank, _, _, about, revision, made_s, boot_id, seq, _, content = row
        if rank in (_PICTURE, _THUMBNAIL):
            content = opened(content, id_.encode("ascii"), self._keys, f"{self._file.path}: message {id_}")
            jpeg = base64.b64encode(content).decode("ascii") or None
            of = {"hit_id": about, "revision": revision} if rank == _PICTURE else {"track_id": about}
            body = {**of, "jpeg": jpeg}
        else:
            body = json.loads(content)
        return Message(id_, self.device, _KINDS[rank], round(made_s, 3), boot_id, seq, body)

    def _check_keys(self) -> None:
        rows = self._file.db.execute(
            "SELECT DISTINCT substr(content, 1, ?) FROM messages WHERE rank IN (?, ?)",
            (HEAD_BYTES, _PICTURE, _THUMBNAIL),
        )
        used = {name for (head,) in rows if (name := key_id(head))}
        if missing := used - (self._keys.ids if self._keys else frozenset()):
            raise missing_key(str(self._file.path), missing, self._keys)

    def _drop(self, over_bytes: int) -> list[_Gone]:
        """Delete the least remarkable, tracks and pictures before hits, until `over_bytes` are free."""
        keys: list[int] = []
        if over_bytes > 0:
            rows = self._file.db.execute(
                "SELECT key, bytes FROM messages ORDER BY rank DESC, p_value DESC, score, key"
            )
            for key, size in rows:
                keys.append(key)
                over_bytes -= size
                if over_bytes <= 0:
                    break
            rows.close()
        return [row for key in keys for row in self._delete("key = ?", key)]

    def _delete(self, where: str, *values: object) -> list[_Gone]:
        return self._file.db.execute(
            f"DELETE FROM messages WHERE {where} RETURNING id, rank, bytes", values
        ).fetchall()

    def _count(self, dropped: list[_Gone], pictures: int = 0, rejected: int = 0) -> dict[str, int]:
        """The counters with these added, in the file too."""
        added = {**dict.fromkeys(COUNTERS, 0), DROPPED_PICTURES: pictures, REJECTED: rejected}
        for _, rank, _ in dropped:
            if (name := _DROPPED[rank]) is not None:
                added[name] += 1
        for name, more in added.items():
            if more:
                self._file.db.execute(
                    "INSERT INTO counters VALUES (?, ?) "
                    "ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
                    (name, more),
                )
        return {name: self._counters[name] + more for name, more in added.items()}

    def _committed(self, gone: list[_Gone], new: list[_Put], counts: dict[str, int]) -> None:
        """What is remembered of the file follows what is in it."""
        self._depth += sum(rank != _HELD for rank, _ in new) - sum(rank != _HELD for _, rank, _ in gone)
        self._bytes += sum(size for _, size in new) - sum(size for _, _, size in gone)
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
                "INSERT INTO rejected (id, rank, about, revision, at_s, reason) "
                "SELECT id, rank, about, revision, ?, ? FROM messages WHERE id = ?",
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

"""Between the device and its store: whoever does not fit now waits for room, and health is told what is wrong."""

from __future__ import annotations

import logging
import shutil
import time
import uuid
from collections.abc import Callable, Sequence

from tagclip.runtime.errors import StoreFullError
from tagclip.runtime.health import Health
from tagclip.runtime.store import TrackStore
from tagclip.runtime.store_crops import HitCrop
from tagclip.runtime.store_track import StoredTrack

AT_ONCE = 32  # people in one transaction
MOST_WAITING = 500  # people, about 10 KB each
RETRY_S = 10.0
LOOK_EVERY_S = 10.0
NEARLY = 0.95  # of the quota is used
LOW_BYTES = 200e6  # left on the disk
LOW_SHARE, PLENTY_BYTES = 0.05, 1e9  # or that share of it, unless that is plenty
EASE = 1.1  # so much better it has to be before it is well again
DROPPING_S = 3600.0  # without making room: it is over

log = logging.getLogger(__name__)


class StoreGuard:
    """Puts people into a store.

    A full disk does not end the device: it may be another program's log that filled it, and is deleted by the next
    minute. Everybody who does not fit waits in memory and is tried again; beyond MOST_WAITING the ones who have waited
    longest are lost, counted and said.

    Args:
        health: is told the people kept, and the cause `store`: full, nearly full, or its disk nearly full.
        clock: seconds that only go forward.

    Attributes:
        lost: people who could not be kept.
    """

    def __init__(
        self, store: TrackStore, health: Health, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store, self._health, self._clock = store, health, clock
        self._waiting: dict[uuid.UUID, tuple[StoredTrack, bytes]] = {}
        self._full = False
        self._tried_s = self._looked_s = -float("inf")
        self._dropped, self._dropped_s = store.dropped, -float("inf")
        self.lost = 0

    @property
    def waiting(self) -> int:
        """People who wait for room."""
        return len(self._waiting)

    def add(self, rows: Sequence[tuple[StoredTrack, bytes]]) -> None:
        """Keep people with their pictures (JPEG); of an id only the latest counts.

        Raises:
            StoreError: the store is damaged. That it is full is no error here.
        """
        for track, jpeg in rows:
            self._waiting.pop(track.id, None)
            self._waiting[track.id] = (track, jpeg)
        if not self._full or self._clock() - self._tried_s >= RETRY_S:
            self._flush()
        if (over := len(self._waiting) - MOST_WAITING) > 0:
            for name in list(self._waiting)[:over]:
                del self._waiting[name]
            self._lose(over)

    def keep_crops(self, hits: Sequence[uuid.UUID], track_id: uuid.UUID, crops: Sequence[HitCrop]) -> None:
        """Keep the pictures of hits on somebody; where there is no room for people, not these either.

        Raises:
            StoreError: the store is damaged.
        """
        if self._full:
            return
        try:
            self._store.hit_crops.keep(hits, track_id, crops)
        except StoreFullError as error:
            log.warning("%s; the pictures that made a hit's score are not kept", error)

    def look(self) -> None:
        """To be called often: now and then it looks at the room that is left, and tries those again who wait.

        Raises: as `add`.
        """
        now_s = self._clock()
        if now_s - self._looked_s < LOOK_EVERY_S:
            return
        if self._waiting and now_s - self._tried_s >= RETRY_S:
            self._flush()
        self._looked_s = now_s
        self._tell()

    def finish(self) -> None:
        """The last try.

        Raises:
            StoreFullError: not everybody could be kept; the message says how many.
            StoreError: the store is damaged.
        """
        self._flush()
        if self._waiting:
            count = len(self._waiting)
            self._waiting.clear()
            self._lose(count)
        if self.lost:
            raise StoreFullError(
                f"{self._store.path}: no room for {_people(self.lost)} who are lost; everybody else is kept. "
                "Free room on its disk, or allow more"
            )

    def _flush(self) -> None:
        """Everybody who waits, as far as there is room."""
        self._tried_s = self._clock()
        was_full, self._full = self._full, False
        try:
            while self._waiting:
                names = list(self._waiting)[:AT_ONCE]
                self._health.counts.people += self._store.add([self._waiting[name] for name in names])
                for name in names:
                    del self._waiting[name]
        except StoreFullError as error:
            self._full = True
            if not was_full:
                log.error("%s; people wait for room in memory, and detection goes on", error)
        else:
            if was_full:
                log.info("the store has room again: everybody who waited is kept")
        if self._full != was_full:
            self._tell()

    def _lose(self, count: int) -> None:
        self.lost += count
        self._health.counts.store_lost = self.lost
        log.error("no room in the store: %s lost, %d in all", _people(count), self.lost)

    def _tell(self) -> None:
        if self._store.dropped > self._dropped:
            self._dropped, self._dropped_s = self._store.dropped, self._clock()
        trouble = self._trouble()
        if not trouble:
            if self._health.recover("store"):
                log.info("the store is well again")
        elif self._health.degrade("store", trouble):
            log.warning("store: %s", trouble)

    def _trouble(self) -> str:
        """What is wrong with the store, the worst only; empty for nothing."""
        if self._full:
            return f"full: {_people(len(self._waiting))} waiting for room, {self.lost} lost"
        if self._clock() - self._dropped_s < DROPPING_S:
            return f"full: the oldest make room, {_people(self._dropped)} so far"
        ease = EASE if "store" in self._health.reasons() else 1.0
        used, quota = self._store.used(), self._store.retention.max_bytes
        if used > NEARLY / ease * quota:
            return f"nearly full: {used / 1e6:,.0f} of {quota / 1e6:,.0f} MB; beyond, the oldest make room"
        try:
            disk = shutil.disk_usage(self._store.path.parent)
        except OSError as error:
            return f"its folder cannot be looked at: {error.strerror or error}"
        if disk.free < ease * max(LOW_BYTES, min(LOW_SHARE * disk.total, PLENTY_BYTES)):
            return f"its disk is nearly full: {disk.free / 1e6:,.0f} MB left"
        if not self._store.has_ballast:
            self._store.lay_ballast()
        return ""


def _people(count: int) -> str:
    return f"{count} {'person' if count == 1 else 'people'}"

"""A live camera: its newest frame whenever one is asked for; one that goes away is taken up again, for ever."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from tagclip.runtime.errors import SourceError
from tagclip.runtime.feeds import Feed, open_feed
from tagclip.runtime.logs import mask
from tagclip.runtime.source import Frame, Image, StallError

STALL_S = 5.0  # without a frame for so long, a connection is given up
IDLE_S = 0.5  # without a frame for so long, whoever iterates gets None
CLOSE_S = 3.0  # a pipeline of GStreamer has two seconds to end in order
BACK_OFF_S = (0.2, 30.0)  # before the first try to connect again, and at most
SAME_SHAPE = 0.02  # by which two ratios of width and height may differ to be called equal

log = logging.getLogger(__name__)


@dataclass
class LiveCounts:
    """Totals since the start; the camera's thread writes them.

    Attributes:
        frames: received. dropped: of them, replaced by a newer one before anybody looked.
        connects: how often the camera was opened. failures: how often it could not be, or nothing that it sent could be
            decoded, or it broke with an error.
        stalls: how often it sent nothing for too long.
        resized: frames of another size than the first one's.
    """

    frames: int = 0
    dropped: int = 0
    connects: int = 0
    failures: int = 0
    stalls: int = 0
    resized: int = 0


class LiveSource:
    """Frames of a camera, as of a VideoSource, but only the newest: who is slow misses some, and is never late.

    A thread reads; three buffers go round between it and whoever iterates, so nothing is allocated for a frame. Times
    are those of arrival by a clock that only goes forward: a wall clock that is set does not matter. Frames of another
    size than the first are scaled to it, with black beside them if their shape is another: tracks and boxes go on.

    Attributes:
        fps: as announced, 25 if it is not. width_px, height_px: of the first frame. Known when a frame has come.
        frame_count: 0, unknown.
        warnings: none; what happens is logged.
        trouble: why there is no picture, credentials masked; empty while the camera is open.
        counts: what has happened.
    """

    frame_count = 0

    def __init__(
        self,
        source: str,
        *,
        open_: Callable[[str, float], Feed] = open_feed,
        stall_s: float = STALL_S,
        back_off_s: tuple[float, float] = BACK_OFF_S,
    ) -> None:
        """Begin to connect, in a thread.

        Args:
            source: has passed `feeds.check_live`.
        """
        self.fps, self.width_px, self.height_px = 25.0, 0, 0
        self.warnings: list[str] = []
        self.trouble = "waiting for it"
        self.counts = LiveCounts()
        self._source, self._open, self._stall_s, self._back_off_s = source, open_, stall_s, back_off_s
        self._shape: tuple[int, ...] = ()  # of the latest frame, as it came
        self._buffers: list[Image] = []
        self._writing, self._newest, self._reading = 0, 1, 2
        self._begin_s: float | None = None
        self._arrived_s = 0.0
        self._fresh = False
        self._changed = threading.Condition()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="camera", daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float = IDLE_S) -> bool:
        """Wait for the first frame, but no longer than this; whether it has come."""
        with self._changed:
            return self._changed.wait_for(lambda: self._begin_s is not None, timeout_s)

    @property
    def begin_s(self) -> float:
        """When the first frame came, by the clock that only goes forward; after `wait` gave True."""
        return self._begin_s or 0.0

    @property
    def start_s(self) -> float:
        """Unix time of the first frame, by the wall clock as it stands now; after `wait` gave True."""
        return time.time() - (time.monotonic() - self.begin_s)

    def sample(self, count: int) -> list[Image]:
        """Nothing: a detector of motion learns the empty scene from the frames as they come."""
        return []

    def __iter__(self) -> Iterator[Frame | None]:
        """The newest frame, each once; None whenever none has come for IDLE_S. Ends with `close` alone."""
        index, time_s = 0, -1.0
        while not self._over.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._fresh or self._over.is_set(), IDLE_S)
                fresh, self._fresh = self._fresh, False
                if fresh:
                    self._newest, self._reading = self._reading, self._newest
                    time_s = max(self._arrived_s, time_s + 1e-6)
            if fresh:
                yield Frame(index, time_s, self._buffers[self._reading])
                index += 1
            elif not self._over.is_set():
                yield None

    def close(self) -> None:
        """Let go of the camera. Its thread may stay in a library that waits for a silent camera; it ends by itself."""
        self._over.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(CLOSE_S)

    def _work(self) -> None:
        wait_s = self._back_off_s[0]
        while not self._over.is_set():
            before = self.counts.frames
            self._connection()
            if self.counts.frames > before:
                wait_s = self._back_off_s[0]
            self._over.wait(wait_s * random.uniform(0.7, 1.3))  # not all devices of a fleet at once
            wait_s = min(2 * wait_s, self._back_off_s[1])

    def _connection(self) -> None:
        """Connect, and read until the connection ends."""
        feed: Feed | None = None
        before = self.counts.frames
        try:
            feed = self._open(self._source, self._stall_s)
            self.counts.connects += 1
            self.trouble = ""
            log.info("connected to %s", mask(self._source))
            while not self._over.is_set() and (image := feed.read()) is not None:
                self._take(image, feed.fps)
            if self.counts.frames == before and not self._over.is_set():
                raise SourceError("nothing that it sends can be decoded")
            self._lost("it ended the connection")
        except StallError as error:
            self.counts.stalls += 1
            self._lost(str(error))
        except SourceError as error:
            self.counts.failures += 1
            self._lost(str(error))
        except Exception as error:  # whatever a driver or library raises must not end the only eye there is
            self.counts.failures += 1
            self._lost(f"{type(error).__name__}: {error}")
        finally:
            if feed is not None:
                feed.close()

    def _lost(self, why: str) -> None:
        self.trouble = f"waiting for it: {mask(why)}"
        if not self._over.is_set():
            log.warning("no picture from %s: %s", mask(self._source), mask(why))

    def _take(self, image: Image, fps: float) -> None:
        """Put a frame where whoever iterates finds it."""
        now_s = time.monotonic()
        if not self._buffers:
            self.height_px, self.width_px = int(image.shape[0]), int(image.shape[1])
            self.fps = fps if 1.0 <= fps <= 240.0 else 25.0
            self._buffers = [np.zeros_like(image) for _ in range(3)]
        into = self._buffers[self._writing]
        if image.shape != self._shape:
            self._shape = image.shape
            said = image.shape[1], image.shape[0], self.width_px, self.height_px
            log.info("frames of %dx%d, looked at as %dx%d", *said)
        if image.shape == into.shape:
            np.copyto(into, image)
        else:
            self.counts.resized += 1
            fit_into(image, into)
        with self._changed:
            self.counts.frames += 1
            self.counts.dropped += self._fresh
            if self._begin_s is None:
                self._begin_s = now_s
            self._arrived_s, self._fresh = now_s - self._begin_s, True
            self._writing, self._newest = self._newest, self._writing
            self._changed.notify_all()


def fit_into(image: Image, into: Image) -> None:
    """Scale `image` (h, w, 3) into `into` (H, W, 3), in place; black beside it if it has another shape."""
    height, width = into.shape[:2]
    scale = min(height / image.shape[0], width / image.shape[1])
    size = max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1)
    if abs(size[0] / width - 1) <= SAME_SHAPE and abs(size[1] / height - 1) <= SAME_SHAPE:
        cv2.resize(image, (width, height), dst=into, interpolation=cv2.INTER_AREA)
        return
    left, top = (width - size[0]) // 2, (height - size[1]) // 2
    into[:] = 0
    into[top : top + size[1], left : left + size[0]] = cv2.resize(image, size, interpolation=cv2.INTER_AREA)

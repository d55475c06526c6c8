"""The device put together: footage, detector, encoders and store, and what looks after them while they work."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tagclip.runtime.bundle import open_bundle
from tagclip.runtime.detectors import detector_of
from tagclip.runtime.encoder import AUTO, ImageEncoder
from tagclip.runtime.engines import Engines
from tagclip.runtime.errors import SourceError
from tagclip.runtime.health import Health
from tagclip.runtime.health_server import HealthServer, parse_listen
from tagclip.runtime.machine import Machine
from tagclip.runtime.monitor import Monitor
from tagclip.runtime.service import Notifier, Stop
from tagclip.runtime.source import Frame, VideoSource, open_source
from tagclip.runtime.store import Retention, TrackStore
from tagclip.runtime.store_track import Place
from tagclip.runtime.telemetry import CameraPose, Telemetry, read_telemetry
from tagclip.runtime.terminal import Progress
from tagclip.runtime.watch import Camera, Watcher
from tagclip.runtime.when import show_when

PRUNE_EVERY_S = 600.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """What `tagclip run` was told; the options of the command line, checked.

    Attributes:
        start_s: Unix time of the footage's time 0; None takes a file's own.
        max_bytes: of the store.
        listen: where health and metrics are told, None for nowhere.
        max_memory_mb: see `Monitor`.
    """

    source: Path
    store: Path
    camera: str
    bundle: Path | None
    engine: str
    view: str
    boxes: Path | None
    start_s: float | None
    place: Place | None
    telemetry: Path | None
    pose: CameraPose
    days: float
    max_bytes: int
    listen: tuple[str, int] | None
    max_memory_mb: float | None


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        people: kept.
        start_s: Unix time at which the footage began.
        old, dropped: deleted for their age, and to make room.
    """

    people: int
    start_s: float
    old: int
    dropped: int


class Device:
    """Watches one camera's footage until it ends or `stop` is asked for.

    Raises:
        TagclipError: whatever of it cannot be opened.
    """

    def __init__(self, settings: Settings, stop: Stop) -> None:
        self._settings, self._stop = settings, stop
        opened = open_source(settings.source)
        if not isinstance(opened, VideoSource):
            raise SourceError(
                f"{settings.source} holds pictures, expected a video; `tagclip search` looks through pictures"
            )
        self._source = opened
        start_s = settings.start_s
        if start_s is None:
            start_s = settings.source.stat().st_mtime - opened.frame_count / opened.fps
        told = (
            read_telemetry(settings.telemetry, settings.pose)
            if settings.telemetry
            else Telemetry(fixed=settings.pose)
        )
        size_px = (opened.width_px, opened.height_px)
        self._camera = Camera(settings.camera, settings.view, start_s, size_px, settings.place, told)
        bundle = open_bundle(settings.bundle)
        self._engines = Engines(bundle, settings.engine)
        self._encoder = functools.cache(lambda view: ImageEncoder(bundle, view, engine=self._engines))
        self.health = Health(
            camera=settings.camera,
            detector="boxes" if settings.boxes else "motion",
            provider=self._engines.name,
            encoder_id=bundle.encoder_id,
            store=settings.store,
        )

    def run(self) -> Outcome:
        """Watch. Raises: as `Watcher.see`."""
        settings = self._settings
        with contextlib.ExitStack() as around:
            store = around.enter_context(
                TrackStore(settings.store, Retention(settings.days, settings.max_bytes))
            )
            if settings.listen:
                around.enter_context(HealthServer(self.health, settings.listen))
            around.enter_context(Monitor(Machine(), self.health, self._stop, settings.max_memory_mb))
            notifier = around.enter_context(contextlib.closing(Notifier()))
            watcher = Watcher(
                self._camera,
                detector_of(self._source, settings.boxes),
                self._encoder,
                self._engines.bundle.encoder_id,
                store,
                settings.boxes is None,
                self.health,
            )
            self._check()
            notifier.ready(f"watching {settings.camera}")
            self.health.running()
            try:
                self._loop(watcher, store, notifier)
            finally:
                self.health.stopping()
                notifier.stopping()
            watcher.end()
            old = store.prune(time.time())
            return Outcome(watcher.people, self._camera.start_s, old, store.dropped)

    def _check(self) -> None:
        """Load what may be needed and let it prove itself, so that nobody is met by a wrong or a cold engine."""
        view, served = self._settings.view, self._engines.bundle.manifest.views
        for name in (view,) if view != AUTO else (*served, AUTO):
            self._encoder(name).check()
        log.info("the encoders run on %s", self._engines.name)
        for name, why in self._engines.passed_over.items():
            log.info("not on %s: %s", name, why)

    def _loop(self, watcher: Watcher, store: TrackStore, notifier: Notifier) -> None:
        shown = Progress("watching", "frames")
        counts, pruned_s = self.health.counts, time.monotonic()
        log.info("watching %s, seen from %s on", self._settings.source, show_when(self._camera.start_s))
        for frame in self._timed(iter(self._source)):
            watcher.see(frame)
            self.health.seen()
            counts.store_dropped = store.dropped
            notifier.alive(f"{counts.frames} frames, {counts.people} people kept")
            shown.update(frame.index + 1, self._source.frame_count)
            if time.monotonic() - pruned_s >= PRUNE_EVERY_S:
                pruned_s = time.monotonic()
                store.prune(time.time())
            if self._stop.requested:
                log.info("stopped by %s", self._stop.reason)
                break
        shown.end()
        for warning in self._source.warnings:
            log.warning("%s", warning)

    def _timed(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        """The frames; how long each takes to come is noted."""
        decode = self.health.times["decode"]
        while True:
            begun_s = time.perf_counter()
            frame = next(frames, None)
            if frame is None:
                return
            decode.add(time.perf_counter() - begun_s)
            yield frame


def listening(address: str | None, *, exposed: bool) -> tuple[str, int] | None:
    """Where `--listen` says; None for nowhere. Raises: ConfigError."""
    return parse_listen(address, exposed=exposed) if address else None

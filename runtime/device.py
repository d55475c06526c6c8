"""The device put together: footage, detector, encoders and store, and what looks after them while they work."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tagclip.runtime.armed import Armed, Orders
from tagclip.runtime.bundle import open_bundle
from tagclip.runtime.bundle_slots import BundleSlots
from tagclip.runtime.detector_contract import read_contract
from tagclip.runtime.detectors import describe, detector_of, drop_still
from tagclip.runtime.encoder import AUTO, ImageEncoder
from tagclip.runtime.engines import Engines
from tagclip.runtime.errors import ConfigError, SourceError
from tagclip.runtime.feeds import check_live
from tagclip.runtime.health import Health
from tagclip.runtime.health_server import HealthServer, parse_listen
from tagclip.runtime.live import LiveSource
from tagclip.runtime.logs import mask
from tagclip.runtime.machine import Machine
from tagclip.runtime.mavlink_link import LiveTelemetry, is_link
from tagclip.runtime.monitor import Monitor
from tagclip.runtime.picture_key import read_picture_keys
from tagclip.runtime.service import Notifier, Stop, has_keeper
from tagclip.runtime.source import Frame, VideoSource, is_live, open_source
from tagclip.runtime.store import Retention, TrackStore
from tagclip.runtime.store_track import Place
from tagclip.runtime.sync_enrol import read_enrolment
from tagclip.runtime.telemetry import CameraPose, Poses, Telemetry, read_telemetry
from tagclip.runtime.terminal import Progress
from tagclip.runtime.tracker import RELINK_S
from tagclip.runtime.watch import Camera, Watcher
from tagclip.runtime.when import show_when

PRUNE_EVERY_S = 600.0
TRIAL_S = 30.0  # a new bundle that watched for so long works
CLOCK_STEP_S = 1.0  # the wall clock against the one that only goes forward: more is no drift

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """What `tagclip run` was told; the options of the command line, checked.

    Attributes:
        source: a path, or what `source.is_live`.
        boxes, detector: a file of boxes, or an ONNX graph; without either, motion.
        start_s: Unix time of the footage's time 0; None takes a file's own, and a live camera's is now.
        max_bytes: of the store.
        listen: where health and metrics are told, None for nowhere.
        max_memory_mb: see `Monitor`.
        orders: what is looked for; None for nothing.
        as_json: hits are shown as JSON.
        picture_keys: files of keys that pictures are encrypted with, the first seals; none for no encryption.
    """

    source: str
    store: Path
    camera: str
    bundle: Path | None
    engine: str
    view: str
    boxes: Path | None
    detector: Path | None
    start_s: float | None
    place: Place | None
    telemetry: str | None
    pose: CameraPose
    days: float
    max_bytes: int
    listen: tuple[str, int] | None
    max_memory_mb: float | None
    orders: Orders | None = None
    as_json: bool = False
    picture_keys: tuple[Path, ...] = ()


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

    Args:
        show: is given each hit as a line.

    Attributes:
        health: what it says of itself.
        restart: it ended to be started anew, with another bundle.

    Raises:
        TagclipError: whatever of it cannot be opened. A live camera that is not there yet is waited for.
    """

    def __init__(
        self, settings: Settings, stop: Stop, show: Callable[[str], None] = lambda line: None
    ) -> None:
        self._settings, self._stop, self._show = settings, stop, show
        self._file = None if is_live(settings.source) else _file_of(settings.source)
        if self._file is None:
            check_live(settings.source)
            if settings.start_s is not None:
                raise ConfigError("--start is for files; a live camera's footage begins when it comes")
        if settings.detector is not None:  # so that a camera is not waited for in vain
            read_contract(settings.detector)
        self._told = self._telemetry()
        self.restart = False
        self._slots = self._slots_of(settings)
        with self._slots.blamed() if self._slots else contextlib.nullcontext():
            bundle = self._slots.begin() if self._slots else open_bundle(settings.bundle)
            self._engines = Engines(bundle, settings.engine)
        self._encoder = functools.cache(lambda view: ImageEncoder(bundle, view, engine=self._engines))
        self.health = Health(
            camera=settings.camera,
            detector="boxes" if settings.boxes else settings.detector.name if settings.detector else "motion",
            provider=self._engines.name,
            encoder_id=bundle.encoder_id,
            store=settings.store,
        )

    def run(self) -> Outcome:
        """Watch. Raises: as `Watcher.see`."""
        if self._slots is None:
            return self._run()
        self._slots.on_ready = self._ready
        with self._slots.blamed():
            outcome = self._run()
        if not self._stop.failed:
            self._slots.works()
        return outcome

    def _ready(self) -> None:
        """Another bundle waits in its slot. A camera goes on after a restart; a file would begin anew."""
        if self._file is not None:
            log.info("the station's bundle is used from the next start on")
            return
        self.restart = not has_keeper()
        self._stop.request("another bundle of the station is to be used; started anew", failed=has_keeper())

    def _run(self) -> Outcome:
        settings = self._settings
        keys = read_picture_keys(settings.picture_keys)
        with contextlib.ExitStack() as around:
            store = around.enter_context(
                TrackStore(settings.store, Retention(settings.days, settings.max_bytes), keys=keys)
            )
            if settings.listen:
                around.enter_context(HealthServer(self.health, settings.listen))
            around.enter_context(Monitor(Machine(), self.health, self._stop, settings.max_memory_mb))
            notifier = around.enter_context(contextlib.closing(Notifier()))
            self._check()
            armed = None
            if settings.orders is not None:
                armed = around.enter_context(
                    Armed(
                        settings.orders,
                        self._engines,
                        self.health,
                        self._show,
                        settings.as_json,
                        store,
                        keys,
                        self._slots,
                    )
                )
            notifier.ready(f"watching {settings.camera}")
            self.health.running()
            if self._told is None:
                self._told = around.enter_context(
                    contextlib.closing(LiveTelemetry(settings.telemetry or "", settings.pose))
                )
            source = self._file or around.enter_context(contextlib.closing(LiveSource(settings.source)))
            round_ = _Round(self.health, store, notifier, self._stop, source, self._told, self._slots)
            watcher, start_s = None, time.time()
            try:
                if self._awaited(source, round_):
                    start_s = self._start_of(source)
                    watcher = self._watcher(source, store, start_s, armed)
                    self._loop(source, watcher, round_, armed)
            finally:
                self.health.stopping()
                notifier.stopping()
            if watcher is not None:
                watcher.end()
                start_s = watcher.start_s
            old = store.prune()
            return Outcome(self.health.counts.people, start_s, old, store.dropped)

    @staticmethod
    def _slots_of(settings: Settings) -> BundleSlots | None:
        """Where the station's bundles are; None where there is no station, or --bundle says which it is."""
        station = settings.orders.station if settings.orders else None
        if station is None or settings.bundle is not None:
            return None
        return BundleSlots(station, read_enrolment(station))

    def _telemetry(self) -> Poses | None:
        """What the file or the options tell of the camera; None for a link, which is opened when all else is sound."""
        told, file = self._settings.telemetry, self._file
        if told is None:
            return Telemetry(fixed=self._settings.pose)
        if is_link(told) != (file is None):
            raise ConfigError(
                f"--telemetry {told}: a live camera goes with a link (udp:, tcp:, serial:), a video file with a file"
            )
        if file is None:
            return None
        return read_telemetry(Path(told), self._settings.pose, self._start_of(file))

    def _awaited(self, source: VideoSource | LiveSource, round_: _Round) -> bool:
        """Wait until the first frame is there, for ever if need be; False when asked to stop before."""
        while isinstance(source, LiveSource) and not source.wait():
            if round_.over(f"waiting for {self._settings.camera}"):
                return False
        return True

    def _start_of(self, source: VideoSource | LiveSource) -> float:
        if isinstance(source, LiveSource):
            return source.start_s
        if self._settings.start_s is not None:
            return self._settings.start_s
        return source.path.stat().st_mtime - source.frame_count / source.fps

    def _watcher(
        self, source: VideoSource | LiveSource, store: TrackStore, start_s: float, armed: Armed | None
    ) -> Watcher:
        settings = self._settings
        size_px = (source.width_px, source.height_px)
        if isinstance(source, LiveSource) and isinstance(self._told, LiveTelemetry):
            self._told.begin(source.begin_s)
        detector = detector_of(source, settings.boxes, settings.detector, self._engines.name)
        log.info("people are found by %s", describe(detector))
        return Watcher(
            Camera(settings.camera, settings.view, start_s, size_px, settings.place, self._told),
            detector,
            self._encoder,
            self._engines.bundle.encoder_id,
            store,
            drop_still(detector),
            self.health,
            *((armed.alerts(settings.camera, size_px), armed.tell, armed.tell_tracks) if armed else ()),
        )

    def _check(self) -> None:
        """Load what may be needed and let it prove itself, so that nobody is met by a wrong or a cold engine."""
        view, served = self._settings.view, self._engines.bundle.manifest.views
        for name in (view,) if view != AUTO else (*served, AUTO):
            self._encoder(name).check()
        log.info("the encoders run on %s", self._engines.name)
        for name, why in self._engines.passed_over.items():
            log.info("not on %s: %s", name, why)

    def _loop(
        self, source: VideoSource | LiveSource, watcher: Watcher, round_: _Round, armed: Armed | None
    ) -> None:
        shown = Progress("watching", "frames")
        counts = self.health.counts
        log.info("watching %s, seen from %s on", mask(self._settings.source), show_when(watcher.start_s))
        seen_s: float | None = None  # when the last frame was; None: nobody is followed
        for frame in self._timed(source) if isinstance(source, VideoSource) else source:
            now_s = time.monotonic()
            if armed is not None:
                armed.refresh(time.time())
            if frame is not None:
                self._follow_clock(source, watcher)
                watcher.see(frame)
                self.health.seen()
                seen_s = now_s
                shown.update(frame.index + 1, source.frame_count)
            elif seen_s is not None and now_s - seen_s > RELINK_S:
                watcher.pause()  # whoever was in view is kept now, and not when the camera is back, if ever
                seen_s = None
            if round_.over(f"{counts.frames} frames, {counts.people} people kept"):
                break
        shown.end()
        for warning in source.warnings:
            log.warning("%s", warning)

    @staticmethod
    def _follow_clock(source: VideoSource | LiveSource, watcher: Watcher) -> None:
        """A board without a battery learns the time after its start: from then on people have the right one."""
        if isinstance(source, LiveSource) and abs(step_s := source.start_s - watcher.start_s) > CLOCK_STEP_S:
            log.warning("the clock was set by %+.1f s; the times of people go by it from here on", step_s)
            watcher.start_s = source.start_s

    def _timed(self, source: VideoSource) -> Iterator[Frame]:
        """The frames; how long each takes to be decoded is noted. A live camera's wait for light, not for us."""
        frames = iter(source)
        decode = self.health.times["decode"]
        while True:
            begun_s = time.perf_counter()
            frame = next(frames, None)
            if frame is None:
                return
            decode.add(time.perf_counter() - begun_s)
            yield frame


class _Round:
    """What is done in every round, with a frame or without: it is told that the device lives, and what it counts."""

    def __init__(
        self,
        health: Health,
        store: TrackStore,
        notifier: Notifier,
        stop: Stop,
        source: VideoSource | LiveSource,
        told: Poses | None,
        slots: BundleSlots | None,
    ) -> None:
        self._slots = slots
        self._begun_s = time.monotonic()
        self._health, self._store, self._notifier, self._stop = health, store, notifier, stop
        self._link = told if isinstance(told, LiveTelemetry) else None
        self._live = source if isinstance(source, LiveSource) else None
        self._pruned_s = time.monotonic()

    def over(self, status: str) -> bool:
        """One more round; whether a stop is asked for.

        Args:
            status: for `systemctl status`.
        """
        if self._live is not None:
            self._take_over(self._live)
        if self._link is not None:
            if trouble := self._link.trouble:
                self._health.degrade("telemetry", trouble)
            else:
                self._health.recover("telemetry")
        self._health.counts.store_dropped = self._store.dropped
        self._notifier.alive(status)
        if self._slots is not None and time.monotonic() - self._begun_s >= TRIAL_S:
            self._slots.works()
        if time.monotonic() - self._pruned_s >= PRUNE_EVERY_S:
            self._pruned_s = time.monotonic()
            self._store.prune()
        if self._stop.requested:
            log.info("stopped by %s", self._stop.reason)
        return self._stop.requested

    def _take_over(self, live: LiveSource) -> None:
        """The camera's own counters and state into the device's."""
        counts, health, own = self._health.counts, self._health, live.counts
        counts.dropped, counts.stalls, counts.failures = own.dropped, own.stalls, own.failures
        counts.reconnects, counts.resized = max(own.connects - 1, 0), own.resized
        trouble = live.trouble
        health.connected = not trouble
        if trouble:
            health.degrade("camera", trouble)
        else:
            health.recover("camera")


def _file_of(source: str) -> VideoSource:
    opened = open_source(Path(source))
    if not isinstance(opened, VideoSource):
        raise SourceError(
            f"{source} holds pictures, expected a video; `tagclip search` looks through pictures"
        )
    return opened


def listening(address: str | None, *, exposed: bool) -> tuple[str, int] | None:
    """Where `--listen` says; None for nowhere. Raises: ConfigError."""
    return parse_listen(address, exposed=exposed) if address else None

"""What a running device knows of itself: counters, times, reasons to worry; as JSON and as Prometheus metrics.

The loop over the frames only adds numbers. All that costs is done by whoever asks, in their thread.
"""

from __future__ import annotations

import importlib.metadata
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tagclip.runtime.logs import plain
from tagclip.runtime.machine import MachineState

if TYPE_CHECKING:
    from prometheus_client.core import Metric

STAGES = ("decode", "detect", "track", "embed", "match", "store")
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
BLIND_S = 10.0  # without a frame for so long the device does not do its work
STARTING, RUNNING, STOPPING, DEGRADED = "starting", "running", "stopping", "degraded"


@dataclass
class Counts:
    """Totals since the start; the loop over the frames alone writes them, `+=` or from its source's own counters.

    Attributes:
        frames: looked at.
        dropped: frames that were left out to keep up.
        reconnects, stalls: how often the camera was opened again, and how often it sent nothing for too long.
        failures: how often it could not be opened, or sent what is no picture. resized: frames of another size.
        detections: boxes of people. tracks: that have begun. people: kept in the store.
        hits: people who fit a standing query.
        store_dropped: people that were deleted to make room.
        store_lost: people for whom there was no room for too long.
        queue: frames that wait now.
    """

    frames: int = 0
    dropped: int = 0
    reconnects: int = 0
    stalls: int = 0
    failures: int = 0
    resized: int = 0
    detections: int = 0
    tracks: int = 0
    people: int = 0
    hits: int = 0
    store_dropped: int = 0
    store_lost: int = 0
    queue: int = 0


class Times:
    """How long something takes: a histogram of a fixed size. One thread adds, others may read."""

    def __init__(self) -> None:
        self.counts = [0] * (
            len(BUCKETS_S) + 1
        )  # by the first bucket that holds it, the last is for all above
        self.sum_s = 0.0

    def add(self, time_s: float) -> None:
        """One more of `time_s` seconds."""
        self.counts[bisect_left(BUCKETS_S, time_s)] += 1
        self.sum_s += time_s


class Health:
    """The state of the device.

    Args:
        camera, detector, provider, encoder_id: what runs, for whoever reads it.
        store: the file that people are kept in; its size is looked up when somebody asks.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        *,
        camera: str,
        detector: str,
        provider: str,
        encoder_id: str,
        store: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counts = Counts()
        self.times = {stage: Times() for stage in STAGES}
        self.connected = False  # the camera is open
        self.machine: MachineState | None = None
        self._facts = {
            "version": importlib.metadata.version("tagclip"),
            "encoder_id": encoder_id,
            "detector": detector,
            "provider": provider,
        }
        self._camera, self._store, self._clock = camera, store, clock
        self._start_s = clock()
        self._frame_s: float | None = None
        self._phase = STARTING
        self._reasons: dict[str, str] = {}
        self._lock = threading.Lock()

    def running(self) -> None:
        """The start is over."""
        self._phase = RUNNING

    def stopping(self) -> None:
        """The end has begun."""
        self._phase = STOPPING

    def seen(self) -> None:
        """A frame has been looked at."""
        self.counts.frames += 1
        self.connected = True
        self._frame_s = self._clock()

    def degrade(self, cause: str, text: str) -> bool:
        """It goes on, but not as it should, because of `cause`; whether that is new."""
        with self._lock:
            new = cause not in self._reasons
            self._reasons[cause] = text
        return new

    def recover(self, cause: str) -> bool:
        """`cause` is over; whether it was there."""
        with self._lock:
            return self._reasons.pop(cause, None) is not None

    def reasons(self) -> dict[str, str]:
        """What is not as it should be, by cause; the camera's silence is found here."""
        with self._lock:
            found = dict(self._reasons)
        age_s, lost = self._age_s(), self._frame_s is not None and not self.connected
        if self._phase == RUNNING and (lost or age_s > BLIND_S):
            found.setdefault("camera", f"{'not connected, ' if lost else ''}no frame for {age_s:.0f} s")
        return found

    def status(self) -> tuple[str, bool]:
        """One of starting, running, degraded and stopping; and whether it does its work: it looks at frames."""
        if self._phase != RUNNING:
            return self._phase, False
        return (DEGRADED if self.reasons() else RUNNING), self._age_s() <= BLIND_S

    def to_json(self) -> dict[str, Any]:
        """What `/health` answers; credentials are masked."""
        counts, machine, size = self.counts, self.machine, self._store_bytes()
        told = {
            "status": self.status()[0],
            "reasons": [f"{cause}: {text}" for cause, text in self.reasons().items()],
            **self._facts,
            "uptime_s": round(self._clock() - self._start_s, 1),
            "camera": {
                "name": self._camera,
                "connected": self.connected,
                "last_frame_age_s": None if self._frame_s is None else round(self._age_s(), 3),
                "frames": counts.frames,
                "dropped": counts.dropped,
                "reconnects": counts.reconnects,
                "stalls": counts.stalls,
                "failures": counts.failures,
                "resized": counts.resized,
            },
            "store": {
                "people": counts.people,
                "bytes": size,
                "dropped": counts.store_dropped,
                "lost": counts.store_lost,
            },
            "machine": None if machine is None else vars(machine),
        }
        return plain(told)

    def metrics(self) -> bytes:
        """What `/metrics` answers: the text format of Prometheus."""
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry()
        registry.register(_Collector(self._metrics))
        return generate_latest(registry)

    def _age_s(self) -> float:
        """Seconds since the last frame, or since the start."""
        return self._clock() - (self._start_s if self._frame_s is None else self._frame_s)

    def _store_bytes(self) -> int | None:
        """With the write-ahead log; None where there is none yet."""
        if self._store is None:
            return None
        sizes = []
        for suffix in ("", "-wal"):
            try:
                sizes.append(self._store.with_name(self._store.name + suffix).stat().st_size)
            except OSError:
                continue
        return sum(sizes) if sizes else None

    def _metrics(self) -> Iterator[Metric]:
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
            InfoMetricFamily,
        )

        counts, machine = self.counts, self.machine
        for name, text, value in (
            ("frames", "Frames looked at.", counts.frames),
            ("frames_dropped", "Frames left out to keep up.", counts.dropped),
            ("camera_reconnects", "How often the camera was opened again.", counts.reconnects),
            ("camera_stalls", "How often the camera sent nothing for too long.", counts.stalls),
            ("camera_failures", "How often it could not be opened, or sent no picture.", counts.failures),
            ("camera_resized_frames", "Frames of another size than the first.", counts.resized),
            ("detections", "Boxes of people.", counts.detections),
            ("tracks", "Tracks that have begun.", counts.tracks),
            ("people_kept", "People kept in the store.", counts.people),
            ("hits", "People who fit a standing query.", counts.hits),
            ("store_dropped", "People deleted to make room.", counts.store_dropped),
            ("store_lost", "People who could not be kept.", counts.store_lost),
        ):
            yield CounterMetricFamily(f"tagclip_{name}", text, value=value)

        stages = HistogramMetricFamily("tagclip_stage_seconds", "Time that a stage takes.", labels=["stage"])
        for stage, times in self.times.items():
            total, buckets = 0, []
            for limit, count in zip([*map(str, BUCKETS_S), "+Inf"], list(times.counts), strict=True):
                total += count
                buckets.append((limit, total))
            stages.add_metric([stage], buckets, times.sum_s)
        yield stages

        status, _ = self.status()
        states = {name: float(name == status) for name in (STARTING, RUNNING, DEGRADED, STOPPING)}
        yield _labelled("status", "1 for what the device is.", "status", states)
        reasons = {cause: 1.0 for cause in self.reasons()}
        yield _labelled(
            "degraded", "1 for each cause that something is not as it should be.", "cause", reasons
        )
        yield InfoMetricFamily("tagclip_build", "What runs.", value=self._facts)
        gauges: list[tuple[str, str, float | None]] = [
            ("uptime_seconds", "Since the start.", self._clock() - self._start_s),
            ("camera_connected", "1 while the camera is open.", float(self.connected)),
            ("last_frame_age_seconds", "Since the last frame, or the start.", self._age_s()),
            ("queue_frames", "Frames that wait.", counts.queue),
            ("store_bytes", "Size of the store.", self._store_bytes()),
        ]
        if machine is not None:
            slowed = None if machine.throttled is None else float(bool(machine.throttled))
            gauges += [
                ("memory_resident_bytes", "Memory of this process.", machine.resident_bytes),
                ("memory_available_bytes", "Memory that the machine has left.", machine.available_bytes),
                ("gpu_load_ratio", "Load of the GPU, 0 to 1.", machine.gpu_load),
                ("throttled", "1 while the machine slows itself down.", slowed),
            ]
            celsius, watts = machine.temperature_c, machine.power_w
            yield _labelled("temperature_celsius", "Of a thermal zone.", "zone", celsius)
            yield _labelled("power_watts", "Of a power rail.", "rail", watts)
        for name, text, gauge in gauges:
            if gauge is not None:
                yield GaugeMetricFamily(f"tagclip_{name}", text, value=gauge)


class _Collector:
    """What a registry of prometheus_client takes."""

    def __init__(self, collect: Callable[[], Iterator[Metric]]) -> None:
        self.collect = collect


def _labelled(name: str, text: str, label: str, values: dict[str, float]) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(f"tagclip_{name}", text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family

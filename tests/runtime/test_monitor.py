"""What follows from the machine's readings, over a tree of files that the test changes."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import pytest

from tagclip.runtime.health import Health
from tagclip.runtime.machine import Machine
from tagclip.runtime.monitor import CALM_S, PATIENCE_S, Monitor
from tagclip.runtime.service import Stop

LONG_S = 300.0  # only a broken test waits for it


class Clock:
    """Time that passes when the test says so."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(camera="north", detector="motion", provider="cpu", encoder_id="abc", clock=clock)


class Sysfs:
    """A tree of a machine that the test changes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.set(state=0, resident_mb=100)

    def set(self, **values: int) -> None:
        device = self.root / "sys/class/thermal/cooling_device0"
        device.mkdir(parents=True, exist_ok=True)
        (device / "type").write_text("cpufreq-cpu0")
        if "state" in values:
            (device / "cur_state").write_text(str(values["state"]))
        if "resident_mb" in values:
            (self.root / "proc/self").mkdir(parents=True, exist_ok=True)
            pages = int(values["resident_mb"] * 1e6) // os.sysconf("SC_PAGE_SIZE")
            (self.root / "proc/self/statm").write_text(f"1 {pages} 1")


def test_throttling_is_said_once_and_taken_back(
    tmp_path: Path, health: Health, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    sysfs = Sysfs(tmp_path)
    monitor = Monitor(Machine(tmp_path, tegrastats=None), health, Stop(), clock=clock)
    monitor.look()
    assert health.reasons() == {}
    for state in (1, 3, 0, 1, 0):  # it comes and goes
        sysfs.set(state=state)
        clock.now_s += 5
        monitor.look()
        assert health.reasons()["throttled"] == "the machine slows itself down: cpufreq-cpu0"
    clock.now_s += CALM_S
    monitor.look()
    assert health.reasons() == {}
    said = [record.getMessage() for record in caplog.records]
    assert [text.partition(";")[0] for text in said] == [
        "the machine slows itself down: cpufreq-cpu0",
        "the machine is no longer slowed down",
    ]


def test_memory_beyond_its_limit_ends_the_process(tmp_path: Path, health: Health, clock: Clock) -> None:
    sysfs, stop = Sysfs(tmp_path), Stop()
    monitor = Monitor(Machine(tmp_path, tegrastats=None), health, stop, 800, clock)
    sysfs.set(resident_mb=900)
    monitor.look()
    assert health.reasons() == {"memory": "900 MB, the limit is 800 MB"}
    clock.now_s += PATIENCE_S - 1
    monitor.look()
    assert not stop.requested
    sysfs.set(resident_mb=700)  # it shrinks: the minute begins anew
    monitor.look()
    assert health.reasons() == {}
    sysfs.set(resident_mb=900)
    clock.now_s += 2
    monitor.look()
    assert not stop.requested
    clock.now_s += PATIENCE_S
    monitor.look()
    assert (stop.reason, stop.failed) == ("memory: 900 MB, the limit is 800 MB (--max-memory-mb)", True)


def test_the_monitor_looks_by_itself(health: Health) -> None:
    with Monitor(Machine(), health, Stop()):
        end_s = time.monotonic() + LONG_S
        while health.machine is None and time.monotonic() < end_s:
            time.sleep(0.01)
    assert health.machine is not None and health.machine.resident_bytes

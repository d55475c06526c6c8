"""Stopping and sd_notify, with real processes, signals and sockets."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tagclip.runtime.service import GRACE_S, Notifier, Stop

LONG_S = 300.0  # only a broken test waits for it


@contextlib.contextmanager
def child(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A process that has said `ready`."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        yield process
    finally:
        process.kill()
        process.communicate()


DEVICE = """
    import sys, time, uuid
    from pathlib import Path
    import numpy as np
    from tagclip.runtime.service import Stop
    from tagclip.runtime.store import TrackStore
    from tagclip.runtime.store_track import StoredTrack

    def track():
        return StoredTrack(
            id=uuid.uuid4(), camera="a", view="aerial", start_s=1.0, end_s=2.0, best_s=1.5, frame=3,
            box_xywh_px=(1, 2, 3, 4), encoder_id="e", vector=np.ones(16, np.float32) / 4, place=None,
        )

    with Stop() as stop, TrackStore(Path(sys.argv[1])) as store:
        print("ready", flush=True)
        while not stop.requested:
            time.sleep(0.01)
        store.add([(track(), b"jpeg")])  # who is still in view
    print(f"kept, because of {stop.reason}, failed {stop.failed}")
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_in_order(tmp_path: Path, number: signal.Signals) -> None:
    from tagclip.runtime.store import TrackStore

    path = tmp_path / "north.db"
    with child(DEVICE, path) as process:
        process.send_signal(number)
        out, err = process.communicate(timeout=LONG_S)
        assert (process.returncode, out, err) == (0, f"kept, because of {number.name}, failed False\n", "")
    assert not path.with_name("north.db-wal").exists()  # closed, not left behind
    with TrackStore(path, read_only=True) as store:
        assert len(store) == 1


# The main thread waits in C for a lock that it holds itself: no signal interrupts that, no Python code runs again.
HELD = """
    import ctypes, sys
    from tagclip.runtime.service import Stop

    with Stop(grace_s=float(sys.argv[1])):
        mutex = ctypes.create_string_buffer(256)
        ctypes.CDLL(None).pthread_mutex_lock(mutex)
        print("ready", flush=True)
        ctypes.CDLL(None).pthread_mutex_lock(mutex)
"""


def test_the_second_signal_ends_at_once() -> None:
    """The grace is longer than this test."""
    with child(HELD, 10 * LONG_S) as process:
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        process.send_signal(signal.SIGINT)
        assert process.wait(LONG_S) == 128 + signal.SIGINT


def test_who_does_not_come_to_an_end_is_ended() -> None:
    with child(HELD, 0.2) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(LONG_S) == 1
        assert process.stderr is not None
        assert "not at an end 0.2 s after SIGTERM; ended" in process.stderr.read()


def test_request_and_wait() -> None:
    """From another thread; the first reason counts, and the earlier handlers hold afterwards."""
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    threads = threading.active_count()
    with Stop() as stop:
        assert not stop.requested and not stop.wait(0.01)
        threading.Timer(0.05, stop.request, ["memory: 900 MB"], {"failed": True}).start()
        assert stop.wait(LONG_S) and stop.requested
        stop.request("too late")
        assert (stop.reason, stop.failed) == ("memory: 900 MB", True)
        os.kill(os.getpid(), signal.SIGTERM)  # and a signal after it is the first signal
        time.sleep(0.05)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    assert signal.set_wakeup_fd(-1) == -1
    deadline_s = time.monotonic() + LONG_S
    while threading.active_count() > threads and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert threading.active_count() == threads


@pytest.fixture
def systemd(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[socket.socket]:
    """The socket on which systemd listens: a path, or with `abstract` a name without a file."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    name = (
        f"@tagclip-{os.getpid()}" if getattr(request, "param", "") == "abstract" else str(tmp_path / "notify")
    )
    listener.bind("\0" + name[1:] if name[0] == "@" else name)
    listener.settimeout(LONG_S)
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    yield listener
    listener.close()


def pending(listener: socket.socket) -> list[str]:
    """All that has been sent."""
    listener.setblocking(False)
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(listener.recv(4096).decode())
    return found


@pytest.mark.parametrize("systemd", ["path", "abstract"], indirect=True)
def test_systemd_is_told(systemd: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "400000")  # so a beat every 0.1 s
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    now_s = [50.0]
    notifier = Notifier(clock=lambda: now_s[0])
    notifier.ready("watching rtsp://a:pw@cam\nREADY=0")
    assert systemd.recv(4096) == b"READY=1\nSTATUS=watching rtsp://***@cam READY=0"  # no line of its own
    sent = []
    for _ in range(160):  # 16 frames a second
        notifier.alive("16.0 frames/s")
        sent += [(now_s[0] - 50, text) for text in pending(systemd)]
        now_s[0] += 1 / 16
    beats = [time_s for time_s, text in sent if text.startswith("WATCHDOG=1")]
    assert max(later - earlier for earlier, later in zip(beats, beats[1:], strict=False)) <= 0.2  # half of it
    assert len(beats) == 80  # every second frame
    assert [time_s for time_s, text in sent if "STATUS=16.0 frames/s" in text] == [0.0, 5.0]
    notifier.stopping("SIGTERM")
    assert pending(systemd) == ["STOPPING=1\nSTATUS=SIGTERM"]
    notifier.close()
    notifier.alive()
    assert pending(systemd) == []


def test_a_watchdog_of_another_process_is_none(
    systemd: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "1000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    notifier = Notifier()
    notifier.alive()
    assert pending(systemd) == []
    notifier.close()


def test_a_deaf_systemd_stops_nothing(systemd: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its queue is full, then it is gone."""
    monkeypatch.setenv("WATCHDOG_USEC", "4")
    notifier = Notifier()
    for _ in range(3000):
        notifier.alive()
    assert 0 < len(pending(systemd)) < 3000
    systemd.close()
    notifier.alive()
    notifier.stopping()
    notifier.close()


@pytest.mark.parametrize("name", ["", "vsock:2:1234", "relative"])
def test_without_systemd_nothing_happens(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    notifier = Notifier()
    notifier.ready()
    notifier.alive("fine")
    notifier.close()


UNIT = Path(__file__).parent.parent.parent / "runtime" / "data" / "tagclip.service"


def verify(unit: str, folder: Path) -> str:
    """What systemd has to say against a unit whose command exists."""
    path = folder / "tagclip.service"
    path.write_text(re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", unit))
    command = ["systemd-analyze", "verify", "--man=no", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONG_S)
    return done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("name", ["tagclip.service", "tagclip-station.service"])
def test_systemd_takes_the_unit(tmp_path: Path, name: str) -> None:
    unit = UNIT.with_name(name).read_text()
    assert verify(unit, tmp_path) == ""
    assert "WatchdogSeconds" in verify(
        unit.replace("WatchdogSec", "WatchdogSeconds"), tmp_path
    )  # it would say so


def test_the_unit_fits_the_program() -> None:
    unit = dict(re.findall(r"(?m)^(\w+)=(.*)$", UNIT.read_text()))
    assert (unit["Type"], unit["Restart"], unit["StartLimitIntervalSec"]) == ("notify", "always", "0")
    assert int(unit["TimeoutStopSec"]) > GRACE_S
    assert "ProtectClock" not in unit and "PrivateDevices" not in unit and "PrivateTmp" not in unit
    assert unit["WorkingDirectory"] == f"/var/lib/{unit['StateDirectory']}"


def test_the_stations_unit_fits_the_program() -> None:
    """Its command is one that the program takes; folder, time to end and connections are enough."""
    from tagclip.runtime.station.cli import station
    from tagclip.runtime.station.server import MAX_CONNECTIONS

    unit = dict(re.findall(r"(?m)^(\w+)=(.*)$", UNIT.with_name("tagclip-station.service").read_text()))
    program, command, *options = unit["ExecStart"].split()
    assert (unit["Type"], unit["Restart"], program, command) == (
        "notify",
        "always",
        "/opt/tagclip/bin/tagclip",
        "station",
    )
    given = station.make_context("station", options).params
    assert str(given["data"]) == unit["WorkingDirectory"] == f"/var/lib/{unit['StateDirectory']}"
    assert int(unit["TimeoutStopSec"]) > GRACE_S and int(unit["LimitNOFILE"]) > MAX_CONNECTIONS

"""Telemetry that arrives while the device runs: UDP, TCP and serial lines."""

from __future__ import annotations

import contextlib
import os
import pty
import socket
import threading
import time
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pymavlink")

from fixtures.autopilot import Sender
from pymavlink.dialects.v20 import ardupilotmega as second

from tagclip.runtime import mavlink_wire
from tagclip.runtime.errors import ConfigError
from tagclip.runtime.mavlink_link import LiveTelemetry, is_link
from tagclip.runtime.telemetry import CameraPose, Telemetry

SOON_S = 30.0


def until(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < end_s, "it did not happen"
        time.sleep(0.01)


@contextlib.contextmanager
def listening(address: str, fixed: CameraPose | None = None) -> Iterator[LiveTelemetry]:
    link = LiveTelemetry(address, fixed or CameraPose())
    try:
        yield link
    finally:
        begun_s = time.monotonic()
        link.close()
        assert time.monotonic() - begun_s < 4 and not link._thread.is_alive()


def free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_a_link_by_udp_with_garbage_between() -> None:
    port = free_port(socket.SOCK_DGRAM)
    files = len(os.listdir("/proc/self/fd"))
    with (
        listening(f"udp:127.0.0.1:{port}", CameraPose(field_of_view_deg=70)) as link,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out,
    ):
        begun_s = time.monotonic()
        link.begin(begun_s)
        for k in range(20):
            out.sendto(bytes(50), ("127.0.0.1", port))
            out.sendto(b"", ("127.0.0.1", port))
            out.sendto(Sender().position(47, 8, 10 + k) + Sender().text(), ("127.0.0.1", port))
            time.sleep(0.1)
        until(lambda: link.messages >= 40)
        pose = link.at(time.monotonic() - begun_s)
        assert (pose.altitude_m, pose.field_of_view_deg, link.bad, link.trouble) == (29, 70, 1000, "")
        assert link.at(time.monotonic() - begun_s + 60).altitude_m is None
        out.settimeout(0.3)
        with pytest.raises(TimeoutError):  # nothing is ever sent back
            out.recv(100)
    assert len(os.listdir("/proc/self/fd")) == files


def test_a_link_by_tcp_that_dies_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tagclip.runtime.mavlink_link.AGAIN_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        with listening(f"tcp:127.0.0.1:{server.getsockname()[1]}") as link:
            for k in range(3):
                connection, _ = server.accept()
                with connection:
                    packet = Sender().position(47, 8, 10 + k)
                    connection.sendall(packet[:9])
                    time.sleep(0.05)
                    connection.sendall(packet[9:] + packet[:5])  # it breaks within a packet
                    until(lambda: link.messages == k + 1)  # noqa: B023, asked at once
            assert link.at(time.monotonic()).altitude_m == 12 and link.bad == 0
            until(lambda: link.failures >= 3 and link.trouble != "")


def test_a_connection_that_falls_silent_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its other end lost power: no end of it ever comes."""
    monkeypatch.setattr("tagclip.runtime.mavlink_link.AGAIN_S", 0.1)
    monkeypatch.setattr("tagclip.runtime.mavlink_link.SILENT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(SOON_S)
        with listening(f"tcp:127.0.0.1:{server.getsockname()[1]}"):
            one, _ = server.accept()
            two, _ = server.accept()
            one.close()
            two.close()


def test_a_serial_line() -> None:
    ours, theirs = pty.openpty()
    try:
        with listening(f"serial:{os.ttyname(theirs)}:57600") as link:
            until(lambda: link.opened == 1)
            sent = [Sender().position(47, 8, 20), bytes(range(1, 32)), Sender().fix(3)]
            threading.Thread(target=lambda: os.write(ours, b"".join(sent))).start()
            until(lambda: link.messages >= 2)
            assert link.at(time.monotonic()).altitude_m == 20 and link.bad == 31
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_line_that_is_not_there_does_not_stop_anything() -> None:
    with listening("serial:/dev/none-such:57600") as link:
        until(lambda: link.failures == 1)
        assert "No such file" in link.trouble and link.at(0) == CameraPose()


@pytest.mark.parametrize(
    "text",
    [
        "udp:",
        "udp:host:0",
        "udp:host:70000",
        "udp::14550",
        "tcp:host",
        "serial:/dev/x:1234",
        "udp:a b:1",
        "x.tlog",
    ],
)
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="expected udp:HOST:PORT"):
        LiveTelemetry(text, CameraPose())
    assert is_link(text) == (text != "x.tlog")


def test_a_port_that_is_taken() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
        there.bind(("127.0.0.1", 0))
        with pytest.raises(ConfigError, match="is another program there already"):
            LiveTelemetry(f"udp:127.0.0.1:{there.getsockname()[1]}", CameraPose())


def test_memory_is_bounded() -> None:
    """Ten minutes of a craft that tells fifty positions a second: the last two stay, ten a second."""
    now = [1000.0]
    with contextlib.closing(
        LiveTelemetry("serial:/dev/none-such:57600", CameraPose(), clock=lambda: now[0])
    ) as link:
        packets = [Sender().position(47, 8, k) for k in range(50)]
        for _ in range(600):
            for k in range(50):
                now[0] += 0.02
                link._take(packets[k])
        assert 1000 <= len(link._rows) <= 1201 and link.at(now[0]).altitude_m is not None
        assert link.at(now[0] - 119).altitude_m is not None and link.at(now[0] - 125).altitude_m is None


def test_what_is_told_is_what_is_interpolated() -> None:
    """The reader's rows go through Telemetry as any file's do."""
    rows = [{"time_s": 0.0, "altitude_m": 10.0}, {"time_s": 1.0, "altitude_m": 20.0}]
    assert Telemetry(rows).at(0.25).altitude_m == 12.5
    assert mavlink_wire.SIGNED == second.MAVLINK_IFLAG_SIGNED


def test_a_live_camera_goes_with_a_link_and_a_file_with_a_file(
    tmp_path: Path, run: Callable[..., Any]
) -> None:
    clip = resources.files("tagclip.runtime") / "data" / "example.mp4"
    for source, told in ((clip, "udp:127.0.0.1:14550"), ("tcp://127.0.0.1:9", "a.csv")):
        status, _, err = run(
            "run", source, "--store", tmp_path / "a.db", "--telemetry", told, "--log", "text"
        )
        assert status == 1 and "a live camera goes with a link" in err

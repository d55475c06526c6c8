"""MAVLink: packets made by pymavlink, in logs and over real links."""

from __future__ import annotations

import contextlib
import math
import os
import pty
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pymavlink")

from pymavlink.dialects.v20 import common

from tagclip.runtime.errors import ConfigError, SourceError
from tagclip.runtime.mavlink import Craft, look_of, packet_length
from tagclip.runtime.mavlink_link import LiveTelemetry
from tagclip.runtime.telemetry import CameraPose, read_telemetry

SOON_S = 30.0


class Sender:
    """Packs messages as a flight controller does."""

    def __init__(self, system: int = 1) -> None:
        self.mav = common.MAVLink(None, srcSystem=system, srcComponent=1)

    def position(self, lat: float, lon: float, above_m: float) -> bytes:
        message = common.MAVLink_global_position_int_message(
            0, round(lat * 1e7), round(lon * 1e7), 500_000, round(above_m * 1000), 0, 0, 0, 65535
        )
        return bytes(message.pack(self.mav))

    def attitude(self, roll: float, pitch: float, yaw: float) -> bytes:
        message = common.MAVLink_attitude_message(0, *map(math.radians, (roll, pitch, yaw)), 0, 0, 0)
        return bytes(message.pack(self.mav))

    def gimbal(self, q: tuple[float, ...], flags: int) -> bytes:
        message = common.MAVLink_gimbal_device_attitude_status_message(0, 0, 0, flags, q, 0, 0, 0, 0)
        return bytes(message.pack(self.mav))

    def other(self, message: Any) -> bytes:
        return bytes(message.pack(self.mav))


def quaternion(roll: float, pitch: float, yaw: float) -> tuple[float, ...]:
    """Of angles in degrees, pitch up: the three turns one after the other."""

    def turn(axis: int, angle: float) -> np.ndarray:
        q = np.zeros(4)
        q[0], q[1 + axis] = math.cos(math.radians(angle) / 2), math.sin(math.radians(angle) / 2)
        return q

    def times(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        vector = a[0] * b[1:] + b[0] * a[1:] + np.cross(a[1:], b[1:])
        return np.array([a[0] * b[0] - a[1:] @ b[1:], *vector])

    return tuple(map(float, times(times(turn(2, yaw), turn(1, pitch)), turn(0, roll))))


def told(*packets: bytes, mount: float = 0.0) -> dict[str, float]:
    craft, reader, pose = Craft(mount), common.MAVLink(None), {}
    for packet in packets:
        for message in reader.parse_buffer(packet) or ():
            pose = craft.take(message) or pose
    return pose


def until(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < end_s, "it did not happen"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("roll", "pitch", "yaw"), [(0, -60, 90), (5, -30, -120), (-10, 0, 0), (0, 20, 179), (3, -85, 45)]
)
def test_where_a_quaternion_looks(roll: float, pitch: float, yaw: float) -> None:
    found = look_of(*quaternion(roll, pitch, yaw))
    assert found == pytest.approx({"pitch_deg": -pitch, "yaw_deg": yaw, "roll_deg": roll}, abs=1e-9)


@pytest.mark.parametrize("yaw", [0.0, 90.0, -135.0])
def test_straight_down_the_yaw_is_that_of_the_pictures_upper_edge(yaw: float) -> None:
    found = look_of(*quaternion(0, -90, yaw))
    assert found == pytest.approx({"pitch_deg": 90, "yaw_deg": yaw, "roll_deg": 0}, abs=1e-6)


def test_a_gimbals_yaw_counts_from_north_or_from_the_nose() -> None:
    send = Sender()
    q = quaternion(0, -60, 20)
    assert told(send.attitude(0, 0, 30), send.gimbal(q, 32))["yaw_deg"] == pytest.approx(50, abs=1e-4)
    assert told(send.attitude(0, 0, 30), send.gimbal(q, 64))["yaw_deg"] == pytest.approx(20, abs=1e-4)
    assert told(send.attitude(0, 0, 30), send.gimbal(q, 16))["yaw_deg"] == pytest.approx(20, abs=1e-4)
    assert told(send.attitude(0, 0, 170), send.gimbal(q, 0))["yaw_deg"] == pytest.approx(-170, abs=1e-4)
    assert "yaw_deg" not in told(send.gimbal(q, 32))  # the nose is not known
    assert told(send.gimbal(q, 32))["pitch_deg"] == pytest.approx(60, abs=1e-4)


def test_a_camera_that_is_fixed_to_the_craft() -> None:
    """Nose up by 10 degrees: who is mounted 40 below it looks 30 below the horizon."""
    found = told(Sender().attitude(4, 10, -90), mount=40.0)
    assert found == pytest.approx({"pitch_deg": 30, "roll_deg": 4, "yaw_deg": -90}, abs=1e-4)


def test_the_older_words_for_a_gimbal() -> None:
    send = Sender()
    orientation = send.other(common.MAVLink_mount_orientation_message(0, 2.0, -45.0, 10.0, 100.0))
    assert told(orientation) == pytest.approx({"pitch_deg": 45, "roll_deg": 2, "yaw_deg": 100}, abs=1e-4)


def test_positions_and_fixes() -> None:
    send = Sender()
    here = {"latitude_deg": 47.3977, "longitude_deg": 8.5456, "altitude_m": 42.5}
    assert told(send.position(47.3977, 8.5456, 42.5)) == pytest.approx(here, abs=1e-6)
    assert told(send.position(0, 0, 3)) == {"altitude_m": 3}
    lost = send.other(common.MAVLink_gps_raw_int_message(0, 1, 0, 0, 0, 0, 0, 0, 0, 0))
    assert told(send.position(47.3977, 8.5456, 42.5), lost) == {"altitude_m": 42.5}
    lens = common.MAVLink_camera_fov_status_message(0, 0, 0, 0, 0, 0, 0, (1, 0, 0, 0), 62.0, 40.0)
    assert told(send.other(lens)) == pytest.approx({"field_of_view_deg": 62.0})


def test_another_craft_is_left_out() -> None:
    craft, reader = Craft(), common.MAVLink(None)
    for system, height in ((255, 1.0), (7, 20.0), (9, 30.0)):
        for message in reader.parse_buffer(Sender(system).position(1, 1, height)):
            pose = craft.take(message)
            if system == 7:
                assert pose is not None and pose["altitude_m"] == 20
            else:
                assert pose is None
    assert craft.others == 2


def write_log(path: Path, start_s: float, packets: list[bytes], damage: bytes = b"") -> Path:
    data = b"".join(
        struct.pack(">Q", round((start_s + k) * 1e6)) + packet for k, packet in enumerate(packets)
    )
    path.write_bytes(damage + data)
    return path


def test_a_log(tmp_path: Path) -> None:
    send = Sender()
    packets = [send.position(47.0 + k * 1e-4, 8.0, 10.0 + k) for k in range(10)]
    path = write_log(tmp_path / "a.tlog", 1_800_000_000.0, packets)
    telemetry = read_telemetry(path, CameraPose(field_of_view_deg=60), start_s=1_800_000_002.0)
    pose = telemetry.at(3.5)  # of the footage: 5.5 seconds after the log began
    assert pose.altitude_m == pytest.approx(15.5) and pose.latitude_deg == pytest.approx(47.00055, abs=1e-6)
    assert pose.field_of_view_deg == 60 and telemetry.at(300).altitude_m is None


@pytest.mark.parametrize("damage", [b"\xfd\xff" * 40, bytes(100), b"\xfe\x09\x00\x01\x01"])
def test_a_damaged_log(tmp_path: Path, damage: bytes) -> None:
    send = Sender()
    path = write_log(tmp_path / "a.tlog", 1e9, [send.position(1, 1, k) for k in range(20)], damage)
    path.write_bytes(path.read_bytes()[:-7])  # ends within a packet
    heights = [read_telemetry(path, start_s=1e9).at(k).altitude_m for k in (5, 18)]
    assert heights == [5, 18]


@pytest.mark.parametrize("data", [b"", b"nothing of the kind" * 100])
def test_no_log(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.tlog").write_bytes(data)
    with pytest.raises(SourceError, match="no position and no attitude in it"):
        read_telemetry(tmp_path / "a.tlog")
    with pytest.raises(SourceError, match="cannot read the telemetry"):
        read_telemetry(tmp_path / "none.tlog")


def test_random_bytes_never_raise() -> None:
    rng, reader, craft = np.random.default_rng(0), common.MAVLink(None), Craft()
    reader.robust_parsing = True
    whole = Sender().position(1, 1, 1) + Sender().attitude(0, 0, 0)
    for _ in range(2000):
        packet = bytearray(whole)
        for at in rng.integers(0, len(packet), 3):
            packet[at] = rng.integers(256)
        for message in reader.parse_buffer(bytes(packet)) or ():
            craft.take(message)
    assert packet_length(b"\x00\x01\x02") is None


@contextlib.contextmanager
def listening(address: str, fixed: CameraPose | None = None) -> Iterator[LiveTelemetry]:
    link = LiveTelemetry(address, fixed or CameraPose())
    try:
        yield link
    finally:
        link.close()


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
            out.sendto(os.urandom(50), ("127.0.0.1", port))
            out.sendto(Sender().position(47, 8, 10 + k), ("127.0.0.1", port))
        until(lambda: link.messages >= 20)
        pose = link.at(time.monotonic() - begun_s)
        assert (pose.altitude_m, pose.field_of_view_deg) == (29, 70) and link.bad > 0
        assert link.at(time.monotonic() - begun_s + 60).altitude_m is None
    assert len(os.listdir("/proc/self/fd")) == files


def test_a_link_by_tcp_that_dies_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tagclip.runtime.mavlink_link.AGAIN_S", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as server:
        with listening(f"tcp:127.0.0.1:{server.getsockname()[1]}") as link:
            for k in range(3):
                connection, _ = server.accept()
                with connection:
                    connection.sendall(Sender().position(47, 8, 10 + k))
                    until(lambda: link.messages == k + 1)  # noqa: B023, asked at once
            assert link.at(time.monotonic()).altitude_m == 12


def test_a_serial_line() -> None:
    ours, theirs = pty.openpty()
    try:
        with listening(f"serial:{os.ttyname(theirs)}:57600") as link:
            time.sleep(0.2)

            def send() -> None:
                os.write(ours, Sender().attitude(0, 0, 45))

            threading.Thread(target=send).start()
            until(lambda: link.messages >= 1)
            assert link.at(time.monotonic()).yaw_deg == pytest.approx(45, abs=1e-4)
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize(
    "text", ["udp:", "udp:host:0", "udp:host:70000", "tcp:host", "serial:/dev/x:1234", "udp:a b:1"]
)
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="expected udp:HOST:PORT"):
        LiveTelemetry(text, CameraPose())


def test_a_port_that_is_taken() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
        there.bind(("127.0.0.1", 0))
        with pytest.raises(ConfigError, match="is another program there already"):
            LiveTelemetry(f"udp:127.0.0.1:{there.getsockname()[1]}", CameraPose())


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is heard, the last KEPT_S stay."""
    monkeypatch.setattr("tagclip.runtime.mavlink_link.KEPT_S", 5.0)
    port, now = free_port(socket.SOCK_DGRAM), [1000.0]
    link = LiveTelemetry(f"udp:127.0.0.1:{port}", CameraPose(), clock=lambda: now[0])
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            for k in range(50):
                now[0] = 1000.0 + k
                out.sendto(Sender().position(47, 8, k), ("127.0.0.1", port))
                until(lambda: link.messages == k + 1)  # noqa: B023, asked at once
        assert len(link._rows) == 6 and link.at(1049.0).altitude_m == 49
    finally:
        link.close()


def test_a_live_camera_goes_with_a_link_and_a_file_with_a_file(
    tmp_path: Path, run: Callable[..., Any]
) -> None:
    from importlib import resources

    clip = resources.files("tagclip.runtime") / "data" / "example.mp4"
    for source, told in ((clip, "udp:127.0.0.1:14550"), ("tcp://127.0.0.1:9", "a.csv")):
        status, _, err = run(
            "run", source, "--store", tmp_path / "a.db", "--telemetry", told, "--log", "text"
        )
        assert status == 1 and "a live camera goes with a link" in err

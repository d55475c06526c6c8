"""MAVLink: packets made by pymavlink, the reference, in logs and over real links."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import pty
import random
import socket
import struct
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pymavlink")

from pymavlink.dialects.v10 import ardupilotmega as first
from pymavlink.dialects.v20 import ardupilotmega as second

from tagclip.runtime import mavlink_wire
from tagclip.runtime.errors import ConfigError, SourceError
from tagclip.runtime.ground import place_of
from tagclip.runtime.mavlink import MOST_ROWS, SETTLE_S, Craft, look_of, quaternion_of
from tagclip.runtime.mavlink_link import LiveTelemetry, is_link
from tagclip.runtime.mavlink_wire import KINDS, LONGEST, Wire
from tagclip.runtime.telemetry import CameraPose, Telemetry, read_telemetry

SOON_S = 30.0
FROM_NOSE, FROM_NORTH, LOCKED = 32, 64, 16  # GIMBAL_DEVICE_FLAGS


class Sender:
    """Packs messages as a flight controller does, or a gimbal."""

    def __init__(self, system: int = 1, component: int = 1, dialect: Any = second) -> None:
        self.dialect = dialect
        self.mav = dialect.MAVLink(None, srcSystem=system, srcComponent=component)

    def pack(self, name: str, *values: Any) -> bytes:
        return bytes(getattr(self.dialect, f"MAVLink_{name}_message")(*values).pack(self.mav))

    def position(self, lat: float, lon: float, above_m: float, heading: float | None = None) -> bytes:
        hdg = 65535 if heading is None else round(heading * 100)
        at = (round(lat * 1e7), round(lon * 1e7), 500_000, round(above_m * 1000))
        return self.pack("global_position_int", 7, *at, 0, 0, 0, hdg)

    def attitude(self, roll: float, pitch: float, yaw: float) -> bytes:
        return self.pack("attitude", 7, *map(math.radians, (roll, pitch, yaw)), 0, 0, 0)

    def gimbal(self, q: tuple[float, ...], flags: int) -> bytes:
        return self.pack("gimbal_device_attitude_status", 0, 0, 7, flags, q, 0, 0, 0, 0)

    def fix(self, kind: int) -> bytes:
        return self.pack("gps_raw_int", 7, kind, 0, 0, 0, 0, 0, 0, 0, 0)

    def text(self) -> bytes:
        return self.pack("statustext", 6, b"hello there")


def quaternion(roll: float, pitch: float, yaw: float) -> tuple[float, float, float, float]:
    """Of angles in degrees, pitch up: the three turns one after the other."""

    def rotation(axis: int, angle: float) -> np.ndarray:
        q = np.zeros(4)
        q[0], q[1 + axis] = math.cos(math.radians(angle) / 2), math.sin(math.radians(angle) / 2)
        return q

    def times(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        vector = a[0] * b[1:] + b[0] * a[1:] + np.cross(a[1:], b[1:])
        return np.array([a[0] * b[0] - a[1:] @ b[1:], *vector])

    w, x, y, z = map(float, times(times(rotation(2, yaw), rotation(1, pitch)), rotation(0, roll)))
    return w, x, y, z


def told(*packets: bytes, mount: float = 0.0, every_s: float = 0.1) -> dict[str, float]:
    """Everything that was told last, with `every_s` from one packet to the next."""
    craft, pose = Craft(mount), {}
    for k, packet in enumerate(packets):
        for message in Wire().take(packet, last=True):
            pose |= craft.take(message, 100.0 + k * every_s) or {}
    pose.pop("time_s", None)
    return pose


def until(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < end_s, "it did not happen"
        time.sleep(0.01)


VALUES: dict[str, tuple[Any, ...]] = {
    "attitude": (7, 0.1, -0.2, 0.3, 0.01, 0.02, 0.03),
    "global_position_int": (7, 473977000, -85456000, 500_000, -42_500, 1, -2, 3, 35_999),
    "gps_raw_int": (7, 3, 473977000, 85456000, 500_000, 1, 2, 3, 4, 5),
    "mount_status": (0, 0, -4500, 150, 12_000),
}
NEWER: dict[str, tuple[Any, ...]] = {
    **VALUES,
    "mount_orientation": (7, 2.0, -45.0, 10.0, 100.0),
    "camera_fov_status": (7, 1, 2, 3, 4, 5, 6, (1, 0, 0, 0), 62.0, 40.0),
    "gimbal_device_attitude_status": (1, 1, 7, 32, (0.5, 0.5, -0.5, 0.5), 0.1, 0.2, 0.3, 0, 0.4, 0.5, 1),
}


@pytest.mark.parametrize(
    ("dialect", "name", "values"),
    [(d, name, values) for d, table in ((first, VALUES), (second, NEWER)) for name, values in table.items()],
)
def test_packets_say_what_the_reference_put_in(dialect: Any, name: str, values: tuple[Any, ...]) -> None:
    sender = Sender(3, 9, dialect)
    (found,) = Wire().take(sender.pack(name, *values), last=True)
    (expected,) = dialect.MAVLink(None).parse_buffer(sender.pack(name, *values))
    kind = KINDS[expected.get_msgId()]
    assert (found.system, found.component, found.kind) == (3, 9, expected.get_msgId())
    assert found.values is not None
    for field, value in zip(kind.fields, found.values, strict=True):
        there = expected.q["wxyz".index(field)] if field in "wxyz" else getattr(expected, field, 0.0)
        assert value == there, field
    assert kind.seed == second.mavlink_map[found.kind].crc_extra


def test_the_table_is_the_references() -> None:
    for number, kind in KINDS.items():
        reference = second.mavlink_map[number]
        assert kind.seed == reference.crc_extra and kind.layout.size <= reference.unpacker.size


def test_signed_packets_are_read() -> None:
    sender = Sender()
    sender.mav.signing.secret_key, sender.mav.signing.sign_outgoing = bytes(32), True
    packet = sender.attitude(0, 0, 45)
    assert packet[2] == 1  # it is signed
    wire = Wire()
    assert [found.kind for found in wire.take(packet * 3)] == [30, 30, 30] and wire.bad == 0


def test_packets_in_pieces_of_any_size() -> None:
    send = Sender()
    packets = [
        send.attitude(0, 0, 1),
        send.text(),
        Sender(dialect=first).attitude(0, 0, 2),
        send.position(1, 2, 3),
    ]
    stream = b"".join(packets * 5)
    for size in (1, 2, 3, 7, 50, 1000):
        wire = Wire()
        found = [p for k in range(0, len(stream), size) for p in wire.take(stream[k : k + size])]
        assert [p.kind for p in found] == [30, 253, 30, 33] * 5 and wire.bad == 0


def test_garbage_is_counted_and_never_kept() -> None:
    rng = random.Random(0)
    send = Sender()
    wire, garbage, sent, found = Wire(), 0, 0, []
    for k in range(20_000):
        noise = rng.randbytes(rng.randrange(40)).translate(None, b"\xfd\xfe")
        packet = send.attitude(0, 0, k % 360)
        if k % 3 == 1:  # a bit flips on the way
            at = rng.randrange(10, len(packet))
            packet = packet[:at] + bytes((packet[at] ^ 1 << rng.randrange(8),)) + packet[at + 1 :]
            packet = packet[:1] + packet[1:].translate(None, b"\xfd\xfe")
            garbage += len(packet)
        else:
            sent += 1
        garbage += len(noise)
        found += wire.take(noise + packet)
        assert len(wire._rest) <= LONGEST
    found += wire.take(b"", last=True)
    assert len([p for p in found if p.kind == 30]) >= 0.99 * sent
    assert wire.bad == pytest.approx(garbage, rel=0.01)


def test_random_bytes_never_raise_nor_are_believed() -> None:
    rng, stream, craft = random.Random(1), Wire(), Craft()
    believed = 0
    for k in range(100_000):
        data = rng.randbytes(rng.randrange(1, 60))
        head = bytes((rng.choice((0xFD, 0xFE)), rng.randrange(30), 0))
        for packet in (*stream.take(data), *Wire().take(head + data, last=True)):
            believed += packet.values is not None
            craft.take(packet, float(k))
        assert len(stream._rest) <= LONGEST
    assert believed <= 5  # one in 65,536 of the right kind passes the checksum


def test_hostile_values_are_left_out() -> None:
    send = Sender()
    for value in (math.nan, math.inf, -math.inf, 1e30, -1e30):
        assert told(send.attitude(value, value, value), every_s=6) == {}
        assert told(send.position(1, 1, 5), send.gimbal((value,) * 4, FROM_NORTH)).keys() <= {
            "latitude_deg", "longitude_deg", "altitude_m",
        }  # fmt: skip
        found = told(send.position(1, 1, 5), send.pack("mount_orientation", 0, value, value, value, value))
        assert not found.keys() & {"pitch_deg", "roll_deg"}
    assert told(send.position(200, 8, 5)) == {"altitude_m": 5, "longitude_deg": 8}
    assert told(send.gimbal((0, 0, 0, 0), FROM_NORTH)) == {}


@pytest.mark.parametrize(
    ("roll", "pitch", "yaw"), [(0, -60, 90), (5, -30, -120), (-10, 0, 0), (0, 20, 179), (3, -85, 45)]
)
def test_where_a_quaternion_looks(roll: float, pitch: float, yaw: float) -> None:
    found = look_of(quaternion(roll, pitch, yaw))
    assert found == pytest.approx({"pitch_deg": -pitch, "yaw_deg": yaw, "roll_deg": roll}, abs=1e-9)
    assert quaternion_of(*map(math.radians, (roll, pitch, yaw))) == pytest.approx(
        quaternion(roll, pitch, yaw)
    )


def test_a_golden_quaternion() -> None:
    """Pitch -60 and yaw 90: cos 45 (cos 30, sin 30, -sin 30, cos 30), by hand."""
    half, s, c = math.sqrt(0.5), 0.5, math.sqrt(0.75)
    found = look_of((half * c, half * s, -half * s, half * c))
    assert found == pytest.approx({"pitch_deg": 60, "yaw_deg": 90, "roll_deg": 0}, abs=1e-9)


@pytest.mark.parametrize("yaw", [0.0, 90.0, -135.0])
def test_straight_down_the_yaw_is_that_of_the_pictures_upper_edge(yaw: float) -> None:
    found = look_of(quaternion(0, -90, yaw))
    assert found == pytest.approx({"pitch_deg": 90, "yaw_deg": yaw, "roll_deg": 0}, abs=1e-6)


def test_a_gimbals_yaw_counts_from_north_or_from_the_nose() -> None:
    send = Sender()
    q = quaternion(0, -60, 20)

    def yaw(vehicle: float, flags: int) -> Any:
        return told(send.attitude(0, 0, vehicle), send.gimbal(q, flags))["yaw_deg"]

    assert yaw(30, FROM_NOSE) == pytest.approx(50, abs=1e-4)
    assert yaw(30, FROM_NORTH) == pytest.approx(20, abs=1e-4)
    assert yaw(30, LOCKED) == pytest.approx(20, abs=1e-4)  # says nothing of the frame: older gimbals
    assert yaw(30, LOCKED | FROM_NOSE) == pytest.approx(50, abs=1e-4)
    assert yaw(170, 0) == pytest.approx(-170, abs=1e-4)


def test_without_a_recent_heading_a_yaw_from_the_nose_is_not_known() -> None:
    send = Sender()
    q = quaternion(0, -60, 20)
    found = told(send.position(1, 1, 1), send.gimbal(q, FROM_NOSE))
    assert "yaw_deg" not in found and found["pitch_deg"] == pytest.approx(60, abs=1e-4)
    assert "yaw_deg" not in told(send.attitude(0, 0, 30), send.gimbal(q, FROM_NOSE), every_s=2.1)
    found = told(send.position(1, 1, 1, heading=350), send.gimbal(q, FROM_NOSE))
    assert found["yaw_deg"] == pytest.approx(10, abs=1e-4)


def test_the_older_words_for_a_gimbal() -> None:
    send, nose = Sender(), Sender().attitude(0, 0, 30)
    older = send.pack("mount_status", 0, 0, -4500, 150, 2000)
    assert told(nose, older) == pytest.approx({"pitch_deg": 45, "roll_deg": 1.5, "yaw_deg": 50}, abs=1e-4)
    absolute = send.pack("mount_orientation", 0, 2.0, -45.0, 10.0, 100.0)
    assert told(nose, absolute) == pytest.approx({"pitch_deg": 45, "roll_deg": 2, "yaw_deg": 100}, abs=1e-4)
    for none in (
        0.0,
        math.nan,
    ):  # version 2 leaves out zeros: so it is of senders of before there was an absolute one
        relative = send.pack("mount_orientation", 0, 2.0, -45.0, 10.0, none)
        assert told(nose, relative)["yaw_deg"] == pytest.approx(40, abs=1e-4)
    newest = send.gimbal(quaternion(0, -30, 20), FROM_NORTH)
    for order in itertools.permutations((older, absolute, newest)):
        assert told(nose, *order, newest, older)["pitch_deg"] == pytest.approx(30, abs=1e-4)


def test_of_two_gimbals_the_first_counts() -> None:
    nose = Sender().attitude(0, 0, 0)
    packets = [
        Sender(component=154).gimbal(quaternion(0, -30, 0), FROM_NORTH),
        Sender(component=171).gimbal(quaternion(0, -70, 0), FROM_NORTH),
    ]
    assert told(nose, *packets)["pitch_deg"] == pytest.approx(30, abs=1e-4)
    own = Sender(component=154).attitude(0, -80, 170)  # a gimbal's own attitude is not the craft's
    assert told(nose, own, Sender().gimbal(quaternion(0, -30, 20), FROM_NOSE))["yaw_deg"] == pytest.approx(
        20, abs=1e-4
    )


def bolted(roll: float, pitch: float, yaw: float, mount: float) -> CameraPose:
    return CameraPose(**told(*[Sender().attitude(roll, pitch, yaw)] * 3, mount=mount, every_s=3.0))


def test_a_camera_that_is_fixed_to_the_craft() -> None:
    """Nose up by 10 degrees: who is mounted 40 below it looks 30 below the horizon."""
    assert vars(bolted(0, 10, -90, 40)) == pytest.approx(
        vars(CameraPose(pitch_deg=30, yaw_deg=-90, roll_deg=0)), abs=1e-4
    )
    assert bolted(4, 0, 0, 0).roll_deg == pytest.approx(4, abs=1e-4)
    rolled = bolted(20, 0, 0, 90)  # a belly camera looks to the left when the right side goes down
    assert rolled.pitch_deg == pytest.approx(70, abs=1e-4) and rolled.yaw_deg == pytest.approx(-90, abs=1e-3)
    # The sine of its pitch is sin 45 cos 20, by hand.
    by_hand = math.degrees(math.asin(math.sqrt(0.5) * math.cos(math.radians(20))))
    assert bolted(20, 0, 0, 45).pitch_deg == pytest.approx(by_hand, abs=1e-3)


@pytest.mark.parametrize(
    ("roll", "pitch", "north", "east"), [(0, -10, -1, 0), (0, 10, 1, 0), (15, 0, 0, -1), (-15, 0, 0, 1)]
)
def test_a_belly_camera_puts_people_where_it_looks(
    roll: float, pitch: float, north: float, east: float
) -> None:
    """From 100 m up, tilted by a degrees, the middle of the picture is 100 tan a away."""
    pose = bolted(roll, pitch, 0, 90)
    whole = replace(pose, latitude_deg=0.0, longitude_deg=0.0, altitude_m=100.0, field_of_view_deg=60.0)
    place = place_of(whole, (630, 350, 20, 20), (1280, 720))
    away = 100 * math.tan(math.radians(abs(roll + pitch))) / 111_195
    assert place is not None
    assert (place.latitude_deg, place.longitude_deg) == pytest.approx((north * away, east * away), abs=2e-6)


def test_a_camera_is_not_taken_to_be_fixed_before_its_gimbal_could_speak() -> None:
    send = Sender()
    assert "pitch_deg" not in told(*[send.attitude(0, 0, 0)] * 4, every_s=SETTLE_S / 4)
    packets = [send.attitude(0, 0, 0), send.gimbal(quaternion(0, -60, 0), FROM_NORTH)]
    assert told(*packets, *[send.attitude(0, 0, 0)] * 9, every_s=2)["pitch_deg"] == pytest.approx(
        60, abs=1e-4
    )


def test_positions_and_fixes() -> None:
    send = Sender()
    here = {"latitude_deg": 47.3977, "longitude_deg": 8.5456, "altitude_m": 42.5}
    assert told(send.position(47.3977, 8.5456, 42.5)) == pytest.approx(here, abs=1e-6)
    assert told(send.position(0, 0, 3)) == {"altitude_m": 3}
    at = send.position(47.3977, 8.5456, 42.5)
    for fix in (0, 1, 2):
        assert told(send.position(0, 0, 1), send.fix(fix), at) == {"altitude_m": 42.5}
    for fix in (3, 4, 6):
        assert told(send.fix(1), send.fix(fix), at) == pytest.approx(here, abs=1e-6)
    lens = send.pack("camera_fov_status", 0, 0, 0, 0, 0, 0, 0, (1, 0, 0, 0), 62.0, 40.0)
    assert told(send.position(1, 1, 1), lens, at)["field_of_view_deg"] == 62
    unknown = send.pack("camera_fov_status", 0, 0, 0, 0, 0, 0, 0, (1, 0, 0, 0), math.nan, 40.0)
    assert "field_of_view_deg" not in told(send.position(1, 1, 1), unknown, at)


def test_another_craft_is_left_out() -> None:
    craft = Craft()
    ground_station = Sender(255).pack("heartbeat", 6, 8, 0, 0, 0, 3)
    packets = [ground_station, *(Sender(system).position(1, 1, system) for system in (7, 9, 7))]
    heights = [
        (craft.take(Wire().take(packet, last=True)[0], float(k)) or {}).get("altitude_m")
        for k, packet in enumerate(packets)
    ]
    assert heights == [None, 7, None, 7] and craft.others == 1


def write_log(path: Path, start_s: float, packets: list[bytes], every_s: float = 1.0) -> Path:
    stamps = (struct.pack(">Q", round((start_s + k * every_s) * 1e6)) for k in itertools.count())
    path.write_bytes(b"".join(stamp + packet for stamp, packet in zip(stamps, packets, strict=False)))
    return path


def test_a_log(tmp_path: Path) -> None:
    send = Sender()
    packets = [send.position(47.0 + k * 1e-4, 8.0, 10.0 + k) for k in range(10)]
    path = write_log(tmp_path / "a.TLOG", 1_800_000_000.0, packets)
    telemetry = read_telemetry(path, CameraPose(field_of_view_deg=60), start_s=1_800_000_002.0)
    pose = telemetry.at(3.5)  # of the footage: 5.5 seconds after the log began
    assert pose.altitude_m == pytest.approx(15.5) and pose.latitude_deg == pytest.approx(47.00055, abs=1e-6)
    assert pose.field_of_view_deg == 60 and telemetry.at(300).altitude_m is None


def test_what_was_told_long_ago_is_not_known(tmp_path: Path) -> None:
    """The receiver of GPS fails, and the attitude goes on."""
    send = Sender()
    path = write_log(tmp_path / "a.tlog", 1e9, [send.position(47, 8, 20), *[send.attitude(0, 0, 30)] * 20])
    telemetry = read_telemetry(path, start_s=1e9)
    assert telemetry.at(1).latitude_deg == 47
    late = telemetry.at(15)
    assert (
        late.latitude_deg is None and late.altitude_m is None and late.yaw_deg == pytest.approx(30, abs=1e-4)
    )


def test_yaw_goes_the_short_way_round(tmp_path: Path) -> None:
    looks = [Sender().gimbal(quaternion(0, -40, yaw), FROM_NORTH) for yaw in (170, -170)]
    path = write_log(tmp_path / "a.tlog", 1e9, [Sender().attitude(0, 0, 0), *looks])
    assert abs(read_telemetry(path, start_s=1e9).at(1.5).yaw_deg or 0) == pytest.approx(180, abs=1e-3)


def test_through_straight_down_the_nearer_line_counts(tmp_path: Path) -> None:
    """A gimbal that swings from 88 degrees of pitch to 92, which is 88 the other way up: never half way round."""
    looks = [Sender().gimbal(quaternion(0, pitch, 0), FROM_NORTH) for pitch in (-86, -88, -92, -94)]
    path = write_log(tmp_path / "a.tlog", 1e9, [Sender().attitude(0, 0, 0), *looks])
    telemetry = read_telemetry(path, start_s=1e9)
    before, after = telemetry.at(2.4), telemetry.at(2.6)
    assert (before.pitch_deg, before.yaw_deg, before.roll_deg) == pytest.approx((88, 0, 0), abs=1e-2)
    assert after.pitch_deg == pytest.approx(88, abs=1e-2)
    assert abs(after.yaw_deg or 0) == abs(after.roll_deg or 0) == pytest.approx(180, abs=1e-2)
    assert telemetry.at(1.5).pitch_deg == pytest.approx(87, abs=1e-2)


def test_a_gimbal_that_speaks_late_makes_the_camera_no_fixed_one(tmp_path: Path) -> None:
    send = Sender()
    packets = [*[send.attitude(0, 0, 30)] * 20, *[send.gimbal(quaternion(0, -60, 0), FROM_NORTH)] * 5]
    telemetry = read_telemetry(write_log(tmp_path / "a.tlog", 1e9, packets), start_s=1e9)
    assert telemetry.at(10).pitch_deg is None and telemetry.at(22).pitch_deg == pytest.approx(60, abs=1e-4)


@pytest.mark.parametrize(
    "damage", [b"", b"\xfd\xff" * 40, bytes(100), b"\xfe\x1c\x00\x01\x01\x21", bytes(range(256))]
)
def test_a_damaged_log(tmp_path: Path, damage: bytes) -> None:
    send = Sender()
    path = write_log(tmp_path / "a.tlog", 1e9, [send.position(1, 1, k) for k in range(20)])
    whole = path.read_bytes()
    at = 10 * (len(whole) // 20)
    path.write_bytes(damage + whole[:at] + damage + whole[at:-7])  # ends within a packet
    telemetry = read_telemetry(path, start_s=1e9)
    assert [telemetry.at(k).altitude_m for k in (0, 5, 9, 10, 18)] == [0, 5, 9, 10, 18]


def test_a_long_log_is_thinned(tmp_path: Path) -> None:
    """Fifty attitudes a second become ten."""
    path = write_log(tmp_path / "a.tlog", 1e9, [Sender().attitude(0, 0, 30)] * 5000, every_s=0.02)
    tracemalloc.start()
    telemetry = read_telemetry(path, start_s=1e9)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 900 <= len(telemetry._series["yaw_deg"][0]) <= 1000
    assert peak < 1000 * 600 + 8 * path.stat().st_size + (4 << 20)
    assert MOST_ROWS * 600 < 1 << 30


@pytest.mark.parametrize("data", [b"", b"nothing of the kind" * 100, os.urandom(3000)])
def test_no_log(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.tlog").write_bytes(data)
    with pytest.raises(SourceError, match="no position and no attitude in it"):
        read_telemetry(tmp_path / "a.tlog")
    with pytest.raises(SourceError, match="cannot read the telemetry"):
        read_telemetry(tmp_path / "none.tlog")


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

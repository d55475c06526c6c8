"""Telemetry in MAVLink: packets against the reference, and where the camera looks by them."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("pymavlink")

from fixtures.autopilot import FROM_NORTH, FROM_NOSE, LOCKED, Sender, quaternion, told
from pymavlink.dialects.v10 import ardupilotmega as first
from pymavlink.dialects.v20 import ardupilotmega as second

from tagclip.runtime.ground import place_of
from tagclip.runtime.mavlink import SETTLE_S, Craft, look_of, quaternion_of
from tagclip.runtime.mavlink_wire import KINDS, LONGEST, Wire
from tagclip.runtime.telemetry import CameraPose

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

"""Logs of MAVLink: who was where when, and what is damaged."""

from __future__ import annotations

import itertools
import os
import struct
import tracemalloc
from pathlib import Path

import pytest

pytest.importorskip("pymavlink")


from fixtures.autopilot import FROM_NORTH, Sender, quaternion

from tagclip.runtime.errors import SourceError
from tagclip.runtime.mavlink import MOST_ROWS
from tagclip.runtime.telemetry import CameraPose, read_telemetry


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

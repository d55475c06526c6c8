"""What a flight controller and its gimbal say over MAVLink, as poses of the camera.

Earth's axes are north, east, down; a quaternion (w, x, y, z) turns the camera's axes (forward, right, down) into them.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from tagclip.runtime import mavlink_wire as wire
from tagclip.runtime.errors import SourceError
from tagclip.runtime.telemetry import LIMITS, LONGEST_GAP_S

FIX_3D = 3
YAW_LOCK, YAW_OF_VEHICLE, YAW_OF_EARTH = 16, 32, 64  # GIMBAL_DEVICE_FLAGS
GIMBALS = (154, 171, 172, 173, 174, 175)  # component ids; some of them tell their own ATTITUDE
SETTLE_S = 5.0  # a gimbal that is there has spoken by then
EVERY_S = 0.09  # a row of each kind; flight controllers tell up to 50 a second
PIECE_BYTES = 1 << 20
MOST_ROWS = 1_000_000  # a day and more; about 400 MB
UNIX_S = (9e8, 5e9)  # what a log's times may be: 1998 to 2128

Quaternion = tuple[float, float, float, float]


class Craft:
    """Poses of the camera of one craft: of the first system from which a position or an attitude is heard.

    The gimbal's newest kind of message counts, of the first gimbal that sends it. A camera of whose gimbal nothing is
    heard within SETTLE_S is taken to be fixed to the craft, looking `mount_pitch_deg` below its nose.

    Attributes:
        others: messages of other systems and of gimbals about themselves, which are left out.
        gimbal_since_s: when a gimbal was first heard.
    """

    def __init__(self, mount_pitch_deg: float = 0.0) -> None:
        self.others = 0
        self.gimbal_since_s: float | None = None
        half = math.radians(-mount_pitch_deg) / 2
        self._mount: Quaternion = (math.cos(half), 0.0, math.sin(half), 0.0)
        self._system: int | None = None
        self._since_s = 0.0
        self._heading: tuple[float, float] | None = None  # when, degrees
        self._gimbal: tuple[int, int] = (-1, 0)  # rank of its message, component
        self._fix = True
        self._lens: dict[str, float] = {}
        self._told_s: dict[int, float] = {}

    def take(self, packet: wire.Packet, now_s: float) -> dict[str, float] | None:
        """What a message tells anew, any of CameraPose's fields with time_s; None when it is nothing."""
        if packet.values is None:
            return None
        of_vehicle = packet.kind in (wire.ATTITUDE, wire.GLOBAL_POSITION_INT, wire.GPS_RAW_INT)
        if of_vehicle and packet.component in GIMBALS:
            self.others += 1
            return None
        if self._system is None and packet.kind in (wire.ATTITUDE, wire.GLOBAL_POSITION_INT):
            self._system, self._since_s = packet.system, now_s
        if packet.system != self._system:
            self.others += 1
            return None
        told = {name: value for name, value in self._read(packet, now_s).items() if _plausible(name, value)}
        if not told or abs(now_s - self._told_s.get(packet.kind, -math.inf)) < EVERY_S:
            return None
        self._told_s[packet.kind] = now_s
        return {"time_s": now_s} | self._lens | told

    def _read(self, packet: wire.Packet, now_s: float) -> dict[str, float]:
        assert packet.values is not None
        values = dict(zip(wire.KINDS[packet.kind].fields, packet.values, strict=True))
        if packet.kind == wire.GLOBAL_POSITION_INT:
            return self._position(values, now_s)
        if packet.kind == wire.GPS_RAW_INT:
            self._fix = values["fix_type"] >= FIX_3D
        elif packet.kind == wire.CAMERA_FOV_STATUS:
            if _plausible("field_of_view_deg", values["hfov"]):  # told once; a lens does not change by itself
                self._lens = {"field_of_view_deg": values["hfov"]}
        elif packet.kind == wire.ATTITUDE:
            return self._attitude(values, now_s)
        else:
            return self._look(packet, values, now_s)
        return {}

    def _position(self, values: dict[str, Any], now_s: float) -> dict[str, float]:
        if values["hdg"] <= 36000 and not self._heard_heading(now_s):  # 65535 is unknown
            self._heading = (now_s, values["hdg"] / 100)
        told = {"altitude_m": values["relative_alt"] / 1000}
        if self._fix and (values["lat"] or values["lon"]):  # both 0: no fix yet
            told |= {"latitude_deg": values["lat"] / 1e7, "longitude_deg": values["lon"] / 1e7}
        return told

    def _attitude(self, values: dict[str, Any], now_s: float) -> dict[str, float]:
        if not all(-10 < values[name] < 10 for name in ("roll", "pitch", "yaw")):  # nor NaN
            return {}
        self._heading = (now_s, math.degrees(values["yaw"]))
        if self.gimbal_since_s is not None or now_s - self._since_s < SETTLE_S:
            return {}
        return look_of(times(quaternion_of(values["roll"], values["pitch"], values["yaw"]), self._mount))

    def _look(self, packet: wire.Packet, values: dict[str, Any], now_s: float) -> dict[str, float]:
        """What a gimbal tells: angles against the horizon; its yaw from north, or from the craft's nose."""
        rank = (wire.MOUNT_STATUS, wire.MOUNT_ORIENTATION, wire.GIMBAL_DEVICE_ATTITUDE_STATUS).index(
            packet.kind
        )
        if rank < self._gimbal[0] or (rank == self._gimbal[0] and packet.component != self._gimbal[1]):
            return {}
        from_north = False
        if packet.kind == wire.GIMBAL_DEVICE_ATTITUDE_STATUS:
            told = look_of((values["w"], values["x"], values["y"], values["z"]))
            flags = values["flags"]
            # A gimbal that does not say from where its yaw counts: a locked one from north.
            from_north = bool(flags & YAW_OF_EARTH or (flags & YAW_LOCK and not flags & YAW_OF_VEHICLE))
        elif packet.kind == wire.MOUNT_ORIENTATION:
            told = {"pitch_deg": -values["pitch"], "roll_deg": values["roll"], "yaw_deg": values["yaw"]}
            # Senders of before it was there, and of exactly north, leave a zero.
            if from_north := math.isfinite(values["yaw_absolute"]) and values["yaw_absolute"] != 0:
                told["yaw_deg"] = values["yaw_absolute"]
        else:  # ArduPilot's older word for it, in hundredths of degrees
            told = {
                "pitch_deg": -values["pointing_a"] / 100,
                "roll_deg": values["pointing_b"] / 100,
                "yaw_deg": values["pointing_c"] / 100,
            }
        if not told:
            return {}
        self._gimbal = (rank, packet.component)
        if self.gimbal_since_s is None:
            self.gimbal_since_s = now_s
        if not from_north:
            if self._heading is None or not self._heard_heading(now_s):
                del told["yaw_deg"]
            else:
                told["yaw_deg"] = turn(told["yaw_deg"] + self._heading[1])
        return told

    def _heard_heading(self, now_s: float) -> bool:
        return self._heading is not None and abs(now_s - self._heading[0]) <= LONGEST_GAP_S


def _plausible(name: str, value: float) -> bool:
    low, high = LIMITS[name]
    return low <= value <= high  # false for NaN


def quaternion_of(roll_rad: float, pitch_rad: float, yaw_rad: float) -> Quaternion:
    """Of an attitude: turned by yaw, then pitch (nose up), then roll (right side down)."""
    sr, cr = math.sin(roll_rad / 2), math.cos(roll_rad / 2)
    sp, cp = math.sin(pitch_rad / 2), math.cos(pitch_rad / 2)
    sy, cy = math.sin(yaw_rad / 2), math.cos(yaw_rad / 2)
    return (
        cr * cp * cy + sr * sp * sy,
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
    )


def times(a: Quaternion, b: Quaternion) -> Quaternion:
    """First b, then a."""
    return (
        a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3],
        a[0] * b[1] + a[1] * b[0] + a[2] * b[3] - a[3] * b[2],
        a[0] * b[2] - a[1] * b[3] + a[2] * b[0] + a[3] * b[1],
        a[0] * b[3] + a[1] * b[2] - a[2] * b[1] + a[3] * b[0],
    )


def look_of(quaternion: Quaternion) -> dict[str, float]:
    """Where a quaternion turns a camera: pitch_deg below the horizon, yaw_deg, roll_deg; empty when it is none.

    Straight down a yaw says nothing of where the camera looks; there it is where the picture's upper edge points.
    """
    length = math.hypot(*quaternion)
    if not 0.5 < length < 2:  # nor NaN
        return {}
    w, x, y, z = (part / length for part in quaternion)
    north, east, down = 1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)  # forward
    level = math.hypot(north, east)
    if level > 1e-3:
        yaw, roll = math.atan2(east, north), math.atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
    else:  # by the picture's right edge
        yaw, roll = math.atan2(-2 * (x * y - w * z), 1 - 2 * (x * x + z * z)), 0.0
    return {
        "pitch_deg": math.degrees(math.atan2(down, level)),
        "yaw_deg": turn(math.degrees(yaw)),
        "roll_deg": math.degrees(roll),
    }


def turn(angle_deg: float) -> float:
    """The same direction in -180 to 180."""
    return (angle_deg + 180) % 360 - 180


def read_tlog(path: Path, mount_pitch_deg: float = 0.0) -> list[dict[str, float]]:
    """Rows of a ground station's log: time_s in Unix time, with any of CameraPose's fields.

    What is no packet is stepped over; a log that ends within one, as after a power cut, is read as far as it goes.

    Raises:
        SourceError: it cannot be read, tells nothing of a craft, or is longer than a day.
    """
    packets, craft = wire.Wire(lead=8), Craft(mount_pitch_deg)
    rows: list[dict[str, float]] = []
    try:
        with path.open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                rows += _rows(packets.take(piece), craft)
                if len(rows) > MOST_ROWS:
                    raise SourceError(f"{path} is longer than a day; cut the log to the flight")
            rows += _rows(packets.take(b"", last=True), craft)
    except OSError as error:
        raise SourceError(f"cannot read the telemetry {path}: {error.strerror or error}") from error
    since_s = craft.gimbal_since_s
    if since_s is not None:  # what was taken for a fixed camera before is none
        rows = [row for row in rows if row["time_s"] >= since_s or "pitch_deg" not in row]
    if not rows:
        raise SourceError(
            f"{path}: no position and no attitude in it; expected a telemetry log (.tlog) of a ground station"
        )
    return rows


def _rows(packets: list[wire.Packet], craft: Craft) -> list[dict[str, float]]:
    rows = []
    for packet in packets:
        time_s = int.from_bytes(packet.stamp, "big") / 1e6
        if UNIX_S[0] < time_s < UNIX_S[1] and (row := craft.take(packet, time_s)):
            rows.append(row)
    return rows

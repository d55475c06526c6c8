"""What a flight controller and its gimbal say over MAVLink, as poses of the camera.

Messages are read by pymavlink's generated dialect. Earth's axes are north, east, down; a gimbal's quaternion turns the
camera's axes (forward, right, down) into them, or into the vehicle's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tagclip.runtime.errors import MissingExtraError, SourceError

V1, V2 = 0xFE, 0xFD  # the first byte of a packet
LONGEST_PACKET = 10 + 255 + 2 + 13
MOST_BYTES = 1 << 30  # of a log
FIX_3D = 3
YAW_OF_VEHICLE, YAW_OF_EARTH, YAW_LOCK = 32, 64, 16  # GIMBAL_DEVICE_FLAGS
NOBODY = 255  # a ground station's usual system id
VEHICLE = 1  # component id of the flight controller


def parser() -> Any:
    """Reads packets of MAVLink 1 and 2, and skips what is none.

    Raises:
        MissingExtraError: pymavlink is not installed.
    """
    try:
        from pymavlink.dialects.v20 import common
    except ImportError as error:
        raise MissingExtraError(
            "telemetry over MAVLink is read with pymavlink; pip install 'tagclip[mavlink]'"
        ) from error
    reader = common.MAVLink(None)
    reader.robust_parsing = True  # what is no packet becomes a message BAD_DATA, not an exception
    return reader


class Craft:
    """The newest of what one craft has said.

    A camera without a gimbal's messages is taken to be fixed to the craft, `mount_pitch_deg` below its nose.

    Attributes:
        others: messages of other systems, which are left out. The first flight controller that speaks is the craft.
    """

    def __init__(self, mount_pitch_deg: float = 0.0) -> None:
        self.others = 0
        self._mount_pitch_deg = mount_pitch_deg
        self._system: int | None = None
        self._place: dict[str, float] = {}
        self._attitude: tuple[float, float, float] | None = None  # roll, pitch (nose up), yaw, degrees
        self._gimbal: dict[str, float] = {}
        self._gimbal_yaw_of_vehicle = False
        self._field_of_view: dict[str, float] = {}
        self._fix = True

    def take(self, message: Any) -> dict[str, float] | None:
        """What is known after a message: any of CameraPose's fields; None when it says nothing of the camera."""
        kind = message.get_type()
        read = _READERS.get(kind)
        if read is None:
            return None
        system = message.get_srcSystem()
        if self._system is None and system != NOBODY:
            self._system = system
        if system != self._system:
            self.others += 1
            return None
        read(self, message)
        return self._pose()

    def _pose(self) -> dict[str, float]:
        pose = dict(self._place) if self._fix else {k: v for k, v in self._place.items() if k == "altitude_m"}
        pose |= self._field_of_view
        if self._gimbal:
            pose |= self._gimbal
            if self._gimbal_yaw_of_vehicle and "yaw_deg" in pose:
                if self._attitude is None:
                    del pose["yaw_deg"]
                else:
                    pose["yaw_deg"] = _turn(pose["yaw_deg"] + self._attitude[2])
        elif self._attitude is not None:
            roll, pitch, yaw = self._attitude
            down = self._mount_pitch_deg - pitch
            pose |= {"pitch_deg": max(-90.0, min(90.0, down)), "yaw_deg": _turn(yaw), "roll_deg": _turn(roll)}
        return pose

    def _position(self, message: Any) -> None:
        self._place = {"altitude_m": message.relative_alt / 1000}
        if message.lat or message.lon:  # both 0: no fix yet
            self._place |= {"latitude_deg": message.lat / 1e7, "longitude_deg": message.lon / 1e7}

    def _gps(self, message: Any) -> None:
        self._fix = message.fix_type >= FIX_3D

    def _vehicle(self, message: Any) -> None:
        angles = (message.roll, message.pitch, message.yaw)
        if all(map(math.isfinite, angles)):
            roll, pitch, yaw = map(math.degrees, angles)
            self._attitude = roll, pitch, yaw

    def _gimbal_device(self, message: Any) -> None:
        flags = message.flags
        if all(map(math.isfinite, message.q)):
            self._gimbal = look_of(*message.q)
            # Newer gimbals say what their yaw counts from; of older ones a locked yaw counts from north.
            self._gimbal_yaw_of_vehicle = not (
                flags & YAW_OF_EARTH or (flags & YAW_LOCK and not flags & YAW_OF_VEHICLE)
            )

    def _mount(self, message: Any) -> None:
        yaw = message.yaw_absolute
        angles = {"pitch_deg": -message.pitch, "roll_deg": message.roll, "yaw_deg": yaw}
        if math.isfinite(yaw):
            self._gimbal_yaw_of_vehicle = False
        else:
            angles["yaw_deg"], self._gimbal_yaw_of_vehicle = message.yaw, True
        self._gimbal = {name: _turn(value) for name, value in angles.items() if math.isfinite(value)}

    def _mount_status(self, message: Any) -> None:
        """ArduPilot's older word for it: hundredths of degrees, from the vehicle's nose."""
        self._gimbal = {
            "pitch_deg": -message.pointing_a / 100,
            "roll_deg": message.pointing_b / 100,
            "yaw_deg": message.pointing_c / 100,
        }
        self._gimbal_yaw_of_vehicle = True

    def _lens(self, message: Any) -> None:
        if 1 <= message.hfov <= 175:  # NaN when the camera does not know
            self._field_of_view = {"field_of_view_deg": float(message.hfov)}


_READERS = {
    "GLOBAL_POSITION_INT": Craft._position,
    "GPS_RAW_INT": Craft._gps,
    "ATTITUDE": Craft._vehicle,
    "GIMBAL_DEVICE_ATTITUDE_STATUS": Craft._gimbal_device,
    "MOUNT_ORIENTATION": Craft._mount,
    "MOUNT_STATUS": Craft._mount_status,
    "CAMERA_FOV_STATUS": Craft._lens,
}


def look_of(w: float, x: float, y: float, z: float) -> dict[str, float]:
    """Where a quaternion turns a camera: pitch_deg below the horizon, yaw_deg, roll_deg.

    Straight down a yaw says nothing of where the camera looks; there it is where the picture's upper edge points.
    """
    length = math.hypot(w, x, y, z)
    if length < 1e-6:
        return {}
    w, x, y, z = w / length, x / length, y / length, z / length
    north, east, down = 1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)  # forward
    level = math.hypot(north, east)
    if level > 1e-3:
        yaw, roll = math.atan2(east, north), math.atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
    else:
        up_north, up_east = -2 * (x * z + w * y), -2 * (y * z - w * x)
        yaw, roll = math.atan2(up_east, up_north) + (math.pi if down < 0 else 0.0), 0.0
    return {
        "pitch_deg": math.degrees(math.atan2(down, level)),
        "yaw_deg": _turn(math.degrees(yaw)),
        "roll_deg": math.degrees(roll),
    }


def _turn(angle_deg: float) -> float:
    return (angle_deg + 180) % 360 - 180


def read_tlog(path: Path, mount_pitch_deg: float = 0.0) -> list[dict[str, float]]:
    """Rows of a ground station's log, `time_s` in Unix time with any of CameraPose's fields.

    A log that ends within a packet, as after a power cut, is read as far as it goes.

    Raises:
        SourceError: it cannot be read, is too large, or holds no word of the craft.
        MissingExtraError: pymavlink is not installed.
    """
    reader, craft = parser(), Craft(mount_pitch_deg)
    try:
        if path.stat().st_size > MOST_BYTES:
            raise SourceError(f"{path} has more than {MOST_BYTES >> 30} GB; cut the log to the flight")
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(f"cannot read the telemetry {path}: {error.strerror or error}") from error
    rows = []
    for time_s, packet in _packets(data):
        for message in reader.parse_buffer(packet) or ():
            pose = craft.take(message)
            if pose:
                rows.append({"time_s": time_s} | pose)
    if not rows:
        raise SourceError(
            f"{path}: no position and no attitude in it; expected a telemetry log (.tlog) of a ground station"
        )
    return rows


def _packets(data: bytes) -> Iterator[tuple[float, bytes]]:
    """Unix time and bytes of each packet: a log puts eight bytes of microseconds before it."""
    at = 0
    while at + 8 + 10 <= len(data):
        length = packet_length(data[at + 8 : at + 11])
        if length is None or at + 8 + length > len(data):
            at += 1  # damage: look for the next
            continue
        yield int.from_bytes(data[at : at + 8], "big") / 1e6, data[at + 8 : at + 8 + length]
        at += 8 + length


def packet_length(head: bytes) -> int | None:
    """Bytes of the packet that begins with these three; None when they begin none."""
    if head[0] == V1:
        return 6 + head[1] + 2
    if head[0] == V2:
        return 10 + head[1] + 2 + (13 if head[2] & 1 else 0)
    return None

"""MAVLink on the wire, versions 1 and 2: where packets begin and end, their checksum, and the messages about a camera.

All other messages are stepped over. Nothing is ever packed here: we only listen.
"""

from __future__ import annotations

import binascii
import re
import struct
from dataclasses import dataclass
from typing import Any

SIGNED = 1  # the only flag of version 2 that changes a packet's form; with an unknown one it must not be read
LONGEST = 10 + 255 + 2 + 13  # bytes of a packet


@dataclass(frozen=True)
class Kind:
    """A message: its checksum's seed, its layout up to the last byte that we look at, and the fields in that order."""

    seed: int
    layout: struct.Struct
    fields: tuple[str, ...]


def _kind(seed: int, layout: str, fields: str) -> Kind:
    return Kind(seed, struct.Struct(layout), tuple(fields.split()))


GPS_RAW_INT, ATTITUDE, GLOBAL_POSITION_INT = 24, 30, 33
MOUNT_STATUS, MOUNT_ORIENTATION, CAMERA_FOV_STATUS, GIMBAL_DEVICE_ATTITUDE_STATUS = 158, 265, 271, 285
KINDS = {
    GPS_RAW_INT: _kind(24, "<28xB", "fix_type"),
    ATTITUDE: _kind(39, "<4xfff", "roll pitch yaw"),
    GLOBAL_POSITION_INT: _kind(104, "<4xii4xi6xH", "lat lon relative_alt hdg"),
    MOUNT_STATUS: _kind(134, "<iii", "pointing_a pointing_b pointing_c"),
    MOUNT_ORIENTATION: _kind(26, "<4xffff", "roll pitch yaw yaw_absolute"),
    CAMERA_FOV_STATUS: _kind(22, "<44xf", "hfov"),
    GIMBAL_DEVICE_ATTITUDE_STATUS: _kind(137, "<4xffff16xH", "w x y z flags"),
}


@dataclass(frozen=True)
class Packet:
    """One packet.

    Attributes:
        stamp: the bytes before it, as many as a log puts there.
        values: the fields of a message of KINDS, None of any other, which is not looked into.
    """

    stamp: bytes
    system: int
    component: int
    kind: int
    values: tuple[Any, ...] | None


_BEGIN = re.compile(rb"[\xfd\xfe]")  # of version 2, of version 1
_MIRROR = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))  # the bits of a byte in reverse


class Wire:
    """Packets out of bytes as they come, in pieces of any size; what is none is stepped over and counted.

    Args:
        lead: bytes that stand before every packet: 8 in a log.

    Attributes:
        bad: bytes that were no packet.
    """

    def __init__(self, lead: int = 0) -> None:
        self.bad = 0
        self._lead = lead
        self._rest = b""

    def take(self, data: bytes, *, last: bool = False) -> list[Packet]:
        """The packets that are complete; the begin of the next one waits, at most `LONGEST` bytes.

        Args:
            last: nothing follows that belongs to it, as after a datagram.
        """
        data, lead = self._rest + data, self._lead
        found: list[Packet] = []
        done = at = 0  # up to where all is accounted for; from where to look for the begin of a packet
        while begin := _BEGIN.search(data, max(at, done + lead)):
            start = begin.start()
            length = _length(data, start)
            if length is None or (start + length > len(data) and not last):
                break  # the rest has not come yet
            packet = _packet(data, start, length, lead) if length else None
            if packet is None:
                at = start + 1
                continue
            found.append(packet)
            self.bad += start - lead - done
            done = start + length
        keep = len(data) if last else max(done, begin.start() - lead if begin else len(data) - lead)
        self.bad += keep - done
        self._rest = data[keep:]
        return found


def _length(data: bytes, start: int) -> int | None:
    """Bytes of the packet that would begin there, 0 when it cannot be one, None when too few have come to tell."""
    if start + 3 > len(data):
        return None
    if data[start] == 0xFE:
        return 6 + data[start + 1] + 2
    flags = data[start + 2]
    return 0 if flags & ~SIGNED else 10 + data[start + 1] + 2 + 13 * (flags & SIGNED)


def _packet(data: bytes, start: int, length: int, lead: int) -> Packet | None:
    end = start + length
    if end > len(data):
        return None
    if data[start] == 0xFE:
        system, component, number, head = data[start + 3], data[start + 4], data[start + 5], start + 6
    else:
        system, component = data[start + 5], data[start + 6]
        number, head = int.from_bytes(data[start + 7 : start + 10], "little"), start + 10
    tail = head + data[start + 1]
    stamp = data[start - lead : start]
    kind = KINDS.get(number)
    if kind is None:  # its checksum cannot be told without its definition; but another packet must follow it
        follows = end + lead
        if follows < len(data) and data[follows] not in b"\xfd\xfe":
            return None
        return Packet(stamp, system, component, number, None)
    # The checksum is CRC-16/MCRF4XX, which is crc_hqx with all bits mirrored.
    checked = (data[start + 1 : tail] + bytes((kind.seed,))).translate(_MIRROR)
    if binascii.crc_hqx(checked, 0xFFFF) != _MIRROR[data[tail]] << 8 | _MIRROR[data[tail + 1]]:
        return None
    size = kind.layout.size
    payload = data[head:tail][:size].ljust(size, b"\0")  # version 2 leaves out zeros at the end
    return Packet(stamp, system, component, number, kind.layout.unpack(payload))

"""From a pixel to a place on the ground: a pinhole camera over flat ground."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.earth import EARTH_M
from tagclip.runtime.store_track import Place
from tagclip.runtime.telemetry import CameraPose

FARTHEST_M = 2000.0  # beyond, a degree of pitch decides about kilometres
AERIAL_FROM_DEG = 27.5  # elevation; the views of training meet between 25 and 30
STEEP_DEG = 60.0  # from there on the middle of a box is nearer to the feet than its lower edge
# One standard deviation each of what a consumer drone tells.
GPS_M, ALTITUDE_SHARE, ALTITUDE_M, ANGLE_DEG, YAW_DEG = 3.0, 0.03, 1.0, 1.0, 3.0

Box = tuple[float, float, float, float]


def elevation_deg(pose: CameraPose, box_xywh_px: Box, size_px: tuple[int, int]) -> float | None:
    """Elevation of the camera over somebody's horizon: 0 from the side, 90 from straight above; None when not known.

    Args:
        size_px: width and height of the frame.
    """
    ray = _ray(pose, box_xywh_px, size_px)
    return None if ray is None else math.degrees(math.asin(max(-1.0, min(1.0, float(-ray[2])))))


def view_of(pose: CameraPose, box_xywh_px: Box, size_px: tuple[int, int]) -> str | None:
    """ "aerial" or "ground", by the elevation; None when that is not known."""
    elevation = elevation_deg(pose, box_xywh_px, size_px)
    return None if elevation is None else "aerial" if elevation >= AERIAL_FROM_DEG else "ground"


def place_of(pose: CameraPose, box_xywh_px: Box, size_px: tuple[int, int]) -> Place | None:
    """Where somebody stands, with the radius of two standard deviations; None when it cannot be told.

    Args:
        box_xywh_px: x, y, w, h in pixels of the frame.
        size_px: width and height of the frame.
    """
    if pose.latitude_deg is None or pose.longitude_deg is None or pose.yaw_deg is None:
        return None
    offset = _offset_m(pose, box_xywh_px, size_px)
    if offset is None:
        return None
    # How far the place moves with each thing that is not known exactly.
    assert pose.altitude_m is not None and pose.pitch_deg is not None
    others = [
        replace(pose, altitude_m=pose.altitude_m + max(ALTITUDE_M, ALTITUDE_SHARE * pose.altitude_m)),
        replace(pose, pitch_deg=pose.pitch_deg - ANGLE_DEG),
        replace(pose, yaw_deg=pose.yaw_deg + YAW_DEG),
    ]
    moved = [_offset_m(other, box_xywh_px, size_px) for other in others]
    spread = [FARTHEST_M if m is None else float(np.hypot(*(m - offset))) for m in moved]
    east, north = (float(value) for value in offset)
    latitude = pose.latitude_deg + math.degrees(north / EARTH_M)
    longitude = pose.longitude_deg + math.degrees(
        east / (EARTH_M * math.cos(math.radians(pose.latitude_deg)))
    )
    return Place(latitude, (longitude + 180) % 360 - 180, 2 * math.hypot(GPS_M, *spread))


def _offset_m(pose: CameraPose, box: Box, size_px: tuple[int, int]) -> NDArray[np.float64] | None:
    """Metres east and north of the camera (2,) of where the ray through somebody's feet meets the ground."""
    ray = _ray(pose, box, size_px)
    if ray is None or pose.altitude_m is None or pose.altitude_m <= 0 or ray[2] >= -1e-3:
        return None
    offset = ray[:2] * (pose.altitude_m / -ray[2])
    return offset if float(np.hypot(*offset)) <= FARTHEST_M else None


def _ray(pose: CameraPose, box: Box, size_px: tuple[int, int]) -> NDArray[np.float64] | None:
    """Unit vector (3,), east, north and up, from the camera to where somebody stands."""
    if pose.pitch_deg is None or pose.field_of_view_deg is None:
        return None
    width, height = size_px
    focal_px = width / 2 / math.tan(math.radians(pose.field_of_view_deg) / 2)
    x, y, w, h = box
    foot_y = y + h * (0.5 if pose.pitch_deg >= STEEP_DEG else 1.0)
    right, down = (x + w / 2 - width / 2) / focal_px, (foot_y - height / 2) / focal_px
    roll, pitch, yaw = (math.radians(v or 0.0) for v in (pose.roll_deg, pose.pitch_deg, pose.yaw_deg))
    # The picture turned level, then down, then round.
    level = right * math.cos(roll) - down * math.sin(roll)
    below = right * math.sin(roll) + down * math.cos(roll)
    ahead = math.cos(pitch) - below * math.sin(pitch)
    up = -math.sin(pitch) - below * math.cos(pitch)
    east, north = level * math.cos(yaw) + ahead * math.sin(yaw), ahead * math.cos(yaw) - level * math.sin(yaw)
    ray = np.array([east, north, up])
    return ray / float(np.linalg.norm(ray))

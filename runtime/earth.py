"""Distances on the Earth, taken as a sphere."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

EARTH_M = 6_371_000.0  # its radius


def great_circle_m(latitude: float, longitude: float, latitudes: Any, longitudes: Any) -> NDArray[np.float64]:
    """Metres between a point and others (n,), all in degrees, on a sphere (haversine formula)."""
    a, b = np.deg2rad(latitude), np.deg2rad(np.asarray(latitudes, np.float64))
    turn = np.deg2rad(np.asarray(longitudes, np.float64) - longitude)
    half = np.sin((b - a) / 2) ** 2 + np.cos(a) * np.cos(b) * np.sin(turn / 2) ** 2
    return 2 * EARTH_M * np.arcsin(np.sqrt(np.clip(half, 0, 1)))

"""One track as the store keeps it, and as a row of its table."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

COLUMNS = (
    "key, id, camera, view, start_s, end_s, best_s, frame, x_px, y_px, w_px, h_px,"
    " latitude_deg, longitude_deg, error_m, encoder_id, vector"
)


@dataclass(frozen=True)
class Place:
    """Where somebody was: degrees (WGS 84), and the radius in metres within which that is likely true."""

    latitude_deg: float
    longitude_deg: float
    error_m: float


@dataclass(frozen=True)
class StoredTrack:
    """One person over time in one camera, as far as it is worth keeping.

    Attributes:
        id: made when the track began; adding the same id again replaces what was kept.
        camera: name of the camera.
        view: "aerial", "ground" or "unknown".
        start_s, end_s, best_s: Unix time in seconds, UTC; best_s is that of the thumbnail.
        frame: number of the thumbnail's frame, from 0.
        box_xywh_px: in that frame.
        place: where, when that is known.
        encoder_id: of the bundle that made the vector.
        vector: float (D,), a unit vector; kept as float16.
    """

    id: uuid.UUID
    camera: str
    view: str
    start_s: float
    end_s: float
    best_s: float
    frame: int
    box_xywh_px: tuple[float, float, float, float]
    encoder_id: str
    vector: NDArray[np.floating]
    place: Place | None = None


def row_of(track: StoredTrack) -> tuple[object, ...]:
    """COLUMNS but for the key. Raises: ValueError, the vector is no unit vector."""
    vector = np.asarray(track.vector, np.float32)
    if vector.ndim != 1 or not np.isfinite(vector).all() or abs(float(np.linalg.norm(vector)) - 1) > 0.02:
        raise ValueError(f"expected a unit vector (D,), found shape {vector.shape} of track {track.id}")
    place = track.place
    return (
        track.id.bytes,
        track.camera,
        track.view,
        float(track.start_s),
        float(track.end_s),
        float(track.best_s),
        int(track.frame),
        *(float(value) for value in track.box_xywh_px),
        *((place.latitude_deg, place.longitude_deg, place.error_m) if place else (None, None, None)),
        track.encoder_id,
        vector.astype(np.float16).tobytes(),
    )


def track_of(row: tuple) -> StoredTrack:  # type: ignore[type-arg]
    """The track of a row of COLUMNS."""
    (
        _,
        name,
        camera,
        view,
        start_s,
        end_s,
        best_s,
        frame,
        x,
        y,
        w,
        h,
        latitude,
        longitude,
        error_m,
        *more,
    ) = row
    encoder_id, vector = more
    place = None if latitude is None else Place(latitude, longitude, error_m)
    return StoredTrack(
        uuid.UUID(bytes=name), camera, view, start_s, end_s, best_s, frame, (x, y, w, h), encoder_id,
        np.frombuffer(vector, np.float16), place,
    )  # fmt: skip

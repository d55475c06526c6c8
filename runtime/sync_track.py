"""A track as it travels to the station: how somebody looked, where and when. The picture stays until it is wanted."""

from __future__ import annotations

import base64
import uuid
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from tagclip.runtime.errors import BundleManifestError
from tagclip.runtime.hit import place_json, seen_of
from tagclip.runtime.store_track import Place, StoredTrack
from tagclip.runtime.sync_fields import Row
from tagclip.runtime.vector_scan import to_int8

MAX_VECTOR = 4096  # numbers


@dataclass(frozen=True)
class ToldTrack:
    """What a device tells of a track.

    Attributes:
        track_id: of the device's store.
        camera, view, encoder_id, start_s, end_s, best_s, frame, box_xywh_px, frame_px, place, crops: as `Hit` has them.
        codes: int8 (D), as bytes; the vector's direction, its length says nothing.
    """

    track_id: uuid.UUID
    camera: str
    view: str
    encoder_id: str
    start_s: float
    end_s: float
    best_s: float
    frame: int
    box_xywh_px: tuple[float, float, float, float]
    frame_px: tuple[int, int]
    place: Place | None
    crops: int
    codes: bytes

    def to_json(self) -> dict[str, Any]:
        """As `told_track` reads it."""
        return {
            "track_id": str(self.track_id),
            "camera": self.camera,
            "view": self.view,
            "encoder_id": self.encoder_id,
            "start_s": round(self.start_s, 3),
            "end_s": round(self.end_s, 3),
            "best_s": round(self.best_s, 3),
            "frame": self.frame,
            "box_xywh_px": [round(value, 1) for value in self.box_xywh_px],
            "frame_px": list(self.frame_px),
            "place": place_json(self.place and _rounded(self.place)),
            "crops": self.crops,
            "vector": base64.b64encode(self.codes).decode("ascii"),
        }


def _rounded(place: Place) -> Place:
    """To a centimetre: digits that nobody measured are a tenth of a message."""
    return Place(round(place.latitude_deg, 7), round(place.longitude_deg, 7), round(place.error_m, 2))


def told(track: StoredTrack, frame_px: tuple[int, int], crops: int) -> ToldTrack:
    """A track of the store, of a camera with frames of width and height `frame_px`, the mean of `crops` pictures."""
    codes, _ = to_int8(np.asarray(track.vector, np.float32))
    of_track = {name: value for name, value in vars(track).items() if name not in ("id", "vector")}
    return ToldTrack(track_id=track.id, frame_px=frame_px, crops=crops, codes=codes.tobytes(), **of_track)


def told_track(row: object) -> ToldTrack:
    """The track of a JSON object as `ToldTrack.to_json` makes it; every field is checked.

    Raises:
        BundleManifestError: a field is absent, unknown, of the wrong type or out of range.
    """
    read = Row(row, "message.body")
    assert isinstance(row, dict)
    names = {field.name for field in fields(ToldTrack)} - {"codes"} | {"vector"}
    if wrong := sorted(names ^ set(row)):
        known = "missing" if wrong[0] in names else "unknown field"
        raise BundleManifestError(
            f"message.body.{repr(wrong[0][:80])[1:-1]}: {known}; expected {sorted(names)}"
        )
    codes = read.base64("vector", least=1, most=MAX_VECTOR)
    if not any(codes):
        read.refuse("vector", "numbers that are not all zero")
    return ToldTrack(codes=codes, **seen_of(read, row))

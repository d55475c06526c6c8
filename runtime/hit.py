"""A hit: somebody who fits a standing query well enough to be shown to a person, who decides."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from dataclasses import fields as fields_of
from typing import Any

from tagclip.runtime.errors import BundleManifestError, HitError
from tagclip.runtime.fields import Fields
from tagclip.runtime.store_track import Place
from tagclip.runtime.views import VIEWS

UNREVIEWED, CONFIRMED, REJECTED = "unreviewed", "confirmed", "rejected"
REVIEWS = (UNREVIEWED, CONFIRMED, REJECTED)

_YEAR_10000_S = 253_402_300_800.0
_MANY = 1 << 53  # whole numbers up to here survive every JSON reader


@dataclass(frozen=True)
class Hit:
    """One track and one query; what is learnt later of the same two replaces it, with a higher revision.

    Attributes:
        id: made when the track first scored over the threshold.
        revision: from 1, one more with every update.
        query_id, query: the standing query, as it was typed.
        track_id: of the store.
        camera: name of the camera.
        view: "aerial", "ground" or "unknown".
        encoder_id: of the bundle that made the score.
        score: of the query and the track, larger is more alike.
        p_value: chance, 0..1, that somebody who is not meant scores as high.
        false_alarms_per_hour: how many of those this camera would show in an hour, were the threshold at this score;
            None when nobody knows how many people pass.
        threshold: score from which the query is a hit in this view.
        start_s, end_s, best_s: Unix time in seconds, UTC; best_s is that of the picture.
        frame: number of the picture's frame, from 0.
        box_xywh_px: in that frame.
        frame_px: width and height of the frame.
        place: where, when that is known.
        crops: how many pictures of the track counted.
        review: of REVIEWS.
    """

    id: uuid.UUID
    revision: int
    query_id: str
    query: str
    track_id: uuid.UUID
    camera: str
    view: str
    encoder_id: str
    score: float
    p_value: float
    false_alarms_per_hour: float | None
    threshold: float
    start_s: float
    end_s: float
    best_s: float
    frame: int
    box_xywh_px: tuple[float, float, float, float]
    frame_px: tuple[int, int]
    place: Place | None = None
    crops: int = 1
    review: str = UNREVIEWED

    def to_json(self) -> dict[str, Any]:
        """The hit as one JSON line; times are Unix time, UTC."""
        return {
            "id": str(self.id),
            "revision": self.revision,
            "query_id": self.query_id,
            "query": self.query,
            "track_id": str(self.track_id),
            "camera": self.camera,
            "view": self.view,
            "encoder_id": self.encoder_id,
            "score": round(self.score, 4),
            "p_value": float(f"{self.p_value:.3g}"),
            "false_alarms_per_hour": (
                None if self.false_alarms_per_hour is None else float(f"{self.false_alarms_per_hour:.3g}")
            ),
            "threshold": round(self.threshold, 4),
            "start_s": round(self.start_s, 3),
            "end_s": round(self.end_s, 3),
            "best_s": round(self.best_s, 3),
            "frame": self.frame,
            "box_xywh_px": [round(value, 1) for value in self.box_xywh_px],
            "frame_px": list(self.frame_px),
            "place": place_json(self.place),
            "crops": self.crops,
            "review": self.review,
        }


def hit_of(row: object) -> Hit:
    """The hit of a JSON object as `Hit.to_json` makes it; every field is checked, none may lack and none be added.

    Raises:
        HitError: a field is absent, unknown, of the wrong type or out of range; the message names it.
    """
    try:
        fields = Fields(row, "hit")
        assert isinstance(row, dict)
        names = {field.name for field in fields_of(Hit)}
        if wrong := sorted(names ^ set(row)):
            known = "missing" if wrong[0] in names else "unknown, so it is of a newer tagclip, or no hit"
            raise HitError(f"hit.{repr(wrong[0][:80])[1:-1]}: {known}; expected {sorted(names)}")
        seen = seen_of(fields, row)
        rate = row["false_alarms_per_hour"]
        return Hit(
            id=_uuid(fields, row, "id"),
            revision=fields.integer("revision", low=1, high=_MANY),
            query_id=_text(fields, row, "query_id", 200),
            query=_text(fields, row, "query", 10_000),
            score=fields.number("score", low=-1e6, high=1e6),
            p_value=fields.number("p_value", low=0.0, high=1.0),
            false_alarms_per_hour=(
                None if rate is None else fields.number("false_alarms_per_hour", low=0.0, high=1e12)
            ),
            threshold=fields.number("threshold", low=-1e6, high=1e6),
            review=fields.text("review", choices=REVIEWS),
            **seen,
        )
    except BundleManifestError as error:  # what Fields raises
        raise HitError(str(error)) from error


def seen_of(fields: Fields, row: dict[str, Any]) -> dict[str, Any]:
    """Of whom, where and when, by the names of Hit's attributes: what hits and tracks say alike.

    Raises:
        BundleManifestError: a field is absent, of the wrong type or out of range.
    """
    start_s, end_s, best_s = (
        fields.number(key, low=0.0, high=_YEAR_10000_S - 1) for key in ("start_s", "end_s", "best_s")
    )
    if end_s < start_s:
        fields.refuse("end_s", f"a time not before start_s {start_s}")
    x, y, w, h = _numbers(fields, row, "box_xywh_px", 4, 1e6)
    width, height = _numbers(fields, row, "frame_px", 2, 1e6)
    if min(w, h) < 0:
        fields.refuse("box_xywh_px", "a box that is not negative in width or height")
    if not (width.is_integer() and height.is_integer() and min(width, height) >= 1):
        fields.refuse("frame_px", "two whole numbers from 1")
    return {
        "track_id": _uuid(fields, row, "track_id"),
        "camera": _text(fields, row, "camera", 1000),
        "view": fields.text("view", choices=(*VIEWS, "unknown")),
        "encoder_id": _text(fields, row, "encoder_id", 200),
        "start_s": start_s,
        "end_s": end_s,
        "best_s": best_s,
        "frame": fields.integer("frame", low=0, high=_MANY),
        "box_xywh_px": (x, y, w, h),
        "frame_px": (int(width), int(height)),
        "place": _place(fields.object_or_null("place")),
        "crops": fields.integer("crops", low=1, high=_MANY),
    }


def place_json(place: Place | None) -> dict[str, float] | None:
    """As hits and tracks say it."""
    return dict(vars(place)) if place else None


def _place(fields: Fields | None) -> Place | None:
    if fields is None:
        return None
    place = Place(
        fields.number("latitude_deg", low=-90.0, high=90.0),
        fields.number("longitude_deg", low=-180.0, high=180.0),
        fields.number("error_m", low=0.0, high=4.1e7),
    )
    fields.close()
    return place


def _text(fields: Fields, row: dict[str, Any], key: str, most: int) -> str:
    """Whatever somebody typed, control characters too; only what UTF-8 cannot say is refused."""
    value = row[key]
    if not isinstance(value, str) or len(value) > most or any("\ud800" <= c <= "\udfff" for c in value):
        fields.refuse(key, f"text of at most {most:,} characters")
    return value


def _uuid(fields: Fields, row: dict[str, Any], key: str) -> uuid.UUID:
    value = row[key]
    try:
        parsed = uuid.UUID(value) if isinstance(value, str) else None
    except ValueError:
        parsed = None
    if parsed is None or str(parsed) != value:
        fields.refuse(key, "a UUID such as 0190163d-8694-7396-a4cc-13e0f1a6c3f2")
    return parsed


def _numbers(fields: Fields, row: dict[str, Any], key: str, count: int, most: float) -> list[float]:
    value = row[key]
    if (
        not isinstance(value, list)
        or len(value) != count
        or not all(type(item) in (int, float) and abs(item) <= most for item in value)
    ):
        fields.refuse(key, f"{count} numbers of at most {most:g}")
    return [float(item) for item in value]

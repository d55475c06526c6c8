"""What a threshold costs: expected false alarms against score, and who of a store is over it or just under."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tagclip.runtime.alerts import HOUR_S, PRIOR_PER_HOUR, Promise, StandingQuery
from tagclip.runtime.background import UNKNOWN, Background
from tagclip.runtime.judge import Yardstick, yardsticks
from tagclip.runtime.plot import COLOURS, Axis, Plot, page
from tagclip.runtime.sheet import INK, MARK, SOFT, place
from tagclip.runtime.source import Image, decode_image
from tagclip.runtime.store import TrackStore
from tagclip.runtime.store_index import StoreIndex
from tagclip.runtime.store_track import StoredTrack
from tagclip.runtime.tail import TAIL_SHARE
from tagclip.runtime.vector_scan import Where

WIDTH_PX, HEIGHT_PX = 1100, 860
STRIP_PX = 180
FEWEST_PER_HOUR = 1e-3  # what the plot shows


@dataclass(frozen=True)
class Standing:
    """Somebody of the store, against the query.

    Attributes:
        p_value: chance that somebody who is not meant scores as high.
        hit: over the threshold.
        thumbnail: JPEG.
    """

    track: StoredTrack
    score: float
    p_value: float
    hit: bool
    thumbnail: bytes


@dataclass(frozen=True)
class Curve:
    """Of one query and store.

    Attributes:
        sticks: by view, of those the store has people of.
        people: the most likely first.
        people_per_hour: that were seen; of the background, or supposed, where the store is too short to tell.
        allowed: chance of a false alarm at the threshold.
        compared: of how many people.
    """

    query: str
    promise: Promise
    sticks: dict[str, Yardstick]
    people: list[Standing]
    people_per_hour: float
    allowed: float
    compared: int

    def to_json(self) -> dict[str, Any]:
        """As `tagclip alerts curve --json` prints it."""
        return {
            "query": self.query,
            "people_per_hour": round(self.people_per_hour, 2),
            "compared": self.compared,
            "thresholds": {
                view: [
                    {
                        "per_1000": per_1000,
                        "per_hour": round(per_1000 / 1000 * self.people_per_hour, 4),
                        "score": round(stick.score_at(per_1000 / 1000, True), 4),
                    }
                    for per_1000 in (100.0, 30.0, 10.0, 3.0, 1.0, 0.3)
                ]
                for view, stick in self.sticks.items()
            },
            "people": [
                {
                    "track_id": str(one.track.id),
                    "camera": one.track.camera,
                    "view": one.track.view,
                    "best_s": round(one.track.best_s, 3),
                    "score": round(one.score, 4),
                    "p_value": float(f"{one.p_value:.3g}"),
                    "false_alarms_per_hour": float(f"{one.p_value * self.people_per_hour:.3g}"),
                    "hit": one.hit,
                }
                for one in self.people
            ],
        }


def curve(
    store: TrackStore,
    query: StandingQuery,
    background: Background,
    typical: np.ndarray,
    top: int,
    *,
    pictures: bool = True,
) -> Curve:
    """Measure a query on a store.

    Args:
        typical: as of `Alerts`.
        top: how many people to show.
        pictures: read them; without, thumbnails are empty, and an encrypted store needs no key.

    Raises:
        StoreEncoderError, StoreError: as `StoreIndex`.
        BackgroundError: the background has nobody of a view that the store has.
    """
    index = StoreIndex(store, background.encoder_id, len(query.vector))
    ranked = index.search(query.vector, max(20 * top, 200), index.allowed(Where()))
    keys = [key for key, _ in ranked]
    tracks = store.get(keys)
    jpegs = store.thumbnails(keys) if pictures else dict.fromkeys(keys, b"")
    shown = [key for key in keys if key in tracks and key in jpegs]
    sticks = {
        view: yardsticks(query.vector[None], background.of(view), typical)[0]
        for view in sorted({tracks[key].view for key in shown})
    }
    rate = _rate(store, background)
    allowed = query.promise.chance(rate)
    people = []
    for key in shown:
        track = tracks[key]
        score = float(np.asarray(track.vector, np.float32) @ query.vector)
        p_value = float(sticks[track.view].p_values(np.array(score), True))
        people.append(Standing(track, score, p_value, p_value <= allowed, jpegs[key]))
    people.sort(key=lambda one: (one.p_value, -one.score))
    return Curve(query.text, query.promise, sticks, people[:top], rate, allowed, len(index))


def _rate(store: TrackStore, background: Background) -> float:
    """People an hour, of the store where it spans some time."""
    facts = store.facts()
    if facts["tracks"] and facts["last_s"] - facts["first_s"] > HOUR_S / 6:
        return float(facts["tracks"] / (facts["last_s"] - facts["first_s"]) * HOUR_S)
    return background.people_per_hour or PRIOR_PER_HOUR


def draw_curve(found: Curve) -> Image:
    """The plot, and under it whom the threshold lets through and who is next; RGB uint8 (H, W, 3)."""
    promise = found.promise
    said = (
        f"{promise.rate:g} false alarm(s) {'an hour' if promise.per_hour else 'among 1,000 people'} allowed"
    )
    image = page(WIDTH_PX, HEIGHT_PX, found.query, f"{said}, {found.people_per_hour:.0f} people an hour")
    lows = [stick.many.start for stick in found.sticks.values()]
    highs = [stick.score_at(1e-5, True) for stick in found.sticks.values()]
    highs += [one.score for one in found.people[:1]]
    low, high = min(lows, default=0.0) - 0.05, max(highs, default=1.0) + 0.05
    most = max(found.people_per_hour * 2 * TAIL_SHARE, 10 * FEWEST_PER_HOUR)
    plot = Plot(
        image,
        Axis("score of the threshold", low, high),
        Axis("false alarms an hour", FEWEST_PER_HOUR, most, log=True),
        (96, 110, WIDTH_PX - 130, HEIGHT_PX - 110 - STRIP_PX - 110),
    )
    xs = np.linspace(low, high, 200).tolist()
    for row, (view, stick) in enumerate(found.sticks.items()):
        colour = COLOURS[row % len(COLOURS)]

        def per_hour(score: float, stick: Yardstick = stick) -> float:
            return float(stick.p_values(np.array(score), True)) * found.people_per_hour

        plot.curve(xs, per_hour, colour, view if view != UNKNOWN else "view unknown", row)
        plot.upright(stick.score_at(found.allowed, True), "threshold", colour, row)
    for one in found.people:
        plot.dot(one.score, one.p_value * found.people_per_hour, MARK if one.hit else SOFT)
    left = 24
    for one in found.people:
        picture = decode_image(one.thumbnail)
        if picture is None or left + 90 > WIDTH_PX:
            continue
        top = HEIGHT_PX - STRIP_PX - 30
        image[top - 4 : top, left : left + 84] = MARK if one.hit else SOFT
        place(image, picture, left, top, 84, STRIP_PX - 30)
        plot.note(f"{one.score:.2f}", left, HEIGHT_PX - 34, INK)
        left += 92
    return image

"""Who of everybody stored comes nearest to a standing query, and what a score is worth: the maths of the devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.alerts import HOUR_S, Promise, people_per_hour, promised
from tagclip.runtime.background import UNKNOWN, Background
from tagclip.runtime.encoder import AUTO
from tagclip.runtime.judge import MANY_CROPS, Judge
from tagclip.runtime.station.tracks import Tracks
from tagclip.runtime.station.vectors import Vectors
from tagclip.runtime.vector_scan import Where

USUAL = Promise(
    1.0
)  # what a device promises that was told nothing, neither by the query nor by its own options
LEAST_LOOKED_AT, LOOKED_AT = (
    200,
    20,
)  # by score, so many times as many as are shown: then by what the score is worth


@dataclass(frozen=True)
class Yardstick:
    """What scores of an encoder are measured by.

    Attributes:
        background: people who are nobody's target.
        typical: float32 (T, D), see `Judge`.
    """

    background: Background
    typical: NDArray[np.float32]


def candidates(
    query: dict[str, Any],
    vector: NDArray[np.float32],
    yardstick: Yardstick,
    tracks: Tracks,
    vectors: Vectors,
    top: int,
) -> dict[str, Any]:
    """The tracks that fit a query best, the least likely false alarm first.

    Args:
        query: with the keys of a set's query.
        vector: float32 (D,) of its text, a unit vector of the yardstick's encoder.

    Returns:
        promise: rate and per ("hour" or "1000") in force, and whether the query says so itself.
        cameras: of each the people that passed, people_per_hour, chance (of a false alarm that each person may have)
            and thresholds by view, for people seen in several pictures.
        compared, left_out: see `Found`. unjudged: near, but of a view that the background does not know.
        candidates: tracks as `Tracks.shown` has them, with rank, score, p_value, false_alarms_per_hour (at this score),
            threshold (in force) and over (it).
    """
    own = promised(query["alarms_per_hour"], query["alarms_per_1000"])
    promise = own or USUAL
    views = None if query["view"] == AUTO else frozenset((query["view"], UNKNOWN))
    wanted = max(LOOKED_AT * top, LEAST_LOOKED_AT)
    found = vectors.search(vector, yardstick.background.encoder_id, Where(views=views), wanted)
    judge = Judge(vector[None], yardstick.background, yardstick.typical)
    known = yardstick.background.people_per_hour
    cameras: dict[tuple[str, str], dict[str, Any]] = {}
    for device, camera, people, first_s, last_s in tracks.cameras():
        rate = people_per_hour(people, max(last_s - first_s, 0.0) / HOUR_S, known)
        cameras[device, camera] = {
            "device": device,
            "camera": camera,
            "people": people,
            "people_per_hour": round(rate, 2),
            "chance": promise.chance(rate),
            "thresholds": {
                view: round(judge.of(view)[0].score_at(promise.chance(rate), True), 4)
                for view in yardstick.background.views
                if views is None or view in views
            },
        }
    records, rows, unjudged = tracks.shown(track_id for track_id, _ in found.tracks), [], 0
    for track_id, score in found.tracks:
        record = records.get(track_id)  # it may be deleted meanwhile, or told from a new camera
        seen_by = cameras.get((record["device"], record["camera"])) if record else None
        if record is None or seen_by is None:
            continue
        if record["view"] not in yardstick.background.views:
            unjudged += 1
            continue
        stick, many = judge.of(record["view"])[0], record["crops"] >= MANY_CROPS
        p_value = float(stick.p_values(np.array(score), many))
        rows.append(
            {
                **record,
                "score": round(score, 4),
                "p_value": float(f"{p_value:.3g}"),
                "false_alarms_per_hour": float(f"{p_value * seen_by['people_per_hour']:.3g}"),
                "threshold": round(stick.score_at(seen_by["chance"], many), 4),
                "over": p_value <= seen_by["chance"],
            }
        )
    rows.sort(key=lambda row: (row["p_value"], -row["score"], row["track_id"]))
    return {
        "promise": {
            "rate": promise.rate,
            "per": "hour" if promise.per_hour else "1000",
            "of_query": own is not None,
        },
        "encoder_id": yardstick.background.encoder_id,
        "cameras": list(cameras.values()),
        "compared": found.compared,
        "left_out": found.left_out,
        "unjudged": unjudged,
        "candidates": [{"rank": rank, **row} for rank, row in enumerate(rows[:top], 1)],
    }

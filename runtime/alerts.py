"""Standing queries against the people of one camera: who is a hit, at the rate of false alarms that was promised."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.background import UNKNOWN, Background
from tagclip.runtime.encoder import AUTO
from tagclip.runtime.errors import ConfigError
from tagclip.runtime.hit import Hit
from tagclip.runtime.ids import uuid7
from tagclip.runtime.judge import MANY_CROPS, Judge
from tagclip.runtime.search import Encodes
from tagclip.runtime.store_track import StoredTrack
from tagclip.runtime.terms import combined, parse_terms

HOUR_S = 3600.0
# Before anybody has passed: as if so many people had, at this rate; so that the first minute's three people are no 180
# an hour, and an empty field no licence for alarms.
PRIOR_PEOPLE, PRIOR_PER_HOUR = 10.0, 100.0
# What people type, to learn what the tails of queries have in common.
TYPICAL = tuple(
    f"a {who} in a {top} and {bottom}"
    for who in ("man", "woman", "person")
    for top in ("red jacket", "black coat", "white t-shirt", "blue hoodie", "green shirt", "grey sweater")
    for bottom in ("blue jeans", "black trousers", "beige shorts with a backpack")
)
NEWS = 2.0  # a hit is told again when its chance of a false alarm has changed by this factor


@dataclass(frozen=True)
class Promise:
    """How many false alarms of a query are allowed.

    Attributes:
        rate: false alarms of each query at this camera, over 0.
        per_hour: in an hour; else among 1,000 people.
    """

    rate: float
    per_hour: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1e6:
            raise ConfigError(
                f"expected a rate of false alarms over 0, found {self.rate:g}; 1 an hour is usual"
            )

    def chance(self, people_per_hour: float) -> float:
        """The chance of a false alarm, 0..1, that each person may have."""
        return min(1.0, self.rate / people_per_hour if self.per_hour else self.rate / 1000.0)


def promised(per_hour: float | None, per_1000: float | None) -> Promise | None:
    """What was given, an hour before among 1,000 people; None for neither. Raises: as `Promise`."""
    if per_hour:
        return Promise(per_hour)
    return Promise(per_1000, per_hour=False) if per_1000 else None


def people_per_hour(passed: int, seen_h: float, known: float | None) -> float:
    """That pass, where `passed` were seen in `seen_h` hours, with a prior that fades: the site's own `known` rate."""
    return (passed + PRIOR_PEOPLE) / (seen_h + PRIOR_PEOPLE / (known or PRIOR_PER_HOUR))


@dataclass(frozen=True)
class StandingQuery:
    """A query that waits for somebody.

    Attributes:
        id, text: as hits say them.
        vector: float32 (D,), a unit vector.
        promise: of false alarms.
        view: "aerial" or "ground" to judge people who are seen from there only; whoever is seen from nobody knows
            where is always judged.
        expires_s: Unix time, UTC, from which it is not looked for any more.
    """

    id: str
    text: str
    vector: NDArray[np.float32]
    promise: Promise
    view: str = AUTO
    expires_s: float | None = None

    def looks_at(self, view: str) -> bool:
        """Whether people who are seen from `view` are judged."""
        return self.view in (AUTO, view) or view == UNKNOWN


def standing(
    texts: Sequence[str], encoder: Encodes, background: Background, promise: Promise
) -> list[StandingQuery]:
    """Queries as they were typed, made ready; their ids are q1, q2, ... in this order.

    Args:
        encoder: the bundle's text encoder.
        promise: of each.

    Raises:
        QueryError: one of them cannot be searched for.
        EngineError: the encoder fails.
    """
    return [
        StandingQuery(f"q{number}", text, vector_of(text, encoder, background), promise)
        for number, text in enumerate(texts, 1)
    ]


def vector_of(text: str, encoder: Encodes, background: Background) -> NDArray[np.float32]:
    """The unit vector (D,) of a query with its terms. Raises: as `standing`."""
    terms = parse_terms(text)
    vectors = encoder.embed([term.text for term in terms])
    if len(terms) == 1:
        return np.asarray(vectors[0], np.float32)
    people = np.concatenate([people.many for people in background.views.values()])
    return combined(vectors, terms, (people @ vectors.T).astype(np.float64).std(0))


def hit_on(query: StandingQuery, track: StoredTrack, frame_px: tuple[int, int], **found: Any) -> Hit:
    """The hit of a query on a track; `found` are the fields of `Hit` that neither of them says."""
    return Hit(
        query_id=query.id,
        query=query.text,
        track_id=track.id,
        camera=track.camera,
        view=track.view,
        encoder_id=track.encoder_id,
        start_s=track.start_s,
        end_s=track.end_s,
        best_s=track.best_s,
        frame=track.frame,
        box_xywh_px=track.box_xywh_px,
        frame_px=frame_px,
        place=track.place,
        **found,
    )


class Alerts:
    """Judges the people of one camera as they are seen.

    Args:
        queries: may be none, and others later, see `arm`.
        typical: (T, D), the vectors of TYPICAL.
        frame_px: width and height of the camera's frames.
    """

    def __init__(
        self,
        queries: Sequence[StandingQuery],
        background: Background,
        typical: NDArray[np.float32],
        frame_px: tuple[int, int],
    ) -> None:
        self._background, self._typical, self._frame_px = background, typical, frame_px
        self._known_rate = background.people_per_hour
        self._people: dict[uuid.UUID, dict[str, Hit]] = {}  # who is in view, and their hits by query
        self._passed = 0
        self._began_s: float | None = None
        self._now_s = 0.0
        self._judge: Judge | None = None
        self.arm(queries)

    def judge_of(self, queries: Sequence[StandingQuery]) -> Judge | None:
        """For `arm`, ready, so that no frame waits for it: it may be made in another thread. None for no queries."""
        judge = self._new_judge(queries)
        if judge is not None:
            judge.make_ready()
        return judge

    def arm(self, queries: Sequence[StandingQuery], judge: Judge | None = None) -> None:
        """Look for these from now on; what was a hit of a query that stays, by its id, remains one.

        Args:
            judge: of `judge_of` for these queries; None makes one as it is needed.
        """
        self.queries = list(queries)
        self._judge = judge or self._new_judge(queries)
        kept = {query.id for query in queries}
        for hits in self._people.values():
            for name in hits.keys() - kept:
                del hits[name]

    def _new_judge(self, queries: Sequence[StandingQuery]) -> Judge | None:
        if not queries:
            return None
        vectors = np.stack([query.vector for query in queries])
        return Judge(vectors, self._background, self._typical, self._judge)

    @property
    def in_view(self) -> frozenset[uuid.UUID]:
        """Whose tracks were judged, and will be again."""
        return frozenset(self._people)

    @property
    def people_per_hour(self) -> float:
        """That pass: what was seen so far, with a prior that fades (the site's own rate, where it was calibrated)."""
        seen_h = 0.0 if self._began_s is None else max(self._now_s - self._began_s, 0.0) / HOUR_S
        return people_per_hour(self._passed, seen_h, self._known_rate)

    def judge(self, track: StoredTrack, crops: int, *, last: bool) -> list[Hit]:
        """Judge somebody by what is known of them now.

        Args:
            track: as it is or would be kept.
            crops: how many pictures its vector is the mean of.
            last: they are gone.

        Returns:
            hits that are new, or that have news.

        Raises:
            BackgroundError: the background has nobody of the track's view.
        """
        self._began_s = track.start_s if self._began_s is None else min(self._began_s, track.start_s)
        self._now_s = max(self._now_s, track.end_s)
        if track.id not in self._people:
            self._people[track.id] = {}
            self._passed += 1
        if self._judge is None:
            return []
        known_hits, rate = self._people[track.id], self.people_per_hour
        scores, chances = self._judge.judge(track.view, track.vector, crops)
        told = []
        for k, query in enumerate(self.queries):
            if not query.looks_at(track.view):
                continue
            allowed, known = query.promise.chance(rate), known_hits.get(query.id)
            if known is None and chances[k] > allowed:
                continue
            if known and not last and 1 / NEWS < chances[k] / known.p_value < NEWS:
                continue
            stick = self._judge.of(track.view)[k]
            hit = hit_on(
                query,
                track,
                self._frame_px,
                id=known.id if known else uuid7(int(track.end_s * 1000)),
                revision=known.revision + 1 if known else 1,
                score=float(scores[k]),
                p_value=float(chances[k]),
                false_alarms_per_hour=float(chances[k]) * rate,
                threshold=stick.score_at(allowed, crops >= MANY_CROPS),
                crops=crops,
            )
            known_hits[query.id] = hit
            told.append(hit)
        return told

    def forget(self, track_id: uuid.UUID) -> None:
        """They are gone, and were judged for the last time."""
        self._people.pop(track_id, None)

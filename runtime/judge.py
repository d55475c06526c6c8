"""What a score is worth: of how many people who are not meant would one score as high?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.background import Background, People
from tagclip.runtime.tail import Tail, each_p_value, fit_tail, pooled_shape

MANY_CROPS = 3  # from so many pictures on, a person is measured by those who were seen in several
LOOKS_AT = 0.02  # chance at which is counted how much two looks at the same people add
LEAST_P = 1e-9

Floats = NDArray[np.float64]
Shapes = tuple[float, float]  # of the tails of `Yardstick.one` and `Yardstick.many`


@dataclass(frozen=True)
class Yardstick:
    """Of one query and view.

    Attributes:
        one, many: tails of those seen in one picture, and in several.
        looks: 1 to 2. Somebody is judged early, by one picture, and again by several; each time is a chance for a
            false alarm. By so much both together exceed one of them, where each has the chance LOOKS_AT.
        fade: the rarer, the less the two go together: of 2 - looks, the share of false alarms that both looks raise,
            goes with chance ^ fade (Ledford and Tawn 1996; (1 - r) / (1 + r) for normal scores of correlation r).
    """

    one: Tail
    many: Tail
    looks: float
    fade: float

    def p_values(self, scores: Floats, many: bool) -> Floats:
        """The chance, 0..1, that somebody who is not meant scores so high at any look."""
        tail = self.many if many else self.one
        return _either(tail.p_values(scores), self.looks, self.fade)

    def score_at(self, p: float, many: bool) -> float:
        """The inverse of `p_values`."""
        one_look = p / self.looks
        for _ in range(6):  # p_values' factor changes slowly: each round is nearer by 1 : fade
            one_look *= p / float(_either(np.array(one_look), self.looks, self.fade))
        return (self.many if many else self.one).score_at(one_look)


class Judge:
    """Of the queries whose unit vectors are the rows of float32 (Q, D).

    Args:
        typical: (T, D), of descriptions such as people type; what the tails of queries have in common is learnt there.
        before: of the same background, for other queries; those that stay are not measured again.
    """

    def __init__(
        self,
        vectors: NDArray[np.float32],
        background: Background,
        typical: NDArray[np.float32],
        before: Judge | None = None,
    ) -> None:
        self._vectors, self._background, self._typical = vectors, background, typical
        self._sticks: dict[str, list[Yardstick]] = {}
        self._shapes: dict[str, Shapes] = {} if before is None else before._shapes
        self._known = {} if before is None else before._by_vector()

    @property
    def queries(self) -> int:
        """How many there are."""
        return len(self._vectors)

    def of(self, view: str) -> list[Yardstick]:
        """One a query; made when it is first asked for, which takes about 3 ms for each that is new.

        Raises:
            BackgroundError: the view has no background.
        """
        if view not in self._sticks:
            people, known = self._background.of(view), self._known.get(view, {})
            if view not in self._shapes:
                self._shapes[view] = shapes_of(people, self._typical)
            new = [k for k, vector in enumerate(self._vectors) if vector.tobytes() not in known]
            made = dict(zip(new, _measured(self._vectors[new], people, self._shapes[view]), strict=True))
            self._sticks[view] = [
                made[k] if k in made else known[vector.tobytes()] for k, vector in enumerate(self._vectors)
            ]
        return self._sticks[view]

    def make_ready(self) -> None:
        """Make the yardsticks of every view that the background has, so that nobody who is seen waits for them."""
        for view in self._background.views:
            self.of(view)

    def _by_vector(self) -> dict[str, dict[bytes, Yardstick]]:
        names = [vector.tobytes() for vector in self._vectors]
        return {view: dict(zip(names, sticks, strict=True)) for view, sticks in list(self._sticks.items())}

    def judge(self, view: str, vector: NDArray[np.float32], crops: int) -> tuple[Floats, Floats]:
        """Scores and chances of a false alarm (Q,) of the unit vector (D,) of a person seen in `crops` pictures.

        Raises:
            BackgroundError: as `of`.
        """
        scores = (self._vectors @ np.asarray(vector, np.float32)).astype(np.float64)
        sticks = self.of(view)
        tails = [stick.many if crops >= MANY_CROPS else stick.one for stick in sticks]
        looks, fade = np.array([(stick.looks, stick.fade) for stick in sticks]).T
        return scores, _either(each_p_value(tails, scores), looks, fade)


def _either(p: Floats, looks: float | Floats, fade: float | Floats) -> Floats:
    """The chance that either look is a false alarm, of which each is one with chance `p`; see `Yardstick`."""
    shared = (2.0 - looks) * (np.clip(p, LEAST_P, LOOKS_AT) / LOOKS_AT) ** fade
    found: Floats = np.minimum(p * (2.0 - shared), 1.0)
    return found


def yardsticks(vectors: NDArray[np.float32], people: People, typical: NDArray[np.float32]) -> list[Yardstick]:
    """One for each of the queries (Q, D); `typical` as of `Judge`."""
    return _measured(vectors, people, shapes_of(people, typical))


def shapes_of(people: People, typical: NDArray[np.float32]) -> Shapes:
    """Of the tails of scores of people in one picture and in several; `typical` as of `Judge`."""
    one, many = (pooled_shape((typical @ rows.T).astype(np.float64)) for rows in (people.one, people.many))
    return one, many


def _measured(vectors: NDArray[np.float32], people: People, shapes: Shapes) -> list[Yardstick]:
    pairs = zip(vectors @ people.one.T, vectors @ people.many.T, strict=True)
    return [yardstick(one.astype(np.float64), many.astype(np.float64), shapes) for one, many in pairs]


def yardstick(one: Floats, many: Floats, shapes: Shapes | tuple[()] = ()) -> Yardstick:
    """From a query's scores (N,) of the same N people, seen in one picture and in several; shapes of the two tails."""
    first, second = (fit_tail(*each) for each in zip((one, many), shapes or (None, None), strict=True))
    either = np.minimum(first.p_values(one), second.p_values(many)) <= LOOKS_AT
    together = float(np.corrcoef(one, many)[0, 1]) if one.std() > 0 and many.std() > 0 else 1.0
    together = max(together, 0.0)
    looks = float(np.clip(either.mean() / LOOKS_AT, 1.0, 2.0))
    return Yardstick(first, second, looks, (1.0 - together) / (1.0 + together))

"""What a score is worth: of how many people who are not meant would one score as high?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.background import Background, People
from tagclip.runtime.tail import Tail, fit_tail

MANY_CROPS = 3  # from so many pictures on, a person is measured by those who were seen in several
LOOKS_AT = 0.02  # chance at which is counted how much two looks at the same people add

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Yardstick:
    """Of one query and view.

    Attributes:
        one, many: tails of those seen in one picture, and in several.
        looks: 1 to 2. Somebody is judged early, by one picture, and again by several; each time is a chance for a
            false alarm. By so much both together exceed one of them.
    """

    one: Tail
    many: Tail
    looks: float

    def p_values(self, scores: Floats, many: bool) -> Floats:
        """The chance, 0..1, that somebody who is not meant scores so high at any look."""
        tail = self.many if many else self.one
        return np.minimum(self.looks * tail.p_values(scores), 1.0)

    def score_at(self, p: float, many: bool) -> float:
        """The inverse of `p_values`."""
        return (self.many if many else self.one).score_at(p / self.looks)


class Judge:
    """Of the queries whose unit vectors are the rows of float32 (Q, D)."""

    def __init__(self, vectors: NDArray[np.float32], background: Background) -> None:
        self._vectors, self._background = vectors, background
        self._sticks: dict[str, list[Yardstick]] = {}

    def of(self, view: str) -> list[Yardstick]:
        """One a query. Raises: BackgroundError, the view has no background."""
        if view not in self._sticks:
            self._sticks[view] = yardsticks(self._vectors, self._background.of(view))
        return self._sticks[view]

    def judge(self, view: str, vector: NDArray[np.float32], crops: int) -> tuple[Floats, Floats]:
        """Scores and chances of a false alarm (Q,) of the unit vector (D,) of a person seen in `crops` pictures.

        Raises:
            BackgroundError: as `of`.
        """
        scores = (self._vectors @ np.asarray(vector, np.float32)).astype(np.float64)
        sticks, many = self.of(view), crops >= MANY_CROPS
        return scores, np.array(
            [float(stick.p_values(score, many)) for stick, score in zip(sticks, scores, strict=True)]
        )


def yardsticks(vectors: NDArray[np.float32], people: People) -> list[Yardstick]:
    """One for each of the queries (Q, D)."""
    pairs = zip(vectors @ people.one.T, vectors @ people.many.T, strict=True)
    return [yardstick(one.astype(np.float64), many.astype(np.float64)) for one, many in pairs]


def yardstick(one: Floats, many: Floats) -> Yardstick:
    """From a query's scores (N,) of the same N people, seen in one picture and in several."""
    first, second = fit_tail(one), fit_tail(many)
    either = np.minimum(first.p_values(one), second.p_values(many)) <= LOOKS_AT
    return Yardstick(first, second, float(np.clip(either.mean() / LOOKS_AT, 1.0, 2.0)))

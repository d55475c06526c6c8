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
    """

    def __init__(
        self, vectors: NDArray[np.float32], background: Background, typical: NDArray[np.float32]
    ) -> None:
        self._vectors, self._background, self._typical = vectors, background, typical
        self._sticks: dict[str, list[Yardstick]] = {}

    @property
    def queries(self) -> int:
        """How many there are."""
        return len(self._vectors)

    def of(self, view: str) -> list[Yardstick]:
        """One a query. Raises: BackgroundError, the view has no background."""
        if view not in self._sticks:
            self._sticks[view] = yardsticks(self._vectors, self._background.of(view), self._typical)
        return self._sticks[view]

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
    shapes = tuple(pooled_shape((typical @ rows.T).astype(np.float64)) for rows in (people.one, people.many))
    pairs = zip(vectors @ people.one.T, vectors @ people.many.T, strict=True)
    return [yardstick(one.astype(np.float64), many.astype(np.float64), shapes) for one, many in pairs]


def yardstick(one: Floats, many: Floats, shapes: tuple[float, ...] = ()) -> Yardstick:
    """From a query's scores (N,) of the same N people, seen in one picture and in several; shapes of the two tails."""
    first, second = (fit_tail(*each) for each in zip((one, many), shapes or (None, None), strict=True))
    either = np.minimum(first.p_values(one), second.p_values(many)) <= LOOKS_AT
    together = float(np.corrcoef(one, many)[0, 1]) if one.std() > 0 and many.std() > 0 else 1.0
    together = max(together, 0.0)
    looks = float(np.clip(either.mean() / LOOKS_AT, 1.0, 2.0))
    return Yardstick(first, second, looks, (1.0 - together) / (1.0 + together))

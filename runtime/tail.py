"""How likely is it that somebody who is not meant scores as high? The upper tail of a query's background scores.

Up to a high quantile the background itself is counted; above it, where few of it are left, stands a generalised Pareto
distribution (Pickands 1975: the excesses over a high threshold of nearly every distribution tend to it). Its scale is
known from few excesses only, so chances are those that are predicted when the scale may be another: somewhat higher,
the more so the smaller the background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TAIL_SHARE = 0.03  # of the background, that the tail is fitted to
FAR_OUT = 1 / 30  # of the tail: where a pooled shape is right, so at one of 1,000 people
SHAPES = (-0.4, 0.4)  # a shape outside of them is chance: cosines are bounded, but not close above the tail
LEAST_P = 0.02  # of 1/N: nobody knows how the tail goes on further out

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Tail:
    """Of one query's background scores.

    Attributes:
        scores: float64 (N,), rising.
        start: score at which the tail begins.
        share: of the background that scores higher than `start`.
        scale, shape: sigma and xi of the generalised Pareto distribution of the excesses over `start`.

    With z = log(1 + xi y / sigma) / xi, which is exponential, and n excesses, y is exceeded with chance
    share * (1 + z / n) ^ -n.
    """

    scores: Floats
    start: float
    share: float
    scale: float
    shape: float

    def p_values(self, scores: Floats) -> Floats:
        """The chance, 0..1, that somebody of the background scores as high as each of `scores` (any shape)."""
        scores = np.asarray(scores, np.float64)
        below = np.searchsorted(self.scores, scores, side="left")
        return _chances(scores, below, len(self.scores), self.start, self.share, self.scale, self.shape)

    def score_at(self, p: float) -> float:
        """The score that is reached with chance `p`, 0..1: the inverse of `p_values`."""
        if p >= self.share:
            return float(np.quantile(self.scores, 1.0 - min(p, 1.0)))
        n = self.share * len(self.scores)
        z = n * ((self.share / max(p, LEAST_P / len(self.scores))) ** (1.0 / n) - 1.0)
        if abs(self.shape) < 1e-6:
            return self.start + self.scale * z
        return self.start + self.scale * float(np.expm1(self.shape * z)) / self.shape


def each_p_value(tails: Sequence[Tail], scores: Floats) -> Floats:
    """`p_values` of one score for each of Q tails, (Q,), at once; the tails have one shape and as many scores."""
    below = np.array([np.searchsorted(tail.scores, score) for tail, score in zip(tails, scores, strict=True)])
    starts, scales = np.array([(tail.start, tail.scale) for tail in tails]).T
    first = tails[0]
    return _chances(scores, below, len(first.scores), starts, first.share, scales, first.shape)


def _chances(
    scores: Floats,
    below: NDArray[np.integer],
    count: int,
    start: float | Floats,
    share: float,
    scale: float | Floats,
    shape: float,
) -> Floats:
    """Of scores, with how many of the `count` background scores are `below` each."""
    n = share * count
    with np.errstate(over="ignore"):
        survival = _survival(np.maximum(scores - start, 0.0) / scale, shape)
        beyond = share * (1.0 - np.log(survival) / n) ** -n
    found: Floats = np.where(scores > start, beyond, np.maximum(1.0 - below / count, share))
    return np.clip(found, LEAST_P / count, 1.0)


def fit_tail(scores: Floats, shape: float | None = None) -> Tail:
    """Fit the tail of background scores (N,), N at least 20.

    Args:
        shape: xi, where it is known better than these scores tell it, see `pooled_shape`. None fits it, too.
    """
    ordered = np.sort(np.asarray(scores, np.float64))
    count = len(ordered)
    start, excesses = _excesses(ordered)
    tail = len(excesses)
    if shape is None:
        shape = shape_of(excesses)
    # With the shape given, the mean excess, sigma / (1 - xi), gives the scale.
    scale = max(float(excesses.mean()) * (1.0 - shape), 1e-9)
    return Tail(ordered, start, tail / count, scale, shape)


def pooled_shape(scores: Floats) -> float:
    """xi that many queries have in common, from their scores (Q, N) of the same background.

    One query's own few excesses tell little of it, and moments tell what is near the threshold. So each query's
    excesses are divided by their mean, put together, and xi is what reaches the pool's quantile at FAR_OUT.
    """
    pool = []
    for row in np.asarray(scores, np.float64):
        _, excesses = _excesses(np.sort(row))
        if (mean := float(excesses.mean())) > 0:
            pool.append(excesses / mean)
    if not pool:
        return 0.0
    far = float(np.quantile(np.concatenate(pool), 1 - FAR_OUT))
    low, high = SHAPES
    for _ in range(40):  # the chance to exceed `far` grows with xi
        middle = (low + high) / 2
        if float(_survival(np.array(far / (1 - middle)), middle)) < FAR_OUT:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _excesses(ordered: Floats) -> tuple[float, Floats]:
    """The start of the tail of rising scores, and how much the scores of the tail exceed it, rising."""
    tail = max(10, round(TAIL_SHARE * len(ordered)))
    start = float(ordered[-tail - 1 : -tail + 1].mean())
    return start, ordered[-tail:] - start


def shape_of(excesses: Floats) -> float:
    """xi by probability-weighted moments (Hosking and Wallis 1987, eq. 6 with k = -xi), within SHAPES.

    Args:
        excesses: (n,) over the threshold, rising.
    """
    n = len(excesses)
    mean = float(excesses.mean())
    weighted = float((excesses * (n - 1 - np.arange(n)) / max(n - 1, 1)).mean())
    if mean <= 0 or mean - 2 * weighted <= 0:
        return SHAPES[1] if mean > 0 else 0.0
    return float(np.clip(2.0 - mean / (mean - 2 * weighted), *SHAPES))


def _survival(excess: Floats, shape: float) -> Floats:
    """1 - F of the generalised Pareto distribution with scale 1."""
    if abs(shape) < 1e-6:
        return np.maximum(np.exp(-excess), 1e-300)
    inside = np.maximum(1.0 + shape * excess, 0.0)
    with np.errstate(divide="ignore"):
        found: Floats = np.where(inside > 0, inside ** (-1.0 / shape), 0.0)
    return np.maximum(found, 1e-300)

"""How likely is it that somebody who is not meant scores as high? The upper tail of a query's background scores.

Up to a high quantile the background itself is counted; above it, where few of it are left, stands a generalised Pareto
distribution (Pickands 1975: the excesses over a high threshold of nearly every distribution tend to it).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TAIL_SHARE = 0.05  # of the background, that the tail is fitted to
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
    """

    scores: Floats
    start: float
    share: float
    scale: float
    shape: float

    def p_values(self, scores: Floats) -> Floats:
        """The chance, 0..1, that somebody of the background scores as high as each of `scores` (any shape)."""
        scores = np.asarray(scores, np.float64)
        count = len(self.scores)
        counted = 1.0 - np.searchsorted(self.scores, scores, side="left") / count
        beyond = self.share * _survival(np.maximum(scores - self.start, 0.0) / self.scale, self.shape)
        found: Floats = np.where(scores > self.start, beyond, np.maximum(counted, self.share))
        return np.clip(found, LEAST_P / count, 1.0)

    def score_at(self, p: float) -> float:
        """The score that is reached with chance `p`, 0..1: the inverse of `p_values`."""
        if p >= self.share:
            return float(np.quantile(self.scores, 1.0 - min(p, 1.0)))
        log_ratio = np.log(self.share / max(p, LEAST_P / len(self.scores)))
        if abs(self.shape) < 1e-6:
            return self.start + self.scale * float(log_ratio)
        return self.start + self.scale * float(np.expm1(self.shape * log_ratio)) / self.shape


def fit_tail(scores: Floats, shape: float | None = None) -> Tail:
    """Fit the tail of background scores (N,), N at least 20.

    Args:
        shape: xi, where it is known better than these scores tell it: of a pool of queries. None fits it, too.
    """
    ordered = np.sort(np.asarray(scores, np.float64))
    count = len(ordered)
    tail = max(10, round(TAIL_SHARE * count))
    start = float((ordered[count - tail - 1] + ordered[count - tail]) / 2)
    excesses = ordered[count - tail :] - start
    if shape is None:
        shape = shape_of(excesses)
    # With the shape given, the mean excess, sigma / (1 - xi), gives the scale.
    scale = max(float(excesses.mean()) * (1.0 - shape), 1e-9)
    return Tail(ordered, start, tail / count, scale, shape)


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
        return np.exp(-excess)
    inside = np.maximum(1.0 + shape * excess, 0.0)
    with np.errstate(divide="ignore"):
        found: Floats = np.where(inside > 0, inside ** (-1.0 / shape), 0.0)
    return found

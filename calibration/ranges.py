"""Which part of a tensor's values eight bits should cover: four rules over a histogram of real values.

Symmetric: an integer q from -127 to 127 stands for q * range / 127, and what lies outside the range is clipped.
NVIDIA's parser takes nothing else (zero points other than 0 are refused).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

BINS = 2048
LEVELS = 128  # of a magnitude: 0..127
PERCENTILE = 99.99

Counts = NDArray[np.float64]


class Histogram:
    """Magnitudes of a tensor, gathered piece by piece; its bins grow with what comes.

    Attributes:
        counts: (BINS,) how many magnitudes fell into each bin.
        width: of a bin; 0 before the first value other than 0.
        largest: the largest magnitude seen.
    """

    def __init__(self) -> None:
        self.counts: Counts = np.zeros(BINS)
        self.width = 0.0
        self.largest = 0.0

    def add(self, values: NDArray[np.floating]) -> None:
        """Count the magnitudes of an array of any shape.

        Raises:
            ValueError: a value is not finite.
        """
        magnitudes = np.abs(values).ravel()
        top = float(magnitudes.max(initial=0.0))
        if not np.isfinite(top):
            raise ValueError("expected finite values, found NaN or infinity")
        self.largest = max(self.largest, top)
        if self.width == 0.0 and top > 0.0:
            self.width = top / BINS
        while top > self.width * BINS:  # two bins become one: nothing that was counted is lost
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(1), np.zeros(BINS // 2)])
            self.width *= 2
        if self.width > 0.0:
            found = np.minimum((magnitudes / self.width).astype(np.int64), BINS - 1)
            self.counts += np.bincount(found, minlength=BINS)
        else:
            self.counts[0] += len(magnitudes)


def by_minmax(histogram: Histogram) -> float:
    """The largest magnitude: nothing is clipped, one far value makes everything coarse."""
    return histogram.largest


def by_percentile(histogram: Histogram) -> float:
    """The magnitude under which 99.99 % of all values lie."""
    share = histogram.counts.cumsum() / max(histogram.counts.sum(), 1.0)
    upto = int(np.searchsorted(share, PERCENTILE / 100))
    return min((upto + 1) * histogram.width, histogram.largest)


def by_mse(histogram: Histogram) -> float:
    """The range with the least mean squared error of what is rounded inside and clipped outside."""
    centres = (np.arange(BINS) + 0.5) * histogram.width
    best, found = np.inf, histogram.largest
    for stop in range(LEVELS, BINS + 1, 8) if histogram.width else ():
        limit = stop * histogram.width
        step = limit / (LEVELS - 1)
        rounded = np.minimum(np.round(centres / step), LEVELS - 1) * step
        error = float(histogram.counts @ (centres - rounded) ** 2)
        if error < best:
            best, found = error, limit
    return min(found, histogram.largest)


def by_entropy(histogram: Histogram) -> float:
    """The range whose 128 levels keep most of the distribution: least Kullback-Leibler divergence.

    As NVIDIA described it (Migacz, "8-bit Inference with TensorRT", GTC 2017): the reference holds what is outside of
    the range in its last bin, the candidate spreads each level over the bins of it that are not empty.
    """
    counts = histogram.counts
    best, found = np.inf, histogram.largest
    for stop in range(LEVELS, BINS + 1, 8):
        reference = counts[:stop].copy()
        reference[-1] += counts[stop:].sum()
        level = np.arange(stop) * LEVELS // stop
        filled = reference > 0
        sums = np.bincount(level, counts[:stop], LEVELS)
        spread = np.bincount(level, filled, LEVELS)
        candidate = np.where(filled, sums[level] / np.maximum(spread[level], 1.0), 0.0)
        divergence = _divergence(reference, candidate)
        if divergence < best:
            best, found = divergence, stop * histogram.width
    return min(found, histogram.largest)


def _divergence(reference: Counts, candidate: Counts) -> float:
    """KL(reference || candidate) of two unnormalised distributions; empty candidate bins count as nearly empty."""
    filled = reference > 0
    if not filled.any() or candidate.sum() == 0:
        return np.inf
    p, q = reference / reference.sum(), candidate / candidate.sum()
    return float((p[filled] * np.log(p[filled] / np.maximum(q[filled], 1e-9))).sum())


RULES: dict[str, Callable[[Histogram], float]] = {
    "minmax": by_minmax,
    "percentile": by_percentile,
    "entropy": by_entropy,
    "mse": by_mse,
}

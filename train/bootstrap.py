"""Confidence intervals of retrieval metrics, people being what is drawn again.

The captions of one person are not independent: a coat that the model does not see fails all of its queries. So whole
people are drawn with replacement, not captions; intervals over captions would be far too narrow.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from tagclip.runtime.ranking import Ids, Numbers

RESAMPLES = 1000
LEVEL = 0.95
_CELLS = 4_000_000  # weights held at once


def interval(
    values: Numbers, identity: Ids, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL
) -> Numbers:
    """BCa interval (bias-corrected, accelerated; Efron 1987) of the mean of each column over all queries.

    For a paired comparison `values` are the differences of two models on the same queries. A column that is the same
    for everybody gives an interval of no width: the sample says nothing about how it would vary.

    Args:
        values: (N, M) of each query.
        identity: (N,) whose query it is.
        seed: of the resamples; the same seed draws the same people for every column.
        resamples: how often people are drawn.
        level: 0..1, the share of intervals that should hold the truth.

    Returns:
        (M, 2) lower and upper end; NaN with fewer than two identities.
    """
    names, number = np.unique(identity, return_inverse=True)
    people = len(names)
    if people < 2:
        return np.full((values.shape[1], 2), np.nan)
    count = np.bincount(number, minlength=people).astype(np.float64)
    sums: Numbers = np.stack([np.bincount(number, column, people) for column in values.T], 1).astype(
        np.float64
    )
    means = _resampled(sums, count, seed, resamples)
    jackknife = (sums.sum(0) - sums) / (count.sum() - count)[:, None]
    observed = sums.sum(0) / count.sum()
    return np.stack([_bca(means[:, m], observed[m], jackknife[:, m], level) for m in range(values.shape[1])])


def _resampled(sums: Numbers, count: Numbers, seed: int, resamples: int) -> Numbers:
    """(resamples, M): the mean over the queries of people who are drawn with replacement."""
    rng, people = np.random.default_rng(seed), len(count)
    step = max(1, _CELLS // people)
    parts = []
    for start in range(0, resamples, step):
        rounds = min(step, resamples - start)
        drawn = rng.integers(0, people, (rounds, people)) + people * np.arange(rounds)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rounds * people).reshape(rounds, people).astype(float)
        parts.append(times @ sums / (times @ count)[:, None])
    return np.concatenate(parts)


def _bca(means: Numbers, observed: float, jackknife: Numbers, level: float) -> Numbers:
    """(2,) from the resampled means (R,), the observed one, and those that leave one person out (K,)."""
    normal = NormalDist()
    slack = 1e-12  # a resample of the same people in another order must not count as smaller or larger
    below = float((means < observed - slack).mean() + (means <= observed + slack).mean()) / 2
    # All resamples on one side: the correction would be infinite; half a resample is the finest that they can tell.
    bias = normal.inv_cdf(min(max(below, 0.5 / len(means)), 1 - 0.5 / len(means)))
    lever = jackknife.mean() - jackknife
    spread = float((lever**2).sum())
    acceleration = float((lever**3).sum()) / (6 * spread**1.5) if spread > slack**2 else 0.0
    ends = []
    for share in ((1 - level) / 2, (1 + level) / 2):
        z = bias + normal.inv_cdf(share)
        ends.append(normal.cdf(bias + z / (1 - acceleration * z)))
    return np.quantile(means, ends)

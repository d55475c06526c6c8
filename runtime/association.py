"""Which box goes with which: overlap, and the pairs of least cost."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Costs = NDArray[np.float64]


def iou(a: Floats, b: Floats) -> Floats:
    """Intersection over union of boxes x, y, w, h: (n, 4) and (m, 4) to float32 (n, m) in [0, 1]."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, :2] + a[:, None, 2:], b[None, :, :2] + b[None, :, 2:])
    common = np.clip(high - low, 0.0, None).prod(2)
    union = a[:, None, 2:].prod(2) + b[None, :, 2:].prod(2) - common
    ratio: Floats = (common / np.maximum(union, 1e-6)).astype(np.float32)
    return ratio


def assign(cost: Costs, limit: float) -> list[tuple[int, int]]:
    """Pairs (row, column) that cost less than `limit`, such that what is saved against the limit is most.

    A pair that costs the limit or more is as good as none. Groups of rows and columns that no cheaper pair joins are
    solved apart, so that a crowded frame costs what its densest group costs.

    Args:
        cost: float (n, m), finite.
    """
    gain = np.minimum(cost - limit, 0.0)
    pairs = [
        (int(rows[row]), int(columns[column]))
        for rows, columns in _groups(gain < 0.0)
        for row, column in _hungarian(gain[np.ix_(rows, columns)])
    ]
    return sorted(pair for pair in pairs if cost[pair] < limit)


def _groups(joined: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Rows and columns of each connected part of a table of pairs, bool (n, m)."""
    free = np.any(joined, axis=1)
    while np.any(free):
        rows = np.zeros(len(joined), np.bool_)
        rows[int(np.argmax(free))] = True
        while True:
            columns = np.any(joined[rows], axis=0)
            more = np.any(joined[:, columns], axis=1)
            if np.array_equal(more, rows):
                break
            rows = more
        free &= ~rows
        yield np.flatnonzero(rows), np.flatnonzero(columns)


def _hungarian(cost: Costs) -> list[tuple[int, int]]:
    """Pairs of least total cost, as many as the shorter side has: the Hungarian method with potentials, O(n^2 m)."""
    if cost.shape[0] > cost.shape[1]:
        return [(row, col) for col, row in _hungarian(cost.T)]
    n, m = cost.shape
    if n == 1:
        return [(0, int(cost[0].argmin()))]
    u, v = np.zeros(n + 1), np.zeros(m + 1)
    owner, way = np.zeros(m + 1, np.int64), np.zeros(m + 1, np.int64)
    for row in range(1, n + 1):
        owner[0], col = row, 0
        least, used = np.full(m + 1, np.inf), np.zeros(m + 1, bool)
        while True:
            used[col] = True
            slack = cost[owner[col] - 1] - u[owner[col]] - v[1:]
            better = ~used[1:] & (slack < least[1:])
            least[1:][better], way[1:][better] = slack[better], col
            col = int(np.where(used, np.inf, least)[1:].argmin()) + 1
            step = least[col]
            u[owner[used]] += step
            v[used] -= step
            least[~used] -= step
            if owner[col] == 0:
                break
        while col:
            owner[col] = owner[way[col]]
            col = int(way[col])
    return [(int(owner[col]) - 1, col - 1) for col in range(1, m + 1) if owner[col]]

"""Pairs of least cost against scipy's, overlap against arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from tagclip.runtime.association import assign, iou


@pytest.mark.parametrize("near", [1.0, 0.3, 0.05])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (5, 5), (4, 9), (9, 4), (60, 80)])
def test_pairs_save_as_much_as_scipys(shape: tuple[int, int], near: float) -> None:
    """`near`: the share of pairs that are cheap enough to count."""
    optimize = pytest.importorskip("scipy.optimize", reason="the reference is scipy's linear_sum_assignment")
    rng = np.random.default_rng(shape[0] * 100 + shape[1])
    for _ in range(5):
        cost = np.where(rng.random(shape) < near, rng.uniform(-1, 0.85, shape), 9.0)
        pairs = assign(cost, 0.85)
        assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == len(pairs)
        assert all(cost[pair] < 0.85 for pair in pairs) and pairs == sorted(pairs)
        saved = np.minimum(cost - 0.85, 0)
        best = saved[optimize.linear_sum_assignment(saved)].sum()
        assert sum(saved[pair] for pair in pairs) == pytest.approx(best, abs=1e-9)


def test_nothing_goes_with_nothing() -> None:
    assert assign(np.full((3, 4), 9.0), 0.85) == [] and assign(np.empty((0, 4)), 0.85) == []


def test_overlap() -> None:
    a = np.array([[0, 0, 10, 10], [5, 0, 10, 10]], np.float32)
    np.testing.assert_allclose(iou(a, a), [[1, 1 / 3], [1 / 3, 1]], rtol=1e-6)
    assert iou(a[:1], np.array([[20, 20, 5, 5]], np.float32)).item() == 0

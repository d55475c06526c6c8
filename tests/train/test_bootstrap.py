"""Intervals over people: against SciPy, and against the truth in simulations."""

from __future__ import annotations

import time

import numpy as np
import pytest

from tagclip.train import bootstrap
from tagclip.train.bootstrap import interval

stats = pytest.importorskip("scipy.stats")


def population(rng: np.random.Generator, people: int) -> tuple[np.ndarray, np.ndarray]:
    """Queries 0/1 of people who differ: each has an own rate, Beta(2, 1), mean 2/3, and 2 to 10 queries."""
    count = rng.integers(2, 11, people)
    identity = np.repeat(np.arange(people), count)
    values = (rng.random(len(identity)) < rng.beta(2, 1, people)[identity]).astype(float)
    return values[:, None], identity


@pytest.mark.parametrize("spread", [0.3, 1.2])  # 1.2: so skewed that plain percentiles are elsewhere
def test_is_scipys_bca(spread: float) -> None:
    """The same statistic, the mean over the queries of the people drawn, given to scipy.stats.bootstrap."""
    rng = np.random.default_rng(0)
    count = rng.integers(2, 11, 40)
    sums = count * np.exp(rng.normal(0, spread, 40))
    identity = np.repeat(np.arange(40), count)
    values = (sums / count)[identity, None]

    def mean(sums: np.ndarray, count: np.ndarray, axis: int = -1) -> np.ndarray:
        return sums.sum(axis) / count.sum(axis)

    def scipys(method: str) -> np.ndarray:
        found = stats.bootstrap((sums, count), mean, paired=True, n_resamples=20_000, method=method, rng=1)
        return np.array(found.confidence_interval)

    bca, tolerance = scipys("BCa"), 0.03 * np.ptp(scipys("BCa"))
    assert np.abs(interval(values, identity, resamples=20_000)[0] - bca).max() < tolerance
    if spread > 1:
        assert np.abs(scipys("percentile") - bca).min() > 1.5 * tolerance


def test_covers_the_truth_and_captions_would_not() -> None:
    """95 % intervals from 40 people, 400 times; drawing captions instead of people is far too sure."""
    rng = np.random.default_rng(7)
    people = captions = 0
    for _ in range(400):
        values, identity = population(rng, 40)
        # The truth is 2/3 for queries as for people, since how many a person has says nothing about the rate.
        low, high = interval(values, identity, resamples=400)[0]
        people += low <= 2 / 3 <= high
        low, high = interval(values, np.arange(len(values)), resamples=400)[0]
        captions += low <= 2 / 3 <= high
    assert 0.91 <= people / 400 <= 0.98
    assert captions / 400 < 0.87


def test_paired_differences_are_narrower_than_the_models_apart() -> None:
    """Two models that fail on the same people: a small difference shows only when it is paired."""
    rng = np.random.default_rng(3)
    values, identity = population(rng, 80)
    worse = np.where(rng.random(values.shape) < 0.05, 0, values)
    low, high = interval(values - worse, identity)[0]
    assert 0 < low < (values - worse).mean() < high
    assert (high - low) < 0.5 * np.ptp(interval(values, identity)[0])


def test_the_seed_decides_and_every_column_draws_the_same_people() -> None:
    values, identity = population(np.random.default_rng(1), 30)
    both = interval(np.hstack([values, 2 * values]), identity, seed=5)
    assert both[1] == pytest.approx(2 * both[0])
    assert np.array_equal(both[0], interval(values, identity, seed=5)[0])
    assert not np.array_equal(both[0], interval(values, identity, seed=6)[0])


def test_names_and_order_of_people_do_not_matter() -> None:
    values, identity = population(np.random.default_rng(1), 30)
    order = np.random.default_rng(2).permutation(len(values))
    again = interval(values[order], 1000 + 7 * identity[order])
    assert again == pytest.approx(interval(values, identity))


def test_small_pieces_of_resamples_draw_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    values, identity = population(np.random.default_rng(1), 30)
    expected = interval(values, identity)
    monkeypatch.setattr(bootstrap, "_CELLS", 30 * 64)
    assert np.array_equal(interval(values, identity), expected)


def test_one_person_gives_no_interval() -> None:
    assert np.isnan(interval(np.ones((4, 2)), np.zeros(4, int))).all()
    assert np.isnan(interval(np.empty((0, 2)), np.empty(0, int))).all()


def test_everybody_alike_gives_no_width() -> None:
    assert interval(np.full((6, 1), 0.3), np.repeat(np.arange(3), 2)) == pytest.approx(np.full((1, 2), 0.3))


def test_two_people_one_right_one_wrong() -> None:
    low, high = interval(np.array([[0.0], [1.0]]), np.array([0, 1]))[0]
    assert (low, high) == (0, 1)


def test_thousand_resamples_of_seven_thousand_people_take_seconds() -> None:
    rng = np.random.default_rng(0)
    identity = np.repeat(np.arange(7000), 4)
    began = time.perf_counter()
    interval(rng.random((len(identity), 5)), identity)
    assert time.perf_counter() - began < 10  # about 0.3 s on an idle core

"""Ranges of eight bits, against exhaustive search, numpy's percentile and onnxruntime's calibrators."""

from __future__ import annotations

import numpy as np
import pytest

from tagclip.calibration.ranges import BINS, RULES, Histogram, by_entropy, by_minmax, by_mse, by_percentile


def histogram(*pieces: np.ndarray) -> Histogram:
    found = Histogram()
    for piece in pieces:
        found.add(piece)
    return found


def heavy(seed: int, count: int = 200_000) -> np.ndarray:
    """What activations look like: a bulk, and a few far values."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(size=count), 30 * rng.normal(size=count // 5000)]).astype(np.float32)


def squared_error(values: np.ndarray, limit: float) -> float:
    step = limit / 127
    return float(((values - np.clip(np.round(values / step), -127, 127) * step) ** 2).mean())


def test_pieces_in_any_order_are_one_histogram() -> None:
    values = heavy(0)
    whole, small, large = (
        histogram(values),
        *(histogram(*np.array_split(np.sort(values)[::k], 7)) for k in (1, -1)),
    )
    for other in (small, large):
        assert other.counts.sum() == len(values) and other.largest == whole.largest
        # Bins differ in width, what lies under a bin's edge does not.
        edge = 37
        under = int((np.abs(values) < edge * other.width).sum())
        assert abs(other.counts[:edge].sum() - under) <= 2


def test_minmax_and_percentile() -> None:
    values = heavy(1)
    found = histogram(values)
    assert by_minmax(found) == pytest.approx(np.abs(values).max())
    expected = np.percentile(np.abs(values), 99.99)
    assert by_percentile(found) == pytest.approx(expected, abs=2 * found.width)


@pytest.mark.parametrize("seed", range(4))
def test_mse_is_the_best_of_all_ranges(seed: int) -> None:
    values = heavy(seed)
    found = by_mse(histogram(values))
    limits = np.linspace(0.05, 1, 400) * np.abs(values).max()
    least = min(squared_error(values, limit) for limit in limits)
    assert squared_error(values, found) <= 1.03 * least
    assert squared_error(values, by_minmax(histogram(values))) > 1.4 * least  # the rules do differ here


def test_entropy_is_the_least_divergence() -> None:
    """The definition, level by level, with SciPy's entropy."""
    stats = pytest.importorskip("scipy.stats")
    found = histogram(heavy(2))
    divergence = {}
    for stop in range(128, BINS + 1, 8):
        inside = found.counts[:stop]
        reference = np.append(inside[:-1], inside[-1] + found.counts[stop:].sum())
        candidate = np.zeros(stop)
        for level in range(128):
            bins = [k for k in range(stop) if k * 128 // stop == level and reference[k]]
            candidate[bins] = sum(inside[k] for k in bins) / max(len(bins), 1)
        candidate = np.where(candidate == 0, 1e-9 * candidate.sum(), candidate)
        divergence[stop * found.width] = stats.entropy(reference, candidate)
    assert by_entropy(found) == pytest.approx(min(divergence, key=divergence.__getitem__))


def test_entropy_is_near_onnxruntimes() -> None:
    """Its levels are cut a little differently, so only about the same; the two agree that the tail is not worth it."""
    calibrate = pytest.importorskip("onnxruntime.quantization.calibrate")
    values = np.random.default_rng(0).laplace(size=300_000).astype(np.float32)
    collector = calibrate.HistogramCollector(
        method="entropy",
        symmetric=True,
        num_bins=2 * BINS - 1,
        num_quantized_bins=255,
        percentile=99.99,
        scenario="same",
    )
    collector.collect({"x": [values]})
    theirs = float(collector.compute_entropy()["x"][1])
    assert by_entropy(histogram(values)) == pytest.approx(theirs, rel=0.25)
    assert theirs < 0.8 * np.abs(values).max()


@pytest.mark.parametrize("rule", RULES)
def test_nothing_but_zeros(rule: str) -> None:
    assert RULES[rule](histogram(np.zeros((3, 4), np.float32))) == 0


@pytest.mark.parametrize("rule", RULES)
def test_never_more_than_was_seen(rule: str) -> None:
    values = np.random.default_rng(5).uniform(-3, 3, 10_000).astype(np.float32)
    assert 2.5 < RULES[rule](histogram(values)) <= np.abs(values).max() + 1e-6


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        histogram(np.array([1.0, value], np.float32))

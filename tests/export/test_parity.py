"""The checks that stand between a checkpoint and a bundle refuse what they should, and only that."""

from __future__ import annotations

import numpy as np
import pytest

from tagclip.export.parity import MIN_COSINE, compare
from tagclip.runtime.errors import ParityError


def unit(rows: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, 16)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_equal_vectors_agree() -> None:
    found = compare("text", unit(5), unit(5))
    assert found.min_cosine == pytest.approx(1) and found.max_abs_diff == 0


def turned(vectors: np.ndarray, cosine: float) -> np.ndarray:
    """The first row turned away so far that its cosine to the old one is `cosine`."""
    other = np.random.default_rng(1).normal(size=16)
    other -= other @ vectors[0] * vectors[0]
    result = vectors.copy()
    result[0] = cosine * vectors[0] + np.sqrt(1 - cosine**2) * other / np.linalg.norm(other)
    return result


def test_one_row_off_is_enough() -> None:
    wanted = unit(5)
    assert compare("text", turned(wanted, MIN_COSINE + 5e-5), wanted).min_cosine < 1 - 2e-5
    with pytest.raises(
        ParityError, match="image-aerial: expected a cosine of at least 0.9999 .* found 0.9998"
    ):
        compare("image-aerial", turned(wanted, MIN_COSINE - 1e-4), wanted)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    broken = unit(3)
    broken[1, 2] = value
    with pytest.raises(ParityError, match="not finite"):
        compare("text", broken, unit(3))


def test_another_shape_is_refused() -> None:
    with pytest.raises(ParityError, match=r"expected vectors of shape \(3, 16\), the graph gave \(2, 16\)"):
        compare("text", unit(2), unit(3))

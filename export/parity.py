"""Do the exported graphs give what the checkpoint gives? Names, axes, shapes, values, in this order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.errors import ParityError

MIN_COSINE = 0.9999  # fp16 storage of weights moves vectors by about 1e-6 of a cosine


@dataclass(frozen=True)
class Parity:
    """Agreement of two sets of unit vectors: smallest cosine, largest difference of a component."""

    min_cosine: float
    max_abs_diff: float


def compare(
    name: str, got: NDArray[np.float32], expected: NDArray[np.float32], least: float = MIN_COSINE
) -> Parity:
    """Compare rows of unit vectors (N, D).

    Args:
        least: the smallest cosine that is accepted; -1 for graphs that are meant to differ.

    Raises:
        ParityError: shapes differ, a value is not finite, or a cosine is below `least`.
    """
    if got.shape != expected.shape:
        raise ParityError(f"{name}: expected vectors of shape {expected.shape}, the graph gave {got.shape}")
    if not np.isfinite(got).all():
        raise ParityError(f"{name}: the graph gave values that are not finite; export in fp32")
    cosine = float((got * expected).sum(1).min())
    worst = Parity(cosine, float(np.abs(got - expected).max()))
    if cosine < least:
        raise ParityError(
            f"{name}: expected a cosine of at least {least} to the checkpoint, found {cosine:.6f}; "
            "nothing was written"
        )
    return worst

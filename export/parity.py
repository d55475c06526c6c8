"""Do the exported graphs give what the checkpoint gives? Names, axes, shapes, values, in this order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.errors import ParityError

MIN_COSINE = 0.9999  # fp16 storage of weights moves vectors by about 1e-6 of a cosine
MAX_DROP = 0.5  # points of R@1 and of mAP that an export may cost


@dataclass(frozen=True)
class Parity:
    """Agreement of two sets of unit vectors: smallest cosine, largest difference of a component."""

    min_cosine: float
    max_abs_diff: float


def compare(name: str, got: NDArray[np.float32], expected: NDArray[np.float32]) -> Parity:
    """Compare rows of unit vectors (N, D).

    Raises:
        ParityError: shapes differ, a value is not finite, or a cosine is below MIN_COSINE.
    """
    if got.shape != expected.shape:
        raise ParityError(f"{name}: expected vectors of shape {expected.shape}, the graph gave {got.shape}")
    if not np.isfinite(got).all():
        raise ParityError(f"{name}: the graph gave values that are not finite; export in fp32")
    cosine = float((got * expected).sum(1).min())
    worst = Parity(cosine, float(np.abs(got - expected).max()))
    if cosine < MIN_COSINE:
        raise ParityError(
            f"{name}: expected a cosine of at least {MIN_COSINE} to the checkpoint, found {cosine:.6f}; "
            "nothing was written"
        )
    return worst


def gate(checkpoint: dict[str, dict[str, float]], bundle: dict[str, dict[str, float]]) -> None:
    """Refuse an export that costs retrieval.

    Args:
        checkpoint, bundle: view -> metrics in percent, with r1 and map.

    Raises:
        ParityError: R@1 or mAP of a view fell by more than MAX_DROP points.
    """
    for view, before in checkpoint.items():
        for metric in ("r1", "map"):
            drop = before[metric] - bundle[view][metric]
            if drop > MAX_DROP:
                raise ParityError(
                    f"{view}: {metric} fell from {before[metric]:.2f} to {bundle[view][metric]:.2f}, "
                    f"more than {MAX_DROP} points; nothing was written"
                )

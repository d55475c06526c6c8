"""A description joined by what it found: the second search knows what the person looks like, not only what was said."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_BLOCK = 256  # queries at a time, so that memory is that of 256 rows of the gallery


def expand(texts: Floats, gallery: Floats, count: int, left_out: NDArray[np.int64] | None = None) -> Floats:
    """Average query expansion (Chum et al., "Total Recall", ICCV 2007): each text plus the mean of its best hits.

    The hits are weighted by their cosine, those under 0 not at all; a text that hits nothing stays as it is. This
    finds more of a person who is in the gallery several times, and less of one who is there once: the other hits are
    then somebody else (docs/evaluation.md has both measured).

    Args:
        texts, gallery: (Q, D) and (G, D) float32 unit rows, G >= 1.
        count: how many hits join, 1 or more.
        left_out: (Q,) a row of the gallery that must not join the text; -1 for none.

    Returns:
        (Q, D) float32 unit rows.
    """
    out = np.empty_like(texts)
    for start in range(0, len(texts), _BLOCK):
        block = slice(start, start + _BLOCK)
        scores = texts[block] @ gallery.T
        if left_out is not None:
            rows = np.flatnonzero(left_out[block] >= 0)
            scores[rows, left_out[block][rows]] = 0.0
        best = np.argpartition(-scores, min(count, len(gallery)) - 1, axis=1)[:, :count]
        weights = np.maximum(np.take_along_axis(scores, best, 1), 0.0)
        weights /= np.maximum(weights.sum(1, keepdims=True), 1e-6)
        out[block] = texts[block] + np.einsum("qk,qkd->qd", weights, gallery[best])
    return out / np.linalg.norm(out, axis=1, keepdims=True)

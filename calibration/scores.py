"""How high do people score who are not meant? Statistics of a cosine's background, per view."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

QUANTILES = (0.5, 0.9, 0.99, 0.999)


def background(
    texts: NDArray[np.float32],
    images: NDArray[np.float32],
    text_ids: NDArray[np.int64],
    image_ids: NDArray[np.int64],
) -> dict[str, float]:
    """Statistics of the cosines between descriptions and images of other identities.

    Args:
        texts, images: (Q, D) and (G, D) unit rows.
        text_ids, image_ids: (Q,) and (G,).

    Returns:
        pairs, mean, std, and q50, q90, q99, q99.9: cosines that this share of the background stays under.
    """
    cosines = (texts @ images.T)[text_ids[:, None] != image_ids[None]].astype(np.float64)
    if not len(cosines):
        return {"pairs": 0.0}
    found = np.quantile(cosines, QUANTILES)
    return {
        "pairs": float(len(cosines)),
        "mean": float(cosines.mean()),
        "std": float(cosines.std()),
        **{f"q{100 * q:g}": float(value) for q, value in zip(QUANTILES, found, strict=True)},
    }

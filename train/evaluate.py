"""Text-to-image retrieval metrics, and the evaluation of a checkpoint (METHOD section 4)."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.views import VIEWS

Vectors = NDArray[np.float32]
Ids = NDArray[np.int64]


class Retrieval(TypedDict):
    """Percent, and the sizes of both sides."""

    r1: float
    r5: float
    r10: float
    map: float
    minp: float
    queries: int
    gallery: int


def retrieval(similarity: Vectors, query_ids: Ids, gallery_ids: Ids) -> Retrieval:
    """R@1, R@5, R@10, mAP and mINP of text queries against images.

    A hit is any image of the query's identity, its own image included. AP is the mean of the precision at each
    relevant rank; INP is the number of relevant images over the rank of the last one. Of images with equal scores
    the earlier one in the gallery ranks first. Queries without any relevant image do not count.

    Args:
        similarity: (Q, G), larger is more alike.
        query_ids, gallery_ids: (Q,) and (G,) identities.
    """
    sums = np.zeros(5)
    counted = 0
    positions = np.arange(1, similarity.shape[1] + 1)
    for start in range(0, len(similarity), 256):  # in blocks, to bound memory
        block = similarity[start : start + 256]
        order = np.argsort(-block, axis=1, kind="stable")
        hits = gallery_ids[order] == query_ids[start : start + 256, None]
        hits = hits[hits.any(1)]
        if not len(hits):
            continue
        relevant = hits.sum(1)
        precision = hits.cumsum(1) / positions
        last = similarity.shape[1] - hits[:, ::-1].argmax(1)
        sums[:3] += [hits[:, :k].any(1).sum() for k in (1, 5, 10)]
        sums[3] += ((precision * hits).sum(1) / relevant).sum()
        sums[4] += (relevant / last).sum()
        counted += len(hits)
    percent = 100 * sums / max(1, counted)
    return Retrieval(
        r1=float(percent[0]),
        r5=float(percent[1]),
        r10=float(percent[2]),
        map=float(percent[3]),
        minp=float(percent[4]),
        queries=counted,
        gallery=int(similarity.shape[1]),
    )


def by_view(
    texts: Vectors, images: Vectors, text_ids: Ids, image_ids: Ids, view: Ids
) -> dict[str, Retrieval]:
    """Retrieval of every caption in the galleries of all images, of the aerial and of the ground ones.

    Args:
        texts, images: (Q, D) and (G, D) unit rows.
        text_ids, image_ids: their identities.
        view: (G,) 0 aerial, 1 ground.
    """
    similarity = texts @ images.T
    result = {"all": retrieval(similarity, text_ids, image_ids)}
    for k, name in enumerate(VIEWS):
        gallery = view == k
        if gallery.any():
            result[name] = retrieval(similarity[:, gallery], text_ids, image_ids[gallery])
    return result


def as_table(result: dict[str, Retrieval]) -> str:
    """The metrics for reading."""
    lines = [
        f"{'gallery':8} {'R@1':>6} {'R@5':>6} {'R@10':>6} {'mAP':>6} {'mINP':>6} {'queries':>8} {'images':>7}"
    ]
    for name, row in result.items():
        numbers = " ".join(f"{row[key]:6.2f}" for key in ("r1", "r5", "r10", "map", "minp"))
        lines.append(f"{name:8} {numbers} {row['queries']:8d} {row['gallery']:7d}")
    return "\n".join(lines)

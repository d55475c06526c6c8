"""What each query found: average precision, inverse negative penalty, first hit.

A picture is *right* for a query when it shows the query's person. Pictures may have equal scores (8-bit vectors,
two copies of a picture, a model that collapsed), and then their order is nobody's merit. Every number here is its
**expected value over all orders of the pictures that tie**: it does not depend on how the gallery happens to be sorted,
a model that scores everything alike gets what guessing gets, and it is the mean of what a user would see. Putting the
right picture first among equals flatters, putting it last punishes a copy of a picture, and taking the gallery's order
rewards a lucky file name. Without ties the numbers are the ordinary ones. scikit-learn's average precision differs from
ours where scores tie: it takes the precision at the end of a group of ties for all of the group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Scores = NDArray[np.floating[Any]]
Ids = NDArray[np.int64]
Mask = NDArray[np.bool_]
Numbers = NDArray[np.float64]

TOP = (1, 5, 10)
_BLOCK = 256  # queries at a time, so that memory is that of 256 rows of the gallery


@dataclass(frozen=True)
class PerQuery:
    """The numbers of Q queries; NaN for a query without any right picture.

    Attributes:
        hit: (Q, 3) chance 0..1 that one of the first 1, 5, 10 pictures is right; 0 or 1 where nothing ties.
        ap: (Q,) average precision 0..1, the mean over right pictures of the precision at their rank.
        inp: (Q,) number of right pictures over the rank of the last of them, 0..1.
        first: (Q,) rank of the first right picture, from 1.
    """

    hit: Numbers
    ap: Numbers
    inp: Numbers
    first: Numbers

    def metrics(self) -> Numbers:
        """(Q, 5): R@1, R@5, R@10, AP, INP."""
        return np.column_stack([self.hit, self.ap, self.inp])


def per_query(similarity: Scores, query_ids: Ids, gallery_ids: Ids, ignore: Mask | None = None) -> PerQuery:
    """All numbers of every query.

    Args:
        similarity: (Q, G) finite, larger is more alike.
        query_ids, gallery_ids: (Q,) and (G,) identities.
        ignore: (Q, G) pictures that are, for this query, neither right nor wrong: as if not in the gallery.

    Raises:
        ValueError: shapes do not fit, or a score is not finite (no order has a meaning then).
    """
    expected = (len(query_ids), len(gallery_ids))
    if similarity.shape != expected or (ignore is not None and ignore.shape != expected):
        found = similarity.shape if ignore is None else (similarity.shape, ignore.shape)
        raise ValueError(f"expected {expected} scores for these queries and pictures, found {found}")
    out = np.full((len(query_ids), 6), np.nan)
    for k in range(0, len(query_ids), _BLOCK):
        block = slice(k, k + _BLOCK)
        skip = None if ignore is None else ignore[block]
        out[block] = _block(similarity[block], query_ids[block, None] == gallery_ids, skip)
    return _as_columns(out)


def ap_per_query(similarity: Scores, query_ids: Ids, gallery_ids: Ids) -> Numbers:
    """Average precision (Q,) 0..1, NaN without a right picture; arguments as in `per_query`."""
    return per_query(similarity, query_ids, gallery_ids).ap


def inp_per_query(similarity: Scores, query_ids: Ids, gallery_ids: Ids) -> Numbers:
    """Right pictures over the rank of the last (Q,) 0..1, NaN without one; arguments as in `per_query`."""
    return per_query(similarity, query_ids, gallery_ids).inp


def first_hit_per_query(similarity: Scores, query_ids: Ids, gallery_ids: Ids) -> Numbers:
    """Rank of the first right picture (Q,) from 1, NaN without one; arguments as in `per_query`."""
    return per_query(similarity, query_ids, gallery_ids).first


def search(
    texts: Vectors,
    images: Vectors,
    text_ids: Ids,
    image_ids: Ids,
    own: Ids | None = None,
    wanted: Mask | None = None,
) -> PerQuery:
    """`per_query` from vectors, without ever holding all (Q, G) scores.

    Args:
        texts, images: (Q, D) and (G, D) unit rows; the score is their dot product.
        text_ids, image_ids: their identities.
        own: (Q,) the picture that a caption was written for, left out of its gallery; -1 for none.
        wanted: (G,) False for pictures that are left out where they would be right; they stay for everybody else.

    Raises:
        ValueError: as in `per_query`.
    """
    out = np.full((len(texts), 6), np.nan)
    for k in range(0, len(texts), _BLOCK):
        block = slice(k, k + _BLOCK)
        right = text_ids[block, None] == image_ids
        skip = None
        if wanted is not None:
            skip = right & ~wanted
        if own is not None:
            skip = np.zeros_like(right) if skip is None else skip
            rows = np.flatnonzero(own[block] >= 0)
            skip[rows, own[block][rows]] = True
        out[block] = _block(texts[block] @ images.T, right, skip)
    return _as_columns(out)


def _as_columns(out: Numbers) -> PerQuery:
    return PerQuery(out[:, :3], out[:, 3], out[:, 4], out[:, 5])


def _block(scores: Scores, right: Mask, skip: Mask | None) -> Numbers:
    """(B, 6): the chances of a hit, AP, INP and first rank of B queries with scores (B, G)."""
    if not np.isfinite(scores).all():
        raise ValueError("expected finite scores, found NaN or infinity; the vectors are damaged")
    if skip is not None:
        right = right & ~skip
        scores = np.where(skip, -np.inf, scores)  # below everything, so no rank above counts it
    ordered = np.sort(scores, axis=1)
    out = np.full((len(scores), 6), np.nan)
    for k in np.flatnonzero(right.any(1)):
        out[k] = _one(ordered[k], scores[k, right[k]])
    return out


def _one(ordered: Scores, right: Scores) -> list[float]:
    """Numbers of one query from all scores (G,), ascending, and those of the right pictures (R,), R > 0.

    Pictures with the same score are a level: `above` pictures stand over it, `size` are in it, `hits` of these are
    right, and `found` right ones stand over it.
    """
    score, hits = np.unique(right, return_counts=True)
    score, hits = score[::-1], hits[::-1]
    upto = np.searchsorted(ordered, score, "right")
    above, size = len(ordered) - upto, upto - np.searchsorted(ordered, score, "left")
    found = hits.cumsum() - hits

    alone = size == 1
    precision = float(((found + 1) / (above + 1))[alone].sum())
    for k in np.flatnonzero(~alone):
        precision += _tied_precision(int(above[k]), int(size[k]), int(hits[k]), int(found[k]))
    top = int(above[0]), int(size[0]), int(hits[0])
    return [
        *(_chance(k, *top) for k in TOP),
        precision / len(right),
        len(right) * _mean_inverse_last(int(above[-1]), int(size[-1]), int(hits[-1])),
        # The first of `hits` among `size` places in random order stands on place (size + 1) / (hits + 1) in the mean.
        top[0] + (top[1] + 1) / (top[2] + 1),
    ]


def _tied_precision(above: int, size: int, hits: int, found: int) -> float:
    """Expected sum of the precisions at the right pictures of one level.

    Place j of the level is right with probability hits / size; given that, each of the j - 1 places before it is
    right with probability (hits - 1) / (size - 1).
    """
    before = np.arange(size)  # j - 1
    rate = (hits - 1) / (size - 1)
    return float(hits / size * ((found + 1 + before * rate) / (above + 1 + before)).sum())


def _chance(k: int, above: int, size: int, hits: int) -> float:
    """Probability that one of the first k pictures is right, the first right ones being in this level."""
    drawn = min(max(k - above, 0), size)
    miss = 1.0
    for taken in range(drawn):  # at most 10 turns
        miss *= (size - hits - taken) / (size - taken)
        if miss <= 0:
            return 1.0
    return 1.0 - miss


def _mean_inverse_last(above: int, size: int, hits: int) -> float:
    """Expected 1 / rank of the last right picture, which is in this level.

    P(last on place j) = C(j - 1, hits - 1) / C(size, hits) falls from hits / size at j = size by the factor
    (j - hits) / (j - 1) from place j to the one before it.
    """
    if size == 1:
        return 1 / (above + 1)
    place = np.arange(size, hits - 1, -1)
    chance = hits / size * np.concatenate([[1.0], ((place - hits) / np.maximum(place - 1, 1))[:-1].cumprod()])
    return float((chance / (above + place)).sum())

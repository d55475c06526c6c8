"""A silhouette of several people taken apart: as many upright people as explain it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

TEMPLATE_H = 32  # rows to which a person is scaled when a group is taken apart
MOST_IN_GROUP = 6
LEAST_FIT = 0.15  # of a person (1: all of the upright shape, unexplained by anybody else) to be one more
LEAST_GAIN = 0.2  # and one more explains at least this much of a silhouette

Bools = NDArray[np.bool_]
_Rect = tuple[int, int, int, int]  # left, top, right, bottom in working pixels


def split_group(silhouette: Bools, person_w: float, person_h: float) -> list[_Rect]:
    """Take a group apart: place upright people, best fit first, until the silhouette is explained.

    Args:
        silhouette: bool (h, w), what moves, cut to the group.
        person_w, person_h: size of one person here, in the same pixels.

    Returns:
        Boxes (left, top, right, bottom) in pixels of `silhouette`, tight around each one's part of it; empty
        when not even one person fits.
    """
    zoom = TEMPLATE_H / person_h
    tw = max(round(person_w * zoom), 5)
    rows, cols = max(round(silhouette.shape[0] * zoom), 1), max(round(silhouette.shape[1] * zoom), 1)
    small = cv2.resize(silhouette.astype(np.float32), (cols, rows), interpolation=cv2.INTER_AREA)
    pad_x, pad_y = tw, TEMPLATE_H
    # Outside counts against a person; what is explained already counts neither way: people hide others.
    evidence = cv2.copyMakeBorder(
        2.0 * small - 1.0, pad_y, pad_y, pad_x, pad_x, cv2.BORDER_CONSTANT, value=(-1.0, 0.0, 0.0, 0.0)
    )
    template = _person_template(tw, TEMPLATE_H)

    def fit(others: Sequence[tuple[int, int]]) -> tuple[float, tuple[int, int]]:
        """How well and where one more person fits beside the others."""
        left = evidence.copy()
        for cx, cy in others:
            y0, x0 = max(cy - TEMPLATE_H // 2, 0), max(cx - reach, 0)
            taken = left[y0 : cy + TEMPLATE_H // 2, x0 : cx + reach + 1]
            np.minimum(taken, 0.0, out=taken)
        response = cv2.filter2D(left, cv2.CV_32F, template, borderType=cv2.BORDER_CONSTANT)
        _, best, _, (x, y) = cv2.minMaxLoc(response)
        return best, (x, y)

    def explained(people: Sequence[tuple[int, int]]) -> float:
        """How much of the silhouette lies in these people's boxes, in people (about half a box each)."""
        covered = np.zeros(evidence.shape, bool)
        for cx, cy in people:
            y0, x0 = max(cy - TEMPLATE_H // 2, 0), max(cx - tw // 2, 0)
            covered[y0 : cy + TEMPLATE_H // 2, x0 : cx + tw // 2 + 1] = True
        return float(np.maximum(evidence[covered], 0.0).sum()) / (0.5 * tw * TEMPLATE_H)

    reach = round(0.4 * tw)
    places: list[tuple[int, int]] = []
    while len(places) < MOST_IN_GROUP:
        trial = [*places, fit(places)[1]]
        fits = [0.0] * len(trial)
        for _ in range(2 if len(trial) > 1 else 1):  # the first may stand between two: each is placed again
            for k in range(len(trial)):
                fits[k], trial[k] = fit(trial[:k] + trial[k + 1 :])
        if min(fits) < LEAST_FIT or explained(trial) < explained(places) + LEAST_GAIN:
            break
        places = trial
    if not places:
        return []
    at = np.array(places) - (pad_x, pad_y)
    ys, xs = np.nonzero(silhouette)
    boxes = []
    # Each pixel belongs to the nearest person, in units of a person's size.
    far_x = np.abs((xs[:, None] + 0.5) * zoom - at[:, 0] - 0.5) / tw
    far_y = np.abs((ys[:, None] + 0.5) * zoom - at[:, 1] - 0.5) / TEMPLATE_H
    owner = (far_x**2 + 0.5 * far_y**2).argmin(1)
    for k in range(len(at)):
        mine = (owner == k) & (far_x[:, k] < 0.8) & (far_y[:, k] < 0.65)
        if mine.sum() > 0.12 * person_w * person_h:
            x, y = xs[mine], ys[mine]
            boxes.append((int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1))
    return boxes


def _person_template(width: int, height: int) -> NDArray[np.float32]:
    """Weights that sum to 1; most in the middle, to keep the best place off the gap between two people."""
    y = (np.arange(height, dtype=np.float32) + 0.5) / height
    x = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / width
    sigma = np.where(y < 0.16, 0.10, np.where(y < 0.6, 0.22, 0.18))
    weights = np.exp(-0.5 * (x[None, :] / sigma[:, None]) ** 2)
    weights /= weights.sum(1, keepdims=True) * height
    return weights.astype(np.float32)

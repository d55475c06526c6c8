"""From what a detector's graph gives to boxes, family by family; and what takes doubles away.

Boxes are float32 (n, 4) left, top, right, bottom in pixels of the graph's input, scores float32 (n,) in (0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.boxes import MOST_PEOPLE
from tagclip.runtime.detector_contract import DETR, END2END, TAGCLIP, YOLO, YOLOX, Contract

MOST_CANDIDATES = 1000  # the best of one picture, before doubles go: bounds what a graph gone wild costs
STRIDE_PX = 4  # of family tagclip
YOLOX_STRIDES_PX = (8, 16, 32)

Floats = NDArray[np.float32]
Found = tuple[Floats, Floats]
_Size = tuple[int, int]


class Decoder:
    """Reads the outputs of a graph.

    Args:
        contract: of the graph.
        size_px: width and height of its input.
    """

    def __init__(self, contract: Contract, size_px: _Size) -> None:
        self._contract, self._size = contract, np.array(size_px * 2, np.float32)
        self._wrong = 0
        readers: dict[str, Callable[..., Found]] = {
            TAGCLIP: self._tagclip,
            YOLO: self._yolo,
            END2END: self._end2end,
            YOLOX: self._yolox,
            DETR: self._detr,
        }
        self._read = readers[contract.family]
        self._grid = _yolox_grid(size_px) if contract.family == YOLOX else None

    def __call__(self, outputs: Sequence[Floats]) -> tuple[Floats, Floats, int]:
        """People in one picture, best first, inside of it.

        Args:
            outputs: as `DetectorGraph.run` gives them.

        Returns:
            boxes, some perhaps without an area, and scores, at most `boxes.MOST_PEOPLE`; and how many scores and boxes
            were not finite.
        """
        self._wrong = 0
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is dropped as not finite
            boxes, scores = self._read(*outputs)
            kept = np.isfinite(boxes).all(1)
            self._wrong += int(np.count_nonzero(~kept))
            boxes = np.clip(boxes[kept], 0, self._size)
            scores = np.minimum(scores[kept], np.float32(1))
        if self._contract.iou is not None:
            best = suppress(boxes, scores, self._contract.iou)
            boxes, scores = boxes[best], scores[best]
        return boxes[:MOST_PEOPLE], scores[:MOST_PEOPLE], self._wrong

    def _best(self, scores: Floats) -> NDArray[np.intp]:
        """Indices of the best of those that are sure enough, best first."""
        self._wrong += int(np.count_nonzero(~np.isfinite(scores)))
        sure = np.flatnonzero((scores >= self._contract.min_score) & (scores < np.inf))
        return sure[np.argsort(-scores[sure], kind="stable")[:MOST_CANDIDATES]]

    def _tagclip(self, heat: Floats, ltrb: Floats) -> Found:
        scores = heat[0, 0].ravel()
        best = self._best(scores)
        row, column = np.divmod(best, heat.shape[3])
        middle = (np.stack([column, row], 1).astype(np.float32) + np.float32(0.5)) * STRIDE_PX
        sides = ltrb[0].reshape(4, -1)[:, best].T
        return np.concatenate([middle - sides[:, :2], middle + sides[:, 2:]], 1), scores[best]

    def _yolo(self, output: Floats) -> Found:
        scores = output[0, 4 + self._contract.person_class]
        best = self._best(scores)
        return _corners(output[0, :4, best]), scores[best]

    def _end2end(self, output: Floats) -> Found:
        rows = output[0]
        # Other classes score 0, a class that is not finite is NaN.
        scores = np.where(np.rint(rows[:, 5]) == self._contract.person_class, rows[:, 4], 0 * rows[:, 5])
        best = self._best(scores)
        return rows[best, :4], scores[best]

    def _yolox(self, output: Floats) -> Found:
        assert self._grid is not None
        rows = output[0]
        scores = rows[:, 4] * rows[:, 5 + self._contract.person_class]
        best = self._best(scores)
        cell, stride = self._grid[best, :2], self._grid[best, 2:]
        middle = (rows[best, :2] + cell) * stride
        return _corners(np.concatenate([middle, np.exp(rows[best, 2:4]) * stride], 1)), scores[best]

    def _detr(self, boxes: Floats, logits: Floats) -> Found:
        # Written so that neither sign overflows.
        scores = np.float32(0.5) * (1 + np.tanh(np.float32(0.5) * logits[0, :, self._contract.person_class]))
        best = self._best(scores)
        return _corners(boxes[0, best]) * self._size, scores[best]


def _corners(middle_size: Floats) -> Floats:
    """(n, 4) middle x, y, width, height -> left, top, right, bottom."""
    half = middle_size[:, 2:] / 2
    return np.concatenate([middle_size[:, :2] - half, middle_size[:, :2] + half], 1)


def _yolox_grid(size_px: _Size) -> Floats:
    """(N, 3): column, row and stride of every cell, in the order in which YOLOX gives them."""
    parts = []
    for stride in YOLOX_STRIDES_PX:
        row, column = np.indices((size_px[1] // stride, size_px[0] // stride)).reshape(2, -1)
        parts.append(np.stack([column, row, np.full_like(row, stride)], 1))
    return np.concatenate(parts).astype(np.float32)


def overlap(box: Floats, others: Floats) -> tuple[Floats, Floats]:
    """Of one box (4,) with others (n, 4): intersection over union, and over the area of the other; each (n,)."""
    left_top = np.maximum(box[:2], others[:, :2])
    right_bottom = np.minimum(box[2:], others[:, 2:])
    sides = np.maximum(right_bottom - left_top, 0)
    both = sides[:, 0] * sides[:, 1]
    areas = (others[:, 2] - others[:, 0]) * (others[:, 3] - others[:, 1])
    own = (box[2] - box[0]) * (box[3] - box[1])
    return both / np.maximum(own + areas - both, 1e-9), both / np.maximum(areas, 1e-9)


def suppress(boxes: Floats, scores: Floats, iou: float) -> NDArray[np.intp]:
    """Greedy non-maximum suppression: indices of the boxes that stay, best first, at most `boxes.MOST_PEOPLE`.

    Args:
        boxes: (n, 4) left, top, right, bottom.
        scores: (n,), finite.
        iou: above which the worse of two boxes goes.
    """
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(order) and len(kept) < MOST_PEOPLE:
        kept.append(int(order[0]))
        order = order[1:]
        order = order[overlap(boxes[kept[-1]], boxes[order])[0] <= iou]
    return np.array(kept, np.intp)

"""What the network should have said of a picture, and how wrong it was."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss

from tagclip.train.detector.model import STRIDE_PX

NARROW = 0.16  # of a box's side: the standard deviation of the hill around its middle
LEAST_CELLS = 0.6
POSITIVE = 0.6  # of the hill's height, from which on a cell answers for the box
BOX_WEIGHT = 2.0


@dataclass(frozen=True)
class Target:
    """Of one picture with H x W cells.

    Attributes:
        heat: float32 (H, W) 0..1, 1 at middles.
        counts: bool (H, W), False where it is not said what is right: people who hardly show.
        box: float32 (4, H, W) left, top, right, bottom, pixels, of the box that the cell answers for.
        weight: float32 (H, W), of the box; 0 where the cell answers for none.
    """

    heat: NDArray[np.float32]
    counts: NDArray[np.bool_]
    box: NDArray[np.float32]
    weight: NDArray[np.float32]


def target_of(boxes: NDArray[np.float32], sure: NDArray[np.bool_], size_px: tuple[int, int]) -> Target:
    """The target of a picture of `size_px` (width, height).

    Args:
        boxes: (n, 4) left, top, right, bottom, pixels.
        sure: (n,) False for people who are to be neither found nor missed.
    """
    width, height = size_px[0] // STRIDE_PX, size_px[1] // STRIDE_PX
    heat = np.zeros((height, width), np.float32)
    counts = np.ones((height, width), np.bool_)
    box = np.zeros((4, height, width), np.float32)
    weight = np.zeros((height, width), np.float32)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for k in np.argsort(-area):  # the small last: where two meet, the cell is the smaller one's
        left, top, right, bottom = boxes[k] / STRIDE_PX
        if not sure[k]:
            rows = slice(max(int(top), 0), int(np.ceil(bottom)))
            counts[rows, max(int(left), 0) : int(np.ceil(right))] = False
            continue
        column = min(max(int((left + right) / 2), 0), width - 1)
        row = min(max(int((top + bottom) / 2), 0), height - 1)
        spread_x = max(NARROW * (right - left), LEAST_CELLS)
        spread_y = max(NARROW * (bottom - top), LEAST_CELLS)
        reach_x, reach_y = int(3 * spread_x) + 1, int(3 * spread_y) + 1
        x0, x1 = max(column - reach_x, 0), min(column + reach_x + 1, width)
        y0, y1 = max(row - reach_y, 0), min(row + reach_y + 1, height)
        along_x = ((np.arange(x0, x1) - column) / spread_x) ** 2
        along_y = ((np.arange(y0, y1) - row) / spread_y) ** 2
        hill = np.exp(-(along_y[:, None] + along_x[None]) / 2).astype(np.float32)
        around = np.s_[y0:y1, x0:x1]
        np.maximum(heat[around], hill, out=heat[around])
        own = hill >= POSITIVE
        counts[around] |= own
        weight[around][own] = hill[own]
        box[(slice(None), *around)][:, own] = boxes[k][:, None]
    return Target(heat, counts, box, weight)


def stacked(targets: list[Target]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Heat, counts, box and weight of B pictures, as of `Target` with B in front."""
    return (
        torch.from_numpy(np.stack([t.heat for t in targets])),
        torch.from_numpy(np.stack([t.counts for t in targets])),
        torch.from_numpy(np.stack([t.box for t in targets])),
        torch.from_numpy(np.stack([t.weight for t in targets])),
    )


def loss_of(
    logits: Tensor, sides: Tensor, target: tuple[Tensor, Tensor, Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Focal loss of the map (arXiv 1904.07850, eq. 1) a person, and GIoU loss of the boxes.

    Args:
        logits, sides: what `PersonNet` gives.
        target: of `stacked`, on their device.
    """
    device = logits.device
    heat, counts, box, weight = target
    logits = logits[:, 0]
    said = logits.sigmoid()
    hit = heat == 1
    found = -torch.nn.functional.logsigmoid(logits) * (1 - said) ** 2
    quiet = -torch.nn.functional.logsigmoid(-logits) * said**2 * (1 - heat) ** 4
    people = hit.sum().clamp(min=1)
    focal = (torch.where(hit, found, quiet) * counts).sum() / people
    n, y, x = (weight > 0).nonzero(as_tuple=True)
    middle = torch.stack([x + 0.5, y + 0.5, x + 0.5, y + 0.5], 1) * STRIDE_PX
    signs = torch.tensor([-1.0, -1.0, 1.0, 1.0], device=device)
    predicted = middle + signs * sides[n, :, y, x]
    wrong = generalized_box_iou_loss(predicted, box[n, :, y, x], reduction="none")
    share = weight[n, y, x]
    return focal, BOX_WEIGHT * (wrong * share).sum() / share.sum().clamp(min=1)

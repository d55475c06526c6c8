"""Which parts of a frame a detector looks at, how they become its input, and how their people become the frame's.

A frame that would shrink to less than `LEAST_SHRINK` of its size is looked at twice: in tiles of its own pixels, where
small people keep theirs, and as a whole, shrunk, where tall people fit. Neighbouring tiles overlap, so that whoever is
no taller than the overlap is whole in one of them; the whole frame answers for everybody else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.boxes import MOST_PEOPLE
from tagclip.runtime.detector_decode import Found, overlap
from tagclip.runtime.errors import ConfigError
from tagclip.runtime.source import Image

LEAST_SHRINK = 0.8
MOST_TILES = 64
# A box that comes as close to a tile's inner side is cut by it; a network is as wrong by a share of the box.
EDGE_PX, EDGE_SHARE = 2.0, 0.05
# Two boxes of different views, whose jitter differs, are one person above this; two people in the same view may
# overlap more, as the contract says.
SAME_IOU = 0.45
SAME_PART = 0.6  # and so is a part cut off, of whose area so much lies in a fuller box

_Size = tuple[int, int]


@dataclass(frozen=True)
class View:
    """A part of the frame, and where it lies in the input: all of it a whole picture.

    Attributes:
        left_px, top_px, width_px, height_px: of the part, in the frame.
        at_px: column and row of its left top corner in the input.
        shown_px: its width and height in the input.
    """

    left_px: int
    top_px: int
    width_px: int
    height_px: int
    at_px: _Size
    shown_px: _Size

    @property
    def per_px(self) -> NDArray[np.float32]:
        """Pixels of the frame for one of the input, across and down; (2,)."""
        return np.array([self.width_px / self.shown_px[0], self.height_px / self.shown_px[1]], np.float32)


def whole(frame_px: _Size, input_px: _Size, *, stretch: bool, centred: bool) -> View:
    """The view of a whole frame in an input; both sizes are (width, height).

    Args:
        stretch: fill the input; else the frame keeps its shape and the rest of the input is padding.
        centred: padding on both sides, else right and below.
    """
    shown, at = input_px, (0, 0)
    if not stretch:
        ratio = min(input_px[0] / frame_px[0], input_px[1] / frame_px[1])
        shown = (max(round(frame_px[0] * ratio), 1), max(round(frame_px[1] * ratio), 1))
        if centred:
            at = ((input_px[0] - shown[0]) // 2, (input_px[1] - shown[1]) // 2)
    return View(0, 0, *frame_px, at, shown)


def tiles(frame_px: _Size, tile_px: _Size, share: float, *, centred: bool) -> list[View]:
    """The tiles of a frame, each at its own pixels; none where the frame does not need them.

    They are as few as the overlap allows, evenly spread.

    Args:
        frame_px, tile_px: (width, height).
        share: of a tile's side that neighbours have in common at least; 0 for no tiles.
        centred: as in `whole`, of a frame that is narrower or lower than a tile.

    Raises:
        ConfigError: it takes more than `MOST_TILES`.
    """
    if share == 0 or min(tile_px[0] / frame_px[0], tile_px[1] / frame_px[1]) >= LEAST_SHRINK:
        return []
    lefts, tops = (_starts(frame_px[axis], tile_px[axis], share) for axis in (0, 1))
    if (count := len(lefts) * len(tops)) > MOST_TILES:
        raise ConfigError(
            f"a frame of {frame_px[0]}x{frame_px[1]} takes {count} tiles of {tile_px[0]}x{tile_px[1]}, "
            f"expected at most {MOST_TILES}; export the detector with a larger input, give the contract a smaller "
            "tile_overlap, or 0 for no tiles"
        )
    size = min(tile_px[0], frame_px[0]), min(tile_px[1], frame_px[1])
    at = ((tile_px[0] - size[0]) // 2, (tile_px[1] - size[1]) // 2) if centred else (0, 0)
    return [View(left, top, *size, at, size) for top in tops for left in lefts]


def _starts(frame: int, tile: int, share: float) -> list[int]:
    if frame <= tile:
        return [0]
    count = math.ceil((frame - tile) / (tile - math.ceil(share * tile))) + 1
    return [round(k * (frame - tile) / (count - 1)) for k in range(count)]


def shown(view: View, frame: Image, out: Image) -> None:
    """Draw the part of `frame` into the input `out`, uint8 (height, width, 3); the padding is left as it is."""
    part = frame[view.top_px : view.top_px + view.height_px, view.left_px : view.left_px + view.width_px]
    (x, y), (width, height) = view.at_px, view.shown_px
    place = out[y : y + height, x : x + width]
    if part.shape == place.shape:
        np.copyto(place, part)
        return
    shrinks = width <= view.width_px and height <= view.height_px
    cv2.resize(
        part, (width, height), dst=place, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )


def placed(view: View, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Boxes (n, 4) left, top, right, bottom of the input as they are in the frame, cut at the view's sides."""
    start = np.array([view.left_px, view.top_px], np.float32)
    size = np.array([view.width_px, view.height_px], np.float32)
    corners = (boxes.reshape(-1, 2, 2) - np.array(view.at_px, np.float32)) * view.per_px
    return (np.clip(corners, 0, size) + start).reshape(-1, 4)


def merged(frame_px: _Size, views: Sequence[View], found: Sequence[Found]) -> Found:
    """One box a person out of what several views have of a frame.

    Args:
        frame_px: width and height of the frame.
        views: the whole frame first, then its tiles.
        found: by view, boxes in the frame and scores.

    Returns:
        at most `boxes.MOST_PEOPLE`: those whole in a tile, then in the frame, then those cut that have no fuller one.
    """
    boxes = np.concatenate([own for own, _ in found])
    scores = np.concatenate([own for _, own in found])
    of_view = np.repeat(np.arange(len(views)), [len(own) for _, own in found])
    # Whoever is much smaller than the overlap is whole in a tile, which sees them better.
    useful = (of_view > 0) | ((boxes[:, 2:] - boxes[:, :2]).max(1) >= _seen_better(views))
    boxes, scores, of_view = boxes[useful], scores[useful], of_view[useful]
    cut = _cut(frame_px, views, boxes, of_view)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    # Where somebody is whole in a tile and in the whole frame, the tile has more pixels of them. Of boxes that are cut,
    # the larger is the fuller one.
    order = np.lexsort((-np.where(cut, area, scores), np.where(cut, 2, of_view == 0)))
    kept: list[int] = []
    while len(order) and len(kept) < MOST_PEOPLE:
        first, order = order[0], order[1:]
        kept.append(int(first))
        iou, part = overlap(boxes[first], boxes[order])
        same = (iou > SAME_IOU) | (cut[order] & (part > SAME_PART))
        order = order[~(same & (of_view[order] != of_view[first]))]
    chosen = np.array(kept, np.intp)
    return boxes[chosen], scores[chosen]


def _seen_better(views: Sequence[View]) -> float:
    """Half of what neighbouring tiles have in common at least, in pixels of the frame; 0 without neighbours."""
    common = []
    for start, size in (("left_px", "width_px"), ("top_px", "height_px")):
        starts = sorted({getattr(view, start) for view in views[1:]})
        common += [getattr(views[1], size) - (b - a) for a, b in zip(starts, starts[1:])]  # noqa: B905
    return min(common, default=0) / 2


def _cut(
    frame_px: _Size, views: Sequence[View], boxes: NDArray[np.float32], of_view: NDArray[np.intp]
) -> NDArray[np.bool_]:
    """Which boxes (n, 4) end at a side of their view that is none of the frame's."""
    corners = np.array(
        [[v.left_px, v.top_px, v.left_px + v.width_px, v.top_px + v.height_px] for v in views], np.float32
    )
    inner = corners != np.array([0, 0, *frame_px], np.float32)
    close = np.maximum(EDGE_PX, EDGE_SHARE * np.tile(boxes[:, 2:] - boxes[:, :2], 2))
    near = np.abs(boxes - corners[of_view]) <= close
    return (near & inner[of_view]).any(1)

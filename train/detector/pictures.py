"""Stills as the network gets to see them: other sizes, sides, light and faults each time."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.errors import DataError
from tagclip.train.detector.targets import Target, target_of

SIDE_PX = 320  # of what the network is trained on
SCALES = (0.75, 1.6)
BEYOND_PX = 40.0  # that a part may reach over the still's edge
SURE_VISIBLE = 0.3  # who shows less is neither to be found nor missed
SURE_HEIGHT_PX = 8.0
HELD_OUT = 0.08  # of a folder's stills, the last ones, on which is measured

Images = NDArray[np.uint8]
Boxes = NDArray[np.float32]


@dataclass(frozen=True)
class Still:
    """A picture's file, boxes (n, 4) left, top, right, bottom in pixels, and visible shares (n,)."""

    path: Path
    boxes: Boxes
    visible: NDArray[np.float32]


def read_stills(*folders: Path) -> tuple[list[Still], list[Still]]:
    """Those to train on, and those that are held out, of folders that `tagclip synth stills` made.

    Raises:
        DataError: one is none.
    """
    train: list[Still] = []
    held_out: list[Still] = []
    for folder in folders:
        path = folder / "stills.json"
        try:
            rows = json.loads(path.read_text())["stills"]
            stills = [_still(folder, row) for row in rows]
        except FileNotFoundError as error:
            raise DataError(
                f"expected {path}, found none; make one: tagclip synth stills {folder}"
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} is not what `tagclip synth stills` writes: {error!r}; make it again"
            ) from error
        if len(stills) < 2:
            raise DataError(f"{path}: expected at least 2 stills, found {len(stills)}; make more")
        count = max(1, round(len(stills) * HELD_OUT))
        train += stills[:-count]
        held_out += stills[-count:]
    return train, held_out


def _still(folder: Path, row: dict[str, Any]) -> Still:
    boxes = np.array([person["box_xywh_px"] for person in row["people"]], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return Still(
        folder / "images" / row["file"],
        boxes,
        np.array([person["visible"] for person in row["people"]], np.float32),
    )


def read(still: Still) -> Images:
    """RGB uint8 (H, W, 3). Raises: DataError."""
    bgr = cv2.imread(str(still.path))
    if bgr is None:
        raise DataError(f"{still.path} cannot be read as a picture; make the stills again")
    return np.ascontiguousarray(bgr[..., ::-1], np.uint8)


def varied(image: Images, still: Still, rng: np.random.Generator) -> tuple[Images, Target]:
    """A part of a still, scaled, mirrored and with other faults: RGB uint8 (SIDE_PX, SIDE_PX, 3), and its target."""
    height, width = image.shape[:2]
    scale = float(np.exp(rng.uniform(*np.log(SCALES))))
    flip = -1.0 if rng.random() < 0.5 else 1.0
    span = np.array([width, height]) * scale
    # Where the part's left top corner lies in the scaled still; half of the time somebody is in the part.
    corner = rng.uniform(np.minimum(0, span - SIDE_PX), np.maximum(0, span - SIDE_PX))
    if len(still.boxes) and rng.random() < 0.6:
        box = still.boxes[int(rng.integers(len(still.boxes)))] * scale
        middle = (box[:2] + box[2:]) / 2
        corner = middle - rng.uniform(0.15, 0.85, 2) * SIDE_PX
        corner = np.clip(
            corner, np.minimum(0, span - SIDE_PX) - BEYOND_PX, np.maximum(0, span - SIDE_PX) + BEYOND_PX
        )
    matrix = np.array([[scale * flip, 0, -corner[0]], [0, scale, -corner[1]]])
    if flip < 0:
        matrix[0, 2] = SIDE_PX + corner[0]
    if scale < 1:  # so that shrinking does not make noise of texture
        image = cv2.GaussianBlur(image, (0, 0), 0.45 / scale).astype(np.uint8)
    fill = [int(v) for v in rng.integers(0, 256, 3)]  # beyond the still; mirrored people would have no box
    part = cv2.warpAffine(image, matrix, (SIDE_PX, SIDE_PX), flags=cv2.INTER_LINEAR, borderValue=fill)
    return _faults(part.astype(np.uint8, copy=False), rng), _target(still, matrix, scale)


def _target(still: Still, matrix: NDArray[np.float64], scale: float) -> Target:
    boxes = still.boxes.copy().reshape(-1, 2, 2)
    corners = boxes @ matrix[:, :2].T.astype(np.float32) + matrix[:, 2].astype(np.float32)
    whole = np.concatenate([corners.min(1), corners.max(1)], 1)
    inside = np.clip(whole, 0, SIDE_PX)
    sizes = inside[:, 2:] - inside[:, :2]
    share = sizes.prod(1) / np.maximum((whole[:, 2:] - whole[:, :2]).prod(1), 1e-6)
    kept = share > 0.05
    sure = (still.visible * share >= SURE_VISIBLE) & (sizes[:, 1] >= SURE_HEIGHT_PX)
    return target_of(inside[kept].astype(np.float32), sure[kept], (SIDE_PX, SIDE_PX))


def _faults(picture: Images, rng: np.random.Generator) -> Images:
    if rng.random() < 0.06:
        picture = np.repeat(picture.mean(-1, keepdims=True).astype(np.uint8), 3, -1)
    levels = np.arange(256)[:, None] * np.exp(rng.normal(0, 0.25)) * np.exp(rng.normal(0, 0.06, 3))
    levels = np.clip(levels + rng.normal(0, 14), 0, 255)
    if rng.random() < 0.3:
        levels = 255 * (levels / 255) ** np.exp(rng.normal(0, 0.3))
    picture = cv2.LUT(picture, levels.astype(np.uint8)[None]).astype(np.uint8, copy=False)
    if rng.random() < 0.2:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.4, 1.2)).astype(np.uint8, copy=False)
    if rng.random() < 0.3:
        noise = rng.standard_normal(picture.shape, np.float32) * np.float32(rng.uniform(1, 9))
        picture = np.clip(picture + noise, 0, 255).astype(np.uint8)
    return picture

"""Which pictures of a person to keep: few, good, and from different moments.

Chosen while the video plays, so that it is decoded once and memory stays bounded.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.boxes import Detections
from tagclip.runtime.source import Frame, Image
from tagclip.runtime.tracker import Match

KEEP = 8
PAD = 0.05  # of the box, on each side: the silhouette's edge is not the person's
MAX_HEIGHT_PX = 256  # stored; the encoders look at less
LEAST_SIDE_PX = 4
SHARP_HEIGHT_PX = 96  # sharpness is compared at one height, else small crops always look sharper

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Crop:
    """One picture of a person.

    Attributes:
        frame: index in the video, from 0.
        time_s: seconds since the start of the video.
        box_xywh_px: the detector's box in the frame, before padding.
        quality: in (0, 1]: large, sharp, whole, alone, in agreement with the track.
        image: RGB uint8 (h, w, 3), a copy, at most `MAX_HEIGHT_PX` high.
        vectors: float32 (D,) by view, put here by whoever embeds the crop, so that it is done once and forgotten with
            it.
    """

    frame: int
    time_s: float
    box_xywh_px: tuple[float, float, float, float]
    quality: float
    image: Image
    vectors: dict[str, Floats] = field(default_factory=dict, repr=False, compare=False)


class CropKeeper:
    """Keeps at most `keep` crops of each track."""

    def __init__(self, keep: int = KEEP) -> None:
        self._keep = keep
        self._crops: dict[int, list[Crop]] = {}

    def offer(self, frame: Frame, found: Detections, matches: list[Match]) -> None:
        """Consider the boxes of one frame that belong to tracks."""
        covered = _covered(found.boxes_xywh_px)
        for match in matches:
            index = match.index
            box = found.boxes_xywh_px[index]
            image = cut(frame.image, box)
            if image is None:
                continue
            quality = (
                _large(float(box[3]))
                * _sharp(image)
                * _whole(box, frame.image.shape[1], frame.image.shape[0])
                * (1.0 - 0.9 * float(covered[index])) ** 2
                * float(np.clip((found.fill[index] - 0.15) / 0.35, 0.1, 1.0))
                * float(np.clip(found.scores[index], 0.1, 1.0))
                * (0.1 + 0.9 * match.agreement) ** 2
            )
            x, y, w, h = (float(value) for value in box)
            crop = Crop(frame.index, frame.time_s, (x, y, w, h), min(max(quality, 1e-4), 1.0), image)
            crops = self._crops.setdefault(match.track_id, [])
            crops.append(crop)
            if len(crops) > self._keep:
                crops.pop(_least_missed(crops))

    def forget(self, track_id: int) -> None:
        """Drop the crops of a track that ended."""
        self._crops.pop(track_id, None)

    def crops(self, track_id: int) -> list[Crop]:
        """The crops kept of a track, in order of time; empty when there is none."""
        return list(self._crops.get(track_id, []))


def cut(frame: Image, box_xywh_px: Floats) -> Image | None:
    """Cut a padded box out of a frame.

    Args:
        frame: RGB uint8 (H, W, 3).
        box_xywh_px: float (4,); may reach over the edge.

    Returns:
        A copy, RGB uint8 (h, w, 3) with h at most `MAX_HEIGHT_PX`; None when nearly nothing lies in the
        frame.
    """
    x, y, w, h = (float(value) for value in box_xywh_px)
    x0, y0 = max(round(x - PAD * w), 0), max(round(y - PAD * h), 0)
    x1, y1 = min(round(x + w + PAD * w), frame.shape[1]), min(round(y + h + PAD * h), frame.shape[0])
    if x1 - x0 < LEAST_SIDE_PX or y1 - y0 < LEAST_SIDE_PX:
        return None
    part = frame[y0:y1, x0:x1]
    if y1 - y0 <= MAX_HEIGHT_PX:
        return part.copy()
    width = max(round((x1 - x0) * MAX_HEIGHT_PX / (y1 - y0)), 1)
    return cv2.resize(part, (width, MAX_HEIGHT_PX), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _large(height_px: float) -> float:
    return float(np.clip(height_px / 128.0, 0.05, 1.0))


def _sharp(image: Image) -> float:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    width = max(round(grey.shape[1] * SHARP_HEIGHT_PX / grey.shape[0]), 3)
    grey = cv2.resize(grey, (width, SHARP_HEIGHT_PX), interpolation=cv2.INTER_LINEAR)
    variance = float(cv2.Laplacian(grey, cv2.CV_32F).var())
    return 0.2 + 0.8 * variance / (variance + 150.0)


def _whole(box: Floats, width_px: int, height_px: int) -> float:
    """Less than 1 when the box touches the edge of the frame: part of the person is outside."""
    margin = 0.01 * max(width_px, height_px)
    x, y, w, h = (float(value) for value in box)
    touches = x < margin or y < margin or x + w > width_px - margin or y + h > height_px - margin
    return 0.2 if touches else 1.0


def _covered(boxes: Floats) -> Floats:
    """For each box (n, 4), the part that the most intrusive other one takes: float32 (n,) in [0, 1]."""
    if len(boxes) < 2:
        return np.zeros(len(boxes), np.float32)
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, :2] + boxes[:, None, 2:], boxes[None, :, :2] + boxes[None, :, 2:])
    part = np.clip(high - low, 0.0, None).prod(2) / np.maximum(boxes[:, None, 2:].prod(2), 1e-6)
    np.fill_diagonal(part, 0.0)
    most: Floats = part.max(1).astype(np.float32)
    return most


def _least_missed(crops: list[Crop]) -> int:
    """The crop of low quality whose moment others show as well; `crops` are in order of time.

    A crop's worth is its quality times the time it stands for, the gap between its neighbours. Half the mean
    gap is added, so that of a burst of good crops and a lonely bad one the bad one goes.
    """
    times = np.array([crop.time_s for crop in crops])
    gaps = np.empty(len(times))
    gaps[1:-1] = times[2:] - times[:-2]
    gaps[0] = gaps[-1] = np.inf  # nothing else stands for the beginning and the end
    gaps = np.minimum(gaps, 2.0 * gaps[1:-1].mean())
    worth = np.array([crop.quality for crop in crops]) * (gaps + gaps.mean())
    return int(worth.argmin())

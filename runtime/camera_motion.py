"""How the camera moved from one frame to the next, from what stands still in the picture.

Corners of the background are followed by optical flow (Lucas and Kanade), and the turn, scale and shift that most of
them agree on (RANSAC) is the camera's. Over flat ground that is right for a drone; tall things near it move otherwise
and are outvoted.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.source import Image

WORK_LONG_SIDE_PX = 384
CORNERS = 160
ENOUGH, RENEW_FRAMES = 80, 10  # corners are looked for anew when fewer are left, and at least this often
FEWEST = 12  # corners that have to agree ...
LEAST_SHARE = 0.4  # ... and this part of all that could be followed
AGREE_PX = 1.0  # working pixels
STILL_PX = 0.15  # a median shift below this is the noise of a camera that stands
LARGEST_SHIFT = 0.35  # of the long side; beyond, and beyond these, it is a cut or a fault, not a motion
LARGEST_SCALE = 1.25
LARGEST_TURN_DEG = 20.0

Floats = NDArray[np.float32]
IDENTITY: Floats = np.eye(2, 3, dtype=np.float32)


class CameraMotion:
    """Give it the frames in order. Buffers are allocated once for a size of frame.

    Attributes:
        lost: frames, but for the first, whose motion could not be told.
    """

    def __init__(self) -> None:
        self.lost = 0
        self._corners: NDArray[Any] | None = None  # float32 (n, 1, 2) in the last frame, working pixels
        self._size: tuple[int, int] | None = None  # of the frames, width and height

    def update(self, image: Image, boxes_xywh_px: Floats) -> Floats | None:
        """The motion since the last frame.

        Args:
            image: RGB uint8 (H, W, 3).
            boxes_xywh_px: float32 (n, 4), where people are in it: they move on their own and are left out.

        Returns:
            float32 (2, 3): where (x, y, 1) of the last frame is in this one, in pixels; IDENTITY for a camera that
            stands; None for the first frame, a frame of another size, and when it cannot be told: too little to see
            in the dark or over snow, a cut, a fault.
        """
        height, width = image.shape[:2]
        if self._size != (width, height):
            self._begin(image, boxes_xywh_px)
            return None
        self._look(image)
        found = None
        if self._corners is not None and len(self._corners) >= FEWEST:
            found = self._follow(None)
            if found is None:  # a jerk is too far for the flow; correlation finds where to begin
                found = self._follow(self._jerk())
        if found is None:
            self._corners = None
            self.lost += 1
        self._choose(boxes_xywh_px)
        return found

    def _begin(self, image: Image, boxes: Floats) -> None:
        height, width = image.shape[:2]
        self._size = (width, height)
        self._scale = min(WORK_LONG_SIDE_PX / max(width, height), 1.0)
        small = (max(round(height * self._scale), 8), max(round(width * self._scale), 8))
        self._small = np.empty((*small, 3), np.uint8)
        self._grey, self._before = np.empty(small, np.uint8), np.empty(small, np.uint8)
        self._mask = np.empty(small, np.uint8)
        half = (max(small[0] // 2, 4), max(small[1] // 2, 4))
        self._half, self._two = np.empty(half, np.uint8), np.empty((2, *half), np.float32)
        self._window = cv2.createHanningWindow(half[::-1], cv2.CV_32F)
        self._corners = None
        self._age = 0
        self._look(image)
        self._choose(boxes)

    def _look(self, image: Image) -> None:
        self._grey, self._before = self._before, self._grey
        cv2.resize(image, self._grey.shape[::-1], dst=self._small, interpolation=cv2.INTER_AREA)
        cv2.cvtColor(self._small, cv2.COLOR_RGB2GRAY, dst=self._grey)

    def _choose(self, boxes: Floats) -> None:
        """Corners of this frame, to be found again in the next: those that were followed to here, or new ones."""
        self._mask.fill(255)
        for x, y, w, h in boxes * self._scale:
            left, top = max(int(x - 0.1 * w), 0), max(int(y - 0.1 * h), 0)
            self._mask[top : max(int(y + 1.1 * h) + 1, 0), left : max(int(x + 1.1 * w) + 1, 0)] = 0
        self._age += 1
        if self._corners is not None and self._age < RENEW_FRAMES:
            at = (
                self._corners[:, 0]
                .astype(np.intp)
                .clip(0, (self._mask.shape[1] - 1, self._mask.shape[0] - 1))
            )
            self._corners = self._corners[self._mask[at[:, 1], at[:, 0]] > 0]
            if len(self._corners) >= ENOUGH:
                return
        self._age = 0
        self._corners = cv2.goodFeaturesToTrack(
            self._grey, CORNERS, qualityLevel=0.01, minDistance=8, mask=self._mask
        )

    def _jerk(self) -> Floats:
        """Shift (2,) in working pixels that lays one frame over the other best."""
        for grey, small in ((self._before, self._two[0]), (self._grey, self._two[1])):
            self._half = cv2.resize(grey, small.shape[::-1], dst=self._half, interpolation=cv2.INTER_AREA)
            small[:] = self._half
        shift, _ = cv2.phaseCorrelate(self._two[0], self._two[1], self._window)
        return np.array(shift, np.float32) * (self._grey.shape[1] / self._window.shape[1])

    def _follow(self, guess: Floats | None) -> Floats | None:
        """The motion, when the flow begins at `guess`, a shift in working pixels."""
        assert self._corners is not None
        start: Any = None if guess is None else self._corners + guess
        moved, ok, _ = cv2.calcOpticalFlowPyrLK(
            self._before,
            self._grey,
            self._corners,
            start,
            winSize=(15, 15),
            maxLevel=3,
            flags=0 if guess is None else cv2.OPTFLOW_USE_INITIAL_FLOW,
        )
        ok = ok.ravel() == 1
        before, after = self._corners[ok, 0], moved[ok, 0]
        if len(before) < FEWEST:
            return None
        if float(np.abs(np.median(after - before, axis=0)).max()) < STILL_PX:
            apart = np.hypot(*(after - before).T)
            if float(np.median(apart)) < 2 * STILL_PX:  # nor does it turn or zoom about the middle
                self._corners = after[apart < AGREE_PX, None]
                return IDENTITY
        motion, inliers = cv2.estimateAffinePartial2D(
            before, after, method=cv2.RANSAC, ransacReprojThreshold=AGREE_PX, maxIters=500, confidence=0.995
        )
        if motion is None or inliers.sum() < max(FEWEST, LEAST_SHARE * len(before)):
            return None
        scale = float(np.hypot(motion[0, 0], motion[1, 0]))
        turn_deg = abs(float(np.degrees(np.arctan2(motion[1, 0], motion[0, 0]))))
        middle = np.array([self._grey.shape[1] / 2, self._grey.shape[0] / 2])
        shift = float(np.hypot(*(motion[:, :2] @ middle + motion[:, 2] - middle))) / max(self._grey.shape)
        if (
            not (1 / LARGEST_SCALE < scale < LARGEST_SCALE)
            or turn_deg > LARGEST_TURN_DEG
            or shift > LARGEST_SHIFT
        ):
            return None
        self._corners = after[inliers.ravel() == 1, None]
        # From working pixels to those of the frame; pixel centres lie at halves.
        half = 0.5 * (1.0 / self._scale - 1.0)
        found = motion.astype(np.float64)
        linear = found[:, :2]
        found[:, 2] = found[:, 2] / self._scale + (half - linear @ np.array([half, half]))
        result: Floats = found.astype(np.float32)
        return result


def moved_box(motion: Floats, box_xywh_px: Floats) -> Floats:
    """Where a box (4,) of the last frame is in this one: its middle moved, its sides scaled, never turned."""
    x, y, w, h = (float(value) for value in box_xywh_px)
    scale = float(np.hypot(motion[0, 0], motion[1, 0]))
    cx, cy = motion[:, :2] @ np.array([x + w / 2, y + h / 2]) + motion[:, 2]
    return np.array([cx - w * scale / 2, cy - h * scale / 2, w * scale, h * scale], np.float32)

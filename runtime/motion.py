"""People in front of a fixed camera, from what moves: no model, a few milliseconds a frame.

Background subtraction (shadows and slow changes of light removed) gives silhouettes; their components are
blobs. A blob is not yet a person: legs come apart from the body behind a lamp post, and two people side by
side make one. What decides is how tall a person is at that place of the picture, which for a fixed camera is
a straight line over the row of the feet (`PersonScale`) and is learnt from the footage itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from tagclip.runtime.boxes import Detections
from tagclip.runtime.motion_groups import split_group
from tagclip.runtime.source import Frame, Image

WORK_LONG_SIDE_PX = 960  # larger frames are detected smaller, by a whole factor: OpenCV does that fast
FOLLOW_S = 3.0  # the background follows the light this fast where nobody is
HOLD_S = 60.0  # and this slowly under a person: who stands still much longer becomes part of it
WARM_UP_S, WARM_UP_SAMPLES = 3.0, 15
# Brightness (0 to 255) beyond what a shadow or sunlight explains, or change of colour, that counts as moving.
MOVES_ABOVE = 14
SHADOW, SUN, CHROMA_WEIGHT = 0.72, 1.15, 0.9

_Rect = tuple[int, int, int, int]  # left, top, right, bottom in working pixels


class PersonScale:
    """How tall a person is where: `height = slope * foot_y + offset`, in working pixels.

    Learnt from upright blobs by consensus, so that groups, dogs and cars in the footage do not bend the line.
    """

    KEPT = 600
    FEWEST = 16

    def __init__(self) -> None:
        self._seen: list[tuple[float, float, float]] = []  # foot_y, height, width
        self._since_fit = 0
        self.slope, self.offset, self.width_ratio = 0.0, 0.0, 0.4
        self.known = False

    def add(self, people: Sequence[tuple[float, float, float]]) -> None:
        """Learn from single, whole people: row of the feet, height, width."""
        self._seen = [*self._seen, *people][-self.KEPT :]
        self._since_fit += len(people)
        if self._since_fit >= self.FEWEST * (4 if self.known else 1):
            self.fit()

    def fit(self) -> None:
        """Fit the line again when there is enough to fit it to."""
        if len(self._seen) < self.FEWEST:
            return
        self._since_fit = 0
        foot, height, width = np.array(self._seen, np.float64).T
        rng = np.random.default_rng(0)
        first, second = rng.integers(0, len(foot), (2, 200))
        apart = foot[second] - foot[first]
        # A line through two blobs, or level when their feet are too close to tell a slope.
        level = np.abs(apart) < 0.05 * np.ptp(foot) + 1.0
        slope = np.where(level, 0.0, (height[second] - height[first]) / np.where(level, 1.0, apart))
        slope = np.clip(slope, 0.0, 1.5)  # who is nearer stands lower and is never smaller
        offset = height[first] - slope * foot[first]
        expected = slope[:, None] * foot + offset[:, None]
        inliers = np.abs(height - expected) < 0.15 * np.maximum(expected, 4.0)
        best = inliers[int(inliers.sum(1).argmax())]
        if best.sum() < max(0.35 * len(foot), self.FEWEST / 2):
            return
        if np.ptp(foot[best]) > 2.0 * np.median(height[best]):
            slope_fit, offset_fit = np.polyfit(foot[best], height[best], 1)
            self.slope, self.offset = max(float(slope_fit), 0.0), float(offset_fit)
        else:  # everybody in one row of the picture: a level line is all that can be said
            self.slope, self.offset = 0.0, float(np.median(height[best]))
        # Pairs are as tall as a single person but wider: the lower half of the widths is the singles'.
        self.width_ratio = float(np.clip(np.quantile(width[best] / height[best], 0.4), 0.25, 1.0))
        self.known = True

    def height(self, foot_y: float) -> float:
        """Expected height in working pixels of somebody whose feet are at row `foot_y`; 0 when unknown."""
        return max(self.slope * foot_y + self.offset, 6.0) if self.known else 0.0


@dataclass
class _Blob:
    """A bounding box in working pixels and the outlines of OpenCV that it encloses."""

    left: int
    top: int
    right: int
    bottom: int
    contours: list[Any]

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left


class MotionDetector:
    """Finds moving people in the frames of one fixed camera. Buffers are allocated once.

    A pixel moves when its colour left the background's, or its brightness did by more than shadow or sun
    explain. The background follows the light within seconds where nobody is, and hardly under a person.

    Args:
        width_px, height_px: size of the frames.
        samples: RGB uint8 (H, W, 3) frames spread over the footage (`VideoSource.sample`). Their median is
            the empty scene: without it whoever stands in the first frames leaves a ghost behind. None (a
            live camera): the median of the first `WARM_UP_S`, during which nobody is reported.
    """

    def __init__(self, width_px: int, height_px: int, samples: Sequence[Image] = ()) -> None:
        factor = -(-max(width_px, height_px) // WORK_LONG_SIDE_PX)
        width, height = max(width_px // factor, 1), max(height_px // factor, 1)
        self._size = (width, height)
        self._frame_px = (width_px, height_px)
        # Relative to the working size, so that nothing depends on one resolution.
        self._unit_px = max(self._size) / 768.0
        self._first_s = self._before_s = float("nan")  # when the first frame was, and the last
        self._waiting: list[Image] = []
        self._small = np.empty((height, width, 3), np.uint8)
        self._colour = np.empty((height, width, 3), np.uint8)  # YCrCb, as are the next two
        self._background = np.empty((height, width, 3), np.uint8)
        self._mean = np.empty((height, width, 3), np.float32)
        self._mask = np.zeros((height, width), np.uint8)
        self._strength = np.zeros((height, width), np.uint8)
        self._people = np.zeros((height, width), np.uint8)
        self._luma_table = np.empty((256, 1), np.uint8)
        self._open = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
        tall = 2 * round(3 * self._unit_px) + 1
        self._close = cv2.getStructuringElement(cv2.MORPH_RECT, (3, max(tall, 3)))
        self.scale = PersonScale()
        self._ready = False
        if samples:
            self._learn([self._resized(image).copy() for image in samples])

    def _resized(self, image: Image) -> Image:
        if image.shape[1::-1] == self._size:
            return image
        cv2.resize(image, self._size, dst=self._small, interpolation=cv2.INTER_AREA)
        return self._small

    def _learn(self, samples: Sequence[Image]) -> None:
        """Take the median of the samples for the empty scene, and how tall people are from what differs."""
        stack = np.stack(samples)
        median = np.empty_like(samples[0])
        for row in range(0, len(median), 16):  # a strip at a time stays in the cache
            strip = slice(row, row + 16)
            median[strip] = np.partition(stack[:, strip], len(stack) // 2, axis=0)[len(stack) // 2]
        cv2.cvtColor(median, cv2.COLOR_RGB2YCrCb, dst=self._background)
        self._mean[:] = self._background
        for image in samples:
            self._learn_scale(self._blobs(image))
        self.scale.fit()
        self._ready = True

    def detect(self, frame: Frame) -> Detections:
        """People in `frame` (image RGB uint8 (H, W, 3) of the size given at the start)."""
        small = self._resized(frame.image)
        if not self._ready:
            self._wait(small, frame.time_s)
            return Detections.none()
        blobs = self._blobs(small)
        people: list[_Rect] = []
        # More than half the picture at once is not people: the camera was moved, or a lamp switched on.
        if cv2.countNonZero(self._mask) < 0.5 * self._mask.size:
            self._learn_scale(blobs)
            found = (rect for blob in self._merged(blobs) for rect in self._people_in(blob))
            people = [rect for rect in found if self._is_person(rect)]
        # By time, not by frames: a live camera drops as many as it must.
        self._follow(people, float(np.nan_to_num(max(frame.time_s - self._before_s, 0.0))))
        self._before_s = frame.time_s
        return self._detections(people)

    def _wait(self, small: Image, time_s: float) -> None:
        """Gather what the empty scene will be learnt from."""
        if np.isnan(self._first_s):
            self._first_s = time_s
        due_s = self._first_s + len(self._waiting) * WARM_UP_S / WARM_UP_SAMPLES
        if time_s >= due_s - 1e-6 and len(self._waiting) < WARM_UP_SAMPLES:
            self._waiting.append(small.copy())
        if time_s - self._first_s >= WARM_UP_S and len(self._waiting) >= 3:
            self._learn(self._waiting)
            self._waiting.clear()
            self._before_s = time_s

    def _blobs(self, small: Image) -> list[_Blob]:
        """Outlines of what moves; also leaves the silhouettes (uint8 0 or 255) in `self._mask`."""
        cv2.cvtColor(small, cv2.COLOR_RGB2YCrCb, dst=self._colour)
        luma = self._colour[:, :, 0]
        # Exposure and clouds change all of the picture: give the background the frame's brightness.
        thin = slice(None, None, 8)
        quiet = self._people[thin, thin] == 0
        was, now = self._background[thin, thin, 0][quiet], luma[thin, thin][quiet]
        bright = was > 20
        gain = float(np.median(now[bright] / was[bright].astype(np.float32))) if bright.any() else 1.0
        self._luma_table[:, 0] = np.clip(np.arange(256) * np.clip(gain, 0.5, 2.0), 0, 255)
        expected = cv2.LUT(self._background[:, :, 0], self._luma_table)
        away = cv2.absdiff(self._colour, self._background)
        chroma = cv2.add(away[:, :, 1], away[:, :, 2])
        # Shadow and sun change the brightness of the ground, within limits, and hardly its colour.
        dark = cv2.subtract(cv2.convertScaleAbs(expected, alpha=SHADOW), luma)
        light = cv2.subtract(luma, cv2.convertScaleAbs(expected, alpha=SUN))
        strength = cv2.max(cv2.max(dark, light), cv2.convertScaleAbs(chroma, alpha=CHROMA_WEIGHT))
        self._strength = strength.astype(np.uint8, copy=False)
        cv2.threshold(strength, MOVES_ABOVE, 255, cv2.THRESH_BINARY, dst=self._mask)
        cv2.morphologyEx(self._mask, cv2.MORPH_OPEN, self._open, dst=self._mask)
        cv2.morphologyEx(self._mask, cv2.MORPH_CLOSE, self._close, dst=self._mask)
        contours, _ = cv2.findContours(self._mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        least = max(6.0, 20.0 * self._unit_px**2)
        blobs = []
        for contour in contours:
            x, y, w, h = cv2.boundingRect(contour)
            if w * h >= least and cv2.contourArea(contour) >= least:
                blobs.append(_Blob(x, y, x + w, y + h, [contour]))
        return blobs

    def _follow(self, people: Sequence[_Rect], past_s: float) -> None:
        """Let the background follow the light: at once where nobody is, slowly under people."""
        self._people[:] = 0
        for left, top, right, bottom in people:
            margin = (right - left) // 4 + 1
            self._people[max(top - margin, 0) : bottom + margin, max(left - margin, 0) : right + margin] = 255
        cv2.accumulateWeighted(self._colour, self._mean, min(past_s / HOLD_S, 0.5))
        fast = min(past_s / FOLLOW_S, 0.5)
        cv2.accumulateWeighted(self._colour, self._mean, fast, mask=cv2.bitwise_not(self._people))
        cv2.convertScaleAbs(self._mean, dst=self._background)

    def _learn_scale(self, blobs: Sequence[_Blob]) -> None:
        """Single, whole, upright blobs show how tall people are."""
        found = []
        for blob in blobs:
            whole = not self._at_edge((blob.left, blob.top, blob.right, blob.bottom))
            if whole and blob.height >= 16.0 * self._unit_px and 1.5 <= blob.height / blob.width <= 4.5:
                found.append((blob.bottom, blob.height, blob.width))
        self.scale.add(found)

    def _merged(self, blobs: list[_Blob]) -> list[_Blob]:
        """Put the fragments of one person together: one above the other, together no taller than a person."""
        if not self.scale.known:
            return blobs
        merged: list[_Blob] = []
        for blob in sorted(blobs, key=lambda blob: -blob.height):
            home = next((other for other in merged if self._same_person(blob, other)), None)
            if home is None:
                merged.append(blob)
            else:
                home.left, home.right = min(home.left, blob.left), max(home.right, blob.right)
                home.top, home.bottom = min(home.top, blob.top), max(home.bottom, blob.bottom)
                home.contours += blob.contours
        return merged

    def _same_person(self, blob: _Blob, other: _Blob) -> bool:
        bottom, top = max(blob.bottom, other.bottom), min(blob.top, other.top)
        right, left = max(blob.right, other.right), min(blob.left, other.left)
        expected = self.scale.height(bottom)
        overlap = min(blob.right, other.right) - max(blob.left, other.left)
        gap = max(blob.top, other.top) - min(blob.bottom, other.bottom)
        return (
            overlap > 0.4 * min(blob.width, other.width)
            and bottom - top <= 1.15 * expected
            and gap < 0.45 * expected
            and right - left < max(1.4 * self.scale.width_ratio * expected, other.width + 2.0)
        )

    def _people_in(self, blob: _Blob) -> list[_Rect]:
        """The boxes (left, top, right, bottom) of the people in a blob: usually one."""
        whole = (blob.left, blob.top, blob.right, blob.bottom)
        expected_h = self.scale.height(blob.bottom)
        expected_w = self.scale.width_ratio * expected_h
        if not self.scale.known or (blob.width < 1.45 * expected_w and blob.height < 1.35 * expected_h):
            return [whole]
        outline = np.zeros((blob.height, blob.width), np.uint8)
        cv2.drawContours(outline, blob.contours, -1, 255, cv2.FILLED, offset=(-blob.left, -blob.top))
        window = self._mask[blob.top : blob.bottom, blob.left : blob.right]
        silhouette = (outline & window) > 0  # without the holes
        x, y = blob.left, blob.top
        found = split_group(silhouette, expected_w, expected_h)
        return [(x + x0, y + y0, x + x1, y + y1) for x0, y0, x1, y1 in found] or [whole]

    def _is_person(self, rect: _Rect) -> bool:
        """Large enough for its place, upright, filled, and in contrast with the background."""
        left, top, right, bottom = rect
        w, h = right - left, bottom - top
        least = max(12.0 * self._unit_px, 0.0 if self._at_edge(rect) else 0.4 * self.scale.height(bottom))
        if h < least or w > 2.0 * h or (self.scale.known and h > 2.0 * self.scale.height(bottom)):
            return False
        mask = self._mask[top:bottom, left:right]
        if cv2.countNonZero(mask) < 0.2 * w * h:
            return False
        # What the light does to the ground stays near the threshold; clothes are far above it.
        return float(cv2.mean(self._strength[top:bottom, left:right], mask=mask)[0]) > 1.5 * MOVES_ABOVE

    def _at_edge(self, rect: _Rect) -> bool:
        left, top, right, bottom = rect
        return left <= 1 or top <= 1 or right >= self._size[0] - 1 or bottom >= self._size[1] - 1

    def _detections(self, people: Sequence[_Rect]) -> Detections:
        if not people:
            return Detections.none()
        boxes, scores, fills = [], [], []
        zoom = np.divide(self._frame_px, self._size)
        for rect in people:
            left, top, right, bottom = rect
            w, h = right - left, bottom - top
            expected = 0.0 if self._at_edge(rect) else self.scale.height(bottom)
            # How much of a person this is: half a body behind a car scores lower than a whole one.
            ratio = h / expected if expected else 0.8
            scores.append(min(max(min(ratio, 1.0 / ratio) ** 1.5, 0.05), 1.0))
            boxes.append((left, top, w, h))
            fills.append(min(cv2.countNonZero(self._mask[top:bottom, left:right]) / (w * h), 1.0))
        placed = np.array(boxes, np.float32) * np.tile(zoom, 2)
        return Detections(*(np.array(values, np.float32) for values in (placed, scores, fills)))

"""Joins boxes of single frames to tracks of people.

Each track predicts its box with a constant-velocity Kalman filter (OpenCV's); boxes are given to tracks by
place and by colour together, first the good boxes, then the poor ones (ByteTrack's order); the colours keep
two people who cross apart, and find somebody again who comes out from behind a lamp post.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.boxes import Detections
from tagclip.runtime.source import Frame, Image

CONFIRM_HITS = 3  # a track is real after this many boxes ...
CONFIRM_S = 0.15  # ... over at least this time, so that 30 fps footage asks for more than three
LOST_S = 1.5  # without a box, a track is continued by its motion for so long
SLOW_S = 0.3  # half-life of the speed of somebody out of sight
RELINK_S = 6.0  # and can be found again by its colours for so long
GOOD_SCORE = 0.5
POOR_IOU = 0.3
LIKE = 0.45  # Bhattacharyya distance (0 same, 1 nothing in common) below which two looks may be one person
COST_LIMIT = 0.85

Floats = NDArray[np.float32]
Costs = NDArray[np.float64]


@dataclass(frozen=True)
class Observation:
    """Where a track was in one frame. `box_xywh_px` is float (x, y, w, h); `observed` is False for a
    prediction."""

    frame: int
    time_s: float
    box_xywh_px: tuple[float, float, float, float]
    observed: bool


@dataclass
class Track:
    """One person over time. `id` counts from 1 and is 0 until the track is confirmed."""

    id: int
    observations: list[Observation] = field(default_factory=list)

    @property
    def start_s(self) -> float:
        """Time of the first observation, seconds."""
        return self.observations[0].time_s

    @property
    def end_s(self) -> float:
        """Time of the last observation, seconds."""
        return self.observations[-1].time_s


class _Target:
    """A track at work: its filter and its look."""

    def __init__(self, box: Floats, look: Floats, frame: Frame) -> None:
        self.track = Track(0)
        self.look = look
        self.hits = 0
        self.seen_s = frame.time_s
        self.pending: list[Observation] = []  # predictions, kept only if a box follows them
        self.height_px = float(box[3])
        self._filter = cv2.KalmanFilter(6, 4)  # centre x, centre y, width, height, velocity x, velocity y
        self._filter.measurementMatrix = np.eye(4, 6, dtype=np.float32)
        self._filter.statePost = np.array([*_centred(box), 0.0, 0.0], np.float32).reshape(6, 1)
        h = self.height_px
        deviation = np.array([0.1, 0.1, 0.2, 0.2, 1.0, 1.0], np.float32) * h
        self._filter.errorCovPost = np.diag(deviation**2)
        self.box = box
        self._record(frame, box)

    def predict(self, dt_s: float) -> None:
        """Move on by `dt_s` seconds."""
        h = self.height_px
        self._filter.transitionMatrix = np.eye(6, dtype=np.float32)
        self._filter.transitionMatrix[0, 4] = self._filter.transitionMatrix[1, 5] = dt_s
        if self.pending:  # out of sight: people who meet stop, so the speed is trusted ever less
            self._filter.transitionMatrix[4, 4] = self._filter.transitionMatrix[5, 5] = 0.5 ** (dt_s / SLOW_S)
        # A person is about 1.7 m: 0.8 body heights a second squared is a quick turn on foot.
        place, speed, size = 0.5 * 0.8 * dt_s**2, 0.8 * dt_s, 0.3 * dt_s
        noise = np.array([place + 0.01, place + 0.01, size, size, speed, speed], np.float32) * h
        self._filter.processNoiseCov = np.diag(noise**2)
        self.box = _cornered(self._filter.predict())

    def correct(self, box: Floats, look: Floats, learn: bool, frame: Frame) -> None:
        """Take a box as this track's; its look is learnt only when nobody else stands in it."""
        h = float(box[3])
        self._filter.measurementNoiseCov = np.diag((np.array([0.05, 0.05, 0.1, 0.1], np.float32) * h) ** 2)
        state = self._filter.correct(_centred(box).reshape(4, 1))
        self.box = _cornered(state)
        self.height_px = max(float(state[3, 0]), 4.0)
        if learn:
            self.look = (0.9 * self.look + 0.1 * look).astype(np.float32)
        self._record(frame, box)

    def _record(self, frame: Frame, box: Floats) -> None:
        self.track.observations += self.pending
        self.pending.clear()
        self.track.observations.append(Observation(frame.index, frame.time_s, _tuple(box), True))
        self.hits += 1
        self.seen_s = frame.time_s

    def miss(self, frame: Frame) -> None:
        """No box in this frame: remember where it should be."""
        self.pending.append(Observation(frame.index, frame.time_s, _tuple(self.box), False))


@dataclass(frozen=True)
class Match:
    """A box of this frame that belongs to a confirmed track.

    Attributes:
        track_id: from 1.
        index: row of the detection.
        agreement: IoU of the box with the track's smoothed one, in [0, 1]; low when two people share a box.
    """

    track_id: int
    index: int
    agreement: float


class Tracker:
    """Give it the frames in order, then take `finish()`."""

    def __init__(self) -> None:
        self._targets: list[_Target] = []
        self._done: list[Track] = []
        self._next_id = 1
        self._time_s = 0.0

    def update(self, frame: Frame, found: Detections) -> list[Match]:
        """Continue the tracks with the boxes of one frame.

        Args:
            frame: RGB uint8 (H, W, 3) with its time.
            found: what the detector found in it.

        Returns:
            One `Match` for each box that went to a confirmed track.
        """
        boxes, scores = found.boxes_xywh_px, found.scores
        dt_s = frame.time_s - self._time_s
        self._time_s = frame.time_s
        for target in self._targets:
            target.predict(dt_s)
        looks = [look_of(frame.image, box) for box in boxes]
        alone = _alone(boxes)
        given: dict[int, _Target] = {}
        live = [target for target in self._targets if frame.time_s - target.seen_s <= LOST_S]
        sure = [target for target in live if target.track.id]
        good = [i for i in range(len(boxes)) if scores[i] >= GOOD_SCORE]
        self._give(sure, good, boxes, looks, frame, given)
        left = [target for target in sure if target not in given.values()]
        self._give_by_overlap(left, [i for i in range(len(boxes)) if i not in given], boxes, given)
        young = [target for target in live if not target.track.id]
        self._give(young, [i for i in good if i not in given], boxes, looks, frame, given)
        for index, target in given.items():
            target.correct(boxes[index], looks[index], bool(alone[index]), frame)
        for index in good:
            if index not in given:
                given[index] = _Target(boxes[index], looks[index], frame)
                self._targets.append(given[index])
        self._confirm(given, frame)
        self._retire(set(map(id, given.values())), frame)
        return [
            Match(target.track.id, index, float(iou(boxes[index : index + 1], target.box[None])[0, 0]))
            for index, target in sorted(given.items())
            if target.track.id
        ]

    def live(self) -> list[Track]:
        """Confirmed tracks that may still go on."""
        return [target.track for target in self._targets if target.track.id]

    def ended(self) -> list[Track]:
        """Tracks that ended since this was last asked; they are not among those of `finish` any more."""
        done, self._done = self._done, []
        return done

    def finish(self) -> list[Track]:
        """All confirmed tracks, by id. Predictions after the last box are not part of a track."""
        self._done += [target.track for target in self._targets if target.track.id]
        self._targets = []
        return sorted(self._done, key=lambda track: track.id)

    def _give(
        self,
        targets: Sequence[_Target],
        indices: Sequence[int],
        boxes: Floats,
        looks: Sequence[Floats],
        frame: Frame,
        given: dict[int, _Target],
    ) -> None:
        """Best assignment by place and look together."""
        if not targets or not indices:
            return
        at = boxes[list(indices)]
        predicted = np.stack([target.box for target in targets])
        overlap = iou(predicted, at)
        cost = np.ones(overlap.shape, np.float64) * 9.0
        for row, target in enumerate(targets):
            reach = 0.6 + 0.6 * min(frame.time_s - target.seen_s, LOST_S)  # body heights
            gone = np.hypot(*(_centres(at) - _centres(target.box[None])).T) / target.height_px
            for col, index in enumerate(indices):
                size = at[col, 3] / target.height_px
                if gone[col] < reach and 0.5 < size < 2.0:
                    unlike = distance(target.look, looks[index])
                    cost[row, col] = 0.45 * (1.0 - overlap[row, col]) + 0.25 * gone[col] + 0.4 * unlike
        for row, col in assign(cost):
            if cost[row, col] < COST_LIMIT:
                given[indices[col]] = targets[row]

    @staticmethod
    def _give_by_overlap(
        targets: Sequence[_Target], indices: Sequence[int], boxes: Floats, given: dict[int, _Target]
    ) -> None:
        """Poor boxes continue a track that they overlap, and never start one."""
        if not targets or not indices:
            return
        overlap = iou(np.stack([target.box for target in targets]), boxes[list(indices)])
        for row, col in assign(1.0 - overlap.astype(np.float64)):
            if overlap[row, col] > POOR_IOU:
                given[indices[col]] = targets[row]

    def _confirm(self, given: dict[int, _Target], frame: Frame) -> None:
        for index, target in given.items():
            young = not target.track.id and target.hits >= CONFIRM_HITS
            if not young or frame.time_s - target.track.start_s < CONFIRM_S:
                continue
            old = self._same_person(target)
            if old is None:
                target.track.id = self._next_id
                self._next_id += 1
            else:  # the old track goes on with the new one's filter
                target.track = Track(old.track.id, old.track.observations + target.track.observations)
                target.look = (0.5 * (old.look + target.look)).astype(np.float32)
                self._targets.remove(old)
            given[index] = target

    def _same_person(self, target: _Target) -> _Target | None:
        """The lost track that a new one continues: close enough to walk there, and alike."""
        first = target.track.observations[0]
        best, least = None, LIKE
        for old in self._targets:
            away_s = first.time_s - old.seen_s
            if not old.track.id or not 0.0 < away_s <= RELINK_S:
                continue
            last = np.array(old.track.observations[-1].box_xywh_px, np.float32)[None]
            here = np.array(first.box_xywh_px, np.float32)[None]
            gone = float(np.hypot(*(_centres(here) - _centres(last))[0])) / old.height_px
            if gone > min(0.8 + 1.0 * away_s, 3.0) or not 0.6 < first.box_xywh_px[3] / old.height_px < 1.67:
                continue
            unlike = distance(old.look, target.look) + 0.05 * gone
            if unlike < least:
                best, least = old, unlike
        return best

    def _retire(self, fed: set[int], frame: Frame) -> None:
        kept = []
        for target in self._targets:
            if id(target) not in fed:
                target.miss(frame)
            away_s = frame.time_s - target.seen_s
            if target.track.id and away_s > RELINK_S:
                self._done.append(target.track)
            elif target.track.id or away_s <= 0.4:  # a young one gets no credit
                kept.append(target)
        self._targets = kept


def look_of(image: Image, box: Floats) -> Floats:
    """Colours of a box: two HSV histograms (upper, lower half), float32 (2, 96), each summing to 1."""
    x, y, w, h = (float(value) for value in box)
    x0, x1 = max(int(x + 0.2 * w), 0), min(int(x + 0.8 * w) + 1, image.shape[1])
    look = np.full((2, 96), 1.0 / 96, np.float32)
    for half, (start, stop) in enumerate(((0.12, 0.5), (0.5, 0.95))):
        y0, y1 = max(int(y + start * h), 0), min(int(y + stop * h) + 1, image.shape[0])
        if x1 - x0 < 2 or y1 - y0 < 2:
            continue
        part = cv2.resize(image[y0:y1, x0:x1], (12, 16), interpolation=cv2.INTER_AREA)
        hsv = cv2.cvtColor(part, cv2.COLOR_RGB2HSV)
        counts = cv2.calcHist([hsv], [0, 1, 2], None, [8, 3, 4], [0, 180, 0, 256, 0, 256])
        look[half] = counts.ravel() / counts.sum()
    return look


def distance(a: Floats, b: Floats) -> float:
    """Bhattacharyya distance of two looks, in [0, 1], the mean over the halves."""
    return float(np.sqrt(np.maximum(1.0 - np.sqrt(a * b).sum(1), 0.0)).mean())


def iou(a: Floats, b: Floats) -> Floats:
    """Intersection over union of boxes x, y, w, h: (n, 4) and (m, 4) to float32 (n, m) in [0, 1]."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, :2] + a[:, None, 2:], b[None, :, :2] + b[None, :, 2:])
    common = np.clip(high - low, 0.0, None).prod(2)
    union = a[:, None, 2:].prod(2) + b[None, :, 2:].prod(2) - common
    ratio: Floats = (common / np.maximum(union, 1e-6)).astype(np.float32)
    return ratio


def assign(cost: Costs) -> list[tuple[int, int]]:
    """Pairs (row, column) of least total cost, float (n, m): the Hungarian method with potentials, O(n^2
    m)."""
    if cost.shape[0] > cost.shape[1]:
        return sorted((row, col) for col, row in assign(cost.T))
    n, m = cost.shape
    u, v = np.zeros(n + 1), np.zeros(m + 1)
    owner, way = np.zeros(m + 1, np.int64), np.zeros(m + 1, np.int64)
    for row in range(1, n + 1):
        owner[0], col = row, 0
        least, used = np.full(m + 1, np.inf), np.zeros(m + 1, bool)
        while True:
            used[col] = True
            slack = cost[owner[col] - 1] - u[owner[col]] - v[1:]
            better = ~used[1:] & (slack < least[1:])
            least[1:][better], way[1:][better] = slack[better], col
            col = int(np.where(used, np.inf, least)[1:].argmin()) + 1
            step = least[col]
            u[owner[used]] += step
            v[used] -= step
            least[~used] -= step
            if owner[col] == 0:
                break
        while col:
            owner[col] = owner[way[col]]
            col = int(way[col])
    return sorted((int(owner[col]) - 1, col - 1) for col in range(1, m + 1) if owner[col])


def _alone(boxes: Floats) -> NDArray[np.bool_]:
    """Which boxes nobody else's reaches into by more than a little."""
    overlap = iou(boxes, boxes)
    np.fill_diagonal(overlap, 0.0)
    alone: NDArray[np.bool_] = overlap.max(1, initial=0.0) < 0.1
    return alone


def _centres(boxes: Floats) -> Floats:
    return (boxes[:, :2] + boxes[:, 2:] / 2.0).astype(np.float32)


def _centred(box: Floats) -> Floats:
    return np.array([box[0] + box[2] / 2.0, box[1] + box[3] / 2.0, box[2], box[3]], np.float32)


def _cornered(state: NDArray[Any]) -> Floats:
    cx, cy, w, h = (float(value) for value in state[:4, 0])
    w, h = max(w, 2.0), max(h, 4.0)
    return np.array([cx - w / 2.0, cy - h / 2.0, w, h], np.float32)


def _tuple(box: Floats) -> tuple[float, float, float, float]:
    x, y, w, h = (float(value) for value in box)
    return x, y, w, h

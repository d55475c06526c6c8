"""One person being followed: a track and the filter that predicts it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.camera_motion import moved_box
from tagclip.runtime.source import Frame

SLOW_S = 0.3  # half-life of the speed of somebody out of sight

Floats = NDArray[np.float32]


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


class Target:
    """A track at work: its filter and its look.

    Attributes:
        box: float32 (4,) x, y, w, h in the frame, smoothed or predicted.
        first_box, last_box: the first and the last one that were seen, moved on with the camera only.
        look: see `look_of`.
        hits: boxes so far.
        seen_s: time of the last one.
    """

    def __init__(self, box: Floats, look: Floats, frame: Frame, most: int | None = None) -> None:
        """Args: most: as in `Tracker`."""
        self.track = Track(0)
        self._most, self._every, self._since = most, 1, 0
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
        self.box = self.first_box = self.last_box = box
        self._record(frame, box)

    def move(self, motion: Floats) -> None:
        """The camera moved: what was known of place, speed and size is where it would be seen now.

        Args:
            motion: float32 (2, 3), see `CameraMotion.update`.
        """
        state = self._filter.statePost
        linear, scale = motion[:, :2], float(np.hypot(motion[0, 0], motion[1, 0]))
        state[:2, 0] = linear @ state[:2, 0] + motion[:, 2]
        state[2:4, 0] = state[2:4, 0] * scale
        state[4:6, 0] = linear @ state[4:6, 0]
        self._filter.statePost = state
        self.height_px *= scale
        self.first_box, self.last_box = moved_box(motion, self.first_box), moved_box(motion, self.last_box)

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
        self.last_box = box
        self._record(frame, box)

    def _record(self, frame: Frame, box: Floats) -> None:
        self.track.observations += self.pending
        self.pending.clear()
        observations = self.track.observations
        if self._since < self._every and len(observations) > 1:
            observations.pop()  # the last one always stays, of those before it every `_every`-th
        else:
            self._since = 0
        self._since += 1
        observations.append(Observation(frame.index, frame.time_s, _tuple(box), True))
        if self._most is not None and len(observations) > self._most:
            del observations[1:-1:2]
            self._every *= 2
        self.hits += 1
        self.seen_s = frame.time_s

    def miss(self, frame: Frame) -> None:
        """No box in this frame: remember where it should be."""
        self.pending.append(Observation(frame.index, frame.time_s, _tuple(self.box), False))


def _centred(box: Floats) -> Floats:
    return np.array([box[0] + box[2] / 2.0, box[1] + box[3] / 2.0, box[2], box[3]], np.float32)


def _cornered(state: NDArray[Any]) -> Floats:
    cx, cy, w, h = (float(value) for value in state[:4, 0])
    w, h = max(w, 2.0), max(h, 4.0)
    return np.array([cx - w / 2.0, cy - h / 2.0, w, h], np.float32)


def _tuple(box: Floats) -> tuple[float, float, float, float]:
    x, y, w, h = (float(value) for value in box)
    return x, y, w, h

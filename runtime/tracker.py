"""Joins boxes of single frames to tracks of people.

Each track predicts its box with a constant-velocity Kalman filter (OpenCV's); boxes are given to tracks by
place and by colour together, first the good boxes, then the poor ones (ByteTrack's order); the colours keep
two people who cross apart, and find somebody again who comes out from behind a lamp post. Where the camera
moves, all that is known of places moves with it first (as in BoT-SORT).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.association import assign, iou
from tagclip.runtime.boxes import Detections
from tagclip.runtime.camera_motion import IDENTITY, CameraMotion
from tagclip.runtime.look import distance, look_of
from tagclip.runtime.source import Frame
from tagclip.runtime.target import Target, Track

CONFIRM_HITS = 3  # a track is real after this many boxes ...
CONFIRM_S = 0.15  # ... over at least this time, so that 30 fps footage asks for more than three
LOST_S = 1.5  # without a box, a track is continued by its motion for so long
RELINK_S = 6.0  # and can be found again by its colours for so long
GOOD_SCORE = 0.5
POOR_IOU = 0.3
LIKE = 0.45  # Bhattacharyya distance (0 same, 1 nothing in common) below which two looks may be one person
COST_LIMIT = 0.85
LONGEST_STEP_S = 2.0  # between two frames; who knows where somebody went in more

Floats = NDArray[np.float32]


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
    """Give it the frames in order, then take `finish()`.

    Args:
        camera_moves: the camera may be on a drone: its motion is found in the picture. Not asked for with a camera
            that stands, it costs nothing.
        most: how many observations a track keeps, at least 4; beyond, every second one is dropped, so that somebody who
            stands there for hours takes no more memory. None keeps all, for short footage.
    """

    def __init__(self, *, camera_moves: bool = False, most: int | None = None) -> None:
        self._motion = CameraMotion() if camera_moves else None
        self._most = most
        self._targets: list[Target] = []
        self._done: list[Track] = []
        self._next_id = 1
        self._time_s = 0.0

    def update(self, frame: Frame, found: Detections) -> list[Match]:
        """Continue the tracks with the boxes of one frame.

        Args:
            frame: RGB uint8 (H, W, 3) with its time, later than the one before.
            found: what the detector found in it, without what `Detections.usable` leaves out.

        Returns:
            One `Match` for each box that went to a confirmed track.
        """
        boxes, scores = found.boxes_xywh_px, found.scores
        dt_s = min(max(frame.time_s - self._time_s, 0.0), LONGEST_STEP_S)
        self._time_s = frame.time_s
        motion = self._motion.update(frame.image, boxes) if self._motion else None
        for target in self._targets:
            if motion is not None and motion is not IDENTITY:
                target.move(motion)
            target.predict(dt_s)
        looks = [look_of(frame.image, box) for box in boxes]
        alone = _alone(boxes)
        given: dict[int, Target] = {}
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
                given[index] = Target(boxes[index], looks[index], frame, self._most)
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
        targets: Sequence[Target],
        indices: Sequence[int],
        boxes: Floats,
        looks: Sequence[Floats],
        frame: Frame,
        given: dict[int, Target],
    ) -> None:
        """Best assignment by place and look together."""
        if not targets or not indices:
            return
        at = boxes[list(indices)]
        predicted = np.stack([target.box for target in targets])
        heights = np.array([target.height_px for target in targets])
        away_s = np.array([frame.time_s - target.seen_s for target in targets])
        overlap = iou(predicted, at)
        between = _centres(at)[None] - _centres(predicted)[:, None]
        gone = np.hypot(between[..., 0], between[..., 1]) / heights[:, None]  # body heights
        size = at[None, :, 3] / heights[:, None]
        reach = 0.6 + 0.6 * np.minimum(away_s, LOST_S)
        cost = np.full(overlap.shape, 9.0)
        for row, col in np.argwhere((gone < reach[:, None]) & (size > 0.5) & (size < 2.0)):
            unlike = distance(targets[row].look, looks[indices[col]])
            cost[row, col] = 0.45 * (1.0 - overlap[row, col]) + 0.25 * gone[row, col] + 0.4 * unlike
        for row, col in assign(cost, COST_LIMIT):
            given[indices[col]] = targets[row]

    @staticmethod
    def _give_by_overlap(
        targets: Sequence[Target], indices: Sequence[int], boxes: Floats, given: dict[int, Target]
    ) -> None:
        """Poor boxes continue a track that they overlap, and never start one."""
        if not targets or not indices:
            return
        overlap = iou(np.stack([target.box for target in targets]), boxes[list(indices)])
        for row, col in assign(1.0 - overlap.astype(np.float64), 1.0 - POOR_IOU):
            given[indices[col]] = targets[row]

    def _confirm(self, given: dict[int, Target], frame: Frame) -> None:
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

    def _same_person(self, target: Target) -> Target | None:
        """The lost track that a new one continues: close enough to walk there, and alike."""
        first, here = target.track.observations[0], target.first_box[None]
        best, least = None, LIKE
        for old in self._targets:
            away_s = first.time_s - old.seen_s
            if not old.track.id or not 0.0 < away_s <= RELINK_S:
                continue
            gone = float(np.hypot(*(_centres(here) - _centres(old.last_box[None]))[0])) / old.height_px
            if gone > min(0.8 + 1.0 * away_s, 3.0) or not 0.6 < here[0, 3] / old.height_px < 1.67:
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


def _alone(boxes: Floats) -> NDArray[np.bool_]:
    """Which boxes nobody else's reaches into by more than a little."""
    overlap = iou(boxes, boxes)
    np.fill_diagonal(overlap, 0.0)
    alone: NDArray[np.bool_] = overlap.max(1, initial=0.0) < 0.1
    return alone


def _centres(boxes: Floats) -> Floats:
    return (boxes[:, :2] + boxes[:, 2:] / 2.0).astype(np.float32)

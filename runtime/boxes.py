"""Boxes: what every detector hands to the tracker, and the detector that reads them from a file."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.errors import SourceError
from tagclip.runtime.source import Frame

MOST_PEOPLE = 300  # in one frame

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Detections:
    """People found in one frame.

    Attributes:
        boxes_xywh_px: float32 (n, 4), left, top, width, height in pixels of the frame; they may reach over
            its edge.
        scores: float32 (n,) in (0, 1].
        fill: float32 (n,) in (0, 1], the part of each box that the person's silhouette covers; 1 when
            unknown.
    """

    boxes_xywh_px: Floats
    scores: Floats
    fill: Floats = field(default_factory=lambda: np.empty(0, np.float32))

    def __post_init__(self) -> None:
        count = len(self.boxes_xywh_px)
        if self.boxes_xywh_px.shape != (count, 4) or self.scores.shape != (count,):
            raise ValueError(
                f"expected boxes (n, 4), scores (n,); got {self.boxes_xywh_px.shape}, {self.scores.shape}"
            )
        if self.fill.shape != (count,):
            object.__setattr__(self, "fill", np.ones(count, np.float32))

    def usable(self) -> Detections:
        """Without what no tracker can follow: numbers that are not finite, boxes without an area, and all but the best
        `MOST_PEOPLE`, so that a detector gone wild costs time that is bounded."""
        numbers = np.column_stack([self.boxes_xywh_px, self.scores, self.fill])
        kept = np.flatnonzero(np.isfinite(numbers).all(1) & (self.boxes_xywh_px[:, 2:] > 0).all(1))
        if len(kept) == len(numbers) <= MOST_PEOPLE:
            return self
        if len(kept) > MOST_PEOPLE:
            kept = np.sort(kept[np.argsort(-self.scores[kept], kind="stable")[:MOST_PEOPLE]])
        return Detections(self.boxes_xywh_px[kept], self.scores[kept], self.fill[kept])

    @classmethod
    def none(cls) -> Detections:
        """Nobody in the frame."""
        return cls(np.empty((0, 4), np.float32), np.empty(0, np.float32))


class Detector(Protocol):
    """Finds people in frames that come in order."""

    def detect(self, frame: Frame) -> Detections:
        """People in `frame`."""


class FileBoxes:
    """Boxes from a file: MOT text (`frame,id,x,y,w,h[,score,...]`, frames from 1) or scene JSON (frames from
    0).

    Ids in the file are ignored: the tracker makes its own, so that both detectors take the same way.
    """

    def __init__(self, path: Path) -> None:
        """Read `path`.

        Raises:
            SourceError: missing, neither of the two formats, or without a single box; names the line or
                frame.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise SourceError(f"{path}: no boxes read ({error.strerror}); give a MOT or JSON file") from error
        except UnicodeDecodeError as error:
            raise SourceError(f"{path} is not text; expected MOT lines or the JSON of a scene") from error
        rows = _scene_rows(path, text) if text.lstrip().startswith("{") else _mot_rows(path, text)
        if not rows:
            raise SourceError(f"{path} holds no box; expected lines `frame,id,x,y,w,h`")
        grouped: dict[int, list[list[float]]] = {}
        for frame, box, score in rows:
            grouped.setdefault(frame, []).append([*box, score])
        self._by_frame = {frame: np.array(found, np.float32) for frame, found in grouped.items()}
        self.last_frame = max(grouped)

    def detect(self, frame: Frame) -> Detections:
        """The boxes that the file has for `frame.index`."""
        rows = self._by_frame.get(frame.index)
        return Detections.none() if rows is None else Detections(rows[:, :4], rows[:, 4])


_Row = tuple[int, list[float], float]


def _mot_rows(path: Path, text: str) -> list[_Row]:
    rows: list[_Row] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            values = [float(part) for part in line.split(",")]
            if len(values) < 6 or not all(map(math.isfinite, values[:6])):
                raise ValueError
        except ValueError:
            raise SourceError(
                f"{path}, line {number}: expected numbers `frame,id,x,y,w,h[,score]`, got {line[:60]!r}"
            ) from None
        if values[0] < 1 or values[0] != int(values[0]):
            raise SourceError(f"{path}, line {number}: frames of a MOT file count from 1, got {values[0]:g}")
        # MOT ground truth marks boxes to be ignored with 0; result files write -1 for "no score".
        score = values[6] if len(values) > 6 else 1.0
        if score == 0.0:
            continue
        score = min(score, 1.0) if score > 0.0 else 1.0
        rows.append((int(values[0]) - 1, _box(values[2:6], f"{path}, line {number}"), score))
    return rows


def _scene_rows(path: Path, text: str) -> list[_Row]:
    form = '{"frames": [{"frame": 0, "people": [{"box_xywh_px": [x, y, w, h]}]}]}'
    try:
        frames: Any = json.loads(text)["frames"]
        rows: list[_Row] = []
        for entry in frames:
            for person in entry["people"]:
                numbers = [float(value) for value in person["box_xywh_px"]]
                rows.append((int(entry["frame"]), _box(numbers, f"{path}, frame {entry['frame']}"), 1.0))
    except json.JSONDecodeError as error:
        where = f"{path}, line {error.lineno}"
        raise SourceError(f"{where}: broken JSON ({error.msg}); expected {form}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(f"{path}: {type(error).__name__} {error}; expected {form}") from error
    return rows


def _box(values: list[float], where: str) -> list[float]:
    if len(values) != 4 or not all(map(math.isfinite, values)) or values[2] <= 0 or values[3] <= 0:
        raise SourceError(f"{where}: expected a box x,y,w,h in pixels with w and h above 0, got {values}")
    return values

"""What finds people in a video."""

from __future__ import annotations

from pathlib import Path

from tagclip.runtime.boxes import Detector, FileBoxes
from tagclip.runtime.motion import MotionDetector
from tagclip.runtime.source import VideoSource

SAMPLES = 25  # frames that show the empty scene


def detector_of(source: VideoSource, boxes: Path | None) -> Detector:
    """The file of boxes, or without one motion.

    Raises:
        SourceError: the file of boxes cannot be read.
    """
    if boxes is not None:
        return FileBoxes(boxes)
    return MotionDetector(source.width_px, source.height_px, source.fps, source.sample(SAMPLES))

"""The video again, with the people that were found drawn into it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from tagclip.runtime.mp4 import mp4_atomic
from tagclip.runtime.search import Hit
from tagclip.runtime.sheet import ascii_only
from tagclip.runtime.source import Image, VideoSource
from tagclip.runtime.target import Track

FONT = cv2.FONT_HERSHEY_SIMPLEX
GREY = (150, 150, 150)
# BGR, told apart by people with any colour vision (Okabe and Ito); ranks beyond take the last one.
RANK_COLOURS = ((0, 94, 213), (178, 114, 0), (115, 158, 0), (167, 121, 204), (0, 159, 230))


@dataclass(frozen=True)
class Mark:
    """What is drawn of one person in one frame.

    Attributes:
        box_xywh_px: in that frame.
        rank: from 1, best first; None for somebody who is no hit: a thin grey box without a text.
        text: of the label, beside the rank.
    """

    box_xywh_px: tuple[float, float, float, float]
    rank: int | None = None
    text: str = ""


def write_annotated(
    source: VideoSource,
    tracks: Sequence[Track],
    hits: Sequence[Hit],
    path: Path,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write `source` to the MP4 `path`, hits with rank and score, everybody else in thin grey.

    The file takes its name when it is complete. Frames in which a track was not seen have no box.

    Raises:
        OutputError: this OpenCV cannot write MP4, or the place cannot be written.
    """
    ranked = {hit.track.id: hit for hit in hits if hit.track}
    marks: dict[int, list[Mark]] = {}
    for track in tracks:
        hit = ranked.get(track.id)
        for seen in track.observations:
            if seen.observed:
                box = seen.box_xywh_px
                mark = Mark(box, hit.rank, f"{hit.score:.2f}") if hit else Mark(box)
                marks.setdefault(seen.frame, []).append(mark)
    write_marked(source, marks, path, progress)


def write_marked(
    source: VideoSource,
    marks: Mapping[int, Sequence[Mark]],
    path: Path,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write `source` to the MP4 `path` with what each frame, from 0, has to show; how many frames that were.

    Raises:
        OutputError: this OpenCV cannot write MP4, or the place cannot be written.
    """
    frames = 0
    bgr = np.empty((source.height_px, source.width_px, 3), np.uint8)
    with mp4_atomic(path, source.fps, (source.width_px, source.height_px)) as write:
        for frame in source:
            cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR, dst=bgr)
            # Hits last: they lie over the grey boxes; the best lies over all.
            for mark in sorted(marks.get(frame.index, ()), key=lambda mark: -(mark.rank or 1 << 31)):
                _draw(bgr, mark)
            write(bgr)
            frames = frame.index + 1
            if progress:
                progress(frames, source.frame_count)
    return frames


def _draw(bgr: Image, mark: Mark) -> None:
    x, y, w, h = (round(value) for value in mark.box_xywh_px)
    unit = max(bgr.shape[0] / 720.0, 0.6)  # lines and letters grow with the frame
    if mark.rank is None:
        cv2.rectangle(bgr, (x, y), (x + w, y + h), GREY, 1)
        return
    colour = RANK_COLOURS[min(mark.rank, len(RANK_COLOURS)) - 1]
    cv2.rectangle(bgr, (x, y), (x + w, y + h), colour, max(round(2 * unit), 2))
    size, thick = 0.55 * unit, max(round(unit), 1)
    text = _fitting(f"{mark.rank}  {ascii_only(mark.text)}", bgr.shape[1] - 6, size, thick)
    (text_w, text_h), base = cv2.getTextSize(text, FONT, size, thick)
    left = min(max(x, 0), max(bgr.shape[1] - text_w - 6, 0))
    bottom = max(y, text_h + base + 4)
    cv2.rectangle(bgr, (left, bottom - text_h - base - 4), (left + text_w + 6, bottom), colour, cv2.FILLED)
    cv2.putText(bgr, text, (left + 3, bottom - base), FONT, size, (255, 255, 255), thick, cv2.LINE_AA)


def _fitting(text: str, width_px: int, size: float, thick: int) -> str:
    """The text, cut where it is wider than the frame."""
    if cv2.getTextSize(text, FONT, size, thick)[0][0] <= width_px:
        return text
    text = text[:200]
    while len(text) > 4 and cv2.getTextSize(f"{text}..", FONT, size, thick)[0][0] > width_px:
        text = text[:-1]
    return f"{text}.."

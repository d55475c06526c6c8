"""The video again, with the people that were found drawn into it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from tagclip.runtime.mp4 import mp4_atomic
from tagclip.runtime.search import Hit
from tagclip.runtime.source import Image, VideoSource
from tagclip.runtime.target import Observation, Track

FONT = cv2.FONT_HERSHEY_SIMPLEX
GREY = (150, 150, 150)
# BGR, told apart by people with any colour vision (Okabe and Ito); ranks beyond take the last one.
RANK_COLOURS = ((0, 94, 213), (178, 114, 0), (115, 158, 0), (167, 121, 204), (0, 159, 230))


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
    by_frame: dict[int, list[tuple[int, Observation]]] = {}
    for track in tracks:
        for seen in track.observations:
            if seen.observed:
                by_frame.setdefault(seen.frame, []).append((track.id, seen))
    ranked = {hit.track.id: hit for hit in hits if hit.track}
    bgr = np.empty((source.height_px, source.width_px, 3), np.uint8)
    with mp4_atomic(path, source.fps, (source.width_px, source.height_px)) as write:
        for frame in source:
            cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR, dst=bgr)
            # Hits last: they lie over the grey boxes.
            here = by_frame.get(frame.index, [])
            for track_id, seen in sorted(here, key=lambda entry: entry[0] in ranked):
                _draw(bgr, track_id, seen, ranked.get(track_id))
            write(bgr)
            if progress:
                progress(frame.index + 1, source.frame_count)


def _draw(bgr: Image, track_id: int, seen: Observation, hit: Hit | None) -> None:
    x, y, w, h = (round(value) for value in seen.box_xywh_px)
    unit = max(bgr.shape[0] / 720.0, 0.6)  # lines and letters grow with the frame
    if hit is None:
        cv2.rectangle(bgr, (x, y), (x + w, y + h), GREY, 1)
        return
    colour = RANK_COLOURS[min(hit.rank, len(RANK_COLOURS)) - 1]
    cv2.rectangle(bgr, (x, y), (x + w, y + h), colour, max(round(2 * unit), 2))
    text, size, thick = f"{hit.rank}  {hit.score:.2f}", 0.55 * unit, max(round(unit), 1)
    (text_w, text_h), base = cv2.getTextSize(text, FONT, size, thick)
    left = min(max(x, 0), max(bgr.shape[1] - text_w - 6, 0))
    bottom = max(y, text_h + base + 4)
    cv2.rectangle(bgr, (left, bottom - text_h - base - 4), (left + text_w + 6, bottom), colour, cv2.FILLED)
    cv2.putText(bgr, text, (left + 3, bottom - base), FONT, size, (255, 255, 255), thick, cv2.LINE_AA)

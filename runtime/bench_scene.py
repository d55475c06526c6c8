"""What the benchmark looks at: the frames of a video, as they are or with exactly N people pasted in."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tagclip.runtime.boxes import Detections
from tagclip.runtime.errors import SourceError
from tagclip.runtime.source import Frame, Image, VideoSource

EXAMPLE = Path(__file__).parent / "data" / "example.mp4"  # the clip that ships; its truth lies beside it
HEIGHT_PART = 0.2  # of the frame's height: a person who is pasted in
LANES = 4  # rows of people
PERIOD_S = 4.0  # in which somebody walks to and fro
HOW = (
    "people of the clip that ships, cut out by its truth, scaled to a fifth of the frame's height and pasted in before "
    "the frame counts as there; the detector works on every frame, then exactly these boxes go on"
)


@dataclass(frozen=True)
class Shown:
    """One frame that is there: decoded, scaled and with its people in it.

    Attributes:
        frame: its buffer is reused; its time goes on where the video starts over.
        people: the boxes that stand for what a detector would find; None leaves it to the detector.
        decode_ns: how long the video took to give the frame; scaling and pasting are not in it.
        opened: the video was opened for it, so that `decode_ns` is not that of a frame.
    """

    frame: Frame
    people: Detections | None
    decode_ns: int
    opened: bool


class Scene:
    """A video that plays as often as asked.

    Args:
        size_px: width and height to which its frames are scaled; None leaves them as they are.

    Attributes:
        size_px: of a frame, width and height.
        fps: of the video.
    """

    def __init__(self, source: VideoSource, size_px: tuple[int, int] | None = None) -> None:
        self._source = source
        self.size_px = size_px or (source.width_px, source.height_px)
        self.fps = source.fps
        self._pictures: list[Image] = []

    def sample(self, count: int) -> list[Image]:
        """As `VideoSource.sample`, in the size of the scene."""
        return [self._scaled(image) for image in self._source.sample(count)]

    def play(self, people: int | None, frames: int) -> Iterator[Shown]:
        """`frames` frames in order, the video over and over.

        Args:
            people: how many are pasted into each; None for the video as it is.

        Raises:
            SourceError: the video gives no frame any more, or changes its size.
        """
        done, begun_s, time_s = 0, 0.0, 0.0
        while done < frames:
            opened = True
            with contextlib.closing(_generator(self._source)) as playing:
                while done < frames:
                    begun_ns = time.perf_counter_ns()
                    frame = next(playing, None)
                    decode_ns = time.perf_counter_ns() - begun_ns
                    if frame is None:
                        break
                    time_s = begun_s + frame.time_s
                    image = self._scaled(frame.image)
                    boxes = None if people is None else self._paste(image, people, time_s)
                    yield Shown(Frame(done, time_s, image), boxes, decode_ns, opened)
                    opened = False
                    done += 1
            if opened:
                raise SourceError(f"{self._source.path}: no frame could be read; record or copy it again")
            begun_s = time_s + 1.0 / self.fps

    def _scaled(self, image: Image) -> Image:
        if image.shape[1::-1] == self.size_px:
            return image
        return cv2.resize(image, self.size_px, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)

    def _paste(self, image: Image, people: int, time_s: float) -> Detections:
        """Put people into a frame, each on a lane of its own part of the frame; where they are."""
        height_px = max(round(self.size_px[1] * HEIGHT_PART), 8)
        self._pictures = self._pictures or [_of_height(picture, height_px) for picture in people_pictures()]
        columns = -(-people // LANES)
        boxes = np.empty((people, 4), np.float32)
        for k in range(people):
            picture = self._pictures[k % len(self._pictures)]
            height, width = (
                min(size, limit) for size, limit in zip(picture.shape, image.shape[:2], strict=False)
            )
            lane, column = k % LANES, k // LANES
            swing = 0.25 * math.sin(2 * math.pi * (time_s / PERIOD_S + k / people))
            x = round((column + 0.5 + swing) / columns * self.size_px[0] - width / 2)
            y = round((lane + 0.5) / LANES * self.size_px[1] - height / 2)
            x, y = min(max(x, 0), image.shape[1] - width), min(max(y, 0), image.shape[0] - height)
            image[y : y + height, x : x + width] = picture[:height, :width]
            boxes[k] = x, y, width, height
        return Detections(boxes, np.ones(people, np.float32))


def people_pictures() -> list[Image]:
    """One picture of each person of the clip that ships, RGB uint8 (h, w, 3): the largest that nobody covers.

    Raises:
        SourceError: the clip is not installed, or cannot be decoded.
    """
    try:
        frames: list[dict[str, Any]] = json.loads(EXAMPLE.with_suffix(".json").read_bytes())["frames"]
    except OSError as error:
        raise SourceError(
            f"{EXAMPLE.with_suffix('.json')}: {error.strerror}; install tagclip again, its people are pasted in"
        ) from error
    source = VideoSource(EXAMPLE)
    best: dict[int, tuple[float, int, tuple[int, int, int, int]]] = {}
    for entry in frames:
        boxes = {person["id"]: person["box_xywh_px"] for person in entry["people"]}
        for number, (x, y, w, h) in boxes.items():
            whole = x > 1 and y > 1 and x + w < source.width_px - 1 and y + h < source.height_px - 1
            alone = not any(_overlap((x, y, w, h), other) for key, other in boxes.items() if key != number)
            if whole and alone and h > best.get(number, (0.0,))[0]:
                best[number] = h, entry["frame"], (round(x), round(y), round(w), round(h))
    wanted = sorted(best.values(), key=lambda found: found[1])
    pictures = []
    for frame in source:
        for _, index, (x, y, w, h) in wanted:
            if index == frame.index:
                pictures.append(frame.image[y : y + h, x : x + w].copy())
    if not pictures:
        raise SourceError(f"{EXAMPLE} shows nobody; install tagclip again, its people are pasted in")
    return pictures


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return all(one[k] < other[k] + other[k + 2] and other[k] < one[k] + one[k + 2] for k in (0, 1))


def _of_height(picture: Image, height_px: int) -> Image:
    width_px = max(round(picture.shape[1] * height_px / picture.shape[0]), 4)
    return cv2.resize(picture, (width_px, height_px), interpolation=cv2.INTER_AREA).astype(
        np.uint8, copy=False
    )


def _generator(source: VideoSource) -> Any:
    """The frames of a source, as something that can be closed."""
    yield from source

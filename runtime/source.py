"""Where pictures come from: a video file, or a folder of images."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.errors import SourceError
from tagclip.runtime.logs import mask

Image = NDArray[np.uint8]

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
SAMPLE_WINDOW_FRAMES = 1500  # how far into a video `VideoSource.sample` decodes: a minute at 25 fps
LONGEST_GAP_S = 60.0  # a timestamp that jumps further than this is a fault of the container

_LIVE = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]+:/|gst:|/dev/video\d"
)  # one slash where a Path has been made of a URL


class StallError(SourceError):
    """A live camera is connected and sends nothing."""


@dataclass(frozen=True)
class Frame:
    """One picture of a video.

    Attributes:
        index: number of the frame in its file, from 0.
        time_s: seconds since the start of the file, strictly increasing.
        image: RGB uint8 (H, W, 3). **The buffer is reused**: copy what must outlive the iteration.
    """

    index: int
    time_s: float
    image: Image


class VideoSource:
    """A video file, read from start to end. Iterating a second time starts over.

    Attributes:
        fps: frames per second as the container announces them (25 when it announces nonsense, with a
            warning).
        frame_count: frames that the container announces; 0 when unknown.
        width_px, height_px: size of a frame.
        warnings: what a user should know about this file; complete after a whole iteration.
    """

    def __init__(self, path: Path) -> None:
        """Open `path`.

        Raises:
            SourceError: the file is missing, empty, or not a video that this OpenCV can decode.
        """
        self.path = path
        self.warnings: list[str] = []
        if not path.is_file():
            raise SourceError(f"{path}: no such file; expected a video or a folder of images")
        if path.stat().st_size == 0:
            raise SourceError(f"{path} is empty (0 bytes), expected a video; copy it again")
        capture = self._open()
        try:
            self.fps = float(capture.get(cv2.CAP_PROP_FPS))
            self.frame_count = max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
            ok, first = capture.read()
        finally:
            capture.release()
        if not ok or first is None:
            raise SourceError(f"{path} is a video without a single readable frame; record or copy it again")
        if not 1.0 <= self.fps <= 240.0:
            self.warnings.append(f"{path.name} announces {self.fps:g} frames per second; 25 assumed")
            self.fps = 25.0
        self.height_px, self.width_px = int(first.shape[0]), int(first.shape[1])

    def _open(self) -> cv2.VideoCapture:
        quiet_codecs()
        with open(self.path, "rb") as file:
            if _is_text(file.read(4096)):  # FFmpeg would play a text as a terminal's picture
                raise SourceError(f"{self.path} is text, not a video; expected MP4, AVI, MKV, MOV or WebM")
        try:
            capture = cv2.VideoCapture(str(self.path))
        except cv2.error as error:
            raise SourceError(f"{self.path} cannot be read as a video ({error.err or error})") from error
        if not capture.isOpened():
            capture.release()
            raise SourceError(
                f"{self.path} is not a video that can be decoded here (wrong format, or cut off before its "
                "index was written); expected MP4, AVI, MKV, MOV or WebM: convert it, or copy it again"
            )
        return capture

    def __iter__(self) -> Iterator[Frame]:
        """Every frame in order.

        Raises:
            SourceError: the frame size changes half-way.
        """
        capture = self._open()
        bgr = np.empty((self.height_px, self.width_px, 3), np.uint8)
        rgb = np.empty_like(bgr)
        index, time_s = 0, 0.0
        try:
            while True:
                ok, read = capture.read(bgr)
                if not ok:
                    break
                if read.shape != rgb.shape:
                    raise SourceError(
                        f"{self.path}: frame {index} is {read.shape[1]}x{read.shape[0]}, expected "
                        f"{self.width_px}x{self.height_px}; re-encode the file with one size"
                    )
                stamp_s = float(capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000.0
                if index == 0:
                    time_s = stamp_s if 0.0 <= stamp_s < 1.0 else 0.0
                elif math.isfinite(stamp_s) and time_s < stamp_s < time_s + LONGEST_GAP_S:
                    time_s = stamp_s
                else:  # no or broken timestamps: go on from the last good one at the announced rate
                    time_s += 1.0 / self.fps
                cv2.cvtColor(read, cv2.COLOR_BGR2RGB, dst=rgb)
                yield Frame(index, time_s, rgb)
                index += 1
        finally:
            capture.release()
        # Containers that do not store a count estimate it; a frame or two less is not a fault.
        if index < self.frame_count - max(2, self.frame_count // 100):
            warning = (
                f"{self.path.name} announces {self.frame_count} frames, only {index} could be read: "
                "the file is cut off or damaged, the rest was not searched"
            )
            if warning not in self.warnings:
                self.warnings.append(warning)

    def sample(self, count: int) -> list[Image]:
        """At most `count` frames, evenly spread over the first `SAMPLE_WINDOW_FRAMES`, RGB uint8 (H, W, 3)
        copies.

        Reads in order: seeking costs more than decoding between key frames that are far apart.
        """
        window = min(self.frame_count or SAMPLE_WINDOW_FRAMES, SAMPLE_WINDOW_FRAMES)
        step = max(window // count, 1)
        capture = self._open()
        images: list[Image] = []
        try:
            for index in range(window):
                if len(images) == count or not capture.grab():
                    break
                if index % step == step // 2:
                    ok, bgr = capture.retrieve()
                    if ok and bgr.shape == (self.height_px, self.width_px, 3):
                        images.append(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False))
        finally:
            capture.release()
        return images


class FolderSource:
    """Images, each a crop of one person; iterating yields (path, RGB uint8 (H, W, 3)), sorted by path.

    Attributes:
        paths: the image files found, sorted.
        skipped: those that could not be decoded; complete after a whole iteration.
    """

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        self.skipped: list[Path] = []

    def __iter__(self) -> Iterator[tuple[Path, Image]]:
        """Every image that can be read.

        Raises:
            SourceError: not a single one can.
        """
        quiet_codecs()
        self.skipped = []
        for path in self.paths:
            image = read_image(path)
            if image is None:
                self.skipped.append(path)
            else:
                yield path, image
        if len(self.skipped) == len(self.paths):
            raise SourceError(
                f"none of the {len(self.paths)} images can be decoded (the first is {self.paths[0]}); "
                "expected JPEG, PNG, BMP or WebP files"
            )


def is_live(source: str) -> bool:
    """Whether a SOURCE names a camera, such as rtsp://HOST/PATH, /dev/video0 or gst:PIPELINE, and no file or folder."""
    return _LIVE.match(source) is not None


def open_source(path: Path) -> VideoSource | FolderSource:
    """Open a video file, a folder of images (with sub-folders; hidden files are ignored) or a single image.

    Raises:
        SourceError: nothing there, a live camera, a folder without an image, or a file that is not a video.
    """
    if is_live(str(path)):
        raise SourceError(
            f"{mask(str(path))} is a live camera, expected a video or a folder of images; `tagclip run` watches cameras"
        )
    if not path.exists():
        raise SourceError(f"{path}: no such file or folder; expected a video or a folder of images")
    if path.is_dir():
        found = sorted(
            file
            for file in path.rglob("*")
            if file.suffix.lower() in IMAGE_SUFFIXES
            and file.is_file()
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
        )
        if not found:
            raise SourceError(f"{path} holds no image; expected files named *.jpg, *.png, *.bmp or *.webp")
        return FolderSource(found)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return FolderSource([path])
    return VideoSource(path)


def read_image(path: Path) -> Image | None:
    """Decode one image to RGB uint8 (H, W, 3); None when it is not one."""
    try:
        return decode_image(path.read_bytes())  # cv2.imread cannot open every path on every system
    except OSError:
        return None


def decode_image(data: bytes) -> Image | None:
    """The bytes of one image file as RGB uint8 (H, W, 3); None when they are none."""
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error:
        return None
    return None if bgr is None else cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def _is_text(head: bytes) -> bool:
    return not any(byte < 9 or 13 < byte < 27 for byte in head)


def quiet_codecs() -> None:
    """Stop OpenCV and FFmpeg writing to stderr; what went wrong is said once, by us.

    FFmpeg's level is read when the first capture opens, so the variable is set here and a user's own value
    wins.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

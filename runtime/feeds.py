"""One connection to a live camera, and which texts name one."""

from __future__ import annotations

import os
import re
import time
from typing import Protocol
from urllib.parse import urlsplit

import cv2
import numpy as np

from tagclip.runtime.errors import ConfigError, SourceError
from tagclip.runtime.gst import GstFeed, check_tools, pipeline_of
from tagclip.runtime.logs import mask
from tagclip.runtime.source import Image, StallError, quiet_codecs

SCHEMES = ("rtsp", "rtsps", "http", "https", "tcp", "udp")

_URL = re.compile(r"([^:/]+)://")
_V4L2 = re.compile(r"/dev/video\d{1,3}")


class Feed(Protocol):
    """An open camera.

    Attributes:
        fps: frames a second as it is announced, 0 when it is not.
    """

    fps: float

    def read(self) -> Image | None:
        """The next frame, RGB uint8 (H, W, 3), valid until the next call; None when the connection is over.

        Raises:
            StallError: nothing came for too long.
        """

    def close(self) -> None:
        """Let go of the camera."""


def check_live(source: str) -> None:
    """Refuse what `source.is_live` but can never be opened; whether a camera is there is another question.

    Raises:
        ConfigError: the text is of no form that is known.
        SourceError: GStreamer's tools are needed and not installed.
    """
    if source.startswith(("gst:", "csi:")):
        pipeline_of(source)
        check_tools(source)
        return
    if _V4L2.fullmatch(source):
        return
    scheme = _URL.match(source)
    if scheme is None:
        raise ConfigError(
            f"{mask(source)} is no URL; expected rtsp://HOST/PATH, /dev/video0, csi://0 or gst:PIPELINE"
        )
    if scheme[1] not in SCHEMES:
        raise ConfigError(
            f"{mask(source)}: unknown scheme {scheme[1]}; expected csi or one of {', '.join(SCHEMES)}"
        )
    try:
        parts = urlsplit(source)
        _ = parts.port  # raises when it is no number
    except ValueError as error:
        raise ConfigError(
            f"{mask(source)} is no URL ({mask(str(error))}); expected {scheme[1]}://HOST/PATH"
        ) from error
    if not parts.netloc.rpartition("@")[2]:
        raise ConfigError(f"{mask(source)} names no host; expected {scheme[1]}://HOST/PATH")


def live_name(source: str) -> str:
    """What a camera is called without --camera: its host and path, its device, never who logs in."""
    if source.startswith("gst:"):
        return "gst"
    if source.startswith("/dev/"):
        return source.rpartition("/")[2]
    try:
        parts = urlsplit(source)
    except ValueError:
        return "camera"  # `check_live` refuses it
    if parts.scheme == "csi":
        return f"csi{parts.netloc}"
    # A password may hold a slash, which ends what urlsplit takes for the host: all up to the last @ is left out.
    address = f"{parts.netloc}{parts.path}".rpartition("@")[2]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", address).strip("-") or "camera"


def open_feed(source: str, stall_s: float) -> Feed:
    """Connect.

    Raises:
        StallError: nothing comes for `stall_s`, or twice as long before the first frame.
        SourceError: nobody answers, or what answers is no video.
    """
    if source.startswith(("gst:", "csi:")):
        return GstFeed(pipeline_of(source), stall_s)
    return OpenCvFeed(source, stall_s)


class OpenCvFeed:
    """A URL by FFmpeg, RTSP over TCP where the camera can; or a V4L2 device."""

    def __init__(self, source: str, stall_s: float) -> None:
        quiet_codecs()
        self._source, self._stall_s = source, stall_s
        limit_ms, begun_s = int(1000 * stall_s), time.monotonic()
        if _V4L2.fullmatch(source):
            # OpenCV waits ten seconds for a frame unless told otherwise, and reads this once.
            os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", str(max(int(stall_s), 1)))
            self._capture = cv2.VideoCapture(source, cv2.CAP_V4L2)
        else:
            # FFmpeg looks at five seconds of some streams before it says what they are.
            limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 2 * limit_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, limit_ms]
            self._capture = cv2.VideoCapture(source, cv2.CAP_FFMPEG, limits)
        if not self._capture.isOpened():
            self._capture.release()
            self._check_stall(begun_s, 2 * stall_s)
            raise SourceError(f"{mask(source)}: nobody answers, or what answers is no video")
        self.fps = float(self._capture.get(cv2.CAP_PROP_FPS))
        self._bgr: Image | None = None
        self._rgb = np.empty((0, 0, 3), np.uint8)

    def read(self) -> Image | None:
        """As of Feed."""
        begun_s = time.monotonic()
        ok, bgr = self._capture.read(self._bgr)
        if not ok or bgr is None or bgr.ndim != 3:
            self._check_stall(begun_s, self._stall_s)
            return None
        self._bgr = bgr.astype(np.uint8, copy=False)  # OpenCV makes it anew when the size changes
        if self._rgb.shape != bgr.shape:
            self._rgb = np.empty_like(self._bgr)
        cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB, dst=self._rgb)
        return self._rgb

    def close(self) -> None:
        """As of Feed."""
        self._capture.release()

    def _check_stall(self, begun_s: float, limit_s: float) -> None:
        """OpenCV does not tell silence from an end; the clock does."""
        if time.monotonic() - begun_s > 0.9 * limit_s:
            raise StallError(f"{mask(self._source)}: no picture for {limit_s:g} s")

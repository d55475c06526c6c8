"""A live camera by a GStreamer pipeline, run by gst-launch-1.0 in a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import time

import cv2
import numpy as np

from tagclip.runtime.errors import ConfigError, SourceError, one_line
from tagclip.runtime.logs import mask
from tagclip.runtime.source import Image, StallError

# A Jetson's own camera, decoded and scaled by its hardware.
CSI = (
    "nvarguscamerasrc sensor-id={number} ! video/x-raw(memory:NVMM),width=1280,height=720,framerate=30/1 ! "
    "nvvidconv ! video/x-raw,format=I420"
)
# Y4M, since its header says the size, which raw frames do not.
_TO_Y4M = "! videoconvert ! video/x-raw,format=I420 ! y4menc ! fdsink fd={pipe}"
_LARGEST_PX = 8192  # a side; a header that says more is none
_KEPT_BYTES = 4000  # of what it says on stderr
_END_S = 2.0  # to end in order

_Y4M = re.compile(rb" ([WHF])(\d{1,9})(?::(\d{1,9}))?")  # the parameters that matter, in any order


def pipeline_of(source: str) -> list[str]:
    """The elements of `csi://N` or `gst:PIPELINE`, as gst-launch-1.0 takes them.

    Raises:
        ConfigError: the text is neither.
    """
    if source.startswith("csi:"):
        number = source.removeprefix("csi://")
        if not re.fullmatch(r"\d{1,2}", number):
            raise ConfigError(f"{mask(source)}: expected csi://0, csi://1, ...")
        return CSI.format(number=number).split()
    try:
        words = shlex.split(source.removeprefix("gst:"))
    except ValueError as error:
        raise ConfigError(f"{mask(source)}: {error}; quote the pipeline as for gst-launch-1.0") from error
    if not words:
        raise ConfigError("gst: expected a pipeline, such as gst:'videotestsrc ! video/x-raw,width=640'")
    return words


def check_tools(source: str) -> None:
    """Raises: SourceError, where gst-launch-1.0 is not installed."""
    if shutil.which("gst-launch-1.0") is None:
        raise SourceError(
            f"{mask(source)} needs gst-launch-1.0, which is not installed; on Debian and JetPack: apt install "
            "gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good"
        )


class GstFeed:
    """A pipeline that writes YUV4MPEG2 (Y4M), raw I420 with a header, into a pipe.

    In a process of its own, since OpenCV's wheels are built without GStreamer: JetPack's elements work with any OpenCV,
    and what crashes in a driver does not take the device with it. As `feeds.Feed`.
    """

    def __init__(self, pipeline: list[str], stall_s: float) -> None:
        """Start it and wait for its header.

        Raises:
            SourceError: it gives no video, or none of a size that can be read; what it says is quoted.
            StallError: nothing came for `stall_s`.
        """
        self.fps = 0.0
        self._stall_s, self._said = stall_s, b""
        self._frame: Image = np.empty((0, 0), np.uint8)
        self._rgb = np.empty((0, 0, 3), np.uint8)
        self._read, write = os.pipe()
        command = ["gst-launch-1.0", "-q", *pipeline, *_TO_Y4M.format(pipe=write).split()]
        try:
            self._process = subprocess.Popen(
                command,
                pass_fds=(write,),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            os.close(self._read)
            raise SourceError(f"gst-launch-1.0 cannot be started: {error.strerror or error}") from error
        finally:
            os.close(write)
        assert self._process.stderr is not None
        self._errors = self._process.stderr.fileno()
        try:
            if not self._header(self._line()):
                raise SourceError(f"the GStreamer pipeline gives no video: {self._reason()}")
        except BaseException:
            self.close()
            raise

    def read(self) -> Image | None:
        """As of Feed. A pipeline whose size changes is over: y4menc says the size once, so it has to begin anew."""
        if not self._line().startswith(b"FRAME") or not self._fill(self._frame.data.cast("B")):
            return None
        cv2.cvtColor(self._frame, cv2.COLOR_YUV2RGB_I420, dst=self._rgb)
        return self._rgb

    def close(self) -> None:
        """As of Feed. A Jetson's camera daemon wants its clients to end in order, hence first SIGINT."""
        with contextlib.suppress(ProcessLookupError):  # not waited for yet, so the number is still its own
            os.killpg(self._process.pid, signal.SIGINT)
        until_s = time.monotonic() + _END_S
        # It may stand in a write, which it does not leave before somebody reads.
        while select.select([self._read], [], [], max(until_s - time.monotonic(), 0.0))[0]:
            if not os.read(self._read, 1 << 20):
                break
        try:
            self._process.wait(max(until_s - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        os.close(self._read)
        assert self._process.stderr is not None
        self._process.stderr.close()

    def _header(self, line: bytes) -> bool:
        """Take the size of the frames that follow out of a header; False where the line is none."""
        told = {key: (int(value), int(below or 1)) for key, value, below in _Y4M.findall(line)}
        if not line.startswith(b"YUV4MPEG2") or not told.keys() >= {b"W", b"H"}:
            return False
        width, height = told[b"W"][0], told[b"H"][0]
        # Some versions of y4menc pad the rows of other widths, some do not, and the header does not tell.
        if width % 8 or height % 2 or not 0 < min(width, height) <= max(width, height) <= _LARGEST_PX:
            raise SourceError(
                f"the GStreamer pipeline gives {width}x{height}, expected a width that 8 divides and an even height, "
                f"up to {_LARGEST_PX}; add ! videoscale ! video/x-raw,width=...,height=..."
            )
        frames, seconds = told.get(b"F", (0, 1))
        self.fps = frames / max(seconds, 1)
        self._frame = np.empty((height * 3 // 2, width), np.uint8)
        self._rgb = np.empty((height, width, 3), np.uint8)
        return True

    def _line(self) -> bytes:
        """Up to the next newline; empty when there is none within the length that a line may have."""
        line = bytearray()
        one = memoryview(bytearray(1))
        while len(line) < 256 and self._fill(one):
            if one[0] == 0x0A:
                return bytes(line)
            line += one
        return b""

    def _fill(self, into: memoryview) -> bool:
        """Read so many bytes; False when the pipe ends before."""
        got, until_s = 0, time.monotonic() + self._stall_s
        watched = [self._read, self._errors]
        while got < len(into):
            ready, _, _ = select.select(watched, [], [], max(until_s - time.monotonic(), 0.0))
            if self._errors in ready and not self._listen():
                watched.remove(self._errors)
            if self._read in ready:
                count = os.readv(self._read, [into[got:]])
                if count == 0:
                    return False
                got += count
            elif time.monotonic() >= until_s:
                raise StallError(
                    f"the GStreamer pipeline gave nothing for {self._stall_s:g} s: {self._reason()}"
                )
        return True

    def _listen(self) -> bool:
        """Read what it says, so that it never waits for us, and keep the beginning; False at the end."""
        said = os.read(self._errors, 65536)
        self._said += said[: _KEPT_BYTES - len(self._said)]
        return bool(said)

    def _reason(self) -> str:
        until_s = time.monotonic() + 0.5  # it may be about to say why
        while b"\n" not in self._said and (left_s := until_s - time.monotonic()) > 0:
            if select.select([self._errors], [], [], left_s)[0] and not self._listen():
                break
        first = self._said.decode(errors="replace").strip().partition("\n")[0]
        return mask(one_line(first)) or "it says nothing"

"""Cameras behind GStreamer: real pipelines, and an RTSP server."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("numkong")

from fixtures.cameras import free_port, pictures, until, watching

from tagclip.runtime.errors import SourceError
from tagclip.runtime.feeds import open_feed
from tagclip.runtime.gst import GstFeed
from tagclip.runtime.source import StallError

needs_gst = pytest.mark.skipif(
    shutil.which("gst-launch-1.0") is None, reason="no gst-launch-1.0: apt install gstreamer1.0-tools"
)


@needs_gst
def test_a_gstreamer_pipeline() -> None:
    files = len(os.listdir("/proc/self/fd"))
    with watching("gst:videotestsrc pattern=red ! video/x-raw,width=320,height=240,framerate=30/1") as camera:
        frame = next(pictures(camera))
        assert (camera.width_px, camera.height_px, camera.fps) == (320, 240, 30.0)
        red, green, blue = frame.image.reshape(-1, 3).mean(0)
        assert red > 220 and max(green, blue) < 30
        assert children()
    assert not children() and len(os.listdir("/proc/self/fd")) == files


def children() -> list[str]:
    """Command lines of this process's own pipelines; whatever else a test before has started may go on."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            if int((path / "stat").read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.append((path / "cmdline").read_text())
    return [command for command in found if "gst-launch" in command]


@needs_gst
@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        ("gst:nosuchelement", "gives no video: .*nosuchelement"),
        (
            "gst:videotestsrc ! video/x-raw,width=322,height=240",
            "gives 322x240, expected a width that 8 divides",
        ),
        ("gst:videotestsrc ! video/x-raw,width=320,height=241", "gives 320x241, expected"),
        ("gst:audiotestsrc", "gives no video"),
        ("gst:filesrc location=/nowhere/a ! decodebin", "gives no video: .*ERROR"),
    ],
)
def test_a_pipeline_that_gives_no_video(pipeline: str, message: str) -> None:
    files = len(os.listdir("/proc/self/fd"))
    with pytest.raises(SourceError, match=message):
        open_feed(pipeline, 20.0)
    assert len(os.listdir("/proc/self/fd")) == files and not children()


@needs_gst
def test_a_pipeline_is_ended_in_order() -> None:
    """Although it stands in a write to a pipe that is full."""
    feed = open_feed("gst:videotestsrc ! video/x-raw,width=640,height=480", 20.0)
    assert isinstance(feed, GstFeed) and feed.read() is not None
    time.sleep(0.3)
    feed.close()
    assert feed._process.returncode >= 0  # else by a signal


@needs_gst
def test_a_pipeline_that_ends_or_falls_silent() -> None:
    feed = open_feed("gst:videotestsrc num-buffers=5 ! video/x-raw,width=64,height=48", 20.0)
    with contextlib.closing(feed):
        assert all(feed.read() is not None for _ in range(5)) and feed.read() is None
    slow = "gst:videotestsrc is-live=true ! video/x-raw,width=64,height=48,framerate=1/50"
    with contextlib.closing(open_feed(slow, 1.0)) as feed:
        with pytest.raises(StallError, match="gave nothing for 1 s"):
            while feed.read() is not None:
                pass
    assert not children()


@needs_gst
def test_a_pipeline_whose_size_changes_is_started_anew() -> None:
    """y4menc says the size once. The rows show that each frame is read from its first byte."""
    parts = "".join(
        f"videotestsrc pattern=gradient num-buffers={n} ! video/x-raw,width={w},height={h} ! c. "
        for n, w, h in ((3, 64, 48), (300, 128, 90))
    )
    shapes = []
    with contextlib.closing(open_feed(f"gst:concat name=c {parts} c.", 20.0)) as feed:
        while (image := feed.read()) is not None:
            shapes.append(image.shape)
            if len(shapes) <= 3:
                assert np.ptp(image.astype(int), axis=1).max() <= 2 and np.ptp(image) > 80
    assert shapes[:3] == [(48, 64, 3)] * 3 and len(shapes) <= 4  # and not 300 pictures that are none


@needs_gst
def test_a_pipeline_that_talks_without_end_is_not_held_up() -> None:
    """More than a pipe holds, and none of it is kept but the beginning."""
    noisy = "gst:videotestsrc num-buffers=400 ! video/x-raw,width=64,height=48 ! identity silent=false"
    with contextlib.closing(open_feed(noisy, 20.0)) as feed:
        count = 0
        while feed.read() is not None:
            count += 1
    assert count == 400


RTSP = """
import gi, sys
gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer
Gst.init(None)
server = GstRtspServer.RTSPServer(address="127.0.0.1", service=sys.argv[1])
auth, role = GstRtspServer.RTSPAuth(), GstRtspServer.RTSPToken()
role.set_string("media.factory.role", "user")
auth.add_basic(GstRtspServer.RTSPAuth.make_basic("me", "secret"), role)
server.set_auth(auth)
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(
    "( videotestsrc is-live=true pattern=blue ! video/x-raw,format=I420,width=320,height=240,framerate=25/1 ! "
    "jpegenc ! rtpjpegpay name=pay0 pt=26 )"
)
factory.add_role_from_structure(Gst.Structure.from_string("user,media.factory.access=true,media.factory.construct=true")[0])
factory.set_protocols(GstRtsp.RTSPLowerTrans.TCP)
server.get_mount_points().add_factory("/live", factory)
assert server.attach(None)
print("ready", flush=True)
GLib.MainLoop().run()
"""


@contextlib.contextmanager
def rtsp_server() -> Iterator[str]:
    """Debian's RTSP server, which wants a password and gives over TCP alone; its address."""
    port = free_port()
    reason = "no RTSP server: apt install python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good"
    if not Path("/usr/bin/python3").exists():
        pytest.skip(reason)
    command = ["/usr/bin/python3", "-c", RTSP, str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            pytest.skip(reason)
        yield f"127.0.0.1:{port}/live"
    finally:
        process.kill()
        process.communicate()


def test_rtsp() -> None:
    with rtsp_server() as address:
        with watching(f"rtsp://me:wrong@{address}") as camera:
            until(lambda: camera.counts.failures + camera.counts.stalls >= 1)
            assert "rtsp://***@127.0.0.1" in camera.trouble and "wrong" not in camera.trouble
        with watching(f"rtsp://me:secret@{address}") as camera:
            frames = pictures(camera)
            found = [next(frames) for _ in range(10)][-1]
            assert (camera.width_px, camera.height_px, camera.counts.connects) == (320, 240, 1)
            red, green, blue = found.image.reshape(-1, 3).mean(0)
            assert blue > 200 and max(red, green) < 60

"""Cameras that come and go, with real streams over real sockets."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("numkong")

from fixtures.cameras import SOON_S, Serve, free_port, pictures, server, until, watching

from tagclip.runtime.errors import ConfigError, SourceError
from tagclip.runtime.feeds import check_live, live_name, open_feed
from tagclip.runtime.live import BACK_OFF_S, LiveSource, fit_into
from tagclip.runtime.source import is_live

GROWS_KB = 20_000  # what the allocator keeps for itself
Run = Callable[..., tuple[int, str, str]]


def stream(path: Path, size: tuple[int, int], frames: int, bgr: tuple[int, int, int] | None = None) -> bytes:
    """An MPEG transport stream of plain pictures, brighter from one to the next, or all of one colour."""
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"mpg2"), 25, size)
    for k in range(frames):
        writer.write(np.full((size[1], size[0], 3), bgr or (4 * k,) * 3, np.uint8))
    writer.release()
    return path.read_bytes()


@contextlib.contextmanager
def camera_of(serve: Serve, **given: object) -> Iterator[tuple[LiveSource, list[int]]]:
    """A camera that is such a server; after its end nothing of it is left."""
    files, threads, _ = held()
    with server(serve) as (url, served), watching(url, **given) as camera:
        yield camera, served
    assert held()[:2] == (files, threads)


def held() -> tuple[int, int, int]:
    """Open files, threads of any kind but OpenCV's own pool, and resident kilobytes of this process."""
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
    return len(os.listdir("/proc/self/fd")), threading.active_count(), resident


def test_which_texts_are_cameras() -> None:
    for text in ("rtsp://a/b", "csi://0", "/dev/video0", "gst:videotestsrc", "TCP://h:1", "rtsp:/a/b"):
        assert is_live(text)
    for text in ("a.mp4", "/dev/video", "/data/video0", "folder", "C:/a.mp4", "a:b.mp4"):
        assert not is_live(text)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("rtsp://user:secret@10.0.0.5:554/stream1", "10.0.0.5-554-stream1"),
        ("rtsp://user:sec/ret@10.0.0.5/live", "10.0.0.5-live"),
        ("rtsp://user:se@cret@10.0.0.5", "10.0.0.5"),
        ("http://10.0.0.5/mjpg?user=me&pwd=secret", "10.0.0.5-mjpg"),
        ("/dev/video3", "video3"),
        ("csi://1", "csi1"),
        ("gst:rtspsrc location=rtsp://a:secret@b ! x", "gst"),
        ("udp://:5000", "5000"),
        ("rtsp://[::1", "camera"),
    ],
)
def test_a_name_without_who_logs_in(text: str, name: str) -> None:
    assert live_name(text) == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ftp://host/a", "unknown scheme ftp; expected csi or one of rtsp, "),
        ("RTSP://host/a", "unknown scheme RTSP"),  # FFmpeg takes it for a file
        ("rtsp:/host/path", "is no URL"),
        ("rtsp:///path", "names no host"),
        ("rtsp://me:secret@/path", r"rtsp://\*\*\*@/path names no host"),
        ("rtsp://[::1/x", "is no URL"),
        ("rtsp://me:secret@host:port/x", r"rtsp://\*\*\*@host:port/x is no URL"),
        ("/dev/video0/1", "is no URL"),
        ("csi://left", "expected csi://0"),
        ("gst:", "expected a pipeline"),
        ("gst:videotestsrc ! 'a", "quote the pipeline"),
    ],
)
def test_what_can_never_be_opened(run: Run, tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_live(text)
    status, _, err = run("run", text, "--store", tmp_path / "a.db")
    assert status == 1 and "secret" not in err and "Traceback" not in err


def test_gstreamer_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SourceError, match="apt install gstreamer1.0-tools"):
        check_live("csi://0")


def test_what_a_camera_cannot_have(run: Run, tmp_path: Path) -> None:
    url, store = "rtsp://me:secret@10.0.0.5/live", tmp_path / "a.db"
    (tmp_path / "a.csv").write_text("time_s\n")
    for given, message in (
        (("run", url, "--store", store, "--start", "10:30"), "--start is for files"),
        (("run", url, "--store", store, "--telemetry", tmp_path / "a.csv"), "a live camera goes with a link"),
        (
            ("search", "a red jacket", url),
            "is a live camera, expected a video or a folder of images; `tagclip run`",
        ),
        (("search", "a red jacket", "/dev/video0"), "is a live camera"),
        (("search", "a red jacket", "gst:videotestsrc"), "is a live camera"),
        (("search", "a red jacket", url, "--after", "10:30"), "ask a store"),
        (("run", "a?password=secret.mp4", "--store", store), "no such file"),
        (("run", url, url, "--store", store), "unexpected extra argument"),
    ):
        status, out, err = run(*given)
        assert status in (1, 2) and message in err and "secret" not in out + err
    status, out, _ = run("run", url, "--store", store, "--show-config")
    assert status == 0 and 'source: "rtsp://***@10.0.0.5/live"' in out
    assert not store.exists()


def test_only_the_newest_frame(tmp_path: Path) -> None:
    """Who looks slowly sees few, the last among them, and never the same twice."""
    data = stream(tmp_path / "a.ts", (64, 48), 60)
    seen: list[tuple[float, int]] = []
    with camera_of(lambda c, n: c.sendall(data) if n == 0 else None) as (camera, _):
        assert camera.wait(SOON_S) and (camera.width_px, camera.height_px, camera.fps) == (64, 48, 25)
        for frame in camera:
            if frame is None:
                break
            seen.append((frame.time_s, int(frame.image.mean())))
            time.sleep(0.05)
        assert camera.counts.frames == 60
        assert len(seen) + camera.counts.dropped == 60 and camera.counts.dropped > 0
    assert abs(seen[-1][1] - 4 * 59) < 6
    times, greys = zip(*seen, strict=True)
    assert all(a < b for a, b in zip(times, times[1:], strict=False)) and list(greys) == sorted(greys)


def test_frames_are_rgb(tmp_path: Path) -> None:
    data = stream(tmp_path / "a.ts", (64, 48), 10, (0, 0, 250))  # red
    with camera_of(lambda c, n: c.sendall(data)) as (camera, _):
        red, green, blue = next(pictures(camera)).image.reshape(-1, 3).mean(0)
    assert red > 200 and max(green, blue) < 60


def test_a_frame_stays_as_it_is_while_it_is_looked_at(tmp_path: Path) -> None:
    """Many more come meanwhile; none is written over it."""
    data = stream(tmp_path / "a.ts", (64, 48), 60)
    with camera_of(lambda c, n: c.sendall(data)) as (camera, _):
        frame = next(pictures(camera))
        before, frames = frame.image.copy(), camera.counts.frames
        until(lambda: camera.counts.frames > frames + 100)
        assert (frame.image == before).all()
        assert len({id(image) for image in camera._buffers}) == 3


def test_a_camera_that_vanishes_a_hundred_times(tmp_path: Path) -> None:
    data = stream(tmp_path / "a.ts", (64, 48), 12)
    kept = []
    with camera_of(lambda c, n: c.sendall(data)) as (camera, _):
        frames, last_s = pictures(camera), -1.0
        for goal in (20, 120):
            while camera.counts.connects < goal:
                frame = next(frames)
                assert frame.time_s > last_s and frame.image.shape == (48, 64, 3)
                last_s = frame.time_s
            kept.append(held())
        assert camera.counts.frames >= 12 * 100 and camera.counts.failures == 0
    (files, threads, resident), (files_after, threads_after, resident_after) = kept
    assert abs(files_after - files) <= 4 and threads_after == threads  # files: one connection more or less
    assert resident_after - resident < GROWS_KB


def test_garbage_a_hundred_times_then_a_picture(tmp_path: Path) -> None:
    data = stream(tmp_path / "a.ts", (64, 48), 12)
    noise = np.random.default_rng(0).bytes(20_000)
    with camera_of(lambda c, n: c.sendall(noise if n < 100 else data)) as (camera, served):
        until(lambda: served[0] >= 20)
        _, _, resident = held()
        frame = next(pictures(camera))
        assert frame.image.shape == (48, 64, 3) and served[0] >= 100
        assert camera.counts.failures >= 100 and camera.counts.stalls == 0
        assert held()[2] - resident < GROWS_KB


def test_garbage_without_end_is_given_up() -> None:
    noise = np.random.default_rng(0).bytes(1 << 20)

    def serve(connection: socket.socket, _: int) -> None:
        while True:
            connection.sendall(noise)

    with camera_of(serve, stall_s=0.5) as (camera, _):
        until(lambda: camera.counts.stalls + camera.counts.failures >= 2)
        _, _, resident = held()
        until(lambda: camera.counts.stalls + camera.counts.failures >= 5)
        assert camera.counts.frames == 0 and camera.trouble
        assert held()[2] - resident < GROWS_KB


def test_a_stream_that_turns_into_garbage(tmp_path: Path) -> None:
    data = stream(tmp_path / "a.ts", (64, 48), 25)
    noise = np.random.default_rng(0).bytes(300_000)
    with camera_of(lambda c, n: c.sendall(data + noise)) as (camera, _):
        until(lambda: camera.counts.connects >= 3)
        assert camera.counts.frames >= 40


def test_silence_is_a_stall(tmp_path: Path) -> None:
    """Connected and nothing comes, before the first frame and after some; then the camera is well again."""
    data = stream(tmp_path / "a.ts", (64, 48), 300)  # enough for FFmpeg to begin before the end of it

    def serve(connection: socket.socket, number: int) -> None:
        if number % 2:
            connection.sendall(data)
        connection.recv(1)  # until the device has had enough

    with camera_of(serve, stall_s=0.2) as (camera, _):
        until(lambda: camera.counts.stalls >= 2 and camera.counts.connects >= 1)
        kept = held()
        until(lambda: camera.counts.stalls >= 6 and camera.counts.connects >= 3)
        assert camera.counts.frames > 200 * 2 and camera.counts.failures == 0
        assert "no picture for 0." in camera.trouble or not camera.trouble
        assert abs(held()[0] - kept[0]) <= 4 and held()[2] - kept[2] < GROWS_KB


def test_another_size_is_scaled(tmp_path: Path) -> None:
    """A camera that comes back with twice the pixels, and then with another shape."""
    grey = (200, 200, 200)
    sizes = [(64, 48), (128, 96), (128, 48)]
    parts = [stream(tmp_path / f"{k}.ts", size, 12, grey) for k, size in enumerate(sizes)]
    seen: dict[int, np.ndarray] = {}
    with camera_of(lambda c, n: c.sendall(parts[n % 3])) as (camera, _):
        for frame in pictures(camera):
            assert frame.image.shape == (48, 64, 3)
            connects, resized = camera.counts.connects, camera.counts.resized
            seen[int(frame.image[0].mean() > 100)] = frame.image.copy()
            if connects == 20:
                kept = held()
            if connects >= 60:
                break
        assert resized >= 12 * 30
        assert held()[2] - kept[2] < GROWS_KB
    assert seen[1].mean() > 190  # the same shape fills the frame
    assert seen[0][:10].max() < 20 and seen[0][14:34].mean() > 190  # another has black above and below


def test_scaling_keeps_the_shape() -> None:
    wide = np.full((48, 64, 3), 7, np.uint8)
    fit_into(np.full((48, 128, 3), 200, np.uint8), wide)
    assert (wide[:12] == 0).all() and (wide[12:36] == 200).all() and (wide[36:] == 0).all()
    tall = np.full((48, 64, 3), 7, np.uint8)
    fit_into(np.full((96, 32, 3), 200, np.uint8), tall)
    assert (tall[:, :24] == 0).all() and (tall[:, 24:40] == 200).all() and (tall[:, 40:] == 0).all()
    nearly = np.zeros((1080, 1920, 3), np.uint8)
    fit_into(np.full((1088, 1920, 3), 200, np.uint8), nearly)  # what many decoders make of 1080
    assert (nearly == 200).all()
    thin = np.zeros((48, 64, 3), np.uint8)
    fit_into(np.full((1, 4000, 3), 200, np.uint8), thin)
    assert (thin == 200).any()


def test_a_size_that_changes_within_a_stream(tmp_path: Path) -> None:
    """OpenCV scales such frames itself: the whole of them is there, no part."""
    parts = []
    for size, right in (((64, 48), 40), ((128, 96), 220)):
        writer = cv2.VideoWriter(
            str(tmp_path / "a.ts"), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"mpg2"), 25, size
        )
        image = np.full((size[1], size[0], 3), 40, np.uint8)
        image[:, size[0] // 2 :] = right
        for _ in range(25):
            writer.write(image)
        writer.release()
        parts.append((tmp_path / "a.ts").read_bytes())
    with camera_of(lambda c, n: c.sendall(b"".join(parts)) if n == 0 else None) as (camera, _):
        until(lambda: camera.counts.frames >= 45)
        until(lambda: "decoded" in camera.trouble or "ended" in camera.trouble or "answers" in camera.trouble)
        image = next(pictures(camera)).image
        assert image.shape == (48, 64, 3) and camera.counts.connects == 1
        assert image[:, :28].mean() < 60 and image[:, 36:].mean() > 200


def test_no_frame_for_ever_can_be_ended() -> None:
    """Whoever iterates is told twice a second, and is let go at once, which the next test has with a process."""
    with camera_of(lambda c, n: c.recv(1), stall_s=1.0) as (camera, _):
        assert not camera.wait(0.01)
        told = []
        for frame in camera:
            assert frame is None
            told.append(time.monotonic())
            if len(told) == 3:
                threading.Timer(0.1, camera.close).start()
        assert len(told) == 3 and 0.9 < told[2] - told[0] < 2.0
        assert time.monotonic() - told[2] < 0.4
        until(lambda: threading.active_count() <= 3)


def test_a_camera_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    """The drone boots before its camera."""
    data = stream(tmp_path / "a.ts", (64, 48), 12)
    port = free_port()
    with watching(f"tcp://127.0.0.1:{port}") as camera:
        assert camera.trouble == "waiting for it" or camera.counts.failures
        until(lambda: camera.counts.failures >= 100)
        kept = held()
        until(lambda: camera.counts.failures >= 300)
        assert abs(held()[0] - kept[0]) <= 2 and held()[2] - kept[2] < GROWS_KB
        assert "waiting for it: tcp://127.0.0.1:" in camera.trouble and "nobody answers" in camera.trouble
        with socket.create_server(("127.0.0.1", port)) as listening:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(data)
            assert camera.wait(SOON_S)


def test_a_v4l2_camera_that_is_not_there() -> None:
    with pytest.raises(SourceError, match="/dev/video98: nobody answers"):
        open_feed("/dev/video98", 1.0)


def test_the_wait_grows_and_is_bounded() -> None:
    """Each failure doubles it, spread by 30 %, until the bound."""
    tried: list[float] = []

    def refuse(_: str, __: float) -> object:
        tried.append(time.monotonic())
        raise SourceError("no")

    with watching("x", open_=refuse, back_off_s=(0.02, 0.2)):
        until(lambda: len(tried) >= 9)
    for k, gap_s in enumerate(np.diff(tried)[:8]):
        wanted_s = min(0.02 * 2**k, 0.2)
        assert 0.7 * wanted_s <= gap_s <= 1.3 * wanted_s + 0.5
    assert BACK_OFF_S[0] < 1 and BACK_OFF_S[1] == 30.0
    waits = threading.Event()
    with watching("x", open_=lambda *_: waits.set() or refuse("", 0), back_off_s=(SOON_S, SOON_S)):
        waits.wait(SOON_S)
        begun_s = time.monotonic()
    assert time.monotonic() - begun_s < 1  # a stop does not wait for the back-off


def test_a_library_that_raises_anything_ends_nothing() -> None:
    class Broken:
        fps = 25.0

        def read(self) -> np.ndarray:
            raise RuntimeError("rtsp://me:secret@host driver")

        def close(self) -> None:
            pass

    with watching("x", open_=lambda *_: Broken()) as camera:
        until(lambda: camera.counts.failures >= 5)
        until(lambda: "RuntimeError: rtsp://***@host driver" in camera.trouble)


def test_what_opens_and_gives_no_picture_is_a_failure() -> None:
    class Empty:
        fps = 25.0

        def read(self) -> None:
            return None

        def close(self) -> None:
            pass

    with watching("x", open_=lambda *_: Empty()) as camera:
        until(lambda: camera.counts.failures >= 5)
        assert camera.counts.connects >= camera.counts.failures - 1
        until(lambda: "nothing that it sends can be decoded" in camera.trouble)


def test_a_wall_clock_that_is_set_changes_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames have their times by the other clock; where they stand in the world goes by the wall clock as it is."""
    data = stream(tmp_path / "a.ts", (64, 48), 50)
    clock = iter([1e9, 2e9, 0.0] * 10_000)
    with camera_of(lambda c, n: c.sendall(data)) as (camera, _), monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: next(clock))
        frames = pictures(camera)
        times = [next(frames).time_s for _ in range(20)]
        patched.setattr(time, "time", lambda: 1_800_000_000.0 + time.monotonic())
        wrong_s = camera.start_s
        patched.setattr(time, "time", lambda: 1_900_000_000.0 + time.monotonic())
        assert camera.start_s - wrong_s == pytest.approx(1e8, abs=1e-3)
    assert times[0] >= 0 and times == sorted(set(times)) and times[-1] < SOON_S

"""The device on a camera that comes and goes."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("numkong")

from fixtures.cameras import SOON_S, free_port, server, until

from tagclip.runtime.boxes import Detections
from tagclip.runtime.bundle import Bundle
from tagclip.runtime.device import Device, Settings
from tagclip.runtime.service import Stop
from tagclip.runtime.source import Frame
from tagclip.runtime.store import TrackStore
from tagclip.runtime.telemetry import CameraPose

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg: apt install ffmpeg")


@contextlib.contextmanager
def device(url: str, store: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    """`tagclip run` in a process of its own."""
    command = [sys.executable, "-m", "tagclip.runtime", "run", url, "--store", str(store), *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def health(port: int) -> dict:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        return json.load(error)
    except OSError:
        return {"status": "away", "reasons": []}


def test_who_was_in_view_is_kept_while_the_camera_is_away_and_at_the_right_time(
    tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the clock, which was wrong at the start, is set while somebody is in view."""
    monkeypatch.setattr("tagclip.runtime.device.RELINK_S", 0.5)
    wrong_s = [-1e8]
    monkeypatch.setattr(time, "time", lambda: 1.8e9 + time.monotonic() + wrong_s[0])
    began_s = 1.8e9 + time.monotonic()

    class Somebody:
        """Stands in view all the time."""

        def detect(self, frame: Frame) -> Detections:
            wrong_s[0] = 0.0 if frame.index >= 10 else wrong_s[0]
            one = np.ones(1, np.float32)
            return Detections(np.array([[20 + frame.index, 10, 30, 80]], np.float32), one, one)

    monkeypatch.setattr("tagclip.runtime.device.detector_of", lambda *_: Somebody())
    rng = np.random.default_rng(0)
    writer = cv2.VideoWriter(
        str(tmp_path / "a.ts"), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"mpg2"), 25, (320, 96)
    )
    for _ in range(75):
        writer.write(rng.integers(0, 255, (96, 320, 3), np.uint8))
    writer.release()
    data = (tmp_path / "a.ts").read_bytes()

    def serve(connection: socket.socket, number: int) -> None:
        for k in range(100 if number == 0 else 0):  # three seconds at the camera's pace
            connection.sendall(data[len(data) * k // 100 : len(data) * (k + 1) // 100])
            time.sleep(0.03)

    with server(serve) as (url, _), Stop() as stop:
        settings = Settings(
            url, tmp_path / "s.db", "c", tiny_bundle.path, "cpu", "ground", None, None, None, None, None, CameraPose(),
            1e6, 10**8, None, None,
        )  # fmt: skip
        device_ = Device(settings, stop)

        def end() -> None:
            try:
                until(lambda: device_.health.counts.people == 1)
            finally:
                stop.request("seen enough")

        threading.Thread(target=end).start()
        outcome = device_.run()
    assert outcome.people == 1 and abs(outcome.start_s - began_s) < SOON_S
    assert "camera" in device_.health.reasons()  # it was away by then, and nobody had asked for a stop
    with TrackStore(tmp_path / "s.db", read_only=True) as store:
        (track,) = store.get(store.keys()).values()
    assert began_s < track.start_s < track.end_s < began_s + SOON_S and track.end_s - track.start_s > 0.5


@needs_ffmpeg
def test_the_device_on_a_camera(tmp_path: Path) -> None:
    """It starts before the camera, sees the shipped clip at its pace, loses the camera, keeps who was there, ends."""
    clip = resources.files("tagclip.runtime") / "data" / "example.mp4"
    port, listen, store = free_port(), free_port(), tmp_path / "a.db"
    serve = ["ffmpeg", "-v", "error", "-re", "-i", str(clip), "-t", "9", "-c:v", "mpeg2video", "-q:v", "3"]
    serve += ["-f", "mpegts", f"tcp://127.0.0.1:{port}?listen=1"]
    url = f"tcp://me:secret@127.0.0.1:{port}"
    with device(url, store, "--log", "text", "--listen", str(listen)) as process:
        until(lambda: health(listen)["status"] == "degraded")
        told = health(listen)
        assert "camera: waiting for it: tcp://***@127.0.0.1" in told["reasons"][0], told
        assert told["camera"]["connected"] is False and told["camera"]["frames"] == 0
        with subprocess.Popen(serve) as ffmpeg:
            try:
                until(lambda: health(listen)["status"] == "running")
                assert ffmpeg.wait(SOON_S) == 0
            finally:
                ffmpeg.kill()
        until(lambda: health(listen)["status"] == "degraded")
        told = health(listen)
        assert told["camera"]["connected"] is False and told["camera"]["frames"] > 50
        assert told["camera"]["failures"] >= 1 and told["camera"]["dropped"] + told["camera"]["frames"] <= 240
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=SOON_S)
    assert process.returncode == 0, err
    assert err.count("connected to tcp://***@") == 1 and "stopped by SIGTERM" in err
    assert "secret" not in out + err + json.dumps(told)
    with TrackStore(store, read_only=True) as opened:
        assert len(opened) >= 1 and f"{len(opened)} people kept" in out
        for track in opened.get(opened.keys()).values():
            assert track.camera == f"127.0.0.1-{port}" and abs(track.start_s - time.time()) < 120


def test_the_device_on_a_silent_camera_ends_when_asked(tmp_path: Path) -> None:
    listen = free_port()
    with server(lambda c, n: c.recv(1)) as (url, _):
        with device(url, tmp_path / "a.db", "--log", "text", "--listen", str(listen)) as process:
            until(lambda: health(listen)["status"] == "degraded")
            begun_s = time.monotonic()
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=SOON_S)
            assert time.monotonic() - begun_s < 9  # the clock would end it after 10 s, with status 1
    assert process.returncode == 0 and "stopped by SIGTERM" in err and "0 people kept" in out

"""`tagclip run` on the shipped clip: whom it keeps is whom `tagclip search` finds in the video itself."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("numkong")

from tagclip.runtime import cli, engines, watch
from tagclip.runtime.boxes import Detections
from tagclip.runtime.health import Health
from tagclip.runtime.source import Frame
from tagclip.runtime.store import TrackStore
from tagclip.runtime.watch import Camera, Watcher

CLIP = Path(cli.__file__).parent / "data" / "example.mp4"
QUERY = "a woman in a dark red jacket and light blue trousers with a yellow backpack"
SIZE = (900, 160)
Run = Callable[..., tuple[int, str, str]]


@pytest.mark.slow
def test_whom_it_keeps_is_whom_search_finds(run: Run, tmp_path: Path) -> None:
    store = tmp_path / "s.db"
    began = "2026-11-27T05:00:00Z"
    status, out, _ = run(
        "run", CLIP, "--store", store, "--view", "aerial", "--start", began, "--camera", "mast", "--days", 1e6
    )
    in_video = json.loads(run("search", QUERY, CLIP, "--view", "aerial", "--top", 99, "--json")[1])["results"]
    stored = json.loads(run("search", QUERY, store, "--top", 99, "--json")[1])["results"]
    assert status == 0 and out.startswith(f"{len(in_video)} people kept in {store}, seen by mast from ")
    assert len(stored) == len(in_video) > 4
    start_s = 1795755600.0
    for kept, found in zip(stored, in_video, strict=True):
        assert kept["score"] == pytest.approx(found["score"], abs=2e-3)  # stored in 16 bits
        assert kept["start_s"] - start_s == pytest.approx(found["start_s"], abs=2e-3)
        assert kept["end_s"] - start_s == pytest.approx(found["end_s"], abs=2e-3)
        assert (kept["camera"], kept["view"]) == ("mast", "aerial")
    with TrackStore(store, read_only=True) as opened:
        for _, picture in opened.thumbnails(opened.keys()).items():
            image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
            assert image.shape[0] > 20 and image.std() > 5


def test_what_cannot_be_run_is_named(run: Run, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((90, 40, 3), np.uint8))
    status, _, err = run("run", tmp_path / "a.png", "--store", tmp_path / "s.db")
    assert status == 1 and "holds pictures, expected a video" in err
    status, _, err = run("run", tmp_path / "none.mp4", "--store", tmp_path / "s.db")
    assert status == 1 and "no such file" in err
    (tmp_path / "mine.db").write_text("my notes")
    status, _, err = run("run", CLIP, "--store", tmp_path / "mine.db")
    assert status == 1 and "mine.db" in err and (tmp_path / "mine.db").read_text() == "my notes"
    assert not (tmp_path / "s.db").exists()


class Walk:
    """A detector of somebody who walks to the right, 2 pixels a frame, until frame `until`."""

    def __init__(self, until: int) -> None:
        self.until = until

    def detect(self, frame: Frame) -> Detections:
        if frame.index >= self.until:
            return Detections.none()
        box = np.array([[20 + 2 * frame.index, 40, 30, 80]], np.float32)
        return Detections(box, np.ones(1, np.float32), np.ones(1, np.float32))


class Constant:
    """An encoder of one direction; counts what it was given."""

    def __init__(self) -> None:
        self.seen = 0

    def embed(self, crops: object, /) -> np.ndarray:
        self.seen += len(crops)  # type: ignore[arg-type]
        return np.tile(np.eye(8, dtype=np.float32)[2], (len(crops), 1))  # type: ignore[arg-type]


def health() -> Health:
    return Health(camera="c", detector="walk", provider="cpu", encoder_id="e" * 64)


def frames(count: int, fps: float = 10.0) -> list[Frame]:
    image = np.random.default_rng(0).integers(0, 255, (160, 900, 3), dtype=np.uint8)
    return [Frame(k, k / fps, image) for k in range(count)]


def test_somebody_in_view_is_kept_at_once_and_only_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "KEEP_EVERY_S", 2.0)
    with TrackStore(tmp_path / "s.db") as store:
        watcher = Watcher(
            Camera("c", "ground", 5000.0, SIZE),
            Walk(100),
            lambda view: Constant(),
            "e" * 64,
            store,
            True,
            health(),
        )
        ends: list[float] = []
        for frame in frames(200):
            watcher.see(frame)
            found = list(store.get(store.keys()).values())
            assert len(found) <= 1
            if found and (not ends or found[0].end_s != ends[-1]):
                ends.append(found[0].end_s)
        assert ends[0] < 5005 and len(ends) >= 4 and ends == sorted(ends)
        watcher.end()
        (track,) = store.get(store.keys()).values()
        assert track.start_s == pytest.approx(5000, abs=0.5) and track.end_s == pytest.approx(5009.9, abs=0.3)
        assert watcher.people == 1 and track.id.version == 7 and track.view == "ground"
        assert track.id.int >> 80 == pytest.approx(5_000_000, abs=500)
        assert not watcher._keeper._crops and not watcher._ids  # nothing is left of who is gone


def test_what_never_moves_is_left_out_when_asked(tmp_path: Path) -> None:
    still = type(
        "Still", (Walk,), {"detect": lambda self, frame: super(still, self).detect(replace(frame, index=0))}
    )
    for drop, people in ((True, 0), (False, 1)):
        with TrackStore(tmp_path / f"{drop}.db") as store:
            encoder = Constant()
            watcher = Watcher(
                Camera("c", "auto", 0.0, SIZE),
                still(100),
                lambda view, encoder=encoder: encoder,
                "e" * 64,
                store,
                drop,
                health(),
            )
            for frame in frames(30):
                watcher.see(frame)
            watcher.end()
            assert len(store) == watcher.people == people and bool(encoder.seen) == bool(people)
            assert all(t.view == "unknown" for t in store.get(store.keys()).values())


def long_clip(path: Path, frames: int) -> Path:
    """Somebody walks to the right and starts over, for `frames` frames at 10 a second."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (320, 240))
    for k in range(frames):
        image = np.full((240, 320, 3), 120, np.uint8)
        x = 4 * k % 280
        cv2.rectangle(image, (x, 80), (x + 30, 180), (30, 30, 200), -1)
        writer.write(image)
    writer.release()
    return path


def test_it_serves_health_and_ends_in_order_when_asked(tmp_path: Path) -> None:
    """A real process: SIGTERM in the middle of the footage keeps whom it has seen, and the exit status is 0."""
    clip, store, config = long_clip(tmp_path / "long.mp4", 3000), tmp_path / "s.db", tmp_path / "device.yaml"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config.write_text(f"source: {clip}\nstore: {store}\ncamera: gate\nlisten: {port}\nlog: json\ndays: 30\n")
    command = [sys.executable, "-m", "tagclip.runtime", "run", "--config", str(config)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline, told = time.monotonic() + 120, {}
        while time.monotonic() < deadline and told.get("camera", {}).get("frames", 0) < 100:
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                    told = json.load(answer)
            except OSError:  # not yet listening, or 503 while it starts
                time.sleep(0.1)
        assert told["status"] in ("running", "degraded") and told["camera"]["name"] == "gate", told
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            metrics = answer.read().decode()
        assert re.search(r'^tagclip_stage_seconds_count\{stage="detect"\} [1-9]', metrics, re.M), metrics
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert "people kept in" in out and "seen by gate" in out
    rows = [json.loads(line) for line in err.splitlines()]
    assert any("SIGTERM" in row["message"] for row in rows)
    with TrackStore(store, read_only=True) as opened:
        assert len(opened) >= 1 and f"{len(opened)} people" in out


def test_an_engine_that_is_not_here_is_named(run: Run, tmp_path: Path) -> None:
    for command in (("run", CLIP, "--store", tmp_path / "s.db"), ("search", QUERY, CLIP)):
        help_text = run(command[0], "--help")[1]
        assert all(name in help_text for name in (*engines.ENGINES, engines.AUTO))
        status, _, err = run(*command, "--engine", "turbo")
        assert status == 1 and "turbo" in err and "openvino" in err
    assert not (tmp_path / "s.db").exists()


def test_the_configuration_is_shown_with_where_it_came_from(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "device.yaml"
    config.write_text("source: a.mp4\nstore: s.db\ndays: 7\nmax-gb: 2\n")
    status, out, _ = run("run", "--config", config, "--days", 9, "--show-config")
    assert status == 0
    assert re.search(r"^days: 9 +# command line$", out, re.M) and re.search(
        r"^max-gb: 2 +# .*device.yaml:4$", out, re.M
    )
    config.write_text("source: a.mp4\nstore: s.db\nday: 7\n")
    status, _, err = run("run", "--config", config)
    assert status == 1 and "device.yaml:3: unknown key" in err and "did you mean days?" in err


def test_the_start_is_taken_from_the_file(run: Run, tmp_path: Path) -> None:
    """The footage ends when the file was last changed."""
    copy = tmp_path / "copy.mp4"
    writer = cv2.VideoWriter(str(copy), cv2.VideoWriter.fourcc(*"mp4v"), 10, (320, 240))
    for k in range(40):
        image = np.full((240, 320, 3), 120, np.uint8)
        cv2.rectangle(image, (40 + 4 * k, 80), (70 + 4 * k, 180), (30, 30, 200), -1)
        writer.write(image)
    writer.release()
    boxes = tmp_path / "boxes.txt"
    boxes.write_text("".join(f"{k + 1},1,{40 + 4 * k},80,30,100,1,1,1\n" for k in range(40)))
    changed_s = copy.stat().st_mtime
    assert run("run", copy, "--store", tmp_path / "s.db", "--boxes", boxes)[0] == 0
    with TrackStore(tmp_path / "s.db", read_only=True) as store:
        (track,) = store.get(store.keys()).values()
        assert track.camera == "copy" and changed_s - 4.1 < track.start_s < track.end_s <= changed_s + 0.1
    status, _, err = run("run", copy, "--store", tmp_path / "s.db", "--boxes", boxes, "--start", "9d")
    assert status == 0 and "1 deleted that were seen more than 3 days ago (--days keeps them longer)" in err


@pytest.mark.slow
def test_a_drones_telemetry_places_people_and_chooses_the_view(run: Run, tmp_path: Path) -> None:
    """A rendered flight: the truth's boxes and camera go in, and people are kept where the truth has them."""
    pytest.importorskip("anny")
    pytest.importorskip("warp")
    pytest.importorskip("matplotlib")
    from tagclip.train.synth.scene import FIELD_OF_VIEW_DEG, write_scene

    clip = tmp_path / "flight.mp4"
    write_scene(
        clip, people=3, seconds=4, fps=5, altitude_m=12, pitch_deg=50, width_px=320, height_px=192, seed=4,
        motion="moving",
    )  # fmt: skip
    truth = json.loads(clip.with_suffix(".json").read_text())
    metres_north, metres_east = 111_195.0, 111_195.0 * np.cos(np.deg2rad(47))
    lines = ["time_s,latitude_deg,longitude_deg,altitude_m,pitch_deg,yaw_deg,roll_deg"]
    for frame in truth["frames"]:
        c = frame["camera"]
        latitude, longitude = 47 + c["y_m"] / metres_north, 8 + c["x_m"] / metres_east
        lines.append(
            f"{frame['time_s']},{latitude:.8f},{longitude:.8f},{c['altitude_m']},{c['pitch_deg']},{c['yaw_deg']},{c['roll_deg']}"
        )
    (tmp_path / "flight.csv").write_text("\n".join(lines))
    store = tmp_path / "s.db"
    status, out, err = run(
        "run", clip, "--store", store, "--boxes", clip.with_suffix(".json"), "--telemetry", tmp_path / "flight.csv",
        "--fov", FIELD_OF_VIEW_DEG,
    )  # fmt: skip
    assert status == 0, err
    with TrackStore(store, read_only=True) as opened:
        tracks = list(opened.get(opened.keys()).values())
    assert len(tracks) >= 2
    for track in tracks:
        assert track.view == "aerial" and track.place is not None
        people = truth["frames"][track.frame]["people"]
        away = [
            np.hypot(
                (track.place.latitude_deg - 47) * metres_north - person["place_m"][1],
                (track.place.longitude_deg - 8) * metres_east - person["place_m"][0],
            )
            for person in people
        ]
        boxes = [np.abs(np.subtract(track.box_xywh_px, person["box_xywh_px"])).max() for person in people]
        assert away[int(np.argmin(boxes))] < 1.0  # the box's lower edge is not quite the feet
        assert 6 < track.place.error_m < 20
    near = f"{47 + people[0]['place_m'][1] / metres_north},{8 + people[0]['place_m'][0] / metres_east},3"
    found = json.loads(run("search", "somebody", store, "--near", near, "--json")[1])["results"]
    assert 1 <= len(found) <= len(tracks)

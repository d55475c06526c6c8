"""What goes wrong in the field, with the real device: it keeps running, or stops with a named reason."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from fixtures.disk import mounted

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper

from tagclip.runtime import cli
from tagclip.runtime.boxes import MOST_PEOPLE
from tagclip.runtime.bundle import Bundle
from tagclip.runtime.bundle_write import write_bundle
from tagclip.runtime.ids import uuid7
from tagclip.runtime.preprocess import PreprocessSpec
from tagclip.runtime.store import TrackStore
from tagclip.runtime.store_track import StoredTrack

CLIP = Path(cli.__file__).parent / "data" / "example.mp4"
SIZE = (320, 256)
SOON_S = 90.0  # on a machine that does much else
Run = Callable[..., tuple[int, str, str]]
CONTRACT = {
    "format": "tagclip-detector-1",
    "family": "yolo-end2end",
    "person_class": 0,
    "min_score": 0.3,
    "licence": "Apache-2.0",
    "input": {
        "width_px": SIZE[0], "height_px": SIZE[1], "layout": "NCHW", "dtype": "float32", "scale": 1 / 255,
        "mean": [0, 0, 0], "std": [1, 1, 1], "colour": "RGB", "resize": "letterbox", "pad_value": 114,
    },
}  # fmt: skip


def write_clip(path: Path, frames: int, size: tuple[int, int] = SIZE, codec: str = "mp4v") -> Path:
    """Somebody walks to the right and starts over, 10 frames a second."""
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), 10, size)
    assert writer.isOpened()
    for k in range(frames):
        image = np.full((size[1], size[0], 3), 120, np.uint8)
        x = 4 * k % (size[0] - 40)
        cv2.rectangle(image, (x, 80), (x + 30, 180), (30, 30, 200), -1)
        writer.write(image)
    writer.release()
    return path


def write_boxes(path: Path, frames: int) -> Path:
    """Who walks in `write_clip`."""
    lines = [f"{k + 1},1,{4 * k % (SIZE[0] - 40)},80,30,100,1,1,1\n" for k in range(frames)]
    path.write_text("".join(lines))
    return path


def write_detector(folder: Path, rows: np.ndarray) -> Path:
    """A graph that says the same of every frame: rows (1, N, 6) of corners, score and class."""
    node = helper.make_node("Identity", ["rows"], ["found"])
    taken = helper.make_tensor_value_info("images", TensorProto.FLOAT, (1, 3, SIZE[1], SIZE[0]))
    given = helper.make_tensor_value_info("found", TensorProto.FLOAT, rows.shape)
    graph = helper.make_graph([node], "toy", [taken], [given], [numpy_helper.from_array(rows, "rows")])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "wild.onnx"
    path.write_bytes(made.SerializeToString())
    path.with_suffix(".json").write_text(json.dumps(CONTRACT))
    return path


def kept(path: Path) -> list[StoredTrack]:
    with TrackStore(path, read_only=True) as store:
        assert store._db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return list(store.get(store.keys()).values())


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def device(*arguments: object) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A real process, and the port of its health."""
    port = free_port()
    command = [sys.executable, "-m", "tagclip.runtime", "run", *map(str, arguments), "--listen", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process, port
        finally:
            process.kill()


def told(port: int) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return dict(json.load(answer))
    except urllib.error.HTTPError as error:
        return dict(json.load(error))
    except OSError:
        return {"status": "away", "reasons": [], "camera": {"frames": 0}, "store": {"people": 0}}


def until(process: subprocess.Popen[str], condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + SOON_S
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_a_detector_that_gives_no_numbers(tiny_bundle: Bundle, tmp_path: Path, run: Run) -> None:
    rows = np.full((1, 50, 6), np.nan, np.float32)
    rows[0, 25:, 4:] = 0.9, 0.0  # sure of boxes that are nowhere
    clip, detector = write_clip(tmp_path / "a.mp4", 20), write_detector(tmp_path, rows)
    status, out, err = run(
        "run", clip, "--store", tmp_path / "s.db", "--detector", detector, "--bundle", tiny_bundle.path
    )
    assert status == 0 and out.startswith("0 people kept"), err
    assert err.count("not finite") == 1  # said once, not with every frame
    assert kept(tmp_path / "s.db") == []


def test_a_thousand_boxes_in_every_frame(tiny_bundle: Bundle, tmp_path: Path, run: Run) -> None:
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(40) * 8.0, np.arange(25) * 10.0))
    rows = np.stack([x, y, x + 7, y + 9, np.linspace(0.5, 0.9, 1000), 0 * x], 1).astype(np.float32)[None]
    clip, detector = write_clip(tmp_path / "a.mp4", 12), write_detector(tmp_path, rows)
    began_s = time.monotonic()
    status, _, err = run(
        "run", clip, "--store", tmp_path / "s.db", "--detector", detector, "--bundle", tiny_bundle.path
    )
    assert status == 0, err
    tracks = kept(tmp_path / "s.db")
    assert MOST_PEOPLE // 2 < len(tracks) <= MOST_PEOPLE  # the best; tracks that stand still are kept too
    assert time.monotonic() - began_s < SOON_S


@pytest.mark.parametrize("jump_s", [70 * 365 * 86_400.0, -1.79e9], ids=["decades ahead", "back to 1970"])
def test_a_clock_that_jumps_deletes_nobody(
    tiny_bundle: Bundle, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    """The clock is wrong for the middle of the run, in which the retention is looked after in every round."""
    real, wrong = time.time, [0.0]
    monkeypatch.setattr("tagclip.runtime.device.PRUNE_EVERY_S", 0.0)
    monkeypatch.setattr(time, "time", lambda: real() + wrong[0])
    vector = np.eye(tiny_bundle.manifest.embedding_dim)[0]
    now_s = real()
    before = StoredTrack(
        uuid7(),
        "c",
        "ground",
        now_s - 9,
        now_s - 5,
        now_s - 7,
        0,
        (1, 2, 3, 4),
        tiny_bundle.encoder_id,
        vector,
    )
    old = replace(before, id=uuid7(), end_s=now_s - 4 * 86_400)
    with TrackStore(tmp_path / "s.db") as store:
        store.add([(before, b"jpeg"), (old, b"jpeg")])
    clip, boxes = write_clip(tmp_path / "a.mp4", 40), write_boxes(tmp_path / "a.txt", 40)
    monkeypatch.setattr("tagclip.runtime.watch.Watcher.see", _stepping(wrong, jump_s))
    status, _, err = run(
        "run",
        clip,
        "--store",
        tmp_path / "s.db",
        "--boxes",
        boxes,
        "--bundle",
        tiny_bundle.path,
        "--start",
        "1m",
    )
    assert status == 0, err
    names = {track.id for track in kept(tmp_path / "s.db")}
    assert before.id in names and len(names) == 2  # and the one who walked
    assert old.id not in names  # whoever is too old by the right clock goes


def _stepping(wrong: list[float], jump_s: float) -> Callable[..., None]:
    from tagclip.runtime.watch import Watcher

    see = Watcher.see

    def stepping(self: Any, frame: Any) -> None:
        wrong[0] = jump_s if 10 <= frame.index < 30 else 0.0
        see(self, frame)

    return stepping


def test_a_bundle_that_is_swapped_under_a_running_device(
    tiny_bundle: Bundle, tiny_parts: dict[str, Any], tmp_path: Path
) -> None:
    """It goes on with what it loaded: nobody gets the new bundle's vectors under the old one's name."""
    shutil.copytree(tiny_bundle.path, tmp_path / "bundle")
    views = tiny_parts["graphs"]
    turned = views | {"image-aerial": views["image-ground"], "image-ground": views["image-aerial"]}
    other = write_bundle(
        tmp_path / "other",
        **tiny_parts | {"graphs": turned, "preprocess": PreprocessSpec(32, 16), "extra_files": {}},
    )
    assert other.encoder_id != tiny_bundle.encoder_id
    clip = write_clip(tmp_path / "a.mp4", 3000)
    with device(clip, "--store", tmp_path / "s.db", "--bundle", tmp_path / "bundle", "--view", "aerial") as (
        process,
        port,
    ):
        until(process, lambda: told(port)["camera"]["frames"] > 30)
        (tmp_path / "bundle").rename(tmp_path / "gone")
        other.path.rename(tmp_path / "bundle")
        shutil.rmtree(tmp_path / "gone")
        at = told(port)
        until(process, lambda: told(port)["store"]["people"] > at["store"]["people"])
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=SOON_S)
    assert process.returncode == 0, err
    assert {track.encoder_id for track in kept(tmp_path / "s.db")} == {tiny_bundle.encoder_id}


@pytest.mark.parametrize("sizes", [(SIZE, (160, 128)), ((160, 128), SIZE), (SIZE, (256, 320))])
def test_a_video_whose_size_changes(
    tiny_bundle: Bundle, tmp_path: Path, run: Run, sizes: tuple[tuple[int, int], ...]
) -> None:
    parts = [write_clip(tmp_path / f"{k}.ts", 25, size, "mpg2") for k, size in enumerate(sizes)]
    clip = tmp_path / "both.ts"
    clip.write_bytes(b"".join(part.read_bytes() for part in parts))
    status, out, err = run("run", clip, "--store", tmp_path / "s.db", "--bundle", tiny_bundle.path)
    assert status == 0 and "people kept in" in out, err
    assert all(np.isfinite(track.box_xywh_px).all() for track in kept(tmp_path / "s.db"))


@pytest.mark.parametrize("size", [0, 1, 32, 600])
def test_a_video_that_is_empty_or_only_began(tmp_path: Path, run: Run, size: int) -> None:
    clip = tmp_path / "a.mp4"
    clip.write_bytes(CLIP.read_bytes()[:size])
    status, _, err = run("run", clip, "--store", tmp_path / "s.db")
    assert status == 1 and "a.mp4" in err and '"kind": "SourceError"' in err and "Traceback" not in err
    assert not (tmp_path / "s.db").exists()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Where a file system of 24 MB of its own is mounted."""
    with mounted(tmp_path / "disk", "24m") as place:
        yield place


def fill(place: Path) -> None:
    """Take all that is left, to the last byte."""
    with (place / "others").open("ab", buffering=0) as other:
        for size in (1 << 16, 512, 1):
            with contextlib.suppress(OSError):
                while other.write(bytes(size)):
                    pass


def test_a_disk_that_others_fill_is_waited_out(tiny_bundle: Bundle, disk: Path, tmp_path: Path) -> None:
    """It says so and goes on; when there is room again, whoever came meanwhile is kept."""
    clip, store = write_clip(tmp_path / "a.mp4", 4000), disk / "s.db"
    with device(clip, "--store", store, "--bundle", tiny_bundle.path, "--view", "aerial") as (process, port):
        until(process, lambda: told(port)["store"]["people"] > 0)
        (disk / "s.db.ballast").unlink(missing_ok=True)
        fill(disk)
        until(process, lambda: any("store: full: " in reason for reason in told(port)["reasons"]))
        full = told(port)
        until(process, lambda: told(port)["camera"]["frames"] > full["camera"]["frames"] + 20)
        (disk / "others").unlink()
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=SOON_S)
    assert process.returncode == 0, err
    assert err.count("people wait for room in memory") == 1
    people = len(kept(store))
    assert people > full["store"]["people"] and out.startswith(f"{people} people kept")


def test_a_disk_that_stays_full_ends_with_the_reason_and_a_sound_store(
    tiny_bundle: Bundle, disk: Path, tmp_path: Path
) -> None:
    clip, store = write_clip(tmp_path / "a.mp4", 4000), disk / "s.db"
    with device(clip, "--store", store, "--bundle", tiny_bundle.path, "--view", "aerial") as (process, port):
        until(process, lambda: told(port)["store"]["people"] > 0)
        (disk / "s.db.ballast").unlink(missing_ok=True)
        fill(disk)
        until(process, lambda: any("store: full: " in reason for reason in told(port)["reasons"]))
        acknowledged = told(port)["store"]["people"]
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=SOON_S)
    assert process.returncode == 1 and "no room for " in err and "Traceback" not in err
    assert len(kept(store)) == acknowledged


def test_nothing_grows_from_run_to_run(tiny_bundle: Bundle, tmp_path: Path, run: Run) -> None:
    """Ten runs over frames of the shipped clip, in this process: memory, file descriptors and threads."""
    clip, boxes, capture = tmp_path / "short.mp4", tmp_path / "a.txt", cv2.VideoCapture(str(CLIP))
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"mp4v"), 10, SIZE)
    for _ in range(20):
        ok, image = capture.read()
        assert ok
        writer.write(cv2.resize(image, SIZE))
    writer.release()
    capture.release()
    write_boxes(boxes, 20)

    def state() -> tuple[int, int, float]:
        gc.collect()
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return len(os.listdir("/proc/self/fd")), threading.active_count(), resident / 1e6

    states = []
    for _ in range(10):
        status, _, err = run(
            "run",
            clip,
            "--store",
            tmp_path / "s.db",
            "--boxes",
            boxes,
            "--bundle",
            tiny_bundle.path,
            "--listen",
            free_port(),
        )
        assert status == 0 and len(kept(tmp_path / "s.db")) == len(states) + 1, err
        states.append(state())
    fds, threads, resident_mb = zip(*states, strict=True)
    assert fds[1:] == fds[1:2] * 9 and threads[1:] == threads[1:2] * 9
    assert resident_mb[-1] - resident_mb[2] < 10, resident_mb  # the first ones load what stays

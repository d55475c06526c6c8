"""A detector by contract from the command line: `search` and `detector verify`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

from fixtures.onnx_detectors import OWN, bright, scene, write

from tagclip.runtime.bundle import Bundle
from tagclip.runtime.detectors import detector_of, drop_still
from tagclip.runtime.onnx_detector import OnnxDetector
from tagclip.runtime.source import VideoSource

Run = Callable[..., tuple[int, str, str]]


# Where it is used


def video(path: Path) -> Path:
    """Three seconds of somebody who stands still."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (320, 240))
    picture = scene((320, 240), np.array([[140, 80, 24, 72]])).image
    for _ in range(30):
        writer.write(picture)
    writer.release()
    return path


def test_who_stands_still_is_found_too(tmp_path: Path, run: Run, tiny_bundle: Bundle) -> None:
    path, clip = write(tmp_path, OWN, bright()), video(tmp_path / "clip.mp4")
    finder = detector_of(VideoSource(clip), None, path)
    assert isinstance(finder, OnnxDetector) and not drop_still(finder)
    assert drop_still(detector_of(VideoSource(clip), None))
    status, out, err = run(
        "search", "white", clip, "--detector", path, "--bundle", tiny_bundle.path, "--json"
    )
    assert status == 0, err
    (hit,) = json.loads(out)["results"]
    assert np.abs(np.array(hit["best"]["box_xywh_px"]) - [140, 80, 24, 72]).max() < 3
    assert "detector: person.onnx (tagclip) on cpu, the whole of each frame" in err


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["--detector", "yolo"], 1, "or a file named *.onnx"),
        (["--detector", "{tmp}/person.onnx", "--boxes", "x"], 2, "drop one"),
        (["--detector", "{tmp}/gone.onnx"], 1, "gone.json: no contract read"),
        (["--detector", "{tmp}/person.onnx", "--engine", "cuda"], 1, "cuda was asked for"),
    ],
)
def test_search_says_what_is_wrong(
    tmp_path: Path, run: Run, arguments: list[str], status: int, says: str
) -> None:
    write(tmp_path, OWN, bright())
    clip = video(tmp_path / "clip.mp4")
    got, out, err = run("search", "white", clip, *(argument.format(tmp=tmp_path) for argument in arguments))
    assert (got, out) == (status, "") and says in err and "Traceback" not in err


def test_verify_shows_what_it_is_and_whom_it_finds(tmp_path: Path, run: Run) -> None:
    path = write(tmp_path, OWN, bright())
    picture = tmp_path / "street.png"
    people = np.array([[100, 60, 20, 60], [500, 300, 16, 40]])
    cv2.imwrite(str(picture), scene((640, 480), people).image)
    status, out, err = run("detector", "verify", path, picture, "--out", tmp_path / "seen.png")
    assert status == 0 and "written: " in err
    for line in (
        "family   tagclip, class 0 of 1 is a person",
        "input    320x256 at most, follows the frame",
        "licence  Apache-2.0",
        "engine   cpu",
        "640x480: the whole and 9 tiles",
        "people   2",
        "at 100,60,20,60",
    ):
        assert line in out
    drawn = cv2.imread(str(tmp_path / "seen.png"))
    assert drawn.shape == (480, 640, 3) and drawn[90, 100].tolist() == [0, 159, 230]
    facts = json.loads(run("detector", "verify", path, picture, "--json")[1])
    assert sorted(person["box_xywh_px"] for person in facts["people"]) == people.tolist()
    assert facts["runs_per_frame"] == 10 and facts["ms_per_frame"] > 0
    assert json.loads(run("detector", "verify", path, "--json")[1])["people"] == []


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["{tmp}/gone.onnx"], 1, "gone.json: no contract read"),
        (["{tmp}/person.onnx", "{tmp}/person.json"], 1, "cannot be read as a picture"),
        (["{tmp}/person.onnx", "--out", "x.png"], 2, "name one"),
        (["{tmp}/person.onnx", "{tmp}/a.png", "--out", "{tmp}/x.gif"], 1, "*.png or *.jpg"),
        (["{tmp}/person.onnx", "--engine", "tensorrt"], 1, "runs no detector"),
    ],
)
def test_verify_says_what_is_wrong(
    tmp_path: Path, run: Run, arguments: list[str], status: int, says: str
) -> None:
    write(tmp_path, OWN, bright())
    got, out, err = run("detector", "verify", *(argument.format(tmp=tmp_path) for argument in arguments))
    assert (got, out) == (status, "") and says in err and "Traceback" not in err

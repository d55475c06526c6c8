"""Boxes from files: both formats, frame numbers, and errors that name the line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tagclip.runtime.boxes import Detections, FileBoxes
from tagclip.runtime.errors import SourceError
from tagclip.runtime.source import Frame

BLACK = np.zeros((10, 10, 3), np.uint8)


def at(boxes: FileBoxes, index: int) -> list[list[float]]:
    """The boxes of frame `index` as plain numbers."""
    rows: list[list[float]] = boxes.detect(Frame(index, index / 10.0, BLACK)).boxes_xywh_px.tolist()
    return rows


def test_mot_frames_count_from_one_and_scores_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "gt.txt"
    first = "1,1,10,20,30,60,0.5,-1,-1,-1\n1, 2, 50, 20, 30, 60, -1\n"
    path.write_text(first + "\n3,1,12,20,30,60\n3,9,0,0,5,5,0\n")
    boxes = FileBoxes(path)
    assert at(boxes, 0) == [[10, 20, 30, 60], [50, 20, 30, 60]]
    assert at(boxes, 1) == []
    assert at(boxes, 2) == [[12, 20, 30, 60]]  # the box marked 0 is one to ignore
    assert boxes.detect(Frame(0, 0.0, BLACK)).scores.tolist() == [0.5, 1.0]
    assert boxes.last_frame == 2


def test_scene_frames_count_from_zero(tmp_path: Path) -> None:
    path = tmp_path / "scene.json"
    people = [{"id": 1, "box_xywh_px": [1, 2, 3, 4]}]
    path.write_text(json.dumps({"frames": [{"frame": 0, "people": people}, {"frame": 1, "people": []}]}))
    boxes = FileBoxes(path)
    assert at(boxes, 0) == [[1, 2, 3, 4]]
    assert at(boxes, 1) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no box"),
        ("1,1,10,20,30,60\n1,1,10,20\n", "line 2: expected numbers"),
        ("1,1,10,20,thirty,60\n", "line 1: expected numbers"),
        ("1,1,10,20,nan,60\n", "line 1: expected numbers"),
        ("0,1,10,20,30,60\n", "count from 1, got 0"),
        ("1,1,10,20,0,60\n", "line 1: expected a box"),
        ('{"frames": [', "line 1: broken JSON"),
        ('{"people": []}', "KeyError 'frames'"),
        ('{"frames": [{"frame": 0, "people": [{"box_xywh_px": [1, 2, 3]}]}]}', "frame 0: expected a box"),
        ('{"frames": [{"frame": 0, "people": [{"box_xywh_px": null}]}]}', "expected {"),
    ],
)
def test_broken_files_are_refused_with_the_place(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "boxes"
    path.write_text(text)
    with pytest.raises(SourceError, match="boxes") as caught:
        FileBoxes(path)
    assert says in str(caught.value)


def test_missing_and_binary_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No such file"):
        FileBoxes(tmp_path / "gone.txt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(SourceError, match="not text"):
        FileBoxes(tmp_path / "binary.txt")


def test_detections_check_their_shapes() -> None:
    assert Detections.none().fill.shape == (0,)
    with pytest.raises(ValueError, match=r"\(n, 4\)"):
        Detections(np.zeros((2, 3), np.float32), np.zeros(2, np.float32))


def test_what_no_tracker_can_follow_is_left_out() -> None:
    nan, inf = float("nan"), float("inf")
    boxes = np.array(
        [[0, 0, 9, 9], [nan, 0, 9, 9], [0, 0, 0, 9], [0, 0, 9, -1], [0, inf, 9, 9], [5, 5, 9, 9]], np.float32
    )
    found = Detections(boxes, np.array([0.9, 0.9, 0.9, 0.9, 0.9, nan], np.float32)).usable()
    assert found.boxes_xywh_px.tolist() == [[0, 0, 9, 9]] and found.scores.tolist() == [pytest.approx(0.9)]
    clean = Detections(boxes[:1], np.ones(1, np.float32))
    assert clean.usable() is clean and len(Detections.none().usable().scores) == 0


def test_of_a_detector_gone_wild_the_best_stay_in_their_order() -> None:
    scores = np.random.default_rng(0).permutation(1000).astype(np.float32) / 1000
    boxes = np.column_stack([np.arange(1000), np.zeros(1000), np.ones(1000), np.ones(1000)]).astype(
        np.float32
    )
    found = Detections(boxes, scores).usable()
    assert len(found.scores) == 300 and found.scores.min() >= np.float32(0.7)
    assert (np.diff(found.boxes_xywh_px[:, 0]) > 0).all()

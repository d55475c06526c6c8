"""The scoring of tracks on truth made by hand, against arithmetic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("motmetrics", reason="motmetrics is not installed")

from tagclip.runtime.boxes import Detections
from tagclip.runtime.errors import DataError
from tagclip.runtime.source import Frame
from tagclip.train.track_scores import (
    BANDS_PX,
    FALSE_ALARMS,
    MISSED,
    MISSED_FRAMES,
    Seen,
    asked,
    detected,
    followed,
    judged,
    main,
    truth_of,
    write_mot,
)

BOX = (100.0, 50.0, 30.0, 80.0)
AWAY = (300.0, 50.0, 30.0, 80.0)


def person(number: int, box: tuple[float, ...], visible: float = 1.0) -> dict[str, Any]:
    return {"id": number, "box_xywh_px": list(box), "visible": visible}


def truth(*frames: list[dict[str, Any]]) -> dict[str, Any]:
    rows = [{"frame": number, "people": people} for number, people in enumerate(frames)]
    return {"width_px": 640, "height_px": 480, "frames": rows}


def test_perfect_tracks_score_one() -> None:
    frames = [Seen(k, [(1, BOX), (2, AWAY)], [(7, BOX), (9, AWAY)]) for k in range(10)]
    assert judged(frames) == {"idf1": 1.0, "f1": 1.0, "mota": 1.0, "switches": 0, "boxes": 20}


def test_a_switch_after_six_of_ten_frames() -> None:
    """The longer track is the person: 6 right, 4 missed, 4 too many, so 2*6 / (2*6 + 4 + 4); one error in ten."""
    frames = [Seen(k, [(1, BOX)], [(1 if k < 6 else 2, BOX)]) for k in range(10)]
    assert judged(frames) == {
        "idf1": pytest.approx(0.6),
        "f1": 1.0,
        "mota": pytest.approx(0.9),
        "switches": 1,
        "boxes": 10,
    }


def test_misses_and_false_tracks() -> None:
    """Of ten frames two are missed, and another track is nobody in five: 2*8 / (2*8 + 2 + 5); 7 errors in ten."""
    frames = [
        Seen(k, [(1, BOX)], [(1, BOX)] * (k >= 2) + [(2, (*AWAY[:3], 60.0 + k))] * (k < 5)) for k in range(10)
    ]
    scored = judged(frames)
    assert scored["idf1"] == pytest.approx(16 / 23) and scored["mota"] == pytest.approx(0.3)
    assert scored["f1"] == scored["idf1"]  # nobody was taken for somebody else


@pytest.mark.parametrize(("height", "idf1"), [(41.0, 1.0), (39.0, 0.0)])  # overlap 41/80 and 39/80
def test_half_overlap_is_the_same_person(height: float, idf1: float) -> None:
    frames = [Seen(k, [(1, BOX)], [(1, (*BOX[:3], height))]) for k in range(4)]
    assert judged(frames)["idf1"] == idf1


def test_nobody_asked_for_is_no_score() -> None:
    assert np.isnan(judged([Seen(0, [], [(1, BOX)])])["idf1"])


def test_who_is_not_asked_for_counts_neither_way() -> None:
    small = (300.0, 50.0, 8.0, 23.9)
    told = {0: [(1, BOX), (2, small), (3, (500.0, 300.0, 30.0, 80.0))]}
    scene = truth([person(1, BOX), person(2, small), person(3, (200.0, 50.0, 30.0, 80.0), 0.2)])
    (frame,) = asked(scene, told, BANDS_PX["all"])
    assert [who for who, _ in frame.people] == [1] and [who for who, _ in frame.tracks] == [1, 3]
    (frame,) = asked(scene, told, BANDS_PX["small"])
    assert [who for who, _ in frame.people] == [2] and [who for who, _ in frame.tracks] == [
        2
    ]  # 3 is too tall


def test_the_simulated_detector_errs_as_often_as_it_says() -> None:
    rng, luck, tries = np.random.default_rng(1), dict[int, float](), 20000
    people = [person(1, BOX), person(2, AWAY, 0.5)]
    found = [detected(people, (640, 480), rng, luck).boxes_xywh_px for _ in range(tries)]
    # Means of draws that stay for some frames scatter as if there were fewer of them.
    abs_ = 5 * 0.5 / np.sqrt(tries / (2 * MISSED_FRAMES))
    assert np.mean([len(boxes) for boxes in found]) == pytest.approx(0.9 + 0.5 + FALSE_ALARMS, abs=abs_)
    half = np.array([any(abs(x - AWAY[0]) + abs(y - AWAY[1]) < 30 for x, y, *_ in boxes) for boxes in found])
    changes = np.mean(half[1:] != half[:-1])  # a new draw is another one half the time
    assert changes == pytest.approx(0.5 / MISSED_FRAMES, abs=0.015)
    assert MISSED == 0.1


def test_mot_files(tmp_path: Path) -> None:
    scene = truth([person(1, BOX)], [])
    frames = [Seen(0, [(1, BOX)], [(4, AWAY)]), Seen(1, [], [])]
    for name in ("one", "two", "one"):
        write_mot(tmp_path, name, scene, frames)
    assert (tmp_path / "seqmap.txt").read_text().split() == ["name", "one", "two"]
    assert (tmp_path / "gt/one/gt/gt.txt").read_text() == "1,1,100,50,30,80,1,1,1\n"
    assert (tmp_path / "trackers/tagclip/data/two.txt").read_text() == "1,4,300,50,30,80,1,-1,-1,-1\n"
    assert "seqLength=2" in (tmp_path / "gt/two/seqinfo.ini").read_text()


def test_a_scene_from_end_to_end(tmp_path: Path) -> None:
    """Two people in plain sight who never meet: what is lost is what the detector missed, some 1 in 10."""
    video = tmp_path / "walk.mp4"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (640, 480))
    frames = []
    for k in range(60):
        picture = np.full((480, 640, 3), 110, np.uint8)
        boxes = [(50.0 + 4 * k, 60.0, 30.0, 80.0), (500.0 - 4 * k, 300.0, 30.0, 80.0)]
        for (x, y, w, h), coat in zip(boxes, ((30, 30, 200), (200, 60, 30)), strict=True):
            picture[int(y) : int(y + h), int(x) : int(x + w)] = coat
        writer.write(picture)
        frames.append([person(number + 1, box) for number, box in enumerate(boxes)])
    writer.release()
    video.with_suffix(".json").write_text(json.dumps(truth(*frames)))
    told = CliRunner().invoke(main, [str(video), "--trials", "5", "--json", "--mot", str(tmp_path / "mot")])
    assert told.exit_code == 0, told.output
    both = json.loads(told.stdout)[str(video)]
    for way in ("with", "without"):
        people = both[way]["all"]
        assert people["boxes"] == 120 and 0.8 < people["idf1"] < 0.99 and people["switches"] == 0
        assert people["range"][0] < people["idf1"] < people["range"][1]  # the trials differ
        assert both[way]["small"]["boxes"] == 0 and both[way]["ms"] > 0
    assert len((tmp_path / "mot/gt/walk/gt/gt.txt").read_text().splitlines()) == 120
    shown = CliRunner().invoke(main, [str(video), "--trials", "1"]).output.splitlines()
    assert len(shown) == 3 and "24 px up" in shown[1]  # nobody is small

    def blinking(frame: Frame) -> Detections:
        boxes = [row["box_xywh_px"] for row in frames[frame.index] if not 20 <= frame.index < 23]
        return Detections(np.array(boxes, np.float32).reshape(-1, 4), np.ones(len(boxes), np.float32))

    rows, _ = followed(video, blinking, camera_moves=False)
    assert sorted(rows) == [k for k in range(60) if not 20 <= k < 23]  # what was only predicted is not told


def test_a_video_without_truth_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"walk\.json: expected the truth"):
        truth_of(tmp_path / "walk.mp4")

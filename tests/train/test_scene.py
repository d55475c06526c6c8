"""Scenes: people are where the truth says, walk as they should, and nothing is half-written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("anny")
pytest.importorskip("warp")
pytest.importorskip("matplotlib")

from tagclip.runtime.boxes import FileBoxes
from tagclip.runtime.errors import ConfigError
from tagclip.runtime.source import Frame, VideoSource
from tagclip.train.synth.appearance import from_json
from tagclip.train.synth.cli import synth
from tagclip.train.synth.flight import Pose
from tagclip.train.synth.scene import focal_length_px, parse_size, write_scene
from tagclip.train.synth.walkers import ground_span, lanes

pytestmark = pytest.mark.slow
SIZE = {"width_px": 320, "height_px": 192}
SCENE: dict[str, Any] = {
    "people": 2,
    "seconds": 2.0,
    "fps": 4,
    "altitude_m": 5.0,
    "pitch_deg": 25.0,
    "seed": 3,
    **SIZE,
}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("scene") / "a.mp4"
    ticks: list[tuple[int, int]] = []
    summary = write_scene(out, **SCENE, tick=lambda *tick: ticks.append(tick))
    assert ticks == [(k + 1, 8) for k in range(8)]
    truth, mot = (str(out.with_suffix(suffix)) for suffix in (".json", ".mot"))
    assert summary == {"frames": 8, "people": 2, "truth": truth, "mot": mot}
    assert sorted(path.name for path in out.parent.iterdir()) == ["a.json", "a.mot", "a.mp4"]
    return out, json.loads(out.with_suffix(".json").read_text())


def images(path: Path) -> list[np.ndarray]:
    return [frame.image.copy() for frame in VideoSource(path)]


def test_the_video_is_what_was_asked_for(scene: tuple[Path, dict[str, Any]]) -> None:
    source = VideoSource(scene[0])
    assert (source.fps, source.frame_count, source.width_px, source.height_px) == (4, 8, 320, 192)
    truth = scene[1]
    assert (truth["fps"], truth["width_px"], truth["height_px"]) == (4, 320, 192)
    assert [frame["frame"] for frame in truth["frames"]] == list(range(8))
    assert [frame["time_s"] for frame in truth["frames"]] == [k / 4 for k in range(8)]


def test_what_moves_lies_in_the_boxes(scene: tuple[Path, dict[str, Any]]) -> None:
    """The median of all frames is the empty place; what differs from it are people, and they are where we say."""
    frames = np.stack(images(scene[0])).astype(np.float32)
    empty = np.median(frames, 0)
    seen = 0
    for frame, told in zip(frames, scene[1]["frames"], strict=True):
        moved = np.abs(frame - empty).max(-1) > 40
        inside = np.zeros_like(moved)
        for person in told["people"]:
            x, y, w, h = person["box_xywh_px"]
            assert 0 <= x and 0 <= y and x + w <= 320.1 and y + h <= 192.1
            inside[max(int(y) - 2, 0) : int(y + h) + 3, max(int(x) - 2, 0) : int(x + w) + 3] = True
            seen += 1
        assert moved.sum() > 50 and moved[inside].sum() > 0.9 * moved.sum()
    assert seen >= 10


def test_people_move_steadily_and_have_captions(scene: tuple[Path, dict[str, Any]]) -> None:
    truth = scene[1]
    assert [person["id"] for person in truth["people"]] == [1, 2]
    for person in truth["people"]:
        assert len(person["captions"]) == 2 and from_json(person["attributes"])
        boxes = [p["box_xywh_px"] for f in truth["frames"] for p in f["people"] if p["id"] == person["id"]]
        whole = [b for b in boxes if b[0] > 1 and b[0] + b[2] < 319]
        centres = np.array([b[0] + b[2] / 2 for b in whole])
        steps = np.diff(centres)
        assert len(steps) >= 2 and (np.sign(steps) == np.sign(steps[0])).all()


def test_the_truth_is_a_file_of_boxes(scene: tuple[Path, dict[str, Any]]) -> None:
    detector = FileBoxes(scene[0].with_suffix(".json"))
    for told in scene[1]["frames"]:
        found = detector.detect(Frame(told["frame"], 0.0, np.zeros((192, 320, 3), np.uint8)))
        wanted = [person["box_xywh_px"] for person in told["people"]]
        np.testing.assert_allclose(found.boxes_xywh_px, np.array(wanted).reshape(-1, 4), atol=0.01)


def test_the_same_seed_makes_the_same_scene(scene: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    write_scene(tmp_path / "b.mp4", **SCENE)
    assert (tmp_path / "b.json").read_bytes() == scene[0].with_suffix(".json").read_bytes()
    assert all(
        np.array_equal(a, b) for a, b in zip(images(scene[0]), images(tmp_path / "b.mp4"), strict=True)
    )


def test_feet_are_at_the_place_the_camera_maths_says() -> None:
    """A point on the ground straight ahead projects to the middle row where altitude / distance is tan(pitch)."""
    camera = Pose(0, 0, 6.0, 0, 30.0, 0).camera(focal_length_px(640), 640, 360)
    ahead = np.array([[0, 6 / np.tan(np.deg2rad(30)), 0]], np.float32)
    assert camera.project(ahead)[0] == pytest.approx([319.5, 179.5], abs=1e-2)
    right = camera.project(ahead + np.array([[1, 0, 0]], np.float32))[0]
    assert right[0] > 319.5 and right[1] == pytest.approx(179.5, abs=1e-2)


@pytest.mark.parametrize("pitch_deg", [5.0, 22.0, 85.0, 90.0])
def test_everybody_gets_a_lane_inside_the_picture(pitch_deg: float) -> None:
    focal_px = focal_length_px(640)
    span = ground_span(7.0, pitch_deg, focal_px, 640, 360)
    places = lanes(span, 12, 0.7, np.random.default_rng(0))
    camera = Pose(0, 0, 7.0, 0, pitch_deg, 0).camera(focal_px, 640, 360)
    at = camera.project(np.array([[x, y, 0] for x, y in places], np.float32))
    assert len({round(float(y), 3) for _, y in places}) == 12
    assert (at[:, 0] > 0).all() and (at[:, 0] < 640).all() and (at[:, 1] > 0).all() and (at[:, 1] < 360).all()


@pytest.mark.parametrize("text", ["640", "640x361", "64x32", "8000x400", "axb", "-64x64"])
def test_bad_sizes_are_named(text: str) -> None:
    with pytest.raises(ConfigError, match="two even numbers"):
        parse_size(text)


@pytest.mark.parametrize(("flag", "motion"), [(None, "fixed"), ("--hover", "hover"), ("--moving", "moving")])
def test_command(tmp_path: Path, flag: str | None, motion: str) -> None:
    out = tmp_path / "c.mp4"
    arguments = [
        "scene",
        str(out),
        "--people",
        "1",
        "--seconds",
        "1",
        "--fps",
        "2",
        "--size",
        "160x96",
        "--json",
        *([flag] if flag else []),
    ]
    result = CliRunner().invoke(synth, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    summary = json.loads(result.stdout)
    assert summary["frames"] == 2 and Path(summary["mot"]).is_dir() and out.stat().st_size > 0
    assert json.loads(Path(summary["truth"]).read_text())["camera"]["motion"] == motion

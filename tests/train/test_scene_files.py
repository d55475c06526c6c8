"""Files of a scene: the MOT folder says what the JSON says, all three files are there or none, bad input is named."""

from __future__ import annotations

import configparser
import json
import resource
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("anny")
pytest.importorskip("warp")
pytest.importorskip("matplotlib")

from tagclip.runtime.boxes import FileBoxes
from tagclip.runtime.errors import ConfigError, OutputError
from tagclip.runtime.source import Frame
from tagclip.train.synth.scene import write_scene

pytestmark = pytest.mark.slow
SCENE: dict[str, Any] = {
    "people": 3,
    "seconds": 1.0,
    "fps": 4,
    "altitude_m": 6.0,
    "pitch_deg": 40.0,
    "width_px": 192,
    "height_px": 128,
    "seed": 1,
    "motion": "hover",
}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("scene") / "a.mp4"
    write_scene(out, **SCENE)
    return out, json.loads(out.with_suffix(".json").read_text())


def rows(truth: dict[str, Any]) -> list[tuple[float, ...]]:
    """(frame from 1, id, left, top, width, height, visible)."""
    return [
        (frame["frame"] + 1, person["id"], *person["box_xywh_px"], person["visible"])
        for frame in truth["frames"]
        for person in frame["people"]
    ]


def test_gt_is_the_truth_in_nine_columns(scene: tuple[Path, dict[str, Any]]) -> None:
    lines = (scene[0].with_suffix(".mot") / "gt" / "gt.txt").read_text().splitlines()
    values = [tuple(float(value) for value in line.split(",")) for line in lines]
    assert len(values) >= 8 and {len(row) for row in values} == {9}
    assert {row[6:8] for row in values} == {(1.0, 1.0)}  # to be counted, a pedestrian
    assert [row[:6] + row[8:] for row in values] == rows(scene[1])
    assert values == sorted(values, key=lambda row: row[:2])


def test_motmetrics_reads_gt(scene: tuple[Path, dict[str, Any]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it uses what this pandas deprecates
        motmetrics = pytest.importorskip("motmetrics")
        path = scene[0].with_suffix(".mot") / "gt" / "gt.txt"
        found = motmetrics.io.loadtxt(str(path), fmt="mot16").reset_index()
    wanted = np.array(rows(scene[1]))
    read = found[["FrameId", "Id", "X", "Y", "Width", "Height", "Visibility"]].to_numpy(float)
    read[:, 2:4] += (
        1  # it takes MOT boxes to count from 1, as those of the challenge; a shift of both sides is none
    )
    np.testing.assert_allclose(read, wanted, atol=1e-6)


def test_gt_is_a_file_of_boxes_for_search_too(scene: tuple[Path, dict[str, Any]]) -> None:
    from_mot = FileBoxes(scene[0].with_suffix(".mot") / "gt" / "gt.txt")
    from_json = FileBoxes(scene[0].with_suffix(".json"))
    for number in range(4):
        frame = Frame(number, 0.0, np.zeros((128, 192, 3), np.uint8))
        np.testing.assert_array_equal(
            from_mot.detect(frame).boxes_xywh_px, from_json.detect(frame).boxes_xywh_px
        )


def test_seqinfo_says_what_the_video_is(scene: tuple[Path, dict[str, Any]]) -> None:
    folder = scene[0].with_suffix(".mot")
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*")) == ["gt", "gt/gt.txt", "seqinfo.ini"]
    ini = configparser.ConfigParser()
    ini.read(folder / "seqinfo.ini")
    told = dict(ini["Sequence"])
    assert told["name"] == "a.mot" and told["framerate"] == "4" and told["seqlength"] == "4"
    assert (told["imwidth"], told["imheight"]) == ("192", "128")


def test_what_is_there_stays(scene: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    before = scene[0].read_bytes()
    with pytest.raises(OutputError, match="exists; remove it"):
        write_scene(scene[0], **SCENE)
    assert scene[0].read_bytes() == before
    (tmp_path / "a.json").write_text("mine")
    with pytest.raises(OutputError, match="a.json exists"):
        write_scene(tmp_path / "a.mp4", **SCENE)
    (tmp_path / "b.mot").mkdir()
    with pytest.raises(OutputError, match="b.mot exists"):
        write_scene(tmp_path / "b.mp4", **SCENE)
    with pytest.raises(OutputError, match="ends in .mp4"):
        write_scene(tmp_path / "a.avi", **SCENE)
    with pytest.raises(OutputError, match="is no folder"):
        write_scene(tmp_path / "x" / "a.mp4", **SCENE)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "b.mot"]


def test_an_interrupted_scene_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_scene(tmp_path / "a.mp4", **SCENE, tick=stop)
    assert list(tmp_path.iterdir()) == []


def taken(path: Path) -> Callable[[int, int], None]:
    """Somebody else puts a folder with something in it where the scene wants to write."""

    def tick(done: int, total: int) -> None:
        path.mkdir(exist_ok=True)
        (path / "theirs").write_text("theirs")

    return tick


@pytest.mark.parametrize("suffix", [".json", ".mot", ".mp4"])
def test_all_files_or_none(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(OutputError, match=f"a{suffix}"):
        write_scene(tmp_path / "a.mp4", **SCENE | {"seconds": 0.5}, tick=taken(tmp_path / f"a{suffix}"))
    assert [p.name for p in tmp_path.iterdir()] == [f"a{suffix}"]
    assert (tmp_path / f"a{suffix}" / "theirs").exists()


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for a disk that fills up while the video is written."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(done: int, total: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))

    try:
        with pytest.raises(OutputError, match="a.mp4.*disk full"):
            write_scene(tmp_path / "a.mp4", **SCENE, tick=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"altitude_m": 1.0}, "altitude_m must be 2 to 120, found 1"),
        ({"altitude_m": 121.0}, "altitude_m must be 2 to 120"),
        ({"altitude_m": float("nan")}, "altitude_m must be"),
        ({"pitch_deg": -10.0}, "pitch_deg must be 5 to 90, found -10"),
        ({"people": 0}, "people must be 1 to 100"),
        ({"motion": "falling"}, "motion must be one of fixed, hover, moving, found 'falling'"),
        ({"altitude_m": 120.0, "pitch_deg": 90.0}, "covers 1 pixels.*take --size of .* or wider"),
        (
            {"pitch_deg": 5.0, "width_px": 4096, "height_px": 64},
            "sees no ground within .* pitch it further down",
        ),
    ],
)
def test_what_cannot_be_filmed_is_named(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        write_scene(tmp_path / "a.mp4", **SCENE | changed)
    assert list(tmp_path.iterdir()) == []


def test_the_command_names_what_cannot_be_filmed(run: Callable[..., Any], tmp_path: Path) -> None:
    status, _, err = run("synth", "scene", tmp_path / "a.mp4", "--altitude", 120, "--pitch", 90, "--hover")
    assert status == 1 and "take --size of" in err

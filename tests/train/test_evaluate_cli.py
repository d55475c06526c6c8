"""tagclip evaluate, in full, on a bundle whose encoders rank colours and on a checkpoint with random weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")

from tagclip.runtime.bundle import Bundle
from tagclip.runtime.cli import main
from tagclip.train.measure import evaluate_path

LINES = ["all", "aerial", "ground", "aerial->aerial", "aerial->ground", "ground->aerial", "ground->ground"]


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(["evaluate", *map(str, arguments)])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.out + captured.err
    return int(end.value.code or 0), captured.out, captured.err


@pytest.fixture
def seen_from_air(toy_data: Path, tmp_path: Path) -> Path:
    """The toy people with elevations, from the air only."""
    folder = tmp_path / "air"
    shutil.copytree(toy_data, folder)
    rows = json.loads((folder / "test_reid.json").read_text())
    rows = [
        row | {"elevation_deg": 20 + 50 * (k % 4 // 2)} for k, row in enumerate(rows) if row["cam_id"] == 0
    ]
    (folder / "test_reid.json").write_text(json.dumps(rows))
    return folder


def test_json_has_a_row_a_line_with_intervals(
    tiny_bundle: Bundle, toy_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = run(capsys, tiny_bundle.path, "--data", toy_data, "--json")
    result = json.loads(out)
    assert (status, list(result)) == (0, LINES)
    for line, row in result.items():
        ends = row.pop("interval")
        assert list(row) == ["r1", "r5", "r10", "map", "minp", "queries", "gallery"]
        for metric, (low, high) in ends.items():
            assert 0 <= low <= row[metric] + 1e-9 and row[metric] - 1e-9 <= high <= 100, (line, metric)
    plain = evaluate_path(tiny_bundle.path, toy_data, "test")
    assert {name: result[name] for name in plain} == plain
    assert result["all"]["r1"] > 90 and result["aerial->ground"]["queries"] == 24


def test_table_for_reading(tiny_bundle: Bundle, toy_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, tiny_bundle.path, "--data", toy_data, "--view", "ground")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == [
        "gallery",
        "ground",
        "aerial->ground",
        "ground->ground",
    ]
    assert "[" in out.splitlines()[1]


def test_excluding_the_own_picture_changes_the_numbers(
    toy_checkpoint: Path, toy_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    within, without = (
        json.loads(run(capsys, toy_checkpoint, "--data", toy_data, "--json", *extra)[1])
        for extra in ([], ["--exclude-own"])
    )
    assert within["all"]["map"] != without["all"]["map"]
    assert within["aerial->ground"] == without["aerial->ground"]


def test_against_another_model(
    tiny_bundle: Bundle, toy_checkpoint: Path, toy_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bundle that knows colours beats a checkpoint with random weights."""
    arguments = (tiny_bundle.path, "--data", toy_data, "--against", toy_checkpoint)
    result = json.loads(run(capsys, *arguments, "--json")[1])
    assert result["against"]["model"] == str(toy_checkpoint)
    one = result["against"]["differences"]["all"]["map"]
    assert one["this"] == pytest.approx(result["all"]["map"])
    assert one["other"] == pytest.approx(evaluate_path(toy_checkpoint, toy_data, "test")["all"]["map"])
    assert one["interval"][0] > 0 and one["won"] > one["lost"]
    _, out, _ = run(capsys, *arguments)
    assert f"other: {toy_checkpoint}" in out and out.count("better") >= len(LINES)


def test_a_model_against_itself_is_equal(
    toy_checkpoint: Path, toy_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = run(capsys, toy_checkpoint, "--data", toy_data, "--against", toy_checkpoint)
    assert out.count("equal on every query") == 5 * len(LINES)


def test_expanded_captions(tiny_bundle: Bundle, toy_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, tiny_bundle.path, "--data", toy_data, "--expand", 2, "--json")
    found = json.loads(out)["expand"]
    assert (status, found["count"], list(found["lines"])) == (0, 2, LINES)
    difference = found["differences"]["all"]["map"]
    assert difference["this"] == pytest.approx(found["lines"]["all"]["map"])
    assert difference["other"] == pytest.approx(json.loads(out)["all"]["map"])
    status, out, _ = run(capsys, tiny_bundle.path, "--data", toy_data, "--expand", 2, "--exclude-own")
    assert status == 0 and "expanded by 2" in out and "other: the caption alone" in out


def test_by_elevation(tiny_bundle: Bundle, seen_from_air: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (tiny_bundle.path, "--data", seen_from_air, "--by", "elevation")
    result = json.loads(run(capsys, *arguments, "--json")[1])
    assert list(result) == ["all", "aerial", "aerial->aerial", "by"]  # no ground picture, no line of it
    bands = result["by"]["elevation"]
    assert list(bands) == ["15 to 30 deg", "60 to 75 deg"] and bands["60 to 75 deg"]["gallery"] == 6
    assert "\nelevation " in run(capsys, *arguments)[1]


def test_by_height(tiny_bundle: Bundle, toy_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = json.loads(run(capsys, tiny_bundle.path, "--data", toy_data, "--by", "height", "--json")[1])
    assert list(result["by"]["height"]) == ["32 to 48 px"]
    assert {k: v for k, v in result["by"]["height"]["32 to 48 px"].items()} == result["all"]


def test_picture(
    tiny_bundle: Bundle, toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "sheets" / "queries.png"
    status, out, _ = run(
        capsys, tiny_bundle.path, "--data", toy_data, "--view", "aerial", "--picture", target
    )
    assert status == 0 and str(target) in out
    sheet = cv2.imread(str(target))
    assert sheet.shape[0] > 1000 and len(np.unique(sheet)) > 50


FAILURES = [
    (["--by", "elevation"], 1, "expected elevation_deg in the annotations, found none"),
    (["--picture", "sheet.jpg"], 2, "expected a name that ends in .png"),
    (["--against", "nowhere"], 1, "nowhere"),
    (["--split", "dev"], 2, "dev"),
]


@pytest.mark.parametrize(("arguments", "status", "message"), FAILURES)
def test_failures_are_named(
    tiny_bundle: Bundle,
    toy_data: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    message: str,
) -> None:
    got = run(capsys, tiny_bundle.path, "--data", toy_data, *arguments)
    assert (got[0], got[1]) == (status, "") and message in got[2]


def test_a_gallery_without_pictures_is_named(
    tiny_bundle: Bundle, seen_from_air: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = run(capsys, tiny_bundle.path, "--data", seen_from_air, "--view", "ground")
    assert status == 1 and "expected pictures from the ground view, found none; choose another --view" in err


def test_one_picture_a_person_leaves_nothing_without_it(
    tiny_bundle: Bundle, seen_from_air: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = seen_from_air / "test_reid.json"
    path.write_text(json.dumps(json.loads(path.read_text())[::2]))
    assert run(capsys, tiny_bundle.path, "--data", seen_from_air)[0] == 0
    status, _, err = run(capsys, tiny_bundle.path, "--data", seen_from_air, "--exclude-own")
    assert status == 1 and "leave out --exclude-own" in err


def test_one_person_has_metrics_without_intervals(
    tiny_bundle: Bundle, seen_from_air: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = seen_from_air / "test_reid.json"
    path.write_text(json.dumps(json.loads(path.read_text())[:2]))
    result = json.loads(run(capsys, tiny_bundle.path, "--data", seen_from_air, "--json")[1])
    assert result["all"]["r1"] == 100 and result["all"]["interval"]["r1"] is None
    assert "100.00" in run(capsys, tiny_bundle.path, "--data", seen_from_air)[1]

"""tagclip data: tables for people, JSON for programs, exit status 1 when anything is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tagclip.runtime.cli import main
from tagclip.train import data_cli
from tagclip.train.data import load_split
from tagclip.train.datasets.layout import FORMATS
from tagclip.train.datasets.names import RULES


def tagclip(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    out, err = capsys.readouterr()
    return int(left.value.code or 0), out, err


@pytest.fixture
def damaged(toy_data: Path, tmp_path: Path) -> Path:
    """24 pictures of val are missing, one of test is truncated."""
    shutil.copytree(toy_data, tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "images" / "val")
    path = load_split(tmp_path / "data", "test")[5].path
    path.write_bytes(path.read_bytes()[:-30])
    return tmp_path / "data"


def test_choices_are_the_formats_and_folders_there_are() -> None:
    assert data_cli.FORMATS == FORMATS and data_cli.FOLDERS == tuple(RULES)


def test_check_of_good_data(toy_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = tagclip(capsys, "data", "check", str(toy_data))
    lines = [line.split() for line in out.splitlines()]
    assert status == 0 and "no problems" in out
    assert ["train", "val", "test"] in lines and ["images", "72", "24", "24"] in lines
    assert ["identities", "in", "both", "views", "6", "6", "6"] in lines


def test_check_shows_twenty_problems_and_counts_all(
    damaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = tagclip(capsys, "data", "check", str(damaged))
    assert status == 1 and "Traceback" not in err
    assert "25 problems: 24 missing file, 1 truncated image" in out
    assert out.count("  missing file: ") == 20 and "  and 5 more; --json lists all" in out
    assert f"{damaged / 'val_reid.json'} row 0: expected the image" in out


def test_check_as_json_lists_all(damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = tagclip(capsys, "data", "check", str(damaged), "--json")
    found = json.loads(out)
    assert status == 1 and found["format"] == "tagclip" and found["splits"]["val"]["images"] == 24
    assert [p["kind"] for p in found["problems"]] == ["missing file"] * 24 + ["truncated image"]
    assert found["problems"][-1]["where"] == f"{damaged / 'test_reid.json'} row 5"


def test_check_of_nothing_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = tagclip(capsys, "data", "check", str(tmp_path))
    assert (status, out) == (1, "") and err.startswith("error: expected ") and err.count("\n") == 1


def test_build_and_check(toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out_folder = tmp_path / "out"
    arguments = ["--from", "tagclip", "--source", str(toy_data), "--images", "copy"]
    status, out, _ = tagclip(capsys, "data", "build", str(out_folder), *arguments)
    assert status == 0 and "(copies)" in out and "files found" in out
    assert "train: 72 images, 6 identities, 144 captions, 36 aerial, 36 ground" in out
    assert tagclip(capsys, "data", "check", str(out_folder))[0] == 0
    status, out, _ = tagclip(capsys, "data", "build", str(tmp_path / "two"), *arguments, "--json")
    assert status == 0 and json.loads(out)["sets"]["tagclip"] == {"files": 120, "taken": 120, "left_out": {}}


def test_sources_are_counted_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--from", "g2aps", "--from", "prai-1581", "--source", str(tmp_path)]
    status, _, err = tagclip(capsys, "data", "build", str(tmp_path / "out"), *arguments)
    assert status == 2 and "expected a --source for each --from, found 2 and 1" in err

"""The table and the curves of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import pytest

pytest.importorskip("tensorboard")

from tagclip.runtime.errors import OutputError
from tagclip.train.journal import Board, history_table, losses_of, write_curves


def history(epochs: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for epoch in range(1, epochs + 1):
        rows.append(
            {"epoch": epoch, "seconds": 2.0, "images_per_s": 96.0, "n_itc": 3.0 / epoch, "r_itc": 0.5}
        )
        if epoch % 2 == 0:
            rows[-1]["val"] = {"all": {"r1": 40.0 + epoch, "map": 30.0}, "aerial": {"r1": 1.0, "map": 2.0}}
    return rows


def test_losses_are_told_from_the_rest() -> None:
    assert losses_of(history(2)[1]) == {"n_itc": 1.5, "r_itc": 0.5}


def test_table() -> None:
    lines = history_table(history(2)).splitlines()
    assert lines[0].split() == ["epoch", "seconds", "images/s", "loss", "R@1", "mAP"]
    assert lines[1].split() == ["1", "2.0", "96.0", "3.500"]
    assert lines[2].split() == ["2", "2.0", "96.0", "2.000", "42.00", "30.00"]
    long = history_table(history(40)).splitlines()
    assert len(long) == 22 and long[11].strip() == "..." and long[12].startswith("   31")


def test_curves_are_a_picture(tmp_path: Path) -> None:
    write_curves(tmp_path, history(4))
    picture = cv2.imread(str(tmp_path / "curves.png"))
    assert picture is not None and picture.shape[1] > picture.shape[0] > 300
    assert len({tuple(pixel) for pixel in picture[::3, ::3].reshape(-1, 3).tolist()}) > 10


def test_a_board_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("")
    with pytest.raises(OutputError, match="cannot write .*tensorboard"):
        Board(tmp_path, 0)

"""Worlds are compared on the shifted one, each trained once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("yaml")

from tagclip.runtime.errors import DataError
from tagclip.train.measure import evaluate_path
from tagclip.train.worlds import worlds


def quiet(what: str, done: int, total: int, note: str) -> None:
    """No progress."""


def test_every_world_is_measured_on_the_shifted_one(
    toy_data: Path, toy_model: dict[str, Any], tmp_path: Path
) -> None:
    config = tmp_path / "toy.yaml"
    train = {"epochs": 1, "batch": 16, "precision": "fp32"}
    config.write_text(
        json.dumps({"name": "toy", "model": toy_model | {"word_vectors": "none"}, "train": train})
    )
    for name in ("whole", "less", "shifted"):
        shutil.copytree(toy_data, tmp_path / "worlds" / name)
    rows = json.loads((tmp_path / "worlds/less/train_reid.json").read_text())
    (tmp_path / "worlds/less/train_reid.json").write_text(json.dumps(rows[: len(rows) // 2]))
    # Half of the shifted test split: numbers of any other folder would not be these.
    rows = json.loads((tmp_path / "worlds/shifted/test_reid.json").read_text())
    (tmp_path / "worlds/shifted/test_reid.json").write_text(json.dumps(rows[: len(rows) // 2]))
    found = worlds(config, tmp_path / "worlds", tmp_path / "runs", 2, quiet)
    assert [(o.name, o.against, len(o.seeds)) for o in found] == [("whole", "whole", 2), ("less", "whole", 2)]
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["less-0", "less-1", "whole-0", "whole-1"]
    for outcome in found:
        expected = evaluate_path(tmp_path / "runs" / f"{outcome.name}-1", tmp_path / "worlds/shifted", "test")
        mean_ap = 100 * outcome.seeds[1]["all"].values[:, 3].mean()
        assert mean_ap == pytest.approx(expected["all"]["map"], abs=1e-3)


def test_what_is_missing_is_named(toy_data: Path, tmp_path: Path) -> None:
    shutil.copytree(toy_data, tmp_path / "whole")
    with pytest.raises(DataError, match="whole, shifted and at least one other to compare, found whole"):
        worlds(tmp_path / "no.yaml", tmp_path, tmp_path / "runs", 1, quiet)

"""Variants are trained once, measured on the test split, and compared seed by seed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("yaml")

from click.testing import CliRunner

from tagclip.train.ablation import KNOWN, VARIANTS, Outcome, as_markdown, main, summarise
from tagclip.train.evaluate import Row
from tagclip.train.measure import evaluate_path


def outcome(name: str, ap: list[list[float]]) -> Outcome:
    identity = np.arange(len(ap[0])) // 2
    return Outcome(
        name,
        [
            Row(np.tile(np.array(values)[:, None], (1, 5)), np.arange(len(values)), identity, 7)
            for values in ap
        ],
    )


def test_differences_are_paired_by_seed() -> None:
    base = outcome("base", [[0.2, 0.4, 0.6, 0.8], [0.3, 0.5, 0.7, 0.9]])
    better = outcome("better", [[0.3, 0.5, 0.7, 0.9], [0.4, 0.6, 0.8, 1.0]])
    first, second = summarise([base, better])
    assert first["map"]["mean"] == pytest.approx(55) and first["map"]["interval"] is None
    assert first["map"]["deviation"] == pytest.approx(np.std([50, 60], ddof=1))
    assert second["map"]["difference"] == pytest.approx(10)
    assert second["map"]["interval"] == pytest.approx([10, 10])  # the same for everybody: no doubt left
    assert "| better | 65.0 ± 7.1 | +10.0 [+10.0, +10.0] |" in as_markdown([first, second])


def test_one_seed_has_no_spread() -> None:
    (row,) = summarise([outcome("base", [[0.2, 0.4]])])
    assert row["r1"]["deviation"] is None and "±" not in as_markdown([row])


def test_every_variant_is_trained_once(toy_data: Path, toy_model: dict[str, Any], tmp_path: Path) -> None:
    config = tmp_path / "toy.yaml"
    model = toy_model | {"word_vectors": "none"}
    train = {"epochs": 1, "batch": 18, "precision": "fp32", "weight_view": 0.0, "weight_ortho": 0.0}
    config.write_text(json.dumps({"name": "toy", "model": model, "train": train}))
    command = [
        str(config),
        "--data",
        str(toy_data),
        "--out",
        str(tmp_path / "runs"),
        "--seeds",
        "1",
        "--json",
    ]
    first = CliRunner().invoke(main, command)
    assert first.exit_code == 0, first.output
    table = json.loads(first.stdout)
    assert [row["variant"] for row in table] == [*VARIANTS, KNOWN]
    runs = sorted((tmp_path / "runs").iterdir())
    assert len(runs) == len(VARIANTS)
    for name in ("plain CLIP", "HR-MoE"):
        run = tmp_path / "runs" / f"{name.replace(' ', '-')}-0"
        expected = evaluate_path(run, toy_data, "test")["all"]
        row = next(r for r in table if r["variant"] == name)
        assert row["map"]["mean"] == pytest.approx(expected["map"], abs=1e-3)
    written = [run.joinpath("model.safetensors").stat().st_mtime_ns for run in runs]
    again = CliRunner().invoke(main, command)
    assert json.loads(again.stdout) == table
    assert [run.joinpath("model.safetensors").stat().st_mtime_ns for run in runs] == written


def test_a_named_failure(tmp_path: Path) -> None:
    found = CliRunner().invoke(main, [str(tmp_path / "no.yaml"), "--data", "x", "--out", str(tmp_path / "o")])
    assert found.exit_code == 1 and "cannot read" in found.output

"""Variants are trained once, measured on the test split, and compared seed by seed."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("yaml")

from click.testing import CliRunner

from tagclip.train.ablation import BEYOND, KNOWN, METHOD, Outcome, as_markdown, main, summarise
from tagclip.train.evaluate import Row
from tagclip.train.measure import evaluate_path


def outcome(name: str, ap: list[list[float]]) -> Outcome:
    identity = np.arange(len(ap[0])) // 2
    rows = [
        Row(np.tile(np.array(values)[:, None], (1, 5)), np.arange(len(values)), identity, 7) for values in ap
    ]
    return Outcome(name, "base", [dict.fromkeys(("all", "aerial", "ground"), row) for row in rows])


def test_differences_are_paired_by_seed() -> None:
    base = outcome("base", [[0.2, 0.4, 0.6, 0.8], [0.3, 0.5, 0.7, 0.9]])
    better = outcome("better", [[0.3, 0.5, 0.7, 0.9], [0.4, 0.6, 0.8, 1.0]])
    table = summarise([base, better])
    first, second = (row["columns"][1] for row in table)
    assert (first["metric"], first["gallery"]) == ("map", "all")
    assert first["mean"] == pytest.approx(55) and first["interval"] is None
    assert first["deviation"] == pytest.approx(np.std([50, 60], ddof=1))
    assert second["difference"] == pytest.approx(10)
    assert second["interval"] == pytest.approx([10, 10])  # the same for everybody: no doubt left
    assert "| better | 2 | 65.0 ± 7.1; +10.0 [+10.0, +10.0] |" in as_markdown(table)


def test_fewer_seeds_are_compared_with_the_same_ones_of_the_other() -> None:
    base = outcome("base", [[0.2, 0.4], [0.9, 0.9]])
    table = summarise([base, outcome("other", [[0.3, 0.5]])])
    assert table[1]["seeds"] == 1 and table[1]["columns"][1]["difference"] == pytest.approx(10)


def test_one_seed_has_no_spread() -> None:
    table = summarise([outcome("base", [[0.2, 0.4]])])
    assert table[0]["columns"][0]["deviation"] is None and "±" not in as_markdown(table)


def test_every_variant_is_trained_once(toy_data: Path, toy_model: dict[str, Any], tmp_path: Path) -> None:
    config = tmp_path / "toy.yaml"
    model = toy_model | {"word_vectors": "none"}
    train = {"epochs": 1, "batch": 16, "precision": "fp32", "weight_view": 0.0, "weight_ortho": 0.0}
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
    assert [row["variant"] for row in table] == [*METHOD, KNOWN, *BEYOND]
    assert {row["against"] for row in table} == {"plain CLIP", "HR-MoE + both"}
    runs = sorted((tmp_path / "runs").iterdir())
    assert len(runs) == len(METHOD) + len(BEYOND)
    for name in ("plain CLIP", "HR-MoE"):
        run = tmp_path / "runs" / f"{name.replace(' ', '-')}-0"
        expected = evaluate_path(run, toy_data, "test")
        row = next(r for r in table if r["variant"] == name)
        for column in row["columns"]:
            wanted = expected[column["gallery"]][column["metric"]]  # type: ignore[literal-required]
            assert column["mean"] == pytest.approx(wanted, abs=1e-3)
    written = [run.joinpath("model.safetensors").stat().st_mtime_ns for run in runs]
    again = CliRunner().invoke(main, command)
    assert json.loads(again.stdout) == table
    assert [run.joinpath("model.safetensors").stat().st_mtime_ns for run in runs] == written


def test_a_named_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `python -m tagclip.train.ablation`."""
    command = [str(tmp_path / "no.yaml"), "--data", "x", "--out", str(tmp_path / "o")]
    monkeypatch.setattr(sys, "argv", ["ablation.py", *command])
    monkeypatch.delitem(
        sys.modules, "tagclip.train.ablation"
    )  # runpy warns of a module that is there already
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("tagclip.train.ablation", run_name="__main__")
    assert ended.value.code == 1 and capsys.readouterr().err.startswith("error: ")

"""Both sides of the comparison are measured, by the counts that arithmetic gives."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("open_clip")

from tagclip.runtime.cli import run
from tagclip.train.config import Config
from tagclip.train.engine import Engine
from tagclip.train.throughput import _flops, main, matmul_tflops, our_step


def make(toy_model: dict[str, Any], **train: Any) -> Config:
    return Config.from_json(
        {"model": toy_model, "train": {"batch": 4, "precision": "fp32", "accelerator": "cpu"} | train}
    )


def test_flops_of_a_product() -> None:
    """(3, 5) x (5, 7) is 2 * 3 * 5 * 7 operations."""
    assert _flops(lambda: torch.ones(3, 5) @ torch.ones(5, 7)) == 210


def test_a_step_counts_in_proportion_and_caching_adds_a_forward_pass(toy_model: dict[str, Any]) -> None:
    def flops(**train: Any) -> int:
        config = make(toy_model, **train)
        return _flops(our_step(Engine(config.train), config))

    once = flops(batch=8)
    assert flops(batch=16) == pytest.approx(2 * once, rel=0.02)  # the similarities grow with the square
    assert 1.2 < flops(batch=8, micro_batch=4) / once < 1.45  # forward is a third of forward and backward


def test_peak_is_positive() -> None:
    assert matmul_tflops(torch.device("cpu"), "fp32") > 0


def test_command(
    toy_model: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As `python -m tagclip.train.throughput`."""
    (tmp_path / "toy.yaml").write_text(json.dumps(make(toy_model, batch=2).to_json()))
    options = ["--steps", "1", "--rounds", "1", "--against", "ViT-S-32-alt", "--peak-tflops", "2", "--json"]
    monkeypatch.setattr(sys, "argv", ["throughput.py", str(tmp_path / "toy.yaml"), *options])
    # runpy warns of a module that is there already
    monkeypatch.delitem(sys.modules, "tagclip.train.throughput")
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("tagclip.train.throughput", run_name="__main__")
    out, err = capsys.readouterr()
    assert not ended.value.code, err
    found = json.loads(out)
    ours, theirs = found["ours"], found["theirs"]
    assert found["ratio"] == pytest.approx(ours["images_per_s"] / theirs["images_per_s"])
    assert theirs["images_per_s"] == pytest.approx(2 / theirs["step_s"])
    assert theirs["utilisation"] == pytest.approx(theirs["tflop_per_step"] / theirs["step_s"] / 2)
    # 49 patches of 3 x 32 x 32 numbers, then 12 w^2 multiply-adds a token and layer: 12 layers of width 384 for 50
    # tokens, 10 of width 256 for 77. Two operations each, three passes, two pairs; attention itself adds 3 %, less
    # what its fused form hides from the counter.
    image, text = 49 * 3 * 32**2 * 384 + 12 * 50 * 12 * 384**2, 10 * 77 * 12 * 256**2
    assert theirs["tflop_per_step"] == pytest.approx(2 * 3 * 2 * (image + text) / 1e12, rel=0.1)


def test_a_model_that_open_clip_has_not(
    toy_model: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "toy.yaml").write_text(json.dumps(make(toy_model, batch=2).to_json()))
    with pytest.raises(SystemExit) as ended:
        run(main, "python -m tagclip.train.throughput", [str(tmp_path / "toy.yaml"), "--against", "ViT-nope"])
    assert ended.value.code == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: --against: expected a model")

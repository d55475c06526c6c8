"""Weights between a run's start and its end."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from tagclip.export import pack
from tagclip.runtime.errors import CheckpointError
from tagclip.train.blend import blend
from tagclip.train.checkpoint import load_checkpoint, read_tensors, write_tensors
from tagclip.train.model import TagClip

pytestmark = pytest.mark.usefixtures("exported_once")


def shaken(source: Path, target: Path, seed: int) -> Path:
    """A copy of a checkpoint with all of its weights moved."""
    shutil.copytree(source, target)
    torch.manual_seed(seed)
    tensors = {
        name: value + 0.1 * torch.randn_like(value)
        if value.is_floating_point() and "running" not in name
        else value
        for name, value in read_tensors(target / "model.safetensors").items()
    }
    write_tensors(target / "model.safetensors", tensors)
    return target


@pytest.fixture(scope="module")
def ended(
    trained_checkpoint: Path, toy_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """The checkpoint that a run began with, by way of its bundle, and the one that it ended with."""
    folder = tmp_path_factory.mktemp("blend")
    pack.export_bundle(trained_checkpoint, folder / "bundle", pack.Wanted(), toy_data)
    run = shaken(trained_checkpoint, folder / "run", 2)
    config = json.loads((run / "config.json").read_text())
    config["train"]["pretrained"] = str(folder / "bundle")
    (run / "config.json").write_text(json.dumps(config))
    (run / "metrics.json").write_text("{}")
    return trained_checkpoint, run


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    model = load_checkpoint(checkpoint)[0]
    return {name: p for name, p in model.named_parameters() if ".norm." not in name and ".stem." not in name}


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_weights_lie_between(ended: tuple[Path, Path], toy_data: Path, tmp_path: Path, share: float) -> None:
    begun, run = (weights(folder) for folder in ended)
    blend(ended[1], toy_data, tmp_path / "out", share)
    for name, value in weights(tmp_path / "out").items():
        new = "image_router" in name or name == "log_scale"  # no bundle holds these
        wanted = run[name] if new else (1 - share) * begun[name] + share * run[name]
        assert torch.allclose(value, wanted, atol=2e-3), name  # the bundle has 16 bits a weight


def test_norms_have_the_statistics_of_the_crops(
    ended: tuple[Path, Path], toy_data: Path, tmp_path: Path
) -> None:
    """Of the few there are, too: with them, evaluation and training give the first layer the same."""
    blend(ended[1], toy_data, tmp_path / "out", 0.5)
    model = load_checkpoint(tmp_path / "out")[0]
    assert isinstance(model, TagClip)
    from tagclip.train.data import input_spec, load_split
    from tagclip.train.images import spread_crops

    crops = spread_crops(load_split(toy_data, "train"), input_spec(model.config), 2048)
    x = torch.tensor(np.asarray(crops)).float().permute(0, 3, 1, 2) / 127.5 - 1
    layer = model.image.stem[0]
    with torch.no_grad():
        evaluated, trained = layer.eval()(x), layer.train()(x)
    assert torch.allclose(evaluated, trained, atol=0.05 * float(trained.abs().max()))


def test_a_run_that_began_with_nothing(toy_checkpoint: Path, toy_data: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="that began with random weights"):
        blend(toy_checkpoint, toy_data, tmp_path / "out", 0.5)

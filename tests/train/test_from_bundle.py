"""A run that begins with a bundle begins with its vectors, and says why it cannot begin with another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from tagclip.export import pack
from tagclip.runtime.errors import BundleError, CheckpointError
from tagclip.train.checkpoint import load_checkpoint
from tagclip.train.config import Config
from tagclip.train.from_bundle import load_bundle
from tagclip.train.loop import Run
from tagclip.train.model import TagClip, unit

pytestmark = pytest.mark.usefixtures("exported_once")


@pytest.fixture(scope="module")
def trained(trained_checkpoint: Path) -> Path:
    return trained_checkpoint


@pytest.fixture(scope="module")
def bundle(trained: Path, toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("from") / "bundle"
    pack.export_bundle(trained, path, pack.Wanted(), toy_data)
    return path


def crops(count: int = 40) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, 32, 16, 3), dtype=np.uint8)


def tokenizer(checkpoint: Path) -> str:
    return (checkpoint / "tokenizer.json").read_text()


def fresh(checkpoint: Path, **change: Any) -> TagClip:
    """A model of the checkpoint's configuration with other random weights, but its words."""
    begun, _, config = load_checkpoint(checkpoint)
    torch.manual_seed(99)
    values = {k: v for k, v in begun.state_dict().items() if k.startswith("text.table.")}
    model = TagClip(replace(config.model, **change), len(next(iter(values.values()))))
    model.load_state_dict(values, strict=False)
    return model


def vectors(model: TagClip, view: int) -> torch.Tensor:
    given = torch.from_numpy(crops())
    with torch.no_grad():
        return unit(model.eval().image(given, torch.full((len(given),), view))[0])


def test_every_weight_of_the_graphs_comes_back(bundle: Path, trained: Path) -> None:
    wanted_model, _, _ = load_checkpoint(trained)
    model = fresh(trained)
    for view in (0, 1):
        assert (vectors(model, view) * vectors(wanted_model, view)).sum(1).min() < 0.99  # it began elsewhere
    load_bundle(model, tokenizer(trained), bundle, crops())
    for view in (0, 1):
        assert (vectors(model, view) * vectors(wanted_model, view)).sum(1).min() > 0.9999
    names = [
        name for name, _ in wanted_model.named_parameters() if ".norm." not in name and "router" not in name
    ]
    for name in names:
        if name.startswith(("image.blocks", "text.blocks", "image.norm", "text.project")):
            found, wanted = model.get_parameter(name), wanted_model.get_parameter(name)
            assert torch.allclose(found, wanted, atol=2e-3), name  # 16 bits a number


def test_batch_norms_have_the_statistics_of_the_crops(bundle: Path, trained: Path) -> None:
    """In training they normalise by the batch: the same crops then give the same vectors as in evaluation."""
    model = fresh(trained)
    load_bundle(model, tokenizer(trained), bundle, crops())
    evaluated = vectors(model, 0)
    model.train()
    with torch.no_grad():
        given = torch.from_numpy(crops())
        in_training = unit(model.image(given, torch.zeros(len(given), dtype=torch.int64))[0])
    assert (evaluated * in_training).sum(1).min() > 0.999


def test_a_run_begins_with_it(bundle: Path, trained: Path, toy_data: Path, tmp_path: Path) -> None:
    _, _, config = load_checkpoint(trained)
    values = config.to_json()
    values["train"] |= {"pretrained": str(bundle), "epochs": 1, "batch": 12}
    run = Run(Config.from_json(values), toy_data, tmp_path, lambda *_: None)
    wanted_model, _, _ = load_checkpoint(trained)
    assert (vectors(run.model, 1) * vectors(wanted_model, 1)).sum(1).min() > 0.9999


def test_another_model_is_refused(bundle: Path, trained: Path) -> None:
    with pytest.raises(CheckpointError, match="the model to train|found none with"):
        load_bundle(fresh(trained, layers=4), tokenizer(trained), bundle, crops())
    with pytest.raises(CheckpointError, match="the same `model` section"):
        load_bundle(fresh(trained, experts=5), tokenizer(trained), bundle, crops())


def test_other_words_are_refused(bundle: Path, trained: Path) -> None:
    words = tokenizer(trained).replace('"red"', '"crimson"')
    with pytest.raises(CheckpointError, match="expected the words of the model to train, found others"):
        load_bundle(fresh(trained), words, bundle, crops())


@pytest.mark.parametrize("wanted", [{"precision": "fp16"}, {"experts": "merged"}, {"views": ("universal",)}])
def test_graphs_that_do_not_hold_the_weights(
    wanted: dict[str, Any], toy_checkpoint: Path, toy_data: Path, tmp_path: Path
) -> None:
    """Refused by what the manifest says, so it is the toy, whose graphs other tests export too."""
    pack.export_bundle(toy_checkpoint, tmp_path / "b", pack.Wanted(**wanted, max_drop=100.0), toy_data)
    with pytest.raises(CheckpointError, match="exported with exact experts at fp32|a graph for each view"):
        load_bundle(fresh(toy_checkpoint), tokenizer(toy_checkpoint), tmp_path / "b", crops())


def test_no_bundle(tmp_path: Path, trained: Path) -> None:
    with pytest.raises(BundleError, match="is not a folder"):
        load_bundle(fresh(trained), tokenizer(trained), tmp_path / "none", crops())

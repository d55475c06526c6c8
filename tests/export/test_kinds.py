"""Every kind of bundle from the command line: merged, universal, fp16, int8, and somebody's own open_clip weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
open_clip = pytest.importorskip("open_clip")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from click.testing import CliRunner
from safetensors.torch import save_file

from tagclip.export.cli import export
from tagclip.runtime.bundle import Bundle, open_bundle
from tagclip.runtime.encoder import ImageEncoder, TextEncoder
from tagclip.runtime.errors import CheckpointError, ConfigError
from tagclip.runtime.selftest import run_probe
from tagclip.train.checkpoint import load_checkpoint
from tagclip.train.clip_models import open_clip_config
from tagclip.train.measure import evaluate_path
from tagclip.train.model import unit

CROPS = np.random.default_rng(9).integers(0, 256, (6, 32, 16, 3), dtype=np.uint8)
TEXTS = ["a man in a red shirt", "a person in a blue jacket"]
# Random weights rank at random, so that any change of them may cost points: the budget is not what is tested here.
ANY = ["--max-drop", "100"]


def made(checkpoint: Path, out: Path, *options: str) -> tuple[Bundle, dict[str, Any]]:
    arguments = [str(checkpoint), "--out", str(out), "--json", *options]
    result = CliRunner().invoke(export, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    bundle = open_bundle(out)
    assert min(run_probe(bundle).values()) > 0.9999  # on the machine that made it
    return bundle, json.loads(result.stdout)


@pytest.mark.parametrize(("precision", "least"), [("fp16", 0.999), ("int8", 0.97)])
def test_precisions(
    toy_checkpoint: Path, toy_data: Path, tmp_path: Path, precision: str, least: float
) -> None:
    bundle, report = made(
        toy_checkpoint, tmp_path / "b", "--calib", str(toy_data), "--precision", precision, *ANY
    )
    assert {tower.facts.precision for tower in bundle.manifest.towers.values()} == {precision}
    assert all(least < row["min_cosine"] < 0.9999999 for row in report["parity"].values())
    assert report["retrieval"] == evaluate_path(bundle.path, toy_data, "val")
    graph = onnx.load(bundle.path / "image-aerial.onnx").graph
    types = {t.data_type for t in graph.initializer if len(t.dims) > 1}
    assert {"fp16": onnx.TensorProto.FLOAT16, "int8": onnx.TensorProto.INT8}[precision] in types
    if precision == "int8":
        assert set(report["precision"]) == set(bundle.manifest.towers)
        assert {row["precision"] for row in report["precision"]["text"]["layers"]} == {"int8"}


def test_merged_specialists(toy_checkpoint: Path, toy_data: Path, tmp_path: Path) -> None:
    exact, before = made(toy_checkpoint, tmp_path / "exact", "--calib", str(toy_data))
    bundle, report = made(
        toy_checkpoint, tmp_path / "merged", "--calib", str(toy_data), "--experts", "merged", *ANY
    )
    assert bundle.manifest.provenance["experts"] == "merged" and set(report["merging"]) == {
        "image-aerial",
        "image-ground",
    }
    for tower in report["merging"]:
        assert report["towers"][tower]["gflop"] < 0.9 * before["towers"][tower]["gflop"]
        assert report["towers"][tower]["parameters"] < 0.9 * before["towers"][tower]["parameters"]
    assert bundle.encoder_id != exact.encoder_id


@pytest.fixture(scope="module")
def undecided(toy_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy, its view routers set so that they take half of CROPS for aerial."""
    folder = Path(shutil.copytree(toy_checkpoint, tmp_path_factory.mktemp("undecided") / "checkpoint"))
    for block in (0, 1):  # in this order: what the first decides, the second sees
        model, _, _ = load_checkpoint(folder)
        with torch.no_grad():
            _, routing = model.image(torch.from_numpy(CROPS))
            model.image.blocks[block].ffn.image_router.bias -= routing.view_logits[block].mean(0)
        save_file(model.state_dict(), folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_universal_tower_routes_as_the_model_does(
    undecided: Path, toy_data: Path, tmp_path: Path, precision: str
) -> None:
    options = [
        "--view",
        "universal",
        "--view",
        "ground",
        "--precision",
        precision,
        "--calib",
        str(toy_data),
        *ANY,
    ]
    bundle, report = made(undecided, tmp_path / "b", *options)
    assert bundle.manifest.views == ("ground", "universal")
    model, _, _ = load_checkpoint(undecided)
    with torch.no_grad():
        encoded, routing = model.image(torch.from_numpy(CROPS))
    assert 0 < routing.view_logits[0].argmax(-1).sum() < len(CROPS), "both views must be predicted"
    got = ImageEncoder(bundle, "auto").embed(list(CROPS))
    cosines = np.sort((got * unit(encoded).detach().numpy()).sum(1))
    # Noise stands near the edge between the views: in 16 bits one crop may fall to the other side.
    assert cosines[0 if precision == "fp32" else 1] > (0.99999 if precision == "fp32" else 0.999)
    if precision == "fp32":
        assert report["universal"]["all"]["map"] == pytest.approx(
            report["checkpoint_predicted_view"]["all"]["map"]
        )


def test_changed_numbers_need_pictures(toy_checkpoint: Path, tmp_path: Path) -> None:
    for options in (["--precision", "int8"], ["--experts", "merged"]):
        with pytest.raises(ConfigError, match="name a data folder with --calib"):
            CliRunner().invoke(
                export, [str(toy_checkpoint), "--out", str(tmp_path / "b"), *options], catch_exceptions=False
            )


@pytest.fixture(scope="module")
def weights(tiny_clip: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A model of open_clip and its weights in a file, as somebody else would bring them."""
    torch.manual_seed(2)
    theirs = open_clip.CLIP(**open_clip_config(tiny_clip)).eval()
    path = tmp_path_factory.mktemp("theirs") / "finetuned.safetensors"
    save_file({k: v.detach().clone().contiguous() for k, v in theirs.state_dict().items()}, path)
    return theirs, path


def test_weights_of_open_clip(weights: tuple[Any, Path], tiny_clip: str, tmp_path: Path) -> None:
    theirs, path = weights
    bundle, _ = made(path, tmp_path / "b", "--clip", tiny_clip)
    licensed, _ = made(path, tmp_path / "mit", "--clip", tiny_clip, "--licence", "MIT")
    assert licensed.manifest.licence == "MIT"
    assert bundle.manifest.views == ("universal",) and bundle.manifest.name == "tagclip-finetuned"
    assert bundle.manifest.licence == "NOASSERTION"  # nothing in the file says whose it is
    size = bundle.manifest.preprocess
    crops = np.random.default_rng(1).integers(0, 256, (3, size.height_px, size.width_px, 3), dtype=np.uint8)
    mean, std = torch.tensor(open_clip.OPENAI_DATASET_MEAN), torch.tensor(open_clip.OPENAI_DATASET_STD)
    with torch.no_grad():
        pixels = ((torch.from_numpy(crops) / 255 - mean) / std).permute(0, 3, 1, 2)
        images = theirs.encode_image(pixels, normalize=True).numpy()
        texts = theirs.encode_text(open_clip.tokenize(TEXTS), normalize=True).numpy()
    for view in ("aerial", "ground", "auto"):
        assert (ImageEncoder(bundle, view).embed(list(crops)) * images).sum(1).min() > 0.9999
    assert (TextEncoder(bundle).embed(TEXTS) * texts).sum(1).min() > 0.9999


def test_what_cannot_be_exported_is_named(
    weights: tuple[Any, Path], tiny_clip: str, toy_checkpoint: Path, tmp_path: Path
) -> None:
    def refused(*arguments: str) -> None:
        CliRunner().invoke(export, [*arguments, "--out", str(tmp_path / "b")], catch_exceptions=False)

    with pytest.raises(
        CheckpointError, match="is a file, expected the folder of a checkpoint; .*--clip ViT-B-16"
    ):
        refused(str(weights[1]))
    with pytest.raises(ConfigError, match="does not route by view: expected --view universal"):
        refused(str(weights[1]), "--clip", tiny_clip, "--view", "aerial")
    with pytest.raises(ConfigError, match="no merged universal tower"):
        refused(str(toy_checkpoint), "--experts", "merged", "--view", "universal")

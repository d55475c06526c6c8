"""From a checkpoint to a bundle: the graphs give what PyTorch gives, and what does not is never written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
ort = pytest.importorskip("onnxruntime")

from click.testing import CliRunner

from tagclip.export import pack
from tagclip.export.cli import export
from tagclip.export.images import image_graph
from tagclip.export.specialist import ImageSpecialist, TextGraph
from tagclip.export.to_onnx import parameters, store, to_onnx
from tagclip.runtime.bundle import Bundle, open_bundle
from tagclip.runtime.encoder import ImageEncoder, TextEncoder
from tagclip.runtime.errors import CheckpointError, DataError, OutputError, ParityError
from tagclip.runtime.selftest import run_probe
from tagclip.runtime.views import VIEWS
from tagclip.train.checkpoint import load_checkpoint
from tagclip.train.config import ModelConfig
from tagclip.train.measure import evaluate_path
from tagclip.train.model import TagClip, unit
from tagclip.train.words import encode

TEXTS = ["a man in a red shirt", "a person in a blue jacket", "man"]


@pytest.fixture(scope="module")
def exported(
    toy_checkpoint: Path, toy_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Bundle, dict[str, Any]]:
    return pack.export_bundle(
        toy_checkpoint, tmp_path_factory.mktemp("export") / "toy", pack.Wanted(), toy_data
    )


def noise(count: int, seed: int = 9) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 16, 3), dtype=np.uint8)


def reference(checkpoint: Path, crops: np.ndarray, view: str) -> np.ndarray:
    """The trained model itself in PyTorch, routed by the known view."""
    model, _, _ = load_checkpoint(checkpoint)
    with torch.no_grad():
        known = torch.full((len(crops),), VIEWS.index(view))
        return unit(model.image(torch.from_numpy(crops), known)[0]).numpy()


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("count", [1, 2, 3, 70])
def test_image_graphs_equal_pytorch_at_any_batch(
    exported: tuple[Bundle, dict[str, Any]], toy_checkpoint: Path, view: str, count: int
) -> None:
    got = ImageEncoder(exported[0], view).embed(list(noise(count)))
    wanted = reference(toy_checkpoint, noise(count), view)
    assert np.allclose(np.linalg.norm(got, axis=1), 1, atol=1e-5)
    assert (got * wanted).sum(1).min() > 0.99999  # the weights alone are stored in 16 bits


def test_specialists_differ(toy_checkpoint: Path) -> None:
    """Else the test above could not tell one from the other."""
    aerial, ground = (reference(toy_checkpoint, noise(8), view) for view in VIEWS)
    assert (aerial * ground).sum(1).max() < 0.999


def test_text_graph_equals_pytorch(exported: tuple[Bundle, dict[str, Any]], toy_checkpoint: Path) -> None:
    model, tokenizer_json, config = load_checkpoint(toy_checkpoint)
    tokens = encode(tokenizer_json, TEXTS, config.model.context_length)
    with torch.no_grad():
        wanted = unit(model.text(torch.from_numpy(tokens))).numpy()
    got = TextEncoder(exported[0]).embed(TEXTS)
    assert (got * wanted).sum(1).min() > 0.99999


@pytest.mark.parametrize("view", VIEWS)
def test_specialist_module_is_exact(toy_checkpoint: Path, view: str) -> None:
    """Before any export: the specialist's arithmetic is the routed model's, without the other view's expert."""
    model, _, _ = load_checkpoint(toy_checkpoint)
    specialist = ImageSpecialist(model.image, VIEWS.index(view))
    with torch.no_grad():
        got = specialist(torch.from_numpy(noise(16))).numpy()
    assert np.abs(got - reference(toy_checkpoint, noise(16), view)).max() < 1e-5
    own = sum(p.numel() for p in specialist.parameters())
    routers_and_expert = sum(p.numel() for p in model.image.parameters()) - own
    assert routers_and_expert > sum(p.numel() for p in model.image.blocks[0].ffn.experts[0].parameters())


def test_graphs_are_what_engines_take(exported: tuple[Bundle, dict[str, Any]]) -> None:
    bundle, _ = exported
    for name, tower in bundle.manifest.towers.items():
        model = onnx.load(bundle.path / tower.file)
        onnx.checker.check_model(model, full_check=True)
        given, given_out = model.graph.input[0], model.graph.output[0]
        assert given_out.name == "embedding" and given.name == ("tokens" if name == "text" else "crops")
        assert given.type.tensor_type.shape.dim[0].dim_param  # a name, so the batch is dynamic
        assert not any(t.data_location == onnx.TensorProto.EXTERNAL for t in model.graph.initializer)
        if name != "text":
            users = [node.op_type for node in model.graph.node if "crops" in node.input]
            assert users == ["Cast"]  # TensorRT takes uint8 into nothing else
        assert not model.metadata_props and not any(n.doc_string for n in model.graph.node)
        assert str(Path.cwd()).encode() not in model.SerializeToString()


def test_frozen_word_vectors_stay_8_bits(toy_model: dict[str, Any]) -> None:
    torch.manual_seed(2)
    config = ModelConfig(
        **{k: tuple(v) if isinstance(v, list) else v for k, v in toy_model.items()}
        | {"word_vectors": "minilm"}
    )
    model = TagClip(config, 500).eval()
    model.text.table.codes.copy_(torch.randint(-127, 128, model.text.table.codes.shape))
    model.text.table.scales.uniform_(0.001, 0.02)
    text = TextGraph(model)
    tokens = torch.ones(2, config.context_length, dtype=torch.int64)
    graph = store(to_onnx(text, tokens, "tokens"), text.int8)
    nodes = {node.op_type for node in onnx.load_model_from_string(graph).graph.node}
    assert "DequantizeLinear" in nodes and len(graph) < 2 * 500 * 96 + 100_000
    tokens = np.random.default_rng(0).integers(0, 500, (5, config.context_length))
    with torch.no_grad():
        wanted = unit(model.text(torch.from_numpy(tokens))).numpy()
    got = ort.InferenceSession(graph).run(None, {"tokens": tokens})[0]
    assert (got * wanted).sum(1).min() > 0.99999


def test_report_says_what_evaluate_says(
    exported: tuple[Bundle, dict[str, Any]], toy_checkpoint: Path, toy_data: Path
) -> None:
    bundle, report = exported
    assert json.loads(bundle.read_file("report.json")) == report
    assert report["checkpoint_predicted_view"] == evaluate_path(toy_checkpoint, toy_data, "val")
    assert report["checkpoint"] != report["checkpoint_predicted_view"]  # its routers are random
    assert report["retrieval"] == evaluate_path(bundle.path, toy_data, "val")
    assert 0 <= report["view_accuracy"] <= 1
    assert set(json.loads(bundle.read_file("scores.json"))["views"]) == set(VIEWS)


def test_probe_is_the_checkpoints(exported: tuple[Bundle, dict[str, Any]]) -> None:
    assert min(run_probe(exported[0]).values()) > 0.9999


def test_one_view_without_data(toy_checkpoint: Path, tmp_path: Path) -> None:
    bundle, report = pack.export_bundle(toy_checkpoint, tmp_path / "one", pack.Wanted(("ground",)), None)
    assert bundle.manifest.views == ("ground",) and set(report) == {"parity", "towers"}
    assert not (bundle.path / "image-aerial.onnx").exists() and not (bundle.path / "scores.json").exists()
    assert set(run_probe(bundle)) == {"image-ground", "text"}


def test_one_view_with_data(toy_checkpoint: Path, toy_data: Path, tmp_path: Path) -> None:
    """The specialist of the view stands in for the other one's pictures, on both sides."""
    bundle, report = pack.export_bundle(toy_checkpoint, tmp_path / "one", pack.Wanted(("ground",)), toy_data)
    assert bundle.manifest.views == ("ground",)
    assert report["retrieval"]["ground"] == pytest.approx(
        report["checkpoint"]["ground"]
    )  # in fp32 nothing is lost


@pytest.mark.parametrize(
    ("precision", "message"),
    [
        ("fp32", "expected a cosine of at least 0.9999"),
        ("fp16", r"fell from .*image-(aerial|ground) alone costs"),
    ],
)
def test_a_graph_of_other_weights_is_never_written(
    toy_checkpoint: Path,
    toy_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    message: str,
) -> None:
    def damaged(module: torch.nn.Module, size_px: tuple[int, ...]) -> Any:
        with torch.no_grad():
            weight = module.tower.project.weight
            weight.mul_(torch.linspace(-2, 2, len(weight))[:, None])
        return image_graph(module, size_px)

    monkeypatch.setattr(pack, "image_graph", damaged)
    with pytest.raises(ParityError, match=message):
        pack.export_bundle(toy_checkpoint, tmp_path / "out", pack.Wanted(precision=precision), toy_data)
    assert list(tmp_path.iterdir()) == []


def test_parameters_counts_weights(toy_checkpoint: Path) -> None:
    model, _, config = load_checkpoint(toy_checkpoint)
    graph = to_onnx(TextGraph(model), torch.ones(2, config.model.context_length, dtype=torch.int64), "tokens")
    own = sum(p.numel() for p in model.text.parameters())
    # Rows of positions may be folded away, a few constants of the arithmetic come in.
    assert 0.95 * own < parameters(graph) < 1.1 * own


def test_command(toy_checkpoint: Path, toy_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    arguments = [str(toy_checkpoint), "--out", str(out), "--calib", str(toy_data)]
    result = CliRunner().invoke(export, [*arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0 and set(json.loads(result.stdout)["parity"]) == {
        *open_bundle(out).manifest.towers
    }
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(OutputError, match="exists and is not empty"):
        CliRunner().invoke(export, arguments, catch_exceptions=False)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_missing_input_is_named(toy_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected .*config.json, found none"):
        pack.export_bundle(tmp_path, tmp_path / "out", pack.Wanted(), None)
    with pytest.raises(DataError, match="expected .*train_reid.json, found none"):
        pack.export_bundle(toy_checkpoint, tmp_path / "out", pack.Wanted(), tmp_path)
    assert list(tmp_path.iterdir()) == []

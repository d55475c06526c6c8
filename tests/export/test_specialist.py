"""Specialists of every kind of model: exact before the export, the same numbers after it, and searchable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("open_clip")
pytest.importorskip("onnxscript")
ort = pytest.importorskip("onnxruntime")

from click.testing import CliRunner

from tagclip.export.cli import export
from tagclip.export.specialist import ImageSpecialist, TextGraph
from tagclip.export.to_onnx import store, to_onnx
from tagclip.runtime.bundle import open_bundle
from tagclip.runtime.encoder import ImageEncoder, TextEncoder
from tagclip.runtime.search_cli import search
from tagclip.runtime.views import VIEWS
from tagclip.train.checkpoint import load_checkpoint
from tagclip.train.clip_models import VOCABULARY
from tagclip.train.config import ModelConfig
from tagclip.train.model import TagClip, unit
from tagclip.train.words import encode

KINDS = ["toy_checkpoint", "tse_checkpoint", "clip_checkpoint"]
TEXTS = ["a man in a red shirt", "a person in a blue jacket", "man"]


@pytest.fixture(params=KINDS)
def checkpoint(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(9).integers(0, 256, (count, 32, 16, 3), dtype=np.uint8)


def routed(model: TagClip, crops: np.ndarray, view: int) -> np.ndarray:
    with torch.no_grad():
        return unit(model.image(torch.from_numpy(crops), torch.full((len(crops),), view))[0]).numpy()


@pytest.mark.parametrize("view", [0, 1])
def test_a_specialist_is_the_routed_model(checkpoint: Path, view: int) -> None:
    model, _, _ = load_checkpoint(checkpoint)
    specialist = ImageSpecialist(model.image, view)
    with torch.no_grad():
        got = specialist(torch.from_numpy(noise(16))).numpy()
    assert (got * routed(model, noise(16), view)).sum(1).min() > 0.999999
    assert (got * routed(model, noise(16), 1 - view)).sum(1).min() < 0.99, "the views must differ"
    names = {name for name, _ in specialist.named_parameters()}
    assert not any("image_router" in name for name in names)
    assert any("experts.2." in name for name in names) and not any("experts.3." in name for name in names)
    assert any("image_router" in name for name, _ in model.named_parameters()), (
        "the model itself is untouched"
    )


@pytest.fixture(scope="module", params=["tse_checkpoint", "clip_checkpoint"])
def exported(
    request: pytest.FixtureRequest, toy_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, dict[str, Any]]:
    """A checkpoint, its bundle, and what the command printed."""
    checkpoint = request.getfixturevalue(request.param)
    out = tmp_path_factory.mktemp("export") / "bundle"
    arguments = [str(checkpoint), "--out", str(out), "--calib", str(toy_data), "--json"]
    result = CliRunner().invoke(export, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return checkpoint, out, json.loads(result.stdout)


@pytest.mark.parametrize("view", VIEWS)
def test_a_bundle_gives_what_pytorch_gives(exported: tuple[Path, Path, dict[str, Any]], view: str) -> None:
    checkpoint, out, report = exported
    bundle = open_bundle(out)
    model, tokenizer_json, _ = load_checkpoint(checkpoint)
    assert bundle.manifest.embedding_dim == model.dim and "view_accuracy" in report
    got = ImageEncoder(bundle, view).embed(list(noise(5)))
    assert (got * routed(model, noise(5), VIEWS.index(view))).sum(1).min() > 0.99999
    with torch.no_grad():
        tokens = torch.from_numpy(encode(tokenizer_json, TEXTS, model.context_length))
        wanted = unit(model.text(tokens)).numpy()
    assert (TextEncoder(bundle).embed(TEXTS) * wanted).sum(1).min() > 0.99999


def test_search_with_a_bundle(exported: tuple[Path, Path, dict[str, Any]], toy_data: Path) -> None:
    checkpoint, out, _ = exported
    pictures = toy_data / "images" / "test"
    query = "A person in a red jacket, 5'8\", Adidas(R) shoes!"
    arguments = [query, str(pictures), "--bundle", str(out), "--view", "ground", "--json"]
    result = CliRunner().invoke(search, arguments, catch_exceptions=False)
    ranked = json.loads(result.stdout)["results"]
    assert result.exit_code == 0 and len(ranked) > 1
    # The score is the mean of the global and the local cosine of the checkpoint (eq. 14), through files and back.
    import cv2

    model, tokenizer_json, _ = load_checkpoint(checkpoint)
    best = cv2.imread(ranked[0]["best"]["crop"])[..., ::-1]
    crop = cv2.resize(np.ascontiguousarray(best), (16, 32), interpolation=cv2.INTER_AREA)
    with torch.no_grad():
        image, _ = model.image(torch.from_numpy(crop[None].copy()), torch.tensor([1]))
        text = model.text(torch.from_numpy(encode(tokenizer_json, [query], model.context_length)))
        cosines = [torch.cosine_similarity(image[k], text[k]).item() for k in (0, 1)]
    assert ranked[0]["score"] == pytest.approx(sum(cosines) / 2, abs=1e-3)


@pytest.mark.parametrize(
    "changes",
    [
        {"router": "token", "selected": 2},  # vanilla MoE, sparse by token
        {"selected": 2},  # HR-MoE, sparse by token
        {"moe_layers": ()},  # plain CLIP
        {"tse_ratio": 0.3, "tse_dim": 8, "moe_layers": (2,)},  # the view token is there to the last block
    ],
)
def test_other_mixtures_export(tiny_clip: str, changes: dict[str, Any]) -> None:
    values: dict[str, Any] = {"clip": tiny_clip, "height_px": 32, "width_px": 16, "moe_layers": (0, 1)}
    torch.manual_seed(0)
    model = TagClip(ModelConfig(**values | {"experts": 4, "selected": 3} | changes), VOCABULARY).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if "router" in name:
                tensor.normal_()
            elif "experts" in name and name.endswith("weight"):
                tensor.mul_(torch.empty_like(tensor).uniform_(0.3, 2))
    graph = to_onnx(ImageSpecialist(model.image, 1), torch.zeros(2, 32, 16, 3, dtype=torch.uint8), "crops")
    session = ort.InferenceSession(store(graph, half=False))
    for count in (1, 5):
        got = session.run(None, {"crops": noise(count)})[0]
        assert (got * routed(model, noise(count), 1)).sum(1).min() > 0.99999


def test_a_text_graph_takes_short_and_long_texts(clip_checkpoint: Path) -> None:
    model, tokenizer_json, _ = load_checkpoint(clip_checkpoint)
    texts = [*TEXTS, "red, " * 100, "x"]
    tokens = encode(tokenizer_json, texts, model.context_length)
    graph = to_onnx(TextGraph(model), torch.ones(2, model.context_length, dtype=torch.int64), "tokens")
    got = ort.InferenceSession(store(graph, half=False)).run(None, {"tokens": tokens})[0]
    with torch.no_grad():
        wanted = unit(model.text(torch.from_numpy(tokens))).numpy()
    assert (got * wanted).sum(1).min() > 0.99999

"""Weights of real files, safetensors and TorchScript, into the towers; what does not fit is named."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
open_clip = pytest.importorskip("open_clip")

import torch.nn.functional as F
from safetensors.torch import save_file

from tagclip.runtime.errors import CheckpointError
from tagclip.train.clip_models import VOCABULARY, open_clip_config
from tagclip.train.config import ModelConfig
from tagclip.train.model import TagClip
from tagclip.train.pretrained import load_pretrained, read_weights

SENTENCES = ["a man in a red jacket", "woman with a black backpack", "guy"]


def ours(name: str, **changes: Any) -> TagClip:
    values: dict[str, Any] = {"clip": name, "height_px": 32, "width_px": 32, "moe_layers": (1,), "experts": 4}
    torch.manual_seed(1)
    return TagClip(ModelConfig(**values | changes), VOCABULARY).eval()


@pytest.fixture(scope="module")
def theirs(tiny_clip: str) -> Any:
    torch.manual_seed(2)
    made = open_clip.CLIP(**open_clip_config(tiny_clip)).eval()
    with torch.no_grad():
        made.logit_scale.fill_(3.25)
    return made


def save(model: Any, path: Path, **changes: torch.Tensor) -> Path:
    tensors = {k: v.detach().clone().contiguous() for k, v in model.state_dict().items()}
    save_file(tensors | changes, path)
    return path


def archive(model: Any, path: Path) -> Path:
    """What OpenAI published: a traced model in half precision, with three facts among its weights."""
    half = open_clip.CLIP(**open_clip_config("tiny-vit")).eval()
    half.load_state_dict(model.state_dict())
    for name, value in (("input_resolution", 32), ("context_length", 77), ("vocab_size", VOCABULARY)):
        vars(half).pop(name, None)
        half.register_buffer(name, torch.tensor(value))
    traced = torch.jit.trace_module(
        half,
        {"encode_image": torch.zeros(1, 3, 32, 32), "encode_text": open_clip.tokenize(["a man"])},
        check_trace=False,
    )
    traced.half().save(str(path))
    return path


@pytest.fixture(scope="module")
def files(theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    import warnings

    folder = tmp_path_factory.mktemp("weights")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls TorchScript deprecated; OpenAI's file stays one
        jit = archive(theirs, folder / "tiny.pt")
    return {"safetensors": save(theirs, folder / "tiny.safetensors"), "archive": jit}


@torch.no_grad()
@pytest.mark.parametrize(("kind", "tolerance"), [("safetensors", 1e-5), ("archive", 5e-3)])  # fp16 is coarse
def test_the_towers_give_what_open_clip_gives(
    tiny_clip: str, theirs: Any, files: dict[str, Path], kind: str, tolerance: float
) -> None:
    model = ours(tiny_clip, selected=3, tse_ratio=0.3, tse_dim=8)
    for k in (model.image.resblocks[1].mlp.image_router, model.image.resblocks[1].mlp.token_router):
        torch.nn.init.normal_(k.weight)
    kept = {n: p.clone() for n, p in model.named_parameters() if "router" in n or "tse" in n or "view_" in n}
    images = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    pixels = (images / 255 - model.image.mean / 255) / (model.image.std / 255)
    wanted = (
        theirs.encode_image(pixels.permute(0, 3, 1, 2)),
        theirs.encode_text(open_clip.tokenize(SENTENCES)),
    )
    model.image.blind = True
    before = model.image(images)[0].whole
    assert (before - wanted[0]).abs().max() > 0.1

    load_pretrained(model, files[kind])
    found = model.image(images)[0].whole, model.text(open_clip.tokenize(SENTENCES)).whole
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=tolerance, rtol=0)
        assert a.dtype == torch.float32
    assert model.log_scale.item() == 3.25
    after = dict(model.named_parameters())
    assert kept and all(torch.equal(after[n], tensor) for n, tensor in kept.items())


def test_an_archives_tensors_are_those_that_torch_reads(files: dict[str, Path]) -> None:
    """Against torch.jit.load, which runs the archive's program to get at them."""
    found = read_weights(files["archive"])
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = torch.jit.load(str(files["archive"])).state_dict()
    assert set(wanted) <= set(found)
    assert all(torch.equal(found[k], v) and found[k].dtype == v.dtype for k, v in wanted.items())


@torch.no_grad()
def test_positions_are_resized_bilinearly(tiny_clip: str, theirs: Any, files: dict[str, Path]) -> None:
    model = ours(tiny_clip, height_px=64, width_px=16, moe_layers=())
    load_pretrained(model, files["safetensors"])
    source = theirs.visual.positional_embedding
    found = model.image.positional_embedding
    assert torch.equal(found[0], source[0]) and found.shape == (1 + 8 * 2, 32)
    grid = source[1:].view(4, 4, 32).numpy()
    rows, columns = [(k + 0.5) / 2 - 0.5 for k in range(8)], [(k + 0.5) * 2 - 0.5 for k in range(2)]
    for r, y in enumerate(rows):  # by hand: the four neighbours of each point, clamped at the border
        for c, x in enumerate(columns):
            y0, x0 = max(0, int(y // 1)), max(0, int(x // 1))
            y1, x1 = min(3, y0 + 1), min(3, x0 + 1)
            fy, fx = max(0.0, y - y0), max(0.0, x - x0)
            top = grid[y0, x0] * (1 - fx) + grid[y0, x1] * fx
            bottom = grid[y1, x0] * (1 - fx) + grid[y1, x1] * fx
            expected = torch.from_numpy(top * (1 - fy) + bottom * fy)
            torch.testing.assert_close(found[1 + r * 2 + c], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"visual.conv1.weight": torch.zeros(32, 3, 16, 16)},
            r"image.conv1.weight is \[32, 3, 8, 8\], found \[32, 3, 16, 16\]",
        ),
        (
            {"text_projection": torch.zeros(32, 8)},
            r"text.text_projection is \[32, 16\], found \[32, 8\]",
        ),
        ({"visual.positional_embedding": torch.zeros(50, 32)}, r"with 4x4 patches, found .* \[50, 32\]"),
        (
            {"visual.transformer.resblocks.3.ln_1.bias": torch.zeros(32)},
            "has no weight image.resblocks.3.ln_1.bias",
        ),
        ({"state": torch.zeros(2)}, "has no weight text.state"),
    ],
)
def test_another_architecture_is_named(
    tiny_clip: str, theirs: Any, tmp_path: Path, change: dict[str, torch.Tensor], message: str
) -> None:
    path = save(theirs, tmp_path / "x.safetensors", **change)
    model = ours(tiny_clip)
    before = model.image.ln_post.weight.clone(), model.text.text_projection.clone()
    with pytest.raises(CheckpointError, match=message):
        load_pretrained(model, path)
    assert torch.equal(model.text.text_projection, before[1]), "nothing is half loaded"


def test_a_missing_weight_is_named(tiny_clip: str, theirs: Any, tmp_path: Path) -> None:
    tensors = {k: v.clone() for k, v in theirs.state_dict().items() if k != "visual.ln_post.bias"}
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="found no image.ln_post.bias"):
        load_pretrained(ours(tiny_clip), tmp_path / "x.safetensors")


class Hostile:
    """Runs a command when it is unpickled by what trusts it."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize(
    "kind", ["nothing", "folder", "text", "truncated", "pickle", "hostile", "other zip", "plain torch"]
)
def test_what_is_no_such_file_is_refused(
    tiny_clip: str, files: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    path, touched = tmp_path / "weights.pt", tmp_path / "touched"
    message = "cannot be read as one"
    if kind == "nothing":
        message = "found no file; nothing is downloaded"
    elif kind == "folder":
        path.mkdir()
        message = "found no file"
    elif kind == "text":
        path.write_text("version https://git-lfs.github.com/spec/v1")
    elif kind == "truncated":
        path.write_bytes(files["archive"].read_bytes()[:-2000])
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(Hostile(touched)))
    elif kind in ("hostile", "other zip"):
        with zipfile.ZipFile(path, "w") as made:
            made.writestr("archive/version", "3\n")
            made.writestr("archive/data.pkl", pickle.dumps(Hostile(touched), 2) if kind == "hostile" else b"")
    else:
        torch.save({"visual.proj": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match=message):
        load_pretrained(ours(tiny_clip), path)
    assert not touched.exists()


@torch.no_grad()
def test_vit_b_16_from_a_file(tmp_path: Path) -> None:
    """The real architecture: experts upcycled from the file, view token not seen, equal to open_clip to 1e-5."""
    torch.manual_seed(3)
    reference = open_clip.CLIP(**open_clip_config("ViT-B-16-quickgelu")).eval()
    path = save(reference, tmp_path / "vit.safetensors")
    model = ours("ViT-B-16-quickgelu", height_px=224, width_px=224, moe_layers=(6, 7, 8), selected=3)
    load_pretrained(model, path)
    path.unlink()
    model.image.blind = True
    images = torch.randint(0, 256, (1, 224, 224, 3), dtype=torch.uint8)
    pixels = ((images - model.image.mean) / model.image.std).permute(0, 3, 1, 2)
    wanted = reference.encode_image(pixels)
    found = model.image(images)[0].whole
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    assert F.cosine_similarity(found, wanted).item() > 0.99999
    tokens = open_clip.tokenize(SENTENCES)
    torch.testing.assert_close(model.text(tokens).whole, reference.encode_text(tokens), atol=1e-5, rtol=0)

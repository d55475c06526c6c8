"""A small bundle with real graphs and a real tokenizer, made without torch; versions in the header."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import io
import json
import os
import pickle
import platform
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tagclip.runtime import cli
from tagclip.runtime.bundle import Bundle
from tagclip.runtime.bundle_manifest import TowerFacts
from tagclip.runtime.bundle_write import write_bundle
from tagclip.runtime.preprocess import PreprocessSpec
from tagclip.runtime.source import VideoSource
from tagclip.runtime.views import VIEWS

DIM = 16
CONTEXT = 12
HEIGHT_PX, WIDTH_PX = 32, 16

# What the toy language knows: a colour word means its colour, the other words nearly nothing.
COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 180, 40),
    "blue": (30, 50, 220),
    "yellow": (230, 220, 40),
    "black": (10, 10, 10),
    "white": (245, 245, 245),
}
WORDS = ["[PAD]", "[UNK]", *COLOURS, "a", "person", "man", "woman", "in", "jacket", "shirt", ","]


def pytest_report_header() -> str:
    found = []
    for package in (
        "tagclip",
        "numpy",
        "opencv-python-headless",
        "onnxruntime",
        "tokenizers",
        "torch",
        "onnx",
    ):
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{package} absent")
    return f"python {platform.python_version()}: " + ", ".join(found)


def _colour_matrix(view: str) -> npt.NDArray[np.float32]:
    """(6, DIM): colours of the upper and the lower half -> the common space; views differ a little."""
    matrix = np.random.default_rng(1).normal(size=(6, DIM))
    matrix += 0.05 * np.random.default_rng(VIEWS.index(view) + 2).normal(size=(6, DIM))
    return matrix.astype(np.float32)


def _image_graph(view: str) -> bytes:
    from onnx import TensorProto, helper

    constants = {
        "halves": np.array([0, 2, HEIGHT_PX // 2 * WIDTH_PX, 3], np.int64),
        "flat": np.array([0, 6], np.int64),
        "middle": np.array(127.5, np.float32),
        "matrix": _colour_matrix(view),
        "tiny": np.array(1e-6, np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["crops"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["pixels", "halves"], ["halved"]),
        helper.make_node("ReduceMean", ["halved"], ["colours"], axes=[2], keepdims=0),
        helper.make_node("Reshape", ["colours", "flat"], ["six"]),
        helper.make_node("Sub", ["six", "middle"], ["centred"]),
        helper.make_node("MatMul", ["centred", "matrix"], ["raw"]),
    ]
    crops = helper.make_tensor_value_info("crops", TensorProto.UINT8, ["N", HEIGHT_PX, WIDTH_PX, 3])
    return _finish(nodes, crops, constants)


def _text_graph() -> bytes:
    from onnx import TensorProto, helper

    matrix = (_colour_matrix("aerial") + _colour_matrix("ground")) / 2
    table = np.random.default_rng(5).normal(size=(len(WORDS), DIM)).astype(np.float32)
    table[WORDS.index("[PAD]")] = 0
    for word, colour in COLOURS.items():
        table[WORDS.index(word)] = (np.array([*colour, *colour], np.float32) - 127.5) @ matrix
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["words"]),
        helper.make_node("ReduceMean", ["words"], ["raw"], axes=[1], keepdims=0),
    ]
    tokens = helper.make_tensor_value_info("tokens", TensorProto.INT64, ["N", CONTEXT])
    return _finish(nodes, tokens, {"table": table, "tiny": np.array(1e-6, np.float32)})


def _finish(nodes: list, graph_input: object, constants: dict[str, npt.NDArray]) -> bytes:
    """Add the L2 norm and the output `embedding`, serialise."""
    from onnx import TensorProto, checker, helper, numpy_helper

    nodes = [
        *nodes,
        helper.make_node("ReduceL2", ["raw"], ["length"], axes=[1], keepdims=1),
        helper.make_node("Max", ["length", "tiny"], ["safe"]),
        helper.make_node("Div", ["raw", "safe"], ["embedding"]),
    ]
    embedding = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", DIM])
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "toy", [graph_input], [embedding], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    return model.SerializeToString()


def _tokenizer_json() -> bytes:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    vocabulary = {word: index for index, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer.to_str().encode()


def _reference_image(crops: npt.NDArray[np.uint8], view: str) -> npt.NDArray[np.float32]:
    """The image graph in plain numpy, so that the probe is not the engine's own last run."""
    halves = crops.reshape(len(crops), 2, -1, 3).mean(axis=2).reshape(len(crops), 6) - 127.5
    vectors = halves @ _colour_matrix(view)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def _reference_text(colours: list[str]) -> npt.NDArray[np.float32]:
    matrix = (_colour_matrix("aerial") + _colour_matrix("ground")) / 2
    vectors = np.array([(np.array([*COLOURS[c], *COLOURS[c]]) - 127.5) @ matrix for c in colours])
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="session")
def tiny_parts() -> dict:
    """The arguments of `write_bundle` for the toy bundle; copy before you change them."""
    crops = np.random.default_rng(0).integers(0, 256, (3, HEIGHT_PX, WIDTH_PX, 3), dtype=np.uint8)
    probe = io.BytesIO()
    np.savez(
        probe,
        crops=crops,
        vectors_aerial=_reference_image(crops, "aerial"),
        vectors_ground=_reference_image(crops, "ground"),
        texts=np.array(["red", "blue"]),
        vectors_text=_reference_text(["red", "blue"]),
    )
    row = {"r1": 50.0, "r5": 75.0, "r10": 100.0, "map": 60.5, "minp": 40.25, "queries": 8, "gallery": 4}
    return {
        "name": "toy",
        "towers": {
            "image-aerial": TowerFacts("fp32", 6 * DIM),
            "image-ground": TowerFacts("fp32", 6 * DIM),
            "text": TowerFacts("fp32", len(WORDS) * DIM),
        },
        "graphs": {
            "image-aerial": _image_graph("aerial"),
            "image-ground": _image_graph("ground"),
            "text": _text_graph(),
        },
        "tokenizer_json": _tokenizer_json(),
        "preprocess": PreprocessSpec(HEIGHT_PX, WIDTH_PX),
        "embedding_dim": DIM,
        "context_length": CONTEXT,
        "pad_id": 0,
        "licence": "Apache-2.0",
        "provenance": {"made_by": "tests"},
        "extra_files": {
            "probe.npz": probe.getvalue(),
            "report.json": json.dumps({"retrieval": {"all": row, "aerial": row, "ground": row}}).encode(),
        },
    }


@pytest.fixture(scope="session")
def tiny_bundle(tiny_parts: dict, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle whose encoders really rank colours: "red" is nearest to a red crop. Copy it to damage it."""
    path: Path = tmp_path_factory.mktemp("bundle") / "toy"
    return write_bundle(path, **tiny_parts)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run `tagclip` in this process: (exit status, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_:
            cli.main([str(argument) for argument in arguments])
        return exit_.value.code, *capsys.readouterr()  # type: ignore[return-value]

    return run


@pytest.fixture
def one_playing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A video that is searched many times is played once: who is in it does not depend on the description."""
    from tagclip.runtime import search

    find_people = search.find_people
    played: dict[Path, search.People] = {}

    def remembered(source: VideoSource, *arguments: Any, **options: Any) -> search.People:
        if source.path not in played:
            played[source.path] = find_people(source, *arguments, **options)
        return played[source.path]

    monkeypatch.setattr(search, "find_people", remembered)


TOY_MODEL = {
    "height_px": HEIGHT_PX,
    "width_px": WIDTH_PX,
    "stem": [8, 16],
    "stem_blocks": [0, 1],
    "layers": 3,
    "heads": 2,
    "moe_layers": [0, 1],
    "experts": 4,
    "selected": 2,
    "text_width": 16,
    "text_layers": 1,
    "text_heads": 2,
    "context_length": CONTEXT,
    "embedding_dim": DIM,
    "word_vectors": "none",
}


@pytest.fixture(scope="session")
def toy_model() -> dict[str, Any]:
    """The section `model` of a configuration so small that a step takes milliseconds; copy before you change it."""
    return TOY_MODEL


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder: people whose whole crop has the colour that their captions name; the air is seen darker.

    Every split has one identity a colour and both views: 6 x 12 images in train, 6 x 4 in val and in test.
    """
    import cv2

    folder = tmp_path_factory.mktemp("toy") / "data"
    rng = np.random.default_rng(3)
    identity = 0
    for split, count in (("train", 12), ("val", 4), ("test", 4)):
        (folder / "images" / split).mkdir(parents=True)
        rows = []
        for colour, rgb in COLOURS.items():
            for k in range(count):
                view = k % 2
                picture = np.array(rgb) * (0.75 if view == 0 else 1) + rng.normal(0, 8, (40, 20, 3))
                name = f"{split}/{identity}_{k}.png"
                cv2.imwrite(
                    str(folder / "images" / name), picture.clip(0, 255).astype(np.uint8)[..., ::-1].copy()
                )
                captions = [f"A man in a {colour} shirt.", f"a person in a {colour} jacket"]
                rows.append({"file_path": name, "id": identity, "cam_id": view, "captions": captions})
            identity += 1
        (folder / f"{split}_reid.json").write_text(json.dumps(rows))
    return folder


def _write_checkpoint(folder: Path, data: Path, model_values: dict[str, Any], words: Any) -> Path:
    """A checkpoint with random weights that make every part matter: routers that decide, norms that shift."""
    import torch

    from tagclip.train.checkpoint import write_json, write_tensors
    from tagclip.train.config import Config
    from tagclip.train.model import TagClip

    values = {"name": "toy", "data": str(data), "model": model_values, "train": {"word_dropout": 0.0}}
    config = Config.from_json(values)
    torch.manual_seed(0)
    model = TagClip(config.model, words.vocabulary)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if "router" in name:
                tensor.normal_()
            elif "running_var" in name or name.endswith("norm.weight"):
                tensor.uniform_(0.5, 2)
            elif "running_mean" in name or name.endswith("norm.bias"):
                tensor.normal_(std=0.3)
            elif "experts" in name and name.endswith("weight"):  # of an open_clip tower they begin equal
                tensor.mul_(torch.empty_like(tensor).uniform_(0.3, 2))
    write_tensors(folder / "model.safetensors", model.state_dict())
    write_json(folder / "config.json", config.to_json())
    (folder / "tokenizer.json").write_text(words.tokenizer_json, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def toy_checkpoint(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model from scratch, with random weights."""
    pytest.importorskip("torch")
    from tagclip.train.data import load_split
    from tagclip.train.words import build_words

    captions = [caption for sample in load_split(toy_data, "train") for caption in sample.captions]
    folder = tmp_path_factory.mktemp("toy") / "checkpoint"
    return _write_checkpoint(folder, toy_data, TOY_MODEL, build_words("none", captions))


@pytest.fixture(scope="session")
def trained_checkpoint(toy_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy after a training of a kind: no two of its tensors are equal, which a graph would keep once."""
    import torch

    from tagclip.train.checkpoint import read_tensors, write_tensors

    folder: Path = tmp_path_factory.mktemp("trained") / "checkpoint"
    shutil.copytree(toy_checkpoint, folder)
    torch.manual_seed(5)
    tensors = {
        name: value + 0.1 * torch.randn_like(value)
        if value.is_floating_point() and "running" not in name
        else value
        for name, value in read_tensors(folder / "model.safetensors").items()
    }
    write_tensors(folder / "model.safetensors", tensors)
    return folder


@pytest.fixture(scope="session")
def tse_checkpoint(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with token selection."""
    pytest.importorskip("torch")
    from tagclip.train.data import load_split
    from tagclip.train.words import build_words

    captions = [caption for sample in load_split(toy_data, "train") for caption in sample.captions]
    folder = tmp_path_factory.mktemp("toy") / "tse"
    values = TOY_MODEL | {"tse_ratio": 0.3, "tse_dim": 24}
    return _write_checkpoint(folder, toy_data, values, build_words("none", captions))


TINY_CLIP = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 3, "width": 32, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 2},
}


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Name of an open_clip model, real in all but its size, that open_clip knows from here on."""
    open_clip = pytest.importorskip("open_clip")
    path: Path = tmp_path_factory.mktemp("open_clip") / "tiny-vit.json"
    path.write_text(json.dumps(TINY_CLIP))
    open_clip.add_model_config(path)
    return path.stem


TINY_TAG_CLIP = {
    "clip": "tiny-vit",
    "height_px": HEIGHT_PX,
    "width_px": WIDTH_PX,
    "normalise": "imagenet",
    "moe_layers": [1],
    "experts": 4,
    "selected": 3,
    "tse_ratio": 0.3,
    "tse_dim": 24,
}


@pytest.fixture(scope="session")
def clip_checkpoint(tiny_clip: str, toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TAG-CLIP on open_clip towers, small, with random weights: HR-MoE, view token, TSE, CLIP's tokenizer."""
    from tagclip.train.clip_words import clip_words

    folder = tmp_path_factory.mktemp("toy") / "clip"
    return _write_checkpoint(folder, toy_data, TINY_TAG_CLIP | {"clip": tiny_clip}, clip_words())


Once = Callable[[bytes, Callable[[], bytes]], bytes]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Make some bytes once in a run of the tests: what one worker of pytest-xdist has made, the other reads."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "once"
    folder.mkdir(exist_ok=True)

    def once(key: bytes, make: Callable[[], bytes]) -> bytes:
        path = folder / hashlib.sha256(key).hexdigest()
        with open(path.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                made = path.with_suffix(".part")
                made.write_bytes(make())
                made.rename(path)
        return path.read_bytes()

    return once


def _everything(*values: object) -> bytes:
    """All that modules are made of, in bytes: classes, attributes, weights, and which of those are one tensor."""
    import torch

    tensors: dict[int, int] = {}

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: object) -> object:
            if not isinstance(value, torch.Tensor):
                return None
            number = tensors.setdefault(id(value), len(tensors))
            return number, str(value.dtype), tuple(value.shape), value.detach().numpy().tobytes()

    file = io.BytesIO()
    pickler = Pickler(file)
    pickler.fast = True  # without a memo, in which equal names of another process are other objects
    pickler.dump(values)
    return file.getvalue()


@pytest.fixture(scope="session")
def exported_once(once: Once) -> Iterator[None]:
    """torch's exporter takes seconds for each graph; the same module with the same weights goes through it once."""
    import onnx
    import torch

    export = torch.onnx.export

    def remembered(
        module: torch.nn.Module, examples: tuple[torch.Tensor, ...], **how: Any
    ) -> SimpleNamespace:
        key = _everything(module, examples) + repr(sorted(how.items())).encode()
        made = once(key, lambda: export(module, examples, **how).model_proto.SerializeToString())
        return SimpleNamespace(model_proto=onnx.load_model_from_string(made))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.onnx, "export", remembered)
        yield

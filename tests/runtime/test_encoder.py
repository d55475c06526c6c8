"""Encoders on real ONNX graphs: the vectors, and every way in which an engine is refused."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tagclip.runtime.encoder as encoder_module
import tagclip.runtime.engines as engines_module
from tagclip.runtime.bundle import Bundle
from tagclip.runtime.bundle_manifest import TensorSpec, Tower, TowerFacts
from tagclip.runtime.bundle_write import write_bundle
from tagclip.runtime.encoder import ImageEncoder, TextEncoder, serving
from tagclip.runtime.engine import OrtEngine
from tagclip.runtime.errors import BundleSelfTestError, ConfigError, EngineError, MissingExtraError
from tagclip.runtime.selftest import run_probe


def crops(count: int, seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    sizes = random.integers(5, 90, (count, 2))
    return [random.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in sizes]


@pytest.mark.parametrize("view", ["aerial", "ground", "auto"])
def test_batches_do_not_change_vectors(tiny_bundle: Bundle, view: str) -> None:
    encoder, some = ImageEncoder(tiny_bundle, view), crops(encoder_module.BATCH + 3)
    vectors = encoder.embed(some)
    assert vectors.shape == (67, 16) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    alone = np.concatenate([encoder.embed([crop]) for crop in some])
    np.testing.assert_allclose(vectors, alone, atol=1e-6)


def test_the_engine_gives_the_reference_vectors(tiny_bundle: Bundle) -> None:
    """The probe's vectors were computed in plain numpy (tests/fixtures/graphs.py)."""
    cosines = run_probe(tiny_bundle)
    assert list(cosines) == ["image-aerial", "image-ground", "text"]
    assert min(cosines.values()) > 0.99999


def test_auto_is_the_normalised_mean_of_the_specialists(tiny_bundle: Bundle) -> None:
    some = crops(5)
    aerial, ground = (ImageEncoder(tiny_bundle, view).embed(some) for view in ("aerial", "ground"))
    assert np.abs(aerial - ground).max() > 0.01  # else the test could not fail
    mean = (aerial + ground) / 2
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(ImageEncoder(tiny_bundle, "auto").embed(some), mean, atol=1e-6)


@pytest.mark.parametrize("view", ["aerial", "ground", "auto"])
def test_words_find_colours(tiny_bundle: Bundle, view: str) -> None:
    colours = {"red": (220, 30, 30), "green": (30, 180, 40), "blue": (30, 50, 220), "white": (245, 245, 245)}
    people = [np.full((50, 20, 3), colour, np.uint8) for colour in colours.values()]
    scores = TextEncoder(tiny_bundle).embed(list(colours)) @ ImageEncoder(tiny_bundle, view).embed(people).T
    assert scores.argmax(axis=1).tolist() == [0, 1, 2, 3]


def test_nothing_in_gives_an_empty_result(tiny_bundle: Bundle) -> None:
    for empty in (ImageEncoder(tiny_bundle, "auto").embed([]), TextEncoder(tiny_bundle).embed([])):
        assert empty.shape == (0, 16) and empty.dtype == np.float32


def test_only_the_view_that_is_used_is_loaded_and_once(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []

    class Counting(OrtEngine):
        def __init__(self, graph: bytes, tower: Tower, **options: object) -> None:
            loaded.append(tower.name)
            super().__init__(graph, tower, **options)

    monkeypatch.setattr(engines_module, "OrtEngine", Counting)
    image, text = ImageEncoder(tiny_bundle, "ground"), TextEncoder(tiny_bundle)
    assert loaded == []
    for _ in range(2):
        image.embed(crops(2))
        text.embed(["red"])
    assert loaded == ["image-ground", "text"]


def test_unknown_views(tiny_bundle: Bundle) -> None:
    with pytest.raises(
        ConfigError, match="view 'sky': this bundle has aerial, ground; choose one of these or auto"
    ):
        ImageEncoder(tiny_bundle, "sky")


def test_threads_do_not_change_vectors(tiny_bundle: Bundle) -> None:
    one, two = (ImageEncoder(tiny_bundle, "aerial", threads=n).embed(crops(4)) for n in (1, 2))
    np.testing.assert_allclose(one, two, atol=1e-6)


# --- what an engine refuses ---

TOWER = Tower(
    "text",
    "t.onnx",
    None,
    TensorSpec("tokens", "int64", ("N", 2)),
    TensorSpec("embedding", "float32", ("N", 2)),
    TowerFacts("fp32", 0),
)


def graph(
    *,
    input_name: str = "tokens",
    input_type: int = TensorProto.INT64,
    input_shape: tuple[int | str, ...] = ("N", 2),
    output_name: str = "embedding",
    output_shape: tuple[int | str, ...] = ("N", 2),
    add: float = 0.0,
) -> onnx.ModelProto:
    """float(tokens) + add: enough to be wrong in every way."""
    nodes = [
        helper.make_node("Cast", [input_name], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["float", "add"], [output_name]),
    ]
    model = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(input_name, input_type, input_shape)],
        [helper.make_tensor_value_info(output_name, TensorProto.FLOAT, output_shape)],
        [numpy_helper.from_array(np.array([add], np.float32), "add")],
    )
    return helper.make_model(model, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_the_graph_itself_is_fine() -> None:
    engine = OrtEngine(graph(add=0.5).SerializeToString(), TOWER)
    assert engine.run(np.array([[1, 2]])).tolist() == [[1.5, 2.5]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_name": "ids"}, r"expected one input named tokens, found \['ids'\]"),
        ({"input_type": TensorProto.INT32}, r"expected input int64, found tensor\(int32\)"),
        (
            {"input_shape": ("N", 3), "output_shape": ("N", 3)},
            r"expected input shape \['N', 2\], found \['N', 3\]",
        ),
        ({"input_shape": (1, 2), "output_shape": (1, 2)}, r"expected input shape \['N', 2\], found \[1, 2\]"),
        ({"output_name": "vector"}, r"expected one output named embedding, found \['vector'\]"),
    ],
)
def test_a_graph_that_is_not_what_the_manifest_says(change: dict, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        OrtEngine(graph(**change).SerializeToString(), TOWER)


def test_a_graph_with_longer_vectors_than_the_manifest_says() -> None:
    longer = dataclasses.replace(TOWER, output=TensorSpec("embedding", "float32", ("N", 3)))
    with pytest.raises(EngineError, match=r"expected output shape \['N', 3\], found \['N', 2\]"):
        OrtEngine(graph().SerializeToString(), longer)


@pytest.mark.parametrize("data", [b"", b"not a graph", graph().SerializeToString()[:-20]])
def test_bytes_that_are_no_graph(data: bytes) -> None:
    with pytest.raises(EngineError, match="t.onnx: onnxruntime .* refuses the graph"):
        OrtEngine(data, TOWER)


def test_weights_outside_of_the_graph_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where onnxruntime would look for them
    onnx.save(graph(), "g.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert Path("weights.bin").exists()
    with pytest.raises(EngineError, match="refuses the graph"):
        OrtEngine(Path("g.onnx").read_bytes(), TOWER)
    model = onnx.load("g.onnx", load_external_data=False)
    (location,) = (entry for entry in model.graph.initializer[0].external_data if entry.key == "location")
    location.value = f"../{tmp_path.name}/weights.bin"
    with pytest.raises(EngineError, match="refuses the graph"):
        OrtEngine(model.SerializeToString(), TOWER)


@pytest.mark.parametrize(
    "array", [np.zeros((1, 3), np.int64), np.zeros((1, 2), np.int32), np.zeros((0, 2), np.int64)]
)
def test_arrays_that_do_not_fit(array: np.ndarray) -> None:
    with pytest.raises(EngineError, match=r"expected int64 \['N', 2\], got"):
        OrtEngine(graph().SerializeToString(), TOWER).run(array)


def scaled(parts: dict, path: Path, factor: float) -> Bundle:
    """The toy bundle with text vectors of that length."""
    model = onnx.load_from_string(parts["graphs"]["text"])
    model.graph.node[-1].output[0] = "before"
    model.graph.initializer.append(numpy_helper.from_array(np.array([factor], np.float32), "factor"))
    model.graph.node.append(helper.make_node("Mul", ["before", "factor"], ["embedding"]))
    return write_bundle(path, **parts | {"graphs": parts["graphs"] | {"text": model.SerializeToString()}})


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.0, 3.0])
def test_vectors_that_are_not_unit_vectors(tiny_parts: dict, tmp_path: Path, bad: float) -> None:
    bundle = scaled(tiny_parts, tmp_path / "b", bad)
    with pytest.raises(EngineError, match="text.onnx: expected unit vectors"):
        TextEncoder(bundle).embed(["red"])
    with pytest.raises(BundleSelfTestError, match="text: engine cpu gives vectors of length"):
        TextEncoder(bundle).check()


def test_vectors_of_low_precision_get_length_1(tiny_parts: dict, tmp_path: Path) -> None:
    vectors = TextEncoder(scaled(tiny_parts, tmp_path / "b", 1.01)).embed(["red", "blue"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_without_onnxruntime(tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for engine in ("cpu", "auto"):
        with pytest.raises(MissingExtraError, match=r"onnxruntime is not installed; .*'tagclip\[cpu\]'"):
            ImageEncoder(tiny_bundle, "aerial", engine=engine)


def test_a_deleted_graph_is_a_named_error(tiny_bundle: Bundle, tmp_path: Path) -> None:
    from tagclip.runtime.errors import BundleIntegrityError

    shutil.copytree(tiny_bundle.path, tmp_path / "b")
    moved = dataclasses.replace(tiny_bundle, path=tmp_path / "b")
    (moved.path / "text.onnx").unlink()
    with pytest.raises(BundleIntegrityError, match="text.onnx is not readable"):
        TextEncoder(moved).embed(["red"])


@pytest.mark.parametrize(
    ("views", "view", "towers"),
    [
        (("aerial", "ground"), "ground", ("ground",)),
        (("aerial", "ground"), "auto", ("aerial", "ground")),
        (("aerial", "ground", "universal"), "auto", ("universal",)),
        (("aerial", "ground", "universal"), "aerial", ("aerial",)),
        (("universal",), "aerial", ("universal",)),  # a plain CLIP: its one tower takes any view
        (("universal",), "auto", ("universal",)),
        (("aerial",), "auto", ("aerial",)),
    ],
)
def test_which_towers_serve_a_view(views: tuple[str, ...], view: str, towers: tuple[str, ...]) -> None:
    assert serving(views, view) == towers


@pytest.mark.parametrize(
    ("views", "view"),
    [(("aerial",), "ground"), (("aerial", "universal"), "ground"), (("ground",), "universal")],
)
def test_a_view_that_no_tower_serves(views: tuple[str, ...], view: str) -> None:
    with pytest.raises(ConfigError, match=f"view '{view}': this bundle has {', '.join(views)}"):
        serving(views, view)

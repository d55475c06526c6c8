"""NVIDIA's own parser and builder take every graph that we export; TensorRT-RTX builds engines without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("tensorrt_rtx_bindings", reason="tensorrt-rtx is for x86-64 Linux only")
pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from fixtures.person_net import person_net

from tagclip.export.pack import Wanted, export_bundle
from tagclip.runtime.bundle import Bundle, open_bundle
from tagclip.runtime.errors import EngineError
from tagclip.runtime.trt import build_engine
from tagclip.runtime.views import VIEWS


def build(graph: bytes, most: int) -> bytes:
    """An engine for Ada, with batches of 1 to `most`, as `tagclip bundle build` makes it."""
    built = build_engine(
        "tensorrt-rtx", graph, name="graph", max_batch=most, workspace_mb=1024, capability="sm89"
    )
    return built.engine


# Between them every precision, every kind of tower, and what is special to each family of models.
KINDS = {
    "shipped": None,
    "token selection": ("tse_checkpoint", Wanted(VIEWS)),
    "open_clip towers": ("clip_checkpoint", Wanted(VIEWS)),
    "fp16": ("toy_checkpoint", Wanted(precision="fp16", max_drop=100)),
    "merged, int8": ("toy_checkpoint", Wanted(experts="merged", precision="int8", max_drop=100)),
    "universal, fp16, open_clip towers": (
        "clip_checkpoint",
        Wanted(("universal",), precision="fp16", max_drop=100),
    ),
    "universal, int8": ("toy_checkpoint", Wanted(("universal",), precision="int8", max_drop=100)),
}


@pytest.fixture(scope="module", params=KINDS)
def bundle(
    request: pytest.FixtureRequest, toy_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    kind = KINDS[request.param]
    if kind is None:
        return open_bundle(None)
    checkpoint: Path = request.getfixturevalue(kind[0])
    calib = None if kind[1].same else toy_data
    return export_bundle(checkpoint, tmp_path_factory.mktemp("trt") / "toy", kind[1], calib)[0]


def test_every_graph_builds(bundle: Bundle) -> None:
    for tower in bundle.manifest.towers.values():
        assert len(build(bundle.read_file(tower.file), 64)) > 10_000, tower.name


def test_a_graph_that_it_cannot_take_fails() -> None:
    """Else the test above could not fail: an int8 constant that goes into no DequantizeLinear."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["codes"]),
        helper.make_node("Cast", ["codes"], ["embedding"], to=TensorProto.FLOAT),
    ]
    table = numpy_helper.from_array(np.ones((9, 4), np.int8), "table")
    given = helper.make_tensor_value_info("tokens", TensorProto.INT64, ["N", 3])
    result = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", 3, 4])
    graph = helper.make_graph(nodes, "bad", [given], [result], [table])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    with pytest.raises(EngineError, match="graph: tensorrt-rtx"):
        build(model.SerializeToString(), 4)


def test_the_detectors_graph_builds() -> None:
    """Height and width are free in it; a video has one size, which a profile names."""
    import tensorrt_rtx as trt

    from tagclip.export.detector import graph_of
    from tagclip.export.to_onnx import store

    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(store(graph_of(person_net()))), parser.get_error(0).desc()
    assert [network.get_output(k).name for k in range(network.num_outputs)] == ["heat", "ltrb"]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    assert config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    profile = builder.create_optimization_profile()
    profile.set_shape(network.get_input(0).name, (1, 320, 320, 3), (1, 576, 768, 3), (1, 736, 960, 3))
    assert config.add_optimization_profile(profile) >= 0
    engine = builder.build_serialized_network(network, config)
    assert engine is not None and len(memoryview(engine)) > 10_000

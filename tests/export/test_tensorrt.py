"""NVIDIA's own parser and builder take every graph that we export; TensorRT-RTX builds engines without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

trt = pytest.importorskip("tensorrt_rtx_bindings", reason="tensorrt-rtx is for x86-64 Linux only")
pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from tagclip.export.pack import export_bundle
from tagclip.runtime.bundle import Bundle, open_bundle
from tagclip.runtime.views import VIEWS


class Errors(trt.ILogger):  # type: ignore[misc]
    """Keeps what goes wrong, for the assertion's message."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.lines: list[str] = []

    def log(self, severity: object, message: str) -> None:
        if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
            self.lines.append(message)


def build(graph: bytes, most: int) -> bytes:
    """A strongly typed engine for Ada (SM89) with batches of 1 to `most`."""
    errors = Errors()
    builder = trt.Builder(errors)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, errors)
    assert parser.parse(graph), [parser.get_error(k).desc() for k in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    assert config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    given = network.get_input(0)
    assert given.shape[0] == -1 and network.get_output(0).shape[0] == -1
    rest = list(given.shape)[1:]
    profile = builder.create_optimization_profile()
    profile.set_shape(given.name, [1, *rest], [min(8, most), *rest], [most, *rest])
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    assert engine is not None, errors.lines
    return bytes(memoryview(engine))


@pytest.fixture(scope="module", params=["shipped", "toy_checkpoint", "tse_checkpoint", "clip_checkpoint"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    if request.param == "shipped":
        return open_bundle(None)
    checkpoint: Path = request.getfixturevalue(request.param)
    return export_bundle(checkpoint, tmp_path_factory.mktemp("trt") / "toy", VIEWS, None)[0]


@pytest.mark.parametrize("tower", ["image-aerial", "image-ground", "text"])
def test_every_graph_builds(bundle: Bundle, tower: str) -> None:
    assert len(build(bundle.read_file(bundle.manifest.towers[tower].file), 64)) > 10_000


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
    with pytest.raises(AssertionError):
        build(model.SerializeToString(), 4)

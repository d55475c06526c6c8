"""ONNX Runtime does what was asked for or says by name why not; what it falls back to by itself is made to happen."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import numpy as np
import onnxruntime as ort
import pytest

from tagclip.runtime.bundle import Bundle
from tagclip.runtime.bundle_manifest import TensorSpec, Tower
from tagclip.runtime.engine import OrtEngine
from tagclip.runtime.errors import EngineError
from tagclip.runtime.providers import PROVIDERS, left_over, load_onnxruntime, start_session

CPU_NAME = "CPUExecutionProvider"
CROPS = TensorSpec("crops", "uint8", ("N", 128, 64, 3))


@pytest.fixture
def tower(tiny_bundle: Bundle) -> Tower:
    return tiny_bundle.manifest.towers["image-aerial"]


@pytest.fixture
def graph(tiny_bundle: Bundle, tower: Tower) -> bytes:
    return tiny_bundle.read_file(tower.file)


def claim(monkeypatch: pytest.MonkeyPatch, *engines: str) -> None:
    """Let this onnxruntime say that it has these engines' providers, as one does that was built with them."""
    names = [*ort.get_available_providers(), *(PROVIDERS[engine].name for engine in engines)]
    monkeypatch.setattr(ort, "get_available_providers", lambda: names)


@pytest.mark.parametrize("engine", ["cuda", "ort-tensorrt", "openvino"])
def test_what_is_not_built_in_is_refused_with_the_way_out(graph: bytes, tower: Tower, engine: str) -> None:
    if PROVIDERS[engine].name in ort.get_available_providers():
        pytest.skip(f"this onnxruntime has {engine}")
    with pytest.raises(
        EngineError, match=f"{engine} was asked for, but .* offers only .*{CPU_NAME}; ask for cpu, or pip"
    ):
        OrtEngine(graph, tower, engine=engine)


@pytest.mark.parametrize("engine", ["cuda", "ort-tensorrt", "openvino"])
def test_what_is_there_computes_the_same(
    tiny_bundle: Bundle, graph: bytes, tower: Tower, engine: str
) -> None:
    if PROVIDERS[engine].name not in ort.get_available_providers():
        pytest.skip(f"this onnxruntime has no {engine}")
    crops = np.random.default_rng(0).integers(0, 256, (9, 32, 16, 3), dtype=np.uint8)
    try:
        found = OrtEngine(graph, tower, engine=engine)
    except EngineError as error:
        assert "ask for cpu, or " in str(error)
        pytest.skip(str(error))
    expected = OrtEngine(graph, tower).run(crops)
    for count in (9, 1, 4):
        np.testing.assert_allclose(found.run(crops[:count]), expected[:count], atol=2e-3)


def test_another_provider_than_asked_is_refused(
    graph: bytes, tower: Tower, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the libraries of CUDA or its driver are not there: ONNX Runtime goes on, on the CPU."""
    if PROVIDERS["cuda"].name in ort.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    claim(monkeypatch, "cuda")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quiet = ort.InferenceSession(graph, providers=[PROVIDERS["cuda"].name], enable_fallback=0)
        assert quiet.get_providers()[0] == CPU_NAME  # else this test would prove nothing
        with pytest.raises(EngineError, match=f"could only start {CPU_NAME}, .*; ask for cpu, or pip"):
            start_session("cuda", graph, tower, None)


def test_products_of_eight_bits_are_exact_on_every_processor(tower: Tower) -> None:
    """Full-range weights and activations; the reference is arithmetic in whole numbers."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = rng.integers(-127, 128, (64, 32)).astype(np.int8)
    values = {
        "w": weights,
        "ws": np.full(32, 0.01, np.float32),
        "xs": np.float32(0.02),
        "z": np.int8(0),
        "wz": np.zeros(32, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "xs", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=1),
        helper.make_node("MatMul", ["d", "wd"], ["y"]),
    ]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 32])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = rng.normal(0, 1.2, (33, 64)).astype(np.float32)
    codes = np.clip(np.round(x / np.float32(0.02)), -128, 127).astype(np.int64)
    session = start_session("cpu", model.SerializeToString(), tower, None)
    np.testing.assert_allclose(
        session.run(None, {"x": x})[0], codes @ weights.astype(np.int64) * 0.02 * 0.01, rtol=1e-5, atol=1e-4
    )


def test_one_that_cannot_say_where_nodes_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    claim(monkeypatch, "openvino")
    owner = next(k for k in ort.InferenceSession.__mro__ if "get_provider_graph_assignment_info" in vars(k))
    monkeypatch.delattr(owner, "get_provider_graph_assignment_info")
    with pytest.raises(EngineError, match="openvino was asked for.*ask for cpu, or install 1.24 or later"):
        load_onnxruntime("openvino")
    assert load_onnxruntime("cpu") is ort  # older ones stay good for it


def test_work_left_to_another_provider_is_found_in_a_real_session(graph: bytes) -> None:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = ort.InferenceSession(graph, options, providers=[CPU_NAME])
    parts = session.get_provider_graph_assignment_info()
    assigned = [(part.ep_name, node.op_type) for part in parts for node in part.get_nodes()]
    assert left_over(CPU_NAME, assigned) == ""
    assert "1 MatMul" in left_over("CUDAExecutionProvider", assigned)


@pytest.mark.parametrize(
    ("assigned", "left"),
    [
        ([("A", "Conv"), ("A", "Shape")], ""),  # all of it
        ([("A", "Conv"), (CPU_NAME, "Shape"), (CPU_NAME, "Concat")], ""),  # shapes belong on the CPU
        ([("A", "Conv"), (CPU_NAME, "Softmax"), ("B", "Conv"), ("B", "Conv")], "2 Conv, 1 Softmax"),
        ([(CPU_NAME, "MatMulInteger")], "1 MatMulInteger"),  # an int8 graph on a GPU
    ],
)
def test_work_left_over(assigned: list[tuple[str, str]], left: str) -> None:
    assert left_over("A", assigned) == left


def test_a_session_with_work_left_over_is_refused(
    graph: bytes, tower: Tower, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A provider that starts and takes no node: a real session on the CPU that says that it is another one."""
    claim(monkeypatch, "openvino")
    real = ort.InferenceSession

    class Started(real):
        def __init__(self, data: bytes, options: ort.SessionOptions, **_: object) -> None:
            super().__init__(data, options, providers=[CPU_NAME])

        def get_providers(self) -> list[str]:
            return [PROVIDERS["openvino"].name, CPU_NAME]

    monkeypatch.setattr(ort, "InferenceSession", Started)
    with pytest.raises(EngineError, match="image-aerial.onnx: openvino was asked for, but leaves .*1 MatMul"):
        start_session("openvino", graph, tower, None)


def test_an_unknown_engine(graph: bytes, tower: Tower) -> None:
    with pytest.raises(EngineError, match="engine 'npu': expected one of cpu, cuda, ort-tensorrt, openvino"):
        OrtEngine(graph, tower, engine="npu")


def test_waiting_threads_leave_the_cores_to_others(graph: bytes, tower: Tower) -> None:
    options = start_session("cpu", graph, tower, 2).get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.intra_op_num_threads == 2


THREADS_OF_A_SESSION = """
import os, sys
from pathlib import Path
from tagclip.runtime.bundle import open_bundle
from tagclip.runtime.engines import Engines
import onnxruntime
import numpy as np
engines, before = Engines(open_bundle(Path(sys.argv[1]))), len(os.listdir("/proc/self/task"))
engines.run("image-aerial", np.zeros((1, 32, 16, 3), np.uint8) + np.arange(3, dtype=np.uint8))
print(len(os.listdir("/proc/self/task")) - before)
"""


def test_a_process_on_one_core_starts_no_thread_for_the_others(tiny_bundle: Bundle) -> None:
    mine = sorted(os.sched_getaffinity(0))
    if len(mine) < 2:
        pytest.skip("this machine gives us one core")
    started = []
    for cores in (mine[:1], mine):
        command = ["taskset", "-c", ",".join(map(str, cores)), sys.executable, "-c", THREADS_OF_A_SESSION]
        found = subprocess.run([*command, str(tiny_bundle.path)], capture_output=True, text=True, timeout=120)
        assert found.returncode == 0, found.stderr
        started.append(int(found.stdout))
    # The calling thread works too.
    assert started[0] == 0 and 1 <= started[1] < len(mine)


def test_what_providers_are_told() -> None:
    assert PROVIDERS["ort-tensorrt"].options(CROPS, 2) == {
        "trt_profile_min_shapes": "crops:1x128x64x3",
        "trt_profile_opt_shapes": "crops:8x128x64x3",
        "trt_profile_max_shapes": "crops:64x128x64x3",
    }
    assert PROVIDERS["openvino"].options(CROPS, 2) == {"device_type": "CPU", "num_of_threads": "2"}
    assert PROVIDERS["openvino"].options(CROPS, None) == {"device_type": "CPU"}

"""Eight bits in a graph against the same arithmetic in NumPy, and the choice of layers against counted costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import torch

from tagclip.export.precision import run_graph, to_int8
from tagclip.export.quantise import layers, observe, quantise
from tagclip.export.to_onnx import to_onnx
from tagclip.runtime.errors import ParityError


class Net(torch.nn.Module):
    """A convolution that a Relu reads, one that is added, two linear layers on tokens and a last one on a row."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.second = torch.nn.Conv2d(4, 4, 3, padding=1)
        self.up = torch.nn.Linear(4, 16)
        self.down = torch.nn.Linear(16, 4)
        self.last = torch.nn.Linear(4, 6)

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(crops.float().permute(0, 3, 1, 2) / 127.5 - 1))
        x = (x + self.second(x)).flatten(2).transpose(1, 2)
        x = x + self.down(torch.nn.functional.gelu(self.up(x)))
        return torch.nn.functional.normalize(self.last(x.mean(1)), dim=-1)


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(3)
    return Net().eval()


@pytest.fixture(scope="module")
def graph(net: Net) -> Any:
    return to_onnx(net, torch.zeros(2, 8, 8, 3, dtype=torch.uint8), "crops")


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)


def test_layers_have_the_models_names(graph: Any) -> None:
    found = {layer.name: layer for layer in layers(graph)}
    assert list(found) == ["first", "second", "up", "down", "last"]
    assert [layer.op for layer in found.values()] == ["Conv", "Conv", "MatMul", "MatMul", "Gemm"]
    assert found["up"].weights == 64 and found["first"].weights == 108


def test_observed_tensors_are_those_of_the_model(net: Net, graph: Any, crops: np.ndarray) -> None:
    down = next(layer for layer in layers(graph) if layer.name == "down")
    seen = observe(graph, [down.activation], [crops[:25], crops[25:]])
    kept: list[torch.Tensor] = []
    hook = net.down.register_forward_pre_hook(lambda module, given: kept.append(given[0]))
    with torch.no_grad():
        net(torch.from_numpy(crops))
    hook.remove()
    assert seen[down.activation].largest == pytest.approx(float(kept[0].abs().max()), rel=1e-4)
    assert seen[down.activation].counts.sum() == kept[0].numel()


def rounded(x: torch.Tensor, limit: float) -> torch.Tensor:
    scale = limit / 127
    return (x / scale).round().clamp(-128, 127) * scale


def by_channel(weight: torch.Tensor) -> torch.Tensor:
    scale = weight.flatten(1).abs().max(1).values.view(-1, *[1] * (weight.ndim - 1)) / 127
    return (weight / scale).round() * scale


def test_the_arithmetic_is_symmetric_rounding(net: Net, graph: Any, crops: np.ndarray) -> None:
    """All layers in eight bits, computed once more in PyTorch with rounded weights and inputs."""
    import copy

    found = layers(graph)
    seen = observe(graph, [name for layer in found for name in layer.watched], [crops])
    limits = {name: 0.8 * histogram.largest for name, histogram in seen.items()}  # clipping, too
    got = run_graph(quantise(graph, found, limits), crops)

    twin = copy.deepcopy(net)
    for layer in found:
        module = getattr(twin, layer.name)
        module.weight.data = by_channel(module.weight.data)
        limit, out = limits[layer.activation], limits.get(layer.seen)
        module.register_forward_pre_hook(lambda m, given, limit=limit: (rounded(given[0], limit),))
        if out is not None:
            module.register_forward_hook(lambda m, given, result, out=out: rounded(result, out))
    with torch.no_grad():
        wanted = twin(torch.from_numpy(crops)).numpy()
        exact = net(torch.from_numpy(crops)).numpy()
    # A value on the edge between two integers may fall to either side.
    assert (got * wanted).sum(1).min() > 0.9995 > 0.999 > (got * exact).sum(1).min()


def test_only_what_nvidia_takes(graph: Any, crops: np.ndarray) -> None:
    found = layers(graph)
    seen = observe(graph, [name for layer in found for name in layer.watched], [crops])
    changed = quantise(graph, found, {name: histogram.largest for name, histogram in seen.items()})
    onnx.checker.check_model(changed, full_check=True)
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in changed.graph.initializer}
    nodes = [n for n in changed.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(nodes) == 2 * 5 + 5 + 2 * 2  # inputs there and back, weights back, convolutions' outputs
    for node in nodes:
        assert constants[node.input[2]].dtype == np.int8 and not constants[node.input[2]].any()
    assert all(f"tower.{name}.bias" not in node.input for node in nodes for name in ("up", "last"))
    assert constants["first.weight.codes"].dtype == np.int8 and "first.weight" not in constants
    assert len(graph.graph.node) < len(changed.graph.node), "the graph itself is left alone"


def counted(changed: Any) -> float:
    """A point for each layer in eight bits."""
    return float(sum(n.op_type == "DequantizeLinear" and n.name.endswith(".dq") for n in changed.graph.node))


@pytest.mark.parametrize(("budget", "kept"), [(5.0, 0), (4.0, 1), (3.5, 2), (1.0, 4)])
def test_the_fewest_layers_stay(graph: Any, crops: np.ndarray, budget: float, kept: int) -> None:
    found = to_int8("image-aerial", graph, crops, counted, budget)
    precisions = [decision.precision for decision in found.decisions]
    assert precisions == ["fp32"] * kept + ["int8"] * (5 - kept)
    errors = [decision.error for decision in found.decisions]
    assert errors == sorted(errors, reverse=True) and found.drop == 5 - kept
    assert found.rule == min(found.errors, key=found.errors.__getitem__)


def test_no_layer_meets_the_budget(graph: Any, crops: np.ndarray) -> None:
    with pytest.raises(
        ParityError, match=r"image-ground: expected eight bits to cost at most 0\.5 .* errs most"
    ):
        to_int8("image-ground", graph, crops, counted, 0.5)


class Shared(torch.nn.Module):
    """Three layers that read one tensor, as the experts of a mixture do."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = torch.nn.ModuleList(torch.nn.Linear(192, 64) for _ in range(3))

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        x = torch.nn.functional.layer_norm(crops.float().flatten(1), (192,))[:, None]
        x = sum(torch.tanh(expert(x)) for expert in self.experts)
        return torch.nn.functional.normalize(x[:, 0], dim=-1)


def test_layers_that_share_an_input_all_run_on_integers(crops: np.ndarray, tmp_path: Path) -> None:
    """What onnxruntime makes of the graph: no product in float is left."""
    import onnxruntime as ort

    torch.manual_seed(0)
    graph = to_onnx(Shared().eval(), torch.zeros(2, 8, 8, 3, dtype=torch.uint8), "crops")
    found = layers(graph)
    seen = observe(graph, [name for layer in found for name in layer.watched], [crops])
    changed = quantise(graph, found, {name: histogram.largest for name, histogram in seen.items()})
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3  # it warns that such a file is for this machine
    ort.InferenceSession(changed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    ops = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert len(found) == 3 and ops.count("MatMulIntegerToFloat") == 3 and "MatMul" not in ops
    assert (run_graph(changed, crops) * run_graph(graph, crops)).sum(1).min() > 0.999

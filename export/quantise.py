"""Eight bits in the graph: QuantizeLinear and DequantizeLinear pairs in the form that NVIDIA's parser takes.

Symmetric, zero points of 0, weights per output channel, activations per tensor, biases and everything else as they
were. What is quantised are products with a constant weight (MatMul, Gemm, Conv); attention's own products stay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from tagclip.calibration.ranges import Histogram

LEVELS = 127


@dataclass(frozen=True)
class Layer:
    """One product with a constant weight.

    Attributes:
        name: where it stands in the model, such as "blocks.0.attention.qkv".
        node: name of the node.
        op: "MatMul", "Gemm" or "Conv".
        activation, weight: names of its inputs in the graph.
        output: name of its output.
        seen: the tensor whose range the output's eight bits cover; empty where the output stays in float.
        axis: of the weight's output channels.
        weights: number of weights.
    """

    name: str
    node: str
    op: str
    activation: str
    weight: str
    output: str
    seen: str
    axis: int
    weights: int

    @property
    def watched(self) -> tuple[str, ...]:
        """The tensors whose ranges it needs."""
        return (self.activation, self.seen) if self.seen else (self.activation,)


def layers(model: onnx.ModelProto) -> list[Layer]:
    """What can be quantised in a graph of fp32, in the graph's order."""
    constants = {t.name: t for t in model.graph.initializer}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    found = []
    for node in model.graph.node:
        if node.op_type not in ("MatMul", "Gemm", "Conv") or len(node.input) < 2:
            continue
        weight = constants.get(node.input[1])
        if weight is None or node.input[0] in constants or len(weight.dims) < 2:
            continue
        found.append(
            Layer(
                _readable(node, users, constants),
                node.name,
                node.op_type,
                node.input[0],
                node.input[1],
                node.output[0],
                _seen(node, users),
                _output_axis(node),
                int(np.prod(weight.dims)),
            )
        )
    return found


def _seen(node: onnx.NodeProto, users: Mapping[str, list[onnx.NodeProto]]) -> str:
    """Convolutions round their output too: only so onnxruntime runs them in eight bits (docs/log.md).

    Where nothing but a Relu reads it, what is negative need not be told apart: the Relu's range is enough.
    """
    if node.op_type != "Conv":
        return ""
    readers = users.get(node.output[0], [])
    return readers[0].output[0] if [r.op_type for r in readers] == ["Relu"] else node.output[0]


def _output_axis(node: onnx.NodeProto) -> int:
    if node.op_type == "Conv":
        return 0
    transposed = any(a.name == "transB" and a.i for a in node.attribute)
    return 0 if node.op_type == "Gemm" and transposed else 1


def _readable(
    node: onnx.NodeProto, users: Mapping[str, list[onnx.NodeProto]], constants: Collection[str]
) -> str:
    """The module's name, from its weight or, where the exporter made a new weight, from the bias that is added."""
    names = list(node.input[1:])
    for user in users.get(node.output[0], []):
        if user.op_type == "Add":
            names += user.input
    for name in names:
        if name in constants and name.endswith((".weight", ".bias")):
            return name.rpartition(".")[0].removeprefix("tower.")
    return node.name


def observe(
    model: onnx.ModelProto,
    names: Iterable[str],
    batches: Iterable[NDArray[np.generic]],
    tick: Callable[[], None] = lambda: None,
) -> dict[str, Histogram]:
    """Run a graph of fp32 and count the magnitudes of tensors inside it.

    Args:
        names: of the tensors.
        batches: inputs of the graph.
        tick: called after each batch.
    """
    watched = sorted(set(names))
    given = model.graph.input[0].name
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    own = {value.name for value in copy.graph.output}
    for name in watched:
        if name not in own and name != given:
            copy.graph.output.append(onnx.ValueInfoProto(name=name))
    session = ort.InferenceSession(copy.SerializeToString(), providers=["CPUExecutionProvider"])
    found = {name: Histogram() for name in watched}
    for batch in batches:
        for name, values in zip(watched, session.run(watched, {given: batch}), strict=True):
            found[name].add(values)
        tick()
    return found


def quantise(model: onnx.ModelProto, chosen: Iterable[Layer], ranges: Mapping[str, float]) -> onnx.ModelProto:
    """The graph with some layers in eight bits; `model` itself is left as it is.

    Args:
        ranges: tensor -> largest magnitude that its eight bits cover, of every tensor that the layers watch; 0 for
            one that is always 0.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    wanted = {layer.node: layer for layer in chosen}
    graph = copy.graph
    constants = {t.name: t for t in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    readers: Counter[str] = Counter()  # of an activation, so far
    decoded: set[str] = set()
    for node in graph.node:
        layer = wanted.get(node.name)
        if layer is None:
            nodes.append(node)
            continue
        # A pair for each reader, told apart by the last bit of the scale: onnxruntime takes its integer kernel only
        # where a rounded tensor has one reader, and makes one of equal pairs. A mixture's experts share their input.
        activation, weight = f"{layer.node}.in", f"{layer.weight}.dq"
        nth = readers[layer.activation]
        nodes += _pair(graph, layer.activation, activation, ranges[layer.activation], nth)
        if weight not in decoded:
            nodes.append(_weight(graph, numpy_helper.to_array(constants[layer.weight]), layer))
        readers[layer.activation] += 1
        decoded.add(weight)
        node.input[0], node.input[1] = activation, weight
        nodes.append(node)
        if layer.seen:
            node.output[0] = f"{layer.output}.float"
            nodes += _pair(graph, node.output[0], layer.output, ranges[layer.seen])
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in graph.node for name in node.input}
    for name in {layer.weight for layer in wanted.values()} - used:
        graph.initializer.remove(constants[name])
    return copy


def _pair(
    graph: onnx.GraphProto, given: str, result: str, limit: float, nth: int = 0
) -> list[onnx.NodeProto]:
    """`given` rounded to eight bits and back, as `result`; the scale of the n-th pair is n float32 steps larger."""
    scale = np.float32(_scale(limit))
    for _ in range(nth):
        scale = np.nextafter(scale, np.float32(np.inf))
    parts = [
        _constant(graph, f"{result}.scale", scale),
        _constant(graph, f"{result}.zero", np.int8(0)),
    ]
    inner = f"{result}.q"
    return [
        helper.make_node("QuantizeLinear", [given, *parts], [inner], name=inner),
        helper.make_node("DequantizeLinear", [inner, *parts], [result], name=f"{result}.back"),
    ]


def _weight(graph: onnx.GraphProto, weight: NDArray[np.float32], layer: Layer) -> onnx.NodeProto:
    codes, scales = _codes(weight, layer.axis)
    parts = [
        _constant(graph, f"{layer.weight}.codes", codes),
        _constant(graph, f"{layer.weight}.scales", scales),
        _constant(graph, f"{layer.weight}.zeros", np.zeros(len(scales), np.int8)),
    ]
    name = f"{layer.weight}.dq"
    return helper.make_node("DequantizeLinear", parts, [name], name=name, axis=layer.axis)


def _constant(graph: onnx.GraphProto, name: str, values: NDArray[np.generic] | np.generic) -> str:
    graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
    return name


def _scale(limit: float) -> float:
    return limit / LEVELS if limit > 0 else 1.0  # a scale of 0 has no meaning, and all there is to say is 0


def _codes(weight: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Codes of a weight's shape, and (channels,) scales: each channel's largest magnitude is 127."""
    rest = tuple(k for k in range(weight.ndim) if k != axis)
    scales = np.array([_scale(float(top)) for top in np.abs(weight).max(rest)], np.float32)
    shape = [-1 if k == axis else 1 for k in range(weight.ndim)]
    return np.round(weight / scales.reshape(shape)).astype(np.int8), scales

"""PyTorch modules to ONNX graphs with a dynamic batch; graphs to bytes, checked, with small weights."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

OPSET = 18  # TensorRT 10.3 (JetPack 6) reads it, and newer ones do
OUTPUT = "embedding"
SMALL = 256  # tensors of fewer elements stay in 32 bits: nothing is gained


def to_onnx(module: nn.Module, example: Tensor, input_name: str) -> onnx.ModelProto:
    """Export a module of one input and one output, `embedding`, whose first axis is the batch, in fp32.

    Args:
        example: an input of batch 2 (a batch of 1 would be taken for a constant).
    """
    model = exported(module, (example,), [input_name], None, ({0: torch.export.Dim("N")},))
    _name_output(model.graph)
    _cast_first(model.graph)
    return model


def exported(
    module: nn.Module,
    examples: tuple[Tensor, ...],
    inputs: list[str],
    outputs: list[str] | None,
    dynamic_shapes: tuple[dict[int, Any], ...],
) -> onnx.ModelProto:
    """A module in evaluation mode as torch's exporter sees it, in fp32, without the traces of this machine.

    Args:
        inputs, outputs: their names; None leaves those of the outputs to the exporter.
        dynamic_shapes: of each input, axis -> `torch.export.Dim` or a multiple of one.
    """
    # The exporter logs what it skips of torchvision, which no model here has.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's notes about its own internals
        program = torch.onnx.export(
            module.eval(),
            examples,
            dynamo=True,
            opset_version=OPSET,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=dynamic_shapes,
            verbose=False,
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    del model.metadata_props[:]
    for node in model.graph.node:  # source lines and module paths of this machine: not for shipping
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    del model.graph.value_info[:]
    return model


def store(
    model: onnx.ModelProto,
    int8: Mapping[str, tuple[NDArray[np.int8], NDArray[np.float32]]] | None = None,
    half: bool = True,
) -> bytes:
    """A graph as bytes, checked. `model` itself is left as it is.

    Weights may stand in it as fp16 behind a Cast: half the bytes, while every sum stays in its own precision.

    Args:
        int8: name of a weight -> the codes (V, S) and scales (V,) that it is the product of; it is stored as these.
        half: store float32 weights as fp16. Not for models with token selection: rounding moves tokens of nearly
            equal attention in and out of the selection (measured on a random model: a cosine of 0.990 to PyTorch).
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = {_store_int8(copy.graph, name, *parts) for name, parts in (int8 or {}).items()}
    if half:
        _store_fp16(copy, kept)
    onnx.checker.check_model(copy, full_check=True)
    return bytes(copy.SerializeToString())


def _name_output(graph: onnx.GraphProto) -> None:
    """Call the output OUTPUT, and free that name first: torch calls what comes out of a word table the same."""
    if graph.output[0].name == OUTPUT:
        return
    names = {graph.output[0].name: OUTPUT, OUTPUT: f"{OUTPUT}.inner"}
    for node in graph.node:
        for values in (node.input, node.output):
            for k, name in enumerate(values):
                values[k] = names.get(name, name)
    graph.output[0].name = OUTPUT


def _cast_first(graph: onnx.GraphProto) -> None:
    """Let a uint8 input go into its Cast and nothing else: the exporter asks it for the batch size too."""
    given = graph.input[0]
    if given.type.tensor_type.elem_type != TensorProto.UINT8:
        return
    cast = next(node for node in graph.node if node.op_type == "Cast" and given.name in node.input)
    for node in graph.node:
        if node.op_type == "Shape" and node.input[0] == given.name:
            node.input[0] = cast.output[0]
    rest = [node for node in graph.node if node is not cast]
    first = helper.make_node(
        "Cast", list(cast.input), list(cast.output), name=cast.name, to=TensorProto.FLOAT
    )
    del graph.node[:]
    graph.node.extend([first, *rest])


def _store_int8(
    graph: onnx.GraphProto, name: str, codes: NDArray[np.int8], scales: NDArray[np.float32]
) -> str:
    """Put codes and scales in a weight's place. TensorRT takes an int8 constant into a DequantizeLinear only.

    Returns:
        name of the scales, which have to stay float32: DequantizeLinear gives their type.
    """
    weight = next(t for t in graph.initializer if t.name == name)
    # The zeros are what is meant without them, but a pass of ONNX Runtime's breaks the graph then: see `exact_options`.
    parts = [f"{name}.codes", f"{name}.scales", f"{name}.zeros"]
    nodes = [helper.make_node("DequantizeLinear", parts, [name], axis=0)]
    if weight.data_type == TensorProto.FLOAT16:  # of a graph in fp16
        nodes[0].output[0] = f"{name}.fp32"
        nodes.append(helper.make_node("Cast", [f"{name}.fp32"], [name], to=TensorProto.FLOAT16))
    graph.initializer.remove(weight)
    for part, values in zip(parts, (codes, scales, np.zeros(len(codes), np.int8)), strict=True):
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), part))
    for node in reversed(nodes):
        graph.node.insert(0, node)
    return parts[1]


def _store_fp16(model: onnx.ModelProto, kept: Collection[str]) -> None:
    graph = model.graph
    casts = []
    for tensor in list(graph.initializer):
        if tensor.data_type != TensorProto.FLOAT or tensor.name in kept:
            continue
        values = numpy_helper.to_array(tensor)
        if values.size < SMALL:
            continue
        name = tensor.name
        graph.initializer.remove(tensor)
        graph.initializer.append(numpy_helper.from_array(values.astype(np.float16), f"{name}.fp16"))
        casts.append(helper.make_node("Cast", [f"{name}.fp16"], [name], to=TensorProto.FLOAT))
    for node in reversed(casts):
        graph.node.insert(0, node)


def parameters(model: onnx.ModelProto) -> int:
    """Number of weights in a graph."""
    return int(sum(np.prod(t.dims) for t in model.graph.initializer if len(t.dims)))

"""A graph of fp32 computed in fp16, its types written out: a strongly typed network needs no builder's flag."""

from __future__ import annotations

import warnings

import onnx

# Sums of many squares and exponentials lose digits, or overflow, in 16 bits; they are a small share of the work.
KEPT = ["LayerNormalization", "Softmax", "ReduceL2", "Clip"]

_READS_RANKS = {"Slice", "Squeeze", "Unsqueeze", "Less", "Where"}


def as_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with fp16 arithmetic and weights between its input and output, which keep their types.

    Normalisations and softmax stay in fp32, and so does everything that decides between experts or tokens. `model`
    itself is left as it is.
    """
    from onnxruntime.transformers import float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # it says which tiny constants become 0 in 16 bits; the gate measures that
        found: onnx.ModelProto = float16.convert_float_to_float16(
            copy,
            keep_io_types=True,
            op_block_list=[*float16.DEFAULT_OP_BLOCK_LIST, *KEPT],
            node_block_list=_deciding(copy.graph),
        )
    OnnxModel(found).topological_sort()  # the conversion puts its casts at the end
    return found


def _deciding(graph: onnx.GraphProto) -> list[str]:
    """Nodes between the product that scores and what a TopK over the scores lets through.

    An engine may keep one side of "score < k-th score" in 32 bits and round the other: then nothing is let through, and
    the softmax of nothing is NaN (seen with onnxruntime 1.32 on a CPU).
    """
    made_by = {name: node for node in graph.node for name in node.output}
    read_by: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            read_by.setdefault(name, []).append(node)
    found: dict[str, onnx.NodeProto] = {}
    back = [node for node in graph.node if node.op_type == "TopK"]
    while back:
        node = back.pop()
        found[node.name] = node
        if node.op_type not in ("MatMul", "Gemm", "LayerNormalization", "Softmax"):
            back += [
                made_by[name] for name in node.input if name in made_by and made_by[name].name not in found
            ]
    forth = list(found.values())
    while forth:
        for name in forth.pop().output:
            for reader in read_by.get(name, []):
                if reader.op_type in _READS_RANKS and reader.name not in found:
                    found[reader.name] = reader
                    forth.append(reader)
    return list(found)

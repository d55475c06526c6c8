"""The walk through a graph: it knows every place where ONNX holds a tensor, and no library disagrees with it."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import random
from pathlib import Path
from typing import Any

import pytest

from tagclip.runtime import external_data
from tagclip.runtime.bundle import Bundle, open_bundle, shipped_bundle_path
from tagclip.runtime.bundle_write import write_bundle
from tagclip.runtime.errors import BundleIntegrityError
from tagclip.runtime.external_data import refuse_external_data

onnx = pytest.importorskip("onnx")

NAMES = {  # ours -> ONNX's
    "Model": "ModelProto",
    "Training": "TrainingInfoProto",
    "Function": "FunctionProto",
    "Graph": "GraphProto",
    "Node": "NodeProto",
    "Attribute": "AttributeProto",
    "Sparse": "SparseTensorProto",
    "Tensor": "TensorProto",
}


def refuse(data: bytes) -> None:
    refuse_external_data(io.BytesIO(data), "g.onnx")


def test_the_table_is_what_onnx_defines() -> None:
    """From ONNX's own descriptors: every field of every message from which a tensor can be reached."""
    found: dict[str, dict[int, str]] = {}

    def visit(message: Any) -> None:
        if message.name in found:
            return
        found[message.name] = {
            f.number: f.message_type.name for f in message.fields if f.message_type is not None
        }
        for field in message.fields:
            if field.message_type is not None:
                visit(field.message_type)

    visit(onnx.ModelProto.DESCRIPTOR)
    leads = {"TensorProto"}
    while more := {name for name, fields in found.items() if leads & set(fields.values())} - leads:
        leads |= more
    expected = {
        name: {number: kind for number, kind in fields.items() if kind in leads}
        for name, fields in found.items()
        if name in leads
    }
    ours = {
        NAMES[name]: {number: NAMES[kind] for number, kind in fields.items()}
        for name, fields in external_data._INSIDE.items()
    }
    assert ours == expected
    tensor = onnx.TensorProto.DESCRIPTOR.fields_by_name
    assert tensor["external_data"].number == external_data._EXTERNAL_DATA
    assert tensor["data_location"].number == external_data._DATA_LOCATION


def test_sound_graphs_pass(tiny_bundle: Bundle) -> None:
    for bundle in (tiny_bundle, open_bundle(shipped_bundle_path())):
        for tower in bundle.manifest.towers.values():
            refuse((bundle.path / tower.file).read_bytes())


def test_every_cut_is_refused_or_still_a_message(tiny_bundle: Bundle) -> None:
    """Where we take a cut graph, protobuf takes it too."""
    from google.protobuf.message import DecodeError

    data = (tiny_bundle.path / "image-aerial.onnx").read_bytes()
    taken = 0
    for length in range(len(data)):
        try:
            refuse(data[:length])
        except BundleIntegrityError as error:
            assert "is no ONNX graph" in str(error)
            continue
        taken += 1
        onnx.ModelProto().ParseFromString(data[:length])
    assert 0 < taken < 20
    with pytest.raises(DecodeError):
        onnx.ModelProto().ParseFromString(data[:-1])


def external(model: Any) -> bool:
    """Whether a tensor of the model names another file, by the library's own reading."""
    seen = []

    def visit(message: Any) -> None:
        for field, value in message.ListFields():
            if field.message_type is None:
                continue
            for item in value if field.is_repeated else [value]:
                if item.DESCRIPTOR.name == "TensorProto":
                    seen.append(bool(item.external_data) or item.data_location == onnx.TensorProto.EXTERNAL)
                visit(item)

    visit(model)
    return any(seen)


def test_what_protobuf_reads_as_external_is_refused(tiny_bundle: Bundle) -> None:
    """Random damage to a graph with external data: whatever the library still takes for that, we refuse."""
    from google.protobuf.message import DecodeError

    model = onnx.load_from_string((tiny_bundle.path / "text.onnx").read_bytes())
    for tensor in model.graph.initializer:
        onnx.external_data_helper.set_external_data(tensor, "weights.bin")
        tensor.ClearField("raw_data")
    data = model.SerializeToString()
    seed = random.Random(3)
    counted = 0
    for _ in range(4000):
        damaged = bytearray(data)
        for _ in range(seed.randint(1, 3)):
            at = seed.randrange(len(damaged))
            damaged[at : at + seed.randint(0, 2)] = seed.randbytes(seed.randint(0, 3))
        model = onnx.ModelProto()
        try:
            model.ParseFromString(bytes(damaged))
        except DecodeError:
            continue
        if external(model):
            counted += 1
            with pytest.raises(BundleIntegrityError):
                refuse(bytes(damaged))
    assert counted > 200


@pytest.mark.parametrize(
    "data",
    [
        b"\x3a\x05\x2a\x03\x70\x01",  # a graph that is longer than the file
        b"\x00",  # field 0
        b"\x3b\x3c",  # a group, which ONNX has not
        b"\xf0\x80\x80\x80\x10\x01",  # a tag that protobuf would wrap round to field 14
        b"\x08" + b"\xff" * 11,  # a number without end
        b"\x09\x00",  # eight bytes announced, one there
        b"\x3a\x02" * 200,
        b"ORTM",
        b"junk",
    ],
)
def test_bytes_that_are_no_graph(data: bytes) -> None:
    with pytest.raises(BundleIntegrityError, match="g.onnx is no ONNX graph"):
        refuse(data)


def test_depth_is_bounded() -> None:
    data = b""
    for _ in range(40):  # an attribute that holds a graph that holds a node that holds it
        for tag in (b"\x32", b"\x2a", b"\x0a"):
            length = len(data)
            data = tag + bytes([length & 0x7F | 0x80, length >> 7]) + data
    with pytest.raises(BundleIntegrityError, match="more than 64 levels"):
        refuse(b"\x3a" + bytes([len(data) & 0x7F | 0x80, len(data) >> 7]) + data)


def test_writing_such_a_bundle_is_refused(tiny_parts: dict[str, Any], tmp_path: Path) -> None:
    model = onnx.load_from_string(tiny_parts["graphs"]["text"])
    tensor = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, "weights.bin")
    parts = tiny_parts | {"graphs": tiny_parts["graphs"] | {"text": model.SerializeToString()}}
    with pytest.raises(BundleIntegrityError, match="text.onnx takes weights from another file"):
        write_bundle(tmp_path / "b", **parts)
    assert list(tmp_path.iterdir()) == []


def test_a_graph_swapped_between_hash_and_walk(tiny_bundle: Bundle, tmp_path: Path) -> None:
    """read_file looks again: the bytes that an engine gets are the bytes that were walked."""
    tensor = onnx.TensorProto(data_location=onnx.TensorProto.EXTERNAL)
    data = onnx.ModelProto(graph=onnx.GraphProto(initializer=[tensor])).SerializeToString()
    (tmp_path / "text.onnx").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    bundle = dataclasses.replace(tiny_bundle, path=tmp_path, sha256={"text.onnx": digest})
    with pytest.raises(BundleIntegrityError, match="takes weights from another file"):
        bundle.read_file("text.onnx")

"""Does a graph take weights from another file? Found by walking the protobuf, before any engine sees the graph.

onnxruntime before 1.24 reads weights from an absolute path even when it is told a folder; such weights would escape
the hashes and the encoder id, and a graph could read any file of the device. So it is not left to the engine.
Only lengths and field numbers are looked at: weights are skipped, however large. Written by the encoding
(https://protobuf.dev/programming-guides/encoding) and the field numbers of onnx.proto, without libraries.
"""

from __future__ import annotations

import os
from typing import BinaryIO

from tagclip.runtime.errors import BundleIntegrityError

# message -> field number -> message that stands in it; what is not named cannot lead to a tensor
_INSIDE = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # fields of Tensor
_MAX_DEPTH = 64  # messages in messages; protobuf itself stops at 100
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def refuse_external_data(file: BinaryIO, name: str) -> None:
    """Walk an ONNX file; it is read from its first byte to its end, and stays open.

    Args:
        file: can seek.
        name: what to call it in messages.

    Raises:
        BundleIntegrityError: a tensor's data lie in another file, or these bytes are no ONNX graph.
    """
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    _walk(file, end, "Model", name, 0)


def _walk(file: BinaryIO, end: int, message: str, name: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise _damaged(name, f"more than {_MAX_DEPTH} levels")
    at = file.tell()
    while at < end:
        tag = _varint(file, name)
        field, kind = tag >> 3, tag & 7
        # Protobuf wraps larger tags round, so a reader that skips them and one that takes them would disagree.
        if not 0 < field < 1 << 29:
            raise _damaged(name, f"field number {field}")
        if message == "Tensor" and field in (_EXTERNAL_DATA, _DATA_LOCATION):
            if kind != _VARINT or _varint(file, name):
                raise BundleIntegrityError(
                    f"{name} takes weights from another file; a bundle's graphs hold theirs inside: export it again"
                )
        elif kind == _VARINT:
            _varint(file, name)
        elif kind == _BYTES:
            length = _varint(file, name)
            start = file.tell()
            if length > end - start:
                raise _damaged(name, f"{length} bytes announced, {max(end - start, 0)} there")
            inside = _INSIDE[message].get(field)
            if inside is not None:
                _walk(file, start + length, inside, name, depth + 1)
            file.seek(start + length)
        elif kind in (_FIXED64, _FIXED32):
            file.seek(8 if kind == _FIXED64 else 4, os.SEEK_CUR)
        else:
            raise _damaged(name, f"wire type {kind}")
        at = file.tell()
    if at != end:
        raise _damaged(name, "a field runs over its end")


def _varint(file: BinaryIO, name: str) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise _damaged(name, "it ends in a number")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise _damaged(name, "a number of more than ten bytes")


def _damaged(name: str, what: str) -> BundleIntegrityError:
    return BundleIntegrityError(f"{name} is no ONNX graph ({what}); export the bundle again")

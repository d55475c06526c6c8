"""A contract that is wrong, or that its graph does not fit, is refused with the name of what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

from fixtures.onnx_detectors import (
    CELLS,
    DETR,
    END2END,
    INPUT,
    OWN,
    ROWS,
    UINT8,
    YOLO,
    YOLOX,
    constant,
    write,
)

from tagclip.runtime.detector_graph import engine_beside
from tagclip.runtime.errors import ConfigError, EngineError, TagclipError
from tagclip.runtime.onnx_detector import OnnxDetector
from tagclip.runtime.source import Frame

# What the contract says


def wrong(contract: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy with one key another; None takes it away."""
    copy: dict[str, Any] = json.loads(json.dumps(contract))
    part = copy["input"] if key.startswith("input.") else copy
    name = key.rpartition(".")[2]
    if value is None:
        del part[name]
    else:
        part[name] = value
    return copy


KEYS = [*(key for key in YOLO if key != "input"), *(f"input.{key}" for key in INPUT)]
VALUES = {
    "format": ["tagclip-detector-2", 1],
    "family": ["yolov5", "", ["yolo"]],
    "person_class": [-1, 10_000, True, 0.5, "0"],
    "min_score": [0, 1, -0.1, "0.3", True],
    "iou": [0, 1, "0.6"],
    "licence": ["", 5, "a\x1b[2J"],
    "input.width_px": [0, 31, 4097, 320.5, "320", True],
    "input.height_px": [0, 31, 4097],
    "input.layout": ["HWC", "nchw"],
    "input.dtype": ["float16", "int8"],
    "input.scale": [0, -1, "1", True],
    "input.mean": [[0, 0], [0, 0, 0, 0], [0, 0, "0"], 0, [0, 0, True]],
    "input.std": [[1, 1, 0], [1, 1, -1], [1, 1]],
    "input.colour": ["rgb", "GRB"],
    "input.resize": ["crop"],
    "input.pad_value": [-1, 256, 0.5],
}


@pytest.mark.parametrize("key", KEYS)
def test_every_key_is_needed_and_checked(tmp_path: Path, key: str) -> None:
    path = write(tmp_path, YOLO, b"")
    for value in (None, *VALUES[key]):
        path.with_suffix(".json").write_text(json.dumps(wrong(YOLO, key, value)))
        with pytest.raises(ConfigError) as caught:
            OnnxDetector(path, (320, 256))
        said = str(caught.value)
        assert f"person.json.{key}: " in said and "docs/detectors.md" in said and "bundle" not in said
        assert said.isprintable()


@pytest.mark.parametrize(
    ("contract", "key"),
    [
        (YOLO | {"colour": "RGB"}, "colour: unknown field"),
        (YOLO | {"input": INPUT | {"size": 5}}, "input.size: unknown field"),
        (END2END | {"iou": 0.6}, "iou: unknown field"),
        (DETR | {"iou": 0.6}, "iou: unknown field"),
        (YOLO | {"outputs": DETR["outputs"]}, "outputs: unknown field"),
        ({k: v for k, v in DETR.items() if k != "outputs"}, "outputs: missing"),
        (DETR | {"outputs": {"boxes": "dets"}}, "outputs.logits: missing"),
        (DETR | {"outputs": {"boxes": "dets", "logits": "dets"}}, "outputs.logits: expected another"),
        (YOLO | {"tile_overlap": 0.6}, "tile_overlap: expected a number from 0 to 0.5"),
        (YOLO | {"tile_overlap": 0.01}, "tile_overlap: expected 0 for no tiles"),
        (YOLO | {"cpu_graph": "../other.onnx"}, "cpu_graph: expected the name of a file beside"),
        (YOLO | {"cpu_graph": "other.engine"}, "cpu_graph: expected the name of a file beside"),
        (wrong(OWN, "person_class", 1), "person_class"),
        (wrong(OWN, "input.width_px", 328), "input.width_px: expected a multiple of 16"),
        (wrong(OWN, "input.layout", "NCHW"), "input.layout: expected one of NHWC"),
        (wrong(OWN, "input.colour", "BGR"), "input.colour: expected one of RGB"),
        (wrong(OWN, "input.resize", "stretch"), "input.resize: expected one of letterbox"),
        (wrong(OWN, "input.scale", 0.5), "input.scale: expected 1.0 since uint8"),
        (wrong(OWN, "input.mean", [0, 0, 1]), "input.mean: expected (0.0, 0.0, 0.0) since uint8"),
        (wrong(YOLOX, "input.height_px", 240), "input.height_px: expected a multiple of 32"),
    ],
)
def test_what_a_family_does_not_know_is_refused(tmp_path: Path, contract: dict, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        OnnxDetector(write(tmp_path, contract, b""), (320, 256))
    assert f"person.json.{key}" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "no contract read (No such file"),
        ("", "not readable as JSON"),
        ("[]", "expected an object, found a list"),
        ('{"format": 1, "format": 2}', "a key appears twice"),
        ('{"min_score": NaN}', "NaN is not JSON"),
        ("[" * 9000, "not readable as JSON (nested too deep)"),
        ('{"a": "' + "x" * 17000 + '"}', "more than 16384 bytes"),
    ],
)
def test_what_is_no_contract_is_refused(tmp_path: Path, text: str | None, says: str) -> None:
    path = write(tmp_path, YOLO, b"")
    path.with_suffix(".json").unlink()
    if text is not None:
        path.with_suffix(".json").write_text(text)
    with pytest.raises(ConfigError) as caught:
        OnnxDetector(path, (320, 256))
    assert says in str(caught.value) and str(path.with_suffix(".json")) in str(caught.value)


@pytest.mark.parametrize(
    ("contract", "graph", "says"),
    [
        (YOLO, b"", "refuses the graph"),
        (YOLO, b"not a graph", "refuses the graph"),
        (YOLO, constant({"o": ROWS}, inputs=2), r"expected one input, found \['images', 'images1'\]"),
        (
            YOLO,
            constant({"o": ROWS}, kind=UINT8),
            r"expected an input of float32, found images: tensor\(uint8\)",
        ),
        (YOLO, constant({"o": ROWS}, (1, 3, 320, 256)), r"expected an input of \[1, 3, 256, 320\] \(NCHW\)"),
        (YOLO, constant({"o": ROWS}, (1, 256, 320, 3)), r"found images: tensor\(float\) \[1, 256, 320, 3\]"),
        (YOLO, constant({"o": ROWS}, (4, 3, 256, 320)), "a batch of 1"),
        (YOLO, constant({"o": ROWS}, (3, 256, 320)), r"expected an input of \[1, 3, 256, 320\]"),
        (YOLO, constant({"o": ROWS, "p": ROWS}), r"expected one output, found \['o', 'p'\]"),
        (
            YOLO,
            constant({"o": ROWS.astype(np.float16)}),
            r"expected outputs of float32, found o: tensor\(float16\)",
        ),
        (YOLO, constant({"o": np.zeros((1, 300, 6), np.float32)}), r"4 \+ classes, N\).*found \(1, 300, 6\)"),
        (
            YOLO,
            constant({"o": np.zeros((2, 6, 300), np.float32)}),
            r"found \(2, 6, 300\); declare its family",
        ),
        (
            YOLO | {"person_class": 2},
            constant({"o": ROWS}),
            "has 2 classes, expected more than person_class 2",
        ),
        (END2END, constant({"o": np.zeros((1, 84, 8400), np.float32)}), r"expected outputs \(1, N, 6\)"),
        (YOLOX, constant({"o": np.zeros((1, 1679, 85), np.float32)}), r"\(1, 1680, 5 \+ classes\)"),
        (
            YOLOX | {"person_class": 80},
            constant({"o": np.zeros((1, 1680, 85), np.float32)}),
            "has 80 classes",
        ),
        (
            DETR,
            constant({"boxes": np.zeros((1, 9, 4), np.float32)}),
            r"outputs dets and labels, found \['boxes'\]",
        ),
        (
            DETR,
            constant({"dets": np.zeros((1, 9, 91), np.float32), "labels": np.zeros((1, 9, 4), np.float32)}),
            r"expected outputs \(1, N, 4\), \(1, N, classes\)",
        ),
        (
            OWN,
            constant(
                {"heat": np.zeros(CELLS, np.float32), "box": np.zeros(CELLS, np.float32)},
                (1, 256, 320, 3),
                UINT8,
            ),
            "expected outputs heat and ltrb, found",
        ),
        (
            OWN,
            constant(
                {"heat": np.zeros(CELLS, np.float32), "ltrb": np.zeros(CELLS, np.float32)},
                (1, 256, 320, 3),
                UINT8,
            ),
            r"\(1, 1, 64, 80\), \(1, 4, 64, 80\).*found \(1, 1, 64, 80\), \(1, 1, 64, 80\)",
        ),
    ],
)
def test_a_graph_that_does_not_fit_is_refused(
    tmp_path: Path, contract: dict, graph: bytes, says: str
) -> None:
    with pytest.raises(TagclipError, match=says) as caught:
        OnnxDetector(write(tmp_path, contract, graph), (320, 256))
    assert isinstance(caught.value, (EngineError, ConfigError)) and "person.onnx" in str(caught.value)


def test_the_cpu_runs_what_the_contract_names_for_it(tmp_path: Path) -> None:
    path = write(tmp_path, YOLO | {"cpu_graph": "other.onnx"}, b"no graph, and never read on the CPU")
    for engine in ("cpu", "auto"):
        with pytest.raises(EngineError, match=r"other\.onnx: no graph read"):
            OnnxDetector(path, (320, 256), engine=engine)
    (tmp_path / "other.onnx").write_bytes(constant({"o": ROWS}))
    detector = OnnxDetector(path, (320, 256))
    assert detector.graph.path == tmp_path / "other.onnx"
    seen = detector.detect(Frame(0, 0.0, np.zeros((256, 320, 3), np.uint8)))
    path = write(tmp_path, YOLO, constant({"o": ROWS}))
    plain = OnnxDetector(path, (320, 256)).detect(Frame(0, 0.0, np.zeros((256, 320, 3), np.uint8)))
    assert len(plain.scores) and np.array_equal(seen.boxes_xywh_px, plain.boxes_xywh_px)


def test_engines(tmp_path: Path) -> None:
    path = write(tmp_path, YOLO, b"")
    path.unlink()
    with pytest.raises(EngineError, match="person.onnx: no graph read"):
        OnnxDetector(path, (320, 256))
    path = write(tmp_path, YOLO, constant({"o": ROWS}))
    with pytest.raises(
        ConfigError, match="engine 'tensorrt' runs no detector: expected cpu, cuda, openvino or auto"
    ):
        OnnxDetector(path, (320, 256), engine="tensorrt")
    auto = OnnxDetector(path, (320, 256), engine="auto")
    if auto.graph.engine == "cpu":
        assert "cuda was asked for" in auto.graph.passed_over["cuda"]
        with pytest.raises(EngineError, match="cuda was asked for"):
            OnnxDetector(path, (320, 256), engine="cuda")
    beside = {
        "tensorrt": "cuda",
        "tensorrt-rtx": "cuda",
        "ort-tensorrt": "cuda",
        "cpu": "cpu",
        "openvino": "openvino",
    }
    assert {engine: engine_beside(engine) for engine in beside} == beside and engine_beside("auto") == "auto"

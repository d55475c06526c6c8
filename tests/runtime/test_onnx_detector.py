"""Detectors by contract, with graphs whose boxes are known by arithmetic; the reference of doubles is torchvision."""

from __future__ import annotations

import json
import logging
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper

from tagclip.runtime.boxes import MOST_PEOPLE
from tagclip.runtime.bundle import Bundle
from tagclip.runtime.detector_decode import suppress
from tagclip.runtime.detector_graph import engine_beside
from tagclip.runtime.detectors import detector_of, drop_still
from tagclip.runtime.errors import ConfigError, EngineError, TagclipError
from tagclip.runtime.onnx_detector import OnnxDetector
from tagclip.runtime.source import Frame, VideoSource
from tagclip.runtime.tiles import MOST_TILES, merged, tiles, whole

FLOAT, UINT8 = TensorProto.FLOAT, TensorProto.UINT8
FARTHEST_PX = 128  # that the bright-rectangle graph sees to each side
CITY, PERSON = 90, 255
Run = Callable[..., tuple[int, str, str]]
Boxes = np.ndarray

INPUT = {
    "width_px": 320,
    "height_px": 256,
    "layout": "NCHW",
    "dtype": "float32",
    "scale": 1 / 255,
    "mean": [0, 0, 0],
    "std": [1, 1, 1],
    "colour": "RGB",
    "resize": "letterbox",
    "pad_value": 114,
}
PLAIN = {"layout": "NHWC", "dtype": "uint8", "scale": 1, "pad_value": 0}
YOLO = {
    "format": "tagclip-detector-1",
    "family": "yolo",
    "person_class": 0,
    "input": INPUT,
    "min_score": 0.3,
    "iou": 0.6,
    "licence": "Apache-2.0",
}
OWN = YOLO | {"family": "tagclip", "input": INPUT | PLAIN}
END2END = {key: value for key, value in YOLO.items() if key != "iou"} | {"family": "yolo-end2end"}
YOLOX = YOLO | {"family": "yolox", "input": INPUT | {"colour": "BGR", "scale": 1}}
DETR = {key: value for key, value in YOLO.items() if key != "iou"} | {
    "family": "detr",
    "outputs": {"boxes": "dets", "logits": "labels"},
    "input": INPUT
    | {"resize": "stretch", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "pad_value": 0},
}


def write(folder: Path, contract: dict[str, Any], graph: bytes) -> Path:
    path = folder / "person.onnx"
    path.write_bytes(graph)
    path.with_suffix(".json").write_text(json.dumps(contract))
    return path


def model(nodes: list, taken: list, given: list, constants: dict[str, np.ndarray]) -> bytes:
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "toy", taken, given, initializers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return made.SerializeToString()


def constant(
    outputs: dict[str, np.ndarray], shape: tuple = (1, 3, 256, 320), kind: int = FLOAT, inputs: int = 1
) -> bytes:
    """A graph that says the same of every picture."""
    nodes = [helper.make_node("Identity", [f"{name}_"], [name]) for name in outputs]
    taken = [helper.make_tensor_value_info(f"images{k or ''}", kind, shape) for k in range(inputs)]
    given = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in outputs.items()
    ]
    return model(nodes, taken, given, {f"{name}_": value for name, value in outputs.items()})


def yolo_rows(boxes: list[list[float]], scores: list[float], classes: int = 2) -> np.ndarray:
    """(1, 4 + classes, N) of middles and sizes, the class 0 with these scores."""
    out = np.zeros((1, 4 + classes, max(len(boxes), 4 + classes)), np.float32)
    out[0, :4, : len(boxes)] = np.array(boxes, np.float32).T
    out[0, 4, : len(boxes)] = scores
    return out


def bright() -> bytes:
    """Family tagclip, any size: people are bright rectangles. Each cell inside of one sees how far it reaches along
    its row and column, up to FARTHEST_PX, so the box is exact; the cell in its middle answers."""
    constants = {
        "level": np.array(200, np.float32),
        "one": np.array(1, np.float32),
        "channel": np.array([1], np.int64),
        "two": np.array([2], np.int64),
        "four": np.array([4], np.int64),
        "zero": np.array([0], np.int64),
        "end": np.array([1 << 30], np.int64),
        "y_axis": np.array([2], np.int64),
        "x_axis": np.array([3], np.int64),
    }
    node = helper.make_node
    nodes = [
        node("Cast", ["frames"], ["pixels"], to=FLOAT),
        node("ReduceMean", ["pixels"], ["grey"], axes=[3], keepdims=0),
        node("Unsqueeze", ["grey", "channel"], ["picture"]),
        node("Greater", ["picture", "level"], ["over"]),
        node("Cast", ["over"], ["lit"], to=FLOAT),
        # A cell's corner is at pixel 4x + 2, 4y + 2.
        node("Slice", ["lit", "two", "end", "y_axis", "four"], ["rows"]),
        node("Slice", ["lit", "two", "end", "x_axis", "four"], ["columns"]),
        node("Slice", ["rows", "two", "end", "x_axis", "four"], ["on"]),
    ]
    for side, lines, axis in (
        ("left", "rows", 3),
        ("top", "columns", 2),
        ("right", "rows", 3),
        ("bottom", "columns", 2),
    ):
        # Bright pixels in a row up to this one: a run of k that is full goes on with the run before it.
        run, k = lines, 1
        while k < FARTHEST_PX:
            pads = np.zeros(8, np.int64)
            pads[axis + (4 if side in ("right", "bottom") else 0)] = k
            ends = ("zero", f"-{k}") if side in ("left", "top") else (f"{k}", "end")
            constants |= {f"pads{axis}{side}{k}": pads, f"{k}": np.array([k], np.int64)}
            constants |= {f"-{k}": np.array([-k], np.int64), f"full{k}": np.array(k, np.float32)}
            name = f"{side}{k}"
            nodes += [
                node("Pad", [run, f"pads{axis}{side}{k}"], [f"{name}padded"]),
                node(
                    "Slice", [f"{name}padded", *ends, f"{'x' if axis == 3 else 'y'}_axis"], [f"{name}before"]
                ),
                node("Equal", [run, f"full{k}"], [f"{name}is"]),
                node("Cast", [f"{name}is"], [f"{name}goes"], to=FLOAT),
                node("Mul", [f"{name}goes", f"{name}before"], [f"{name}more"]),
                node("Add", [run, f"{name}more"], [name]),
            ]
            run, k = name, 2 * k
        nodes.append(
            node("Slice", [run, "two", "end", "x_axis" if axis == 3 else "y_axis", "four"], [f"{side}_with"])
        )
    nodes += [
        node("Sub", ["left_with", "on"], ["left"]),
        node("Sub", ["top_with", "on"], ["top"]),
        node("Concat", ["left", "top", "right_with", "bottom_with"], ["ltrb"], axis=1),
        node("Slice", ["ltrb", "zero", "two", "channel"], ["before"]),
        node("Slice", ["ltrb", "two", "four", "channel"], ["after"]),
        node("Sub", ["before", "after"], ["apart"]),
        node("Abs", ["apart"], ["off"]),
        node("ReduceSum", ["off", "channel"], ["wrong"], keepdims=1),
        node("ReduceSum", ["ltrb", "channel"], ["sum"], keepdims=1),
        node("Max", ["sum", "one"], ["safe"]),
        node("Div", ["wrong", "safe"], ["share"]),
        node("Sub", ["one", "share"], ["middle"]),
        node("Mul", ["middle", "on"], ["hill"]),
        node("MaxPool", ["hill"], ["peak"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Equal", ["hill", "peak"], ["is"]),
        node("Cast", ["is"], ["kept"], to=FLOAT),
        node("Mul", ["hill", "kept"], ["heat"]),
    ]
    taken = [helper.make_tensor_value_info("frames", UINT8, [1, "H", "W", 3])]
    given = [
        helper.make_tensor_value_info("heat", FLOAT, [1, 1, "h", "w"]),
        helper.make_tensor_value_info("ltrb", FLOAT, [1, 4, "h", "w"]),
    ]
    return model(nodes, taken, given, constants)


def scene(size: tuple[int, int], people: Boxes) -> Frame:
    """A frame with people x, y, w, h."""
    image = np.full((size[1], size[0], 3), CITY, np.uint8)
    for x, y, w, h in people:
        image[y : y + h, x : x + w] = PERSON
    return Frame(0, 0.0, image)


def frame(width: int = 320, height: int = 256, colour: tuple[int, int, int] = (0, 0, 0)) -> Frame:
    return Frame(0, 0.0, np.full((height, width, 3), colour, np.uint8))


def in_order(boxes: Boxes) -> Boxes:
    return boxes[np.lexsort(boxes.round().T)]


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


# What the graph says

ROWS = yolo_rows([[100, 100, 20, 40]], [0.9])
CELLS = (1, 1, 64, 80)


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


# What the picture becomes


def probe(layout: str, kind: int, size: tuple[int, int] = (320, 256)) -> bytes:
    """Family yolo, whose one box has the means of the three channels in its middle's x and y and its width."""
    axes, shape = (
        ([2, 3], (1, 3, size[1], size[0])) if layout == "NCHW" else ([1, 2], (1, size[1], size[0], 3))
    )
    node = helper.make_node
    nodes = [
        node("Cast", ["images"], ["values"], to=FLOAT),
        node("ReduceMean", ["values"], ["means"], axes=axes, keepdims=0),
        node("Mul", ["means", "gain"], ["scaled"]),
        node("Add", ["scaled", "middle"], ["three"]),
        node("Concat", ["three", "rest"], ["flat"], axis=1),
        node("Reshape", ["flat", "column"], ["one"]),
        node("Concat", ["one", "nobody"], ["o"], axis=2),
    ]
    constants = {
        "gain": np.array([[10, 10, 10]] if kind == FLOAT else [[0.1, 0.1, 0.1]], np.float32),
        "middle": np.array([[160, 128, 60]], np.float32),
        "rest": np.array([[40, 0.9]], np.float32),
        "column": np.array([1, 5, 1], np.int64),
        "nobody": np.zeros((1, 5, 4), np.float32),
    }
    taken = [helper.make_tensor_value_info("images", kind, shape)]
    return model(nodes, taken, [helper.make_tensor_value_info("o", FLOAT, (1, 5, 5))], constants)


@pytest.mark.parametrize("colour", ["RGB", "BGR"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_pixels_arrive_as_the_contract_says(tmp_path: Path, colour: str, layout: str, dtype: str) -> None:
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.25, 2.0]
    spec: dict[str, Any] = INPUT | {"colour": colour, "layout": layout, "dtype": dtype}
    spec |= {"mean": mean, "std": std} if dtype == "float32" else {"scale": 1}
    path = write(tmp_path, YOLO | {"input": spec}, probe(layout, FLOAT if dtype == "float32" else UINT8))
    pixels = np.array([200, 100, 50], float)
    values = pixels if colour == "RGB" else pixels[::-1]
    three = (values / 255 - mean) / std * 10 if dtype == "float32" else values * 0.1
    detector = OnnxDetector(path, (320, 256))
    for _ in range(2):  # the buffers are the same the second time
        found = detector.detect(frame(colour=(200, 100, 50)))
        (x, y, w, h), score = found.boxes_xywh_px[0], found.scores[0]
        assert score == pytest.approx(0.9) and h == pytest.approx(40)
        assert [x + w / 2 - 160, y + h / 2 - 128, w - 60] == pytest.approx(
            three, abs=0.02
        )  # a sum of 80,000 float32


@pytest.mark.parametrize(
    ("resize", "white"),
    [
        ("letterbox", 213 / 256),
        ("stretch", 1.0),
    ],  # 501x333 -> 320x213 in 320x256; 213 = round(333 * 320 / 501)
)
def test_padding_has_its_value(tmp_path: Path, resize: str, white: float) -> None:
    spec = INPUT | {"resize": resize, "pad_value": 114, "scale": 1 / 255}
    detector = OnnxDetector(
        write(tmp_path, YOLO | {"tile_overlap": 0, "input": spec}, probe("NCHW", FLOAT)), (501, 333)
    )
    found = detector.detect(frame(501, 333, (255, 255, 255)))
    width_px = 60 + 10 * (white + (1 - white) * 114 / 255)
    assert found.boxes_xywh_px[0, 2] == pytest.approx(width_px * 501 / 320, abs=1e-2)


@pytest.mark.parametrize(
    ("contract", "top", "scale_y"),
    [
        (YOLO, 21, 333 / 213),  # (256 - 213) // 2 rows of padding above
        (YOLO | {"input": INPUT | {"resize": "stretch"}}, 0, 333 / 256),
    ],
)
def test_boxes_come_back_from_odd_sizes(tmp_path: Path, contract: dict, top: int, scale_y: float) -> None:
    graph = constant(
        {"o": yolo_rows([[80, 120, 30, 60], [160, 10, 8, 8], [310, 200, 60, 40]], [0.9, 0.8, 0.7])}
    )
    found = OnnxDetector(write(tmp_path, contract | {"tile_overlap": 0}, graph), (501, 333)).detect(
        frame(501, 333)
    )
    scale_x = 501 / 320
    expected = [[65 * scale_x, (90 - top) * scale_y, 30 * scale_x, 60 * scale_y]]
    if top == 0:  # else it lies in the padding
        expected.append([156 * scale_x, 6 * scale_y, 8 * scale_x, 8 * scale_y])
    expected.append(
        [280 * scale_x, (180 - top) * scale_y, 40 * scale_x, 40 * scale_y]
    )  # cut at the frame's edge
    np.testing.assert_allclose(found.boxes_xywh_px, expected, rtol=1e-5)


@pytest.mark.parametrize("size", [(640, 480), (333, 501), (161, 1000), (97, 61), (32, 32)])
def test_a_picture_and_its_boxes_go_the_same_way(tmp_path: Path, size: tuple[int, int]) -> None:
    """Somebody a quarter of the frame, found where they are, to a pixel of the input."""
    contract = OWN | {"tile_overlap": 0, "input": INPUT | PLAIN | {"width_px": 256}}
    where = np.array([[size[0] // 3, size[1] // 5, size[0] // 4, size[1] // 2]])
    found = OnnxDetector(write(tmp_path, contract, bright()), size).detect(scene(size, where))
    allowed = max(size[0] / 256, size[1] / 256, 1) * 1.01
    assert len(found.scores) == 1 and np.abs(found.boxes_xywh_px - where).max() <= allowed


# What the families give


def test_own_family(tmp_path: Path) -> None:
    heat, ltrb = np.zeros(CELLS, np.float32), np.zeros((1, 4, 64, 80), np.float32)
    heat[0, 0, 10, 20], ltrb[0, :, 10, 20] = 0.8, [10, 20, 11, 22]  # the cell's middle: x 82, y 42
    heat[0, 0, 10, 21], ltrb[0, :, 10, 21] = 0.7, [14, 20, 7, 22]  # the same box from the next cell
    heat[0, 0, 40, 50], ltrb[0, :, 40, 50] = 0.29, [10, 10, 10, 10]  # not sure enough
    heat[0, 0, 63, 79], ltrb[0, :, 63, 79] = 1.5, [8, 10, 9, 9]  # middle 318, 254; over the edge, over 1
    heat[0, 0, 30, 30], ltrb[0, :, 30, 30] = 0.9, [-5, 3, 5, 3]  # no width
    graph = constant({"ltrb": ltrb, "heat": heat}, (1, 256, 320, 3), UINT8)  # told by name, not by place
    found = OnnxDetector(write(tmp_path, OWN, graph), (320, 256)).detect(frame())
    np.testing.assert_allclose(found.boxes_xywh_px, [[310, 244, 10, 12], [72, 22, 21, 42]])
    np.testing.assert_allclose(found.scores, [1.0, 0.8])


def test_yolo_end2end(tmp_path: Path) -> None:
    rows = np.zeros((1, 300, 6), np.float32)
    rows[0, 0] = [10, 20, 40, 90, 0.9, 3]
    rows[0, 1] = [11, 20, 40, 90, 0.8, 3]  # the graph said each once: both stay
    rows[0, 2] = [50, 20, 80, 90, 0.95, 0]  # no person
    rows[0, 3] = [50, 20, 80, 90, 0.2, 3]
    graph = constant({"o": rows})
    found = OnnxDetector(write(tmp_path, END2END | {"person_class": 3}, graph), (320, 256)).detect(frame())
    np.testing.assert_allclose(found.boxes_xywh_px, [[10, 20, 30, 70], [11, 20, 29, 70]])
    np.testing.assert_allclose(found.scores, [0.9, 0.8])


def test_yolox(tmp_path: Path) -> None:
    """Cells of strides 8, 16 and 32 one after the other: 40 x 32, 20 x 16, 10 x 8."""
    rows = np.zeros((1, 1680, 85), np.float32)
    rows[0, 5 * 40 + 7, :5], rows[0, 5 * 40 + 7, 6] = [0.5, 0.25, np.log(3), np.log(6), 0.9], 0.8
    rows[0, 1280 + 2 * 20 + 3, :5], rows[0, 1280 + 2 * 20 + 3, 6] = [-0.5, 1, 0, np.log(2), 0.8], 0.5
    rows[0, 1600 + 7 * 10 + 9, :5], rows[0, 1600 + 7 * 10 + 9, 6] = [0, 0, 0, 0, 0.5], 0.5  # 0.25
    rows[0, 0, :6] = [0, 0, 0, 0, 1, 1]  # class 0 is no person here
    graph = constant({"o": rows})
    found = OnnxDetector(write(tmp_path, YOLOX | {"person_class": 1}, graph), (320, 256)).detect(frame())
    first, second = (7.5 * 8, 5.25 * 8, 24, 48), (2.5 * 16, 3 * 16, 16, 32)
    expected = [[x - w / 2, y - h / 2, w, h] for x, y, w, h in (first, second)]
    np.testing.assert_allclose(found.boxes_xywh_px, expected, rtol=1e-5)
    np.testing.assert_allclose(found.scores, [0.72, 0.4], rtol=1e-6)


def test_detr(tmp_path: Path) -> None:
    boxes, logits = np.zeros((1, 5, 4), np.float32), np.full((1, 5, 91), -1e4, np.float32)
    boxes[0, :3] = [[0.5, 0.5, 0.1, 0.5], [0.25, 0.5, 0.5, 0.25], [0.1, 0.1, 0.1, 0.1]]
    logits[0, :3, 1] = np.log(0.7 / 0.3), 200.0, np.log(0.2 / 0.8)
    logits[0, 3, 0] = 10.0
    graph = constant({"labels": logits, "dets": boxes})
    found = OnnxDetector(
        write(tmp_path, DETR | {"person_class": 1, "tile_overlap": 0}, graph), (640, 360)
    ).detect(frame(640, 360))
    np.testing.assert_allclose(found.boxes_xywh_px, [[0, 135, 320, 90], [288, 90, 64, 180]], rtol=1e-5)
    np.testing.assert_allclose(found.scores, [1.0, 0.7], rtol=1e-6)


# What is not as it should be


def test_numbers_that_are_not_finite_are_dropped_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    boxes = [
        [100, 100, 20, 40],
        [np.nan, 50, 20, 40],
        [50, 50, np.inf, 40],
        [200, 50, 20, 40],
        [250, 50, 20, 40],
    ]
    graph = constant({"o": yolo_rows(boxes, [0.9, 0.9, 0.9, np.nan, np.inf])})
    detector = OnnxDetector(write(tmp_path, YOLO, graph), (320, 256))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            found = detector.detect(frame())
            np.testing.assert_allclose(found.boxes_xywh_px, [[90, 80, 20, 40]])
    assert [record.message.partition(": ")[2][:30] for record in caplog.records] == [
        "4 numbers of a frame are not f"
    ]
    assert detector.not_finite == 12


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, -3e38])
@pytest.mark.parametrize("family", ["tagclip", "yolo", "yolo-end2end", "yolox", "detr"])
def test_a_graph_gone_wild_finds_nobody_or_somebody_but_goes_on(
    tmp_path: Path, family: str, value: float
) -> None:
    def full(*shape: int) -> np.ndarray:
        return np.full(shape, value, np.float32)

    contract, outputs = {
        "tagclip": (OWN, {"heat": full(*CELLS), "ltrb": full(1, 4, 64, 80)}),
        "yolo": (YOLO, {"o": full(1, 84, 1680)}),
        "yolo-end2end": (END2END, {"o": full(1, 300, 6)}),
        "yolox": (YOLOX, {"o": full(1, 1680, 85)}),
        "detr": (DETR, {"dets": full(1, 300, 4), "labels": full(1, 300, 91)}),
    }[family]
    own = family == "tagclip"
    graph = constant(outputs, (1, 256, 320, 3) if own else (1, 3, 256, 320), UINT8 if own else FLOAT)
    found = OnnxDetector(write(tmp_path, contract, graph), (320, 256)).detect(frame())
    boxes = found.boxes_xywh_px
    assert np.isfinite(boxes).all() and found.usable() is found
    assert (boxes[:, :2] >= 0).all() and (boxes[:, :2] + boxes[:, 2:] <= [320, 256]).all()


def random_boxes(count: int, seed: int = 0) -> tuple[Boxes, np.ndarray]:
    """Middles and sizes in 320 x 256, scores over 0.3."""
    rng = np.random.default_rng(seed)
    sides = rng.uniform(4, 40, (count, 2))
    middles = rng.uniform(sides / 2, [320, 256] - sides / 2)
    return np.concatenate([middles, sides], 1).astype(np.float32), rng.uniform(0.31, 1, count).astype(
        np.float32
    )


@pytest.mark.parametrize("iou", [0.1, 0.45, 0.6, 0.9])
def test_doubles_go_as_torchvision_says(iou: float) -> None:
    torch = pytest.importorskip("torch")
    ops = pytest.importorskip("torchvision.ops")
    for seed, count in enumerate((0, 1, 2, 50, 250)):
        middles, scores = random_boxes(count, seed)
        boxes = np.concatenate([middles[:, :2] - middles[:, 2:] / 2, middles[:, :2] + middles[:, 2:] / 2], 1)
        expected = ops.batched_nms(
            torch.from_numpy(boxes), torch.from_numpy(scores), torch.zeros(count, dtype=torch.int64), iou
        )
        assert suppress(boxes, scores, iou).tolist() == expected.tolist()


def test_thousands_of_boxes_cost_what_is_bounded(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    ops = pytest.importorskip("torchvision.ops")
    middles, scores = random_boxes(5000)
    graph = constant({"o": yolo_rows(middles.tolist(), scores.tolist())})
    detector = OnnxDetector(write(tmp_path, YOLO, graph), (320, 256))
    begun_s = time.perf_counter()
    found = detector.detect(frame())
    assert time.perf_counter() - begun_s < 1.0
    best = np.argsort(-scores)[:1000]
    boxes = np.concatenate([middles[:, :2] - middles[:, 2:] / 2, middles[:, :2] + middles[:, 2:] / 2], 1)[
        best
    ]
    kept = ops.batched_nms(
        torch.from_numpy(boxes), torch.from_numpy(scores[best]), torch.zeros(1000, dtype=torch.int64), 0.6
    ).numpy()[:MOST_PEOPLE]
    assert len(found.scores) == len(kept) == MOST_PEOPLE
    np.testing.assert_allclose(found.scores, scores[best][kept])
    np.testing.assert_allclose(found.boxes_xywh_px[:, :2], boxes[kept, :2], atol=1e-3)


def test_a_run_that_fails_is_named(tmp_path: Path) -> None:
    """The graph takes pictures of one size only, though it says any."""
    node = helper.make_node
    nodes = [
        node("Cast", ["frames"], ["pixels"], to=FLOAT),
        node("Reshape", ["pixels", "shape"], ["flat"]),
        node("Slice", ["flat", "zero", "cells"], ["heat"]),
        node("Concat", ["heat", "heat", "heat", "heat"], ["ltrb"], axis=1),
    ]
    constants = {
        "shape": np.array([1, 3, 256, 320], np.int64),
        "zero": np.array([0, 0, 0, 0], np.int64),
        "cells": np.array([1, 1, 64, 80], np.int64),
    }
    given = [helper.make_tensor_value_info(name, FLOAT, [1, None, None, None]) for name in ("heat", "ltrb")]
    graph = model(nodes, [helper.make_tensor_value_info("frames", UINT8, [1, "H", "W", 3])], given, constants)
    detector = OnnxDetector(write(tmp_path, OWN, graph), (320, 256))
    with pytest.raises(EngineError, match="person.onnx: the run failed: "):
        detector.detect(frame(160, 128))


# Large frames


def spread(size: tuple[int, int], person: tuple[int, int], gap: int, jitter: int, seed: int = 0) -> Boxes:
    """People in rows and columns, each somewhere else in its field; nobody touches anybody."""
    rng = np.random.default_rng(seed)
    columns = np.arange(4, size[0] - person[0] - jitter - 4, person[0] + gap + jitter)
    rows = np.arange(4, size[1] - person[1] - jitter - 4, person[1] + gap + jitter)
    corners = np.stack(np.meshgrid(columns, rows), -1).reshape(-1, 2)
    corners = corners + rng.integers(0, jitter + 1, corners.shape)
    return np.column_stack([corners, np.tile(person, (len(corners), 1))])


def test_everybody_counts_once_where_tiles_meet(tmp_path: Path) -> None:
    size = (1280, 720)
    detector = OnnxDetector(write(tmp_path, OWN | {"input": INPUT | PLAIN}, bright()), size)
    assert len(detector.views) == 1 + 5 * 4  # steps of at most 240 and 192 pixels: 1 + 960/240, 1 + 464/192
    for left, top in ((240, 155), (320, 256), (480, 309), (560, 411), (0, 0), (1240, 650)):
        # Around every kind of tile corner, and over it.
        for dx in (-13, -8, -4, -1, 0, 1, 4, 9):
            where = np.array([[max(left + dx, 0), max(top + dx, 0), 16, 40]])
            found = detector.detect(scene(size, where))
            np.testing.assert_allclose(found.boxes_xywh_px, where, err_msg=str((left, top, dx)))


def test_crowds_are_counted_to_the_last(tmp_path: Path) -> None:
    size = (1280, 720)
    detector = OnnxDetector(write(tmp_path, OWN, bright()), size)
    people = spread(size, (14, 36), gap=20, jitter=22)
    assert 200 < len(people) < MOST_PEOPLE
    found = detector.detect(scene(size, people))
    np.testing.assert_allclose(in_order(found.boxes_xywh_px), in_order(people))


@pytest.mark.parametrize(
    "where", [[600, 100, 90, 240], [250, 40, 200, 420], [0, 0, 150, 400], [1100, 300, 180, 420]]
)
def test_tall_people_are_found_in_the_whole_frame(tmp_path: Path, where: list[int]) -> None:
    """No tile of 320x256 holds them."""
    found = OnnxDetector(write(tmp_path, OWN, bright()), (1280, 720)).detect(
        scene((1280, 720), np.array([where]))
    )
    assert len(found.scores) == 1
    assert np.abs(found.boxes_xywh_px - where).max() <= 4  # one pixel of the whole frame's input


def test_tall_and_small_together(tmp_path: Path) -> None:
    people = np.array([[100, 80, 150, 430], [270, 80, 12, 30], [620, 350, 30, 60], [900, 100, 120, 300]])
    found = OnnxDetector(write(tmp_path, OWN, bright()), (1280, 720)).detect(scene((1280, 720), people))
    np.testing.assert_allclose(in_order(found.boxes_xywh_px), in_order(people), atol=4)


def test_people_of_20_px_in_a_4k_frame(tmp_path: Path) -> None:
    size = (3840, 2160)
    contract = OWN | {"input": INPUT | PLAIN | {"width_px": 640, "height_px": 640}}
    people = spread(size, (8, 20), gap=120, jitter=64)
    assert 150 < len(people) < MOST_PEOPLE
    seen = scene(size, people)
    tiled = OnnxDetector(write(tmp_path, contract, bright()), size)
    assert len(tiled.views) == 1 + 8 * 5
    np.testing.assert_allclose(in_order(tiled.detect(seen).boxes_xywh_px), in_order(people))
    # Nothing of the frame's size (25 MB) is made anew.
    tracemalloc.start()
    tiled.detect(seen)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6e6
    assert len(tiled.detect(scene(size, people[:0])).scores) == 0
    # Shrunk to the input they are 3 pixels tall: without tiles hardly anybody is found.
    untiled = OnnxDetector(write(tmp_path, contract | {"tile_overlap": 0}, bright()), size)
    assert len(untiled.views) == 1 and len(untiled.detect(seen).scores) < len(people) / 2


def test_two_who_stand_close_are_two_in_one_tile_and_one_in_two_tiles() -> None:
    """Boxes 20 x 40, one 6 pixels beside the other: 14/26 of their union in common, less than the contract's 0.6."""
    size = (1280, 720)
    views = [
        whole(size, (320, 256), stretch=False, centred=False),
        *tiles(size, (320, 256), 0.25, centred=False),
    ]
    pair = np.array([[100, 100, 120, 140], [106, 100, 126, 140]], np.float32)
    scores, nobody = np.array([0.9, 0.8], np.float32), (np.empty((0, 4), np.float32), np.empty(0, np.float32))
    others = [nobody] * (len(views) - 3)
    boxes, got = merged(size, views, [nobody, (pair, scores), nobody, *others])
    np.testing.assert_array_equal(boxes, pair)
    np.testing.assert_array_equal(got, scores)
    boxes, got = merged(size, views, [nobody, (pair[:1], scores[:1]), (pair[1:], scores[1:]), *others])
    np.testing.assert_array_equal(boxes, pair[:1])


@pytest.mark.parametrize(
    ("size", "share", "count"),
    [
        ((320, 256), 0.25, 0),
        ((400, 320), 0.25, 0),  # 0.8 of its size is near enough
        ((401, 320), 0.25, 4),
        ((640, 200), 0.25, 3),  # 1 + 320/240
        ((640, 200), 0.5, 3),
        ((640, 512), 0.25, 9),
        ((1280, 720), 0.05, 15),  # 1 + 960/304, 1 + 464/243, rounded up
        ((1920, 1080), 0.25, 48),
        ((1920, 1080), 0.0, 0),
    ],
)
def test_how_many_tiles(tmp_path: Path, size: tuple[int, int], share: float, count: int) -> None:
    detector = OnnxDetector(write(tmp_path, YOLO | {"tile_overlap": share}, constant({"o": ROWS})), size)
    assert len(detector.views) - 1 == count
    cut = detector.views[1:]
    for axis, start, extent in ((0, "left_px", "width_px"), (1, "top_px", "height_px")):
        starts = sorted({getattr(tile, start) for tile in cut})
        if not starts:
            continue
        tile = getattr(cut[0], extent)
        assert starts[0] == 0 and starts[-1] + tile == size[axis]
        assert all(a + tile - b >= share * tile for a, b in zip(starts, starts[1:], strict=False))


def test_too_many_tiles_are_refused_before_the_work(tmp_path: Path) -> None:
    path = write(tmp_path, YOLO, constant({"o": ROWS}))
    with pytest.raises(
        ConfigError, match=f"3840x2160 takes 176 tiles of 320x256, expected at most {MOST_TILES}; export"
    ):
        OnnxDetector(path, (3840, 2160))
    detector = OnnxDetector(path, (640, 480))
    with pytest.raises(ConfigError, match="takes 176 tiles"):
        detector.detect(frame(3840, 2160))


def test_frames_of_another_size_are_taken(tmp_path: Path) -> None:
    detector = OnnxDetector(write(tmp_path, OWN, bright()), (1280, 720))
    for size in ((320, 240), (1280, 720), (100, 250), (640, 480)):
        where = np.array([[60, 100, 20, 48]])
        np.testing.assert_allclose(detector.detect(scene(size, where)).boxes_xywh_px, where)


def test_an_input_of_any_size_follows_small_frames(tmp_path: Path) -> None:
    detector = OnnxDetector(write(tmp_path, OWN, bright()), (150, 100))
    assert detector._whole.size_px == (160, 128)
    assert detector.views[0].shown_px == (150, 100)


# Where it is used


def video(path: Path) -> Path:
    """Three seconds of somebody who stands still."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (320, 240))
    picture = scene((320, 240), np.array([[140, 80, 24, 72]])).image
    for _ in range(30):
        writer.write(picture)
    writer.release()
    return path


def test_who_stands_still_is_found_too(tmp_path: Path, run: Run, tiny_bundle: Bundle) -> None:
    path, clip = write(tmp_path, OWN, bright()), video(tmp_path / "clip.mp4")
    finder = detector_of(VideoSource(clip), None, path)
    assert isinstance(finder, OnnxDetector) and not drop_still(finder)
    assert drop_still(detector_of(VideoSource(clip), None))
    status, out, err = run(
        "search", "white", clip, "--detector", path, "--bundle", tiny_bundle.path, "--json"
    )
    assert status == 0, err
    (hit,) = json.loads(out)["results"]
    assert np.abs(np.array(hit["best"]["box_xywh_px"]) - [140, 80, 24, 72]).max() < 3
    assert "detector: person.onnx (tagclip) on cpu, the whole of each frame" in err


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["--detector", "yolo"], 1, "or a file named *.onnx"),
        (["--detector", "{tmp}/person.onnx", "--boxes", "x"], 2, "drop one"),
        (["--detector", "{tmp}/gone.onnx"], 1, "gone.json: no contract read"),
        (["--detector", "{tmp}/person.onnx", "--engine", "cuda"], 1, "cuda was asked for"),
    ],
)
def test_search_says_what_is_wrong(
    tmp_path: Path, run: Run, arguments: list[str], status: int, says: str
) -> None:
    write(tmp_path, OWN, bright())
    clip = video(tmp_path / "clip.mp4")
    got, out, err = run("search", "white", clip, *(argument.format(tmp=tmp_path) for argument in arguments))
    assert (got, out) == (status, "") and says in err and "Traceback" not in err


def test_verify_shows_what_it_is_and_whom_it_finds(tmp_path: Path, run: Run) -> None:
    path = write(tmp_path, OWN, bright())
    picture = tmp_path / "street.png"
    people = np.array([[100, 60, 20, 60], [500, 300, 16, 40]])
    cv2.imwrite(str(picture), scene((640, 480), people).image)
    status, out, err = run("detector", "verify", path, picture, "--out", tmp_path / "seen.png")
    assert status == 0 and "written: " in err
    for line in (
        "family   tagclip, class 0 of 1 is a person",
        "input    320x256 at most, follows the frame",
        "licence  Apache-2.0",
        "engine   cpu",
        "640x480: the whole and 9 tiles",
        "people   2",
        "at 100,60,20,60",
    ):
        assert line in out
    drawn = cv2.imread(str(tmp_path / "seen.png"))
    assert drawn.shape == (480, 640, 3) and drawn[90, 100].tolist() == [0, 159, 230]
    facts = json.loads(run("detector", "verify", path, picture, "--json")[1])
    assert sorted(person["box_xywh_px"] for person in facts["people"]) == people.tolist()
    assert facts["runs_per_frame"] == 10 and facts["ms_per_frame"] > 0
    assert json.loads(run("detector", "verify", path, "--json")[1])["people"] == []


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["{tmp}/gone.onnx"], 1, "gone.json: no contract read"),
        (["{tmp}/person.onnx", "{tmp}/person.json"], 1, "cannot be read as a picture"),
        (["{tmp}/person.onnx", "--out", "x.png"], 2, "name one"),
        (["{tmp}/person.onnx", "{tmp}/a.png", "--out", "{tmp}/x.gif"], 1, "*.png or *.jpg"),
        (["{tmp}/person.onnx", "--engine", "tensorrt"], 1, "runs no detector"),
    ],
)
def test_verify_says_what_is_wrong(
    tmp_path: Path, run: Run, arguments: list[str], status: int, says: str
) -> None:
    write(tmp_path, OWN, bright())
    got, out, err = run("detector", "verify", *(argument.format(tmp=tmp_path) for argument in arguments))
    assert (got, out) == (status, "") and says in err and "Traceback" not in err

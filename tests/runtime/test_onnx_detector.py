"""Detectors by contract, with graphs whose boxes are known by arithmetic; the reference of doubles is torchvision."""

from __future__ import annotations

import logging
import time
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
    FLOAT,
    INPUT,
    OWN,
    PLAIN,
    UINT8,
    YOLO,
    YOLOX,
    Boxes,
    bright,
    constant,
    frame,
    model,
    scene,
    write,
    yolo_rows,
)
from onnx import helper

from tagclip.runtime.boxes import MOST_PEOPLE
from tagclip.runtime.detector_decode import suppress
from tagclip.runtime.errors import EngineError
from tagclip.runtime.onnx_detector import OnnxDetector

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

"""The detector in eight bits, made of the one that ships and of frames of the example."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from tagclip.export.detector_int8 import to_int8
from tagclip.runtime.detectors import SHIPPED
from tagclip.runtime.errors import EngineError, OutputError
from tagclip.runtime.onnx_detector import OnnxDetector
from tagclip.runtime.providers import exact_options
from tagclip.runtime.source import Frame, Image, VideoSource

CLIP = SHIPPED.with_name("example.mp4")
EVERY = 20


def stills(folder: Path) -> list[Image]:
    """Frames of the example as a folder of stills."""
    (folder / "images").mkdir(parents=True)
    truth = json.loads(CLIP.with_suffix(".json").read_text())["frames"]
    images, rows = [], []
    for frame in VideoSource(CLIP):
        if frame.index % EVERY == 0:
            cv2.imwrite(str(folder / "images" / f"{frame.index}.png"), frame.image[..., ::-1])
            people = [
                {"box_xywh_px": person["box_xywh_px"], "visible": 1.0}
                for person in truth[frame.index]["people"]
            ]
            rows.append({"file": f"{frame.index}.png", "people": people})
            images.append(frame.image)
    (folder / "stills.json").write_text(json.dumps({"stills": rows}))
    return images


def test_eight_bits_see_what_sixteen_see(tmp_path: Path) -> None:
    """And on this processor what they see on every other: sums of products fit into 16 bits."""
    graph = tmp_path / "person.onnx"
    graph.write_bytes(SHIPPED.read_bytes())
    contract = json.loads(SHIPPED.with_suffix(".json").read_text())
    del contract["cpu_graph"]
    graph.with_suffix(".json").write_text(json.dumps(contract))
    images = stills(tmp_path / "stills")
    size_px = (images[0].shape[1], images[0].shape[0])
    frame = Frame(0, 0.0, images[0])
    plain = OnnxDetector(graph, size_px).detect(frame)

    before, after = to_int8(graph, tmp_path / "stills")

    assert before > 0.5 and after >= before - 0.02
    small = OnnxDetector(graph, size_px)
    assert small.graph.path.name == "person-int8.onnx"
    assert small.graph.path.stat().st_size < 0.6 * graph.stat().st_size
    found = small.detect(frame)
    assert len(found.scores) == len(plain.scores) > 2
    order, plain_order = (each.boxes_xywh_px[:, 0].argsort() for each in (found, plain))
    assert np.abs(found.boxes_xywh_px[order] - plain.boxes_xywh_px[plain_order]).max() < 6
    data = small.graph.path.read_bytes()
    picture = {"frames": images[0][None, : size_px[1] // 32 * 32, : size_px[0] // 32 * 32]}
    plainly, exactly = (
        ort.InferenceSession(data, options, providers=["CPUExecutionProvider"]).run(None, picture)[0]
        for options in (ort.SessionOptions(), exact_options(data))
    )
    assert np.abs(plainly - exactly).max() < 1e-5 and plainly.max() > 0.3
    with pytest.raises(OutputError, match="exists"):
        to_int8(graph, tmp_path / "stills")
    small.graph.path.unlink()
    graph.unlink()
    graph.with_suffix(".json").write_text(json.dumps(contract))
    with pytest.raises(EngineError, match="no graph read"):
        to_int8(graph, tmp_path / "stills")

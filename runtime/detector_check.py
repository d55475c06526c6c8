"""A detector on one picture: what it is, what it costs, and whom it finds."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tagclip.runtime.boxes import Detections
from tagclip.runtime.detector_contract import read_contract
from tagclip.runtime.errors import OutputError, SourceError
from tagclip.runtime.files import write_atomic
from tagclip.runtime.onnx_detector import OnnxDetector
from tagclip.runtime.providers import CPU
from tagclip.runtime.sheet import image_bytes
from tagclip.runtime.source import Frame, Image, read_image

RUNS = 3  # of which the fastest counts
COLOUR = (230, 159, 0)  # RGB; told apart by people with any colour vision


def check_detector(
    path: Path, image: Path | None = None, *, engine: str = CPU, out: Path | None = None
) -> dict[str, Any]:
    """Load a detector, let it prove that it fits its contract, and try it.

    Args:
        path: of the graph.
        image: a picture to look at; None takes a grey one of the input's size.
        engine: as `OnnxDetector`.
        out: a file, *.png or *.jpg, for the picture with the boxes drawn.

    Returns:
        "family", "licence", "classes" (None where they do not show), "person_class", "input_px" [width, height],
        "any_size", "engine", "graph" (name of the file that ran), "frame_px", "runs_per_frame", "ms_per_frame", and
        "people": [{"score", "box_xywh_px"}].

    Raises:
        SourceError: the picture cannot be read. OutputError: `out` has another suffix or cannot be written.
        ConfigError, EngineError, MissingExtraError: as `OnnxDetector`.
    """
    if out is not None and out.suffix not in (".png", ".jpg"):
        raise OutputError(f"{out}: expected a file named *.png or *.jpg; rename it")
    spec = read_contract(path).input
    picture = (
        np.full((spec.height_px, spec.width_px, 3), 128, np.uint8) if image is None else read_image(image)
    )
    if picture is None:
        raise SourceError(f"{image} cannot be read as a picture; expected JPEG, PNG, BMP or WebP")
    frame_px = (picture.shape[1], picture.shape[0])
    detector = OnnxDetector(path, frame_px, engine=engine)
    seconds = []
    for _ in range(RUNS):
        begun_s = time.perf_counter()
        found = detector.detect(Frame(0, 0.0, picture))
        seconds.append(time.perf_counter() - begun_s)
    if out is not None:
        write_atomic(out, image_bytes(drawn(picture, found), out.suffix))
    contract = detector.contract
    return {
        "family": contract.family,
        "licence": contract.licence,
        "classes": detector.graph.classes,
        "person_class": contract.person_class,
        "input_px": [spec.width_px, spec.height_px],
        "any_size": detector.graph.any_size,
        "engine": detector.graph.engine,
        "graph": detector.graph.path.name,
        "frame_px": list(frame_px),
        "runs_per_frame": len(detector.views),
        "ms_per_frame": round(min(seconds) * 1000, 1),
        "people": [
            {"score": round(float(score), 3), "box_xywh_px": [round(float(v), 1) for v in box]}
            for box, score in zip(found.boxes_xywh_px, found.scores, strict=True)
        ],
    }


def drawn(picture: Image, found: Detections) -> Image:
    """A copy of an RGB picture with boxes and scores."""
    copy = picture.copy()
    unit = max(picture.shape[0] / 720.0, 0.6)  # lines and letters grow with the picture
    for (x, y, w, h), score in zip(
        np.rint(found.boxes_xywh_px).astype(int).tolist(), found.scores, strict=True
    ):
        cv2.rectangle(copy, (x, y), (x + w, y + h), COLOUR, max(round(unit), 1))
        at = (x, max(y - 3, 10))
        cv2.putText(copy, f"{score:.2f}", at, cv2.FONT_HERSHEY_SIMPLEX, 0.4 * unit, COLOUR, 1, cv2.LINE_AA)
    return copy

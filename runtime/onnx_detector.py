"""A detector out of an ONNX graph, by the contract that lies beside it: docs/detectors.md."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.boxes import Detections
from tagclip.runtime.detector_contract import YOLO, InputSpec, read_contract
from tagclip.runtime.detector_decode import Decoder, Found
from tagclip.runtime.detector_graph import DetectorGraph
from tagclip.runtime.providers import CPU
from tagclip.runtime.source import Frame, Image
from tagclip.runtime.tiles import View, merged, placed, shown, tiles, whole

ROUND_PX = 32  # an input that follows the frame is a multiple of this

_Size = tuple[int, int]

log = logging.getLogger(__name__)


class OnnxDetector:
    """People by an ONNX graph. Not for several threads at a time.

    Args:
        path: of the graph, `*.onnx`; its contract is the `*.json` beside it.
        frame_px: width and height of the frames; a frame of another size costs a new plan.
        engine: one of `detector_graph.ENGINES`, or "auto": cuda where that starts, else cpu.
        threads: of the CPU; None leaves it to ONNX Runtime (one per core).
        min_score: instead of the contract's.

    Attributes:
        contract: as read.
        graph: with the engine that it runs on.
        views: what it looks at in every frame: the whole, then its tiles. Each is one run of the graph.
        not_finite: how many numbers that are not finite stood where a person's score or box should.

    Raises:
        ConfigError: the contract is missing or wrong, or the frames need too many tiles.
        EngineError: the graph is missing, refused, or not what the contract says; or the engine is not there.
        MissingExtraError: onnxruntime is not installed.
    """

    def __init__(
        self,
        path: Path,
        frame_px: _Size,
        *,
        engine: str = CPU,
        threads: int | None = None,
        min_score: float | None = None,
    ) -> None:
        self.contract = read_contract(path)
        if min_score is not None:
            self.contract = replace(self.contract, min_score=min_score)
        self.graph = DetectorGraph(path, self.contract, engine=engine, threads=threads)
        self.not_finite = 0
        self._plan(frame_px)
        for put in {self._whole, self._tile}:
            self.graph.check(put.tensor(), put.size_px)

    def detect(self, frame: Frame) -> Detections:
        """People in `frame`, their boxes inside of it.

        Raises:
            ConfigError: the frame has another size than before, and needs too many tiles.
            EngineError: the run fails.
        """
        height, width = frame.image.shape[:2]
        if (width, height) != self._frame_px:
            self._plan((width, height))
        found = [
            self._look(self._tile if k else self._whole, view, frame.image)
            for k, view in enumerate(self.views)
        ]
        boxes, scores = merged(self._frame_px, self.views, found) if len(found) > 1 else found[0]
        return Detections(np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1), scores)

    def _look(self, put: _Input, view: View, image: Image) -> Found:
        shown(view, image, put.picture)
        boxes, scores, wrong = put.decode(self.graph.run(put.tensor()))
        if wrong and not self.not_finite:
            log.warning(
                "%s: %d numbers of a frame are not finite and left out; said once, look at the export or its precision",
                self.graph.path,
                wrong,
            )
        self.not_finite += wrong
        boxes = placed(view, boxes)
        real = (boxes[:, 2:] > boxes[:, :2]).all(1)  # what lies in the padding has no area left
        return boxes[real], scores[real]

    def _plan(self, frame_px: _Size) -> None:
        """Which views, and the inputs that they are drawn into."""
        spec = self.contract.input
        tile_px, centred = (spec.width_px, spec.height_px), self.contract.family == YOLO
        if self.graph.any_size:
            tile_px = (min(tile_px[0], _rounded(frame_px[0])), min(tile_px[1], _rounded(frame_px[1])))
        cut = tiles(frame_px, tile_px, self.contract.tile_overlap, centred=centred)
        view, whole_px = whole(frame_px, tile_px, stretch=spec.resize == "stretch", centred=centred), tile_px
        if self.graph.any_size:
            if view.shown_px > frame_px:  # a small frame keeps its own pixels
                view = View(0, 0, *frame_px, (0, 0), frame_px)
            whole_px = (_rounded(view.shown_px[0]), _rounded(view.shown_px[1]))
        self.views, self._frame_px = [view, *cut], frame_px
        self._whole = _Input(spec, whole_px, Decoder(self.contract, whole_px))
        # An own one, since the padding lies elsewhere.
        self._tile = _Input(spec, tile_px, Decoder(self.contract, tile_px)) if cut else self._whole


class _Input:
    """The buffers of one input size, and what reads the answer.

    Attributes:
        size_px: width and height.
        picture: uint8 (height, width, 3), RGB, to be drawn into; the padding is filled.
    """

    def __init__(self, spec: InputSpec, size_px: _Size, decode: Decoder) -> None:
        self.size_px, self.decode = size_px, decode
        self.picture: Image = np.full((size_px[1], size_px[0], 3), spec.pad_value, np.uint8)
        turned = self.picture[..., ::-1] if spec.colour == "BGR" else self.picture
        nhwc = spec.layout == "NHWC"
        self._pixels = turned[None] if nhwc else turned.transpose(2, 0, 1)[None]
        # Nothing to do where the graph takes the picture as it is.
        plain = self._pixels.flags.c_contiguous and spec.dtype == "uint8"
        self._tensor: NDArray[Any] = self._pixels if plain else np.empty(self._pixels.shape, spec.dtype)
        # One channel at a time: NumPy is ten times slower where its innermost loop has three steps.
        planes = self._tensor[0].transpose(2, 0, 1) if nhwc else self._tensor[0]
        gain, shift = spec.scale / np.array(spec.std), -np.array(spec.mean) / np.array(spec.std)
        self._channels = [
            (turned[..., c], planes[c], np.float32(gain[c]), np.float32(shift[c])) for c in range(3)
        ]

    def tensor(self) -> NDArray[Any]:
        """The picture as the graph takes it; the same array every time."""
        if self._tensor.dtype == np.float32:
            for pixels, plane, gain, shift in self._channels:
                np.multiply(pixels, gain, out=plane)
                np.add(plane, shift, out=plane)
        elif self._tensor is not self._pixels:
            np.copyto(self._tensor, self._pixels)
        return self._tensor


def _rounded(side_px: int) -> int:
    return -(-side_px // ROUND_PX) * ROUND_PX

"""A detector's graph on an engine, checked against its contract before anybody relies on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.bundle_manifest import TensorSpec, Tower, TowerFacts
from tagclip.runtime.detector_contract import DETR, END2END, TAGCLIP, YOLO, YOLOX, Contract, InputSpec
from tagclip.runtime.detector_decode import STRIDE_PX, YOLOX_STRIDES_PX
from tagclip.runtime.errors import ConfigError, EngineError, MissingExtraError, one_line
from tagclip.runtime.providers import CPU, CUDA, OPENVINO, start_session

AUTO = "auto"
# Where TensorRT runs the encoders, the detector runs on the same GPU with CUDA: its engines are the bundle's.
ENGINES = (CPU, CUDA, OPENVINO)
MAX_GRAPH_BYTES = 1 << 30

_TYPES = {"uint8": "tensor(uint8)", "float32": "tensor(float)"}
_Size = tuple[int, int]


class DetectorGraph:
    """An ONNX graph that takes one picture. Not for several threads at a time.

    Args:
        path: of the graph.
        contract: what it has to be; on the CPU its `cpu_graph` runs, if it names one.
        engine: one of ENGINES, or "auto": cuda where that starts, else cpu.
        threads: of the CPU; None leaves it to ONNX Runtime (one per core).

    Attributes:
        path: of the graph that runs.
        engine: which runs it, one of ENGINES.
        passed_over: with "auto", engine -> why it was not taken.
        any_size: whether it takes pictures of other sizes than the contract's.
        classes: how many it knows, once `check` was called; None where it does not show.

    Raises:
        ConfigError: no such engine.
        EngineError: the graph is missing, refused, or takes or gives something else than the contract says; or the
            engine is not there.
        MissingExtraError: onnxruntime is not installed.
    """

    def __init__(self, path: Path, contract: Contract, *, engine: str, threads: int | None) -> None:
        self.path, self._contract = path, contract
        self.classes: int | None = None
        if engine not in (*ENGINES, AUTO):
            raise ConfigError(f"engine {engine!r} runs no detector: expected {', '.join(ENGINES)} or {AUTO}")
        self.passed_over: dict[str, str] = {}
        self.engine = CUDA if engine == AUTO else engine
        try:
            self._session = self._start(threads)
        except (EngineError, MissingExtraError) as error:
            if engine != AUTO:
                raise
            self.passed_over[CUDA] = str(error)
            self.engine = CPU
            self._session = self._start(threads)
        self._input, self.any_size = self._check_input()
        self._outputs = self._check_outputs()

    def run(self, tensor: NDArray[Any]) -> list[NDArray[np.float32]]:
        """Its outputs for one picture of the contract's layout and dtype, in the order in which they are decoded.

        Raises:
            EngineError: the run fails.
        """
        try:
            return list(self._session.run(self._outputs, {self._input: tensor}))
        except Exception as error:  # onnxruntime's exceptions have no common base
            raise EngineError(f"{self.path}: the run failed: {one_line(str(error))}") from error

    def check(self, tensor: NDArray[Any], size_px: _Size) -> None:
        """Run it once and look at the shapes of what comes out; warm afterwards.

        Args:
            tensor: a picture.
            size_px: its width and height.

        Raises:
            EngineError: the run fails, or the shapes do not fit the family.
            ConfigError: it does not have as many classes as the contract's `person_class` needs.
        """
        outputs = self.run(tensor)
        shapes = [output.shape for output in outputs]
        if not _fits(self._contract.family, size_px, shapes):
            raise EngineError(
                f"{self.path}: expected outputs {_expected(self._contract.family, size_px)} of family "
                f"{self._contract.family} for an input of {size_px[0]}x{size_px[1]}, found "
                f"{', '.join(map(str, shapes))}; declare its family, or export it again"
            )
        self.classes = _classes(self._contract.family, shapes)
        if self.classes is not None and self._contract.person_class >= self.classes:
            raise ConfigError(
                f"{self.path} has {self.classes} classes, expected more than person_class "
                f"{self._contract.person_class}, which counts from 0; correct the contract"
            )

    def _start(self, threads: int | None) -> Any:
        if self.engine == CPU and self._contract.cpu_graph:
            self.path = self.path.with_name(self._contract.cpu_graph)
        # start_session wants a tower; nothing of this one but its file is looked at on these engines.
        taken = TensorSpec("", self._contract.input.dtype, _shape(self._contract.input))
        tower = Tower("detector", str(self.path), None, taken, taken, TowerFacts("fp32", 0))
        return start_session(self.engine, _read(self.path), tower, threads)

    def _check_input(self) -> tuple[str, bool]:
        """Its name, and whether its sides are free."""
        found, spec = self._session.get_inputs(), self._contract.input
        if len(found) != 1:
            raise EngineError(
                f"{self.path}: expected one input, found {[tensor.name for tensor in found]}; export it again"
            )
        said = f"{found[0].name}: {found[0].type} {found[0].shape}"
        if found[0].type != _TYPES[spec.dtype]:
            raise EngineError(
                f"{self.path}: expected an input of {spec.dtype}, found {said}; correct the contract"
            )
        expected = _shape(spec)
        fixed = [size if isinstance(size, int) else None for size in found[0].shape]
        if len(fixed) != 4 or any(f is not None and f != e for f, e in zip(fixed, expected, strict=True)):
            raise EngineError(
                f"{self.path}: expected an input of {list(expected)} ({spec.layout}), found {said}; correct the "
                "contract, or export it with that size and a batch of 1"
            )
        sides = fixed[1:3] if spec.layout == "NHWC" else fixed[2:]
        return found[0].name, self._contract.family == TAGCLIP and sides == [None, None]

    def _check_outputs(self) -> list[str]:
        """Their names, in the order in which they are decoded."""
        found = self._session.get_outputs()
        names = [tensor.name for tensor in found]
        expected = {TAGCLIP: ("heat", "ltrb"), DETR: self._contract.outputs}.get(self._contract.family)
        if (expected is None and len(names) != 1) or (
            expected is not None and sorted(names) != sorted(expected)
        ):
            wanted = "one output" if expected is None else f"outputs {' and '.join(expected)}"
            raise EngineError(
                f"{self.path}: expected {wanted}, found {names}; correct the contract or export it again"
            )
        for tensor in found:
            if tensor.type != _TYPES["float32"]:
                raise EngineError(
                    f"{self.path}: expected outputs of float32, found {tensor.name}: {tensor.type}; export it again"
                )
        return list(expected or names)


def engine_beside(encoders: str) -> str:
    """The engine of a detector whose encoders run on `encoders`, one of `engines.ENGINES` or "auto"."""
    return encoders if encoders in (*ENGINES, AUTO) else CUDA


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            graph = file.read(MAX_GRAPH_BYTES + 1)
    except OSError as error:
        raise EngineError(f"{path}: no graph read ({error.strerror or error}); name an .onnx file") from error
    if len(graph) > MAX_GRAPH_BYTES:
        raise EngineError(
            f"{path}: more than {MAX_GRAPH_BYTES} bytes, expected a detector; is it the right file?"
        )
    return graph


def _shape(spec: InputSpec) -> tuple[int, ...]:
    sides = (spec.height_px, spec.width_px)
    return (1, *sides, 3) if spec.layout == "NHWC" else (1, 3, *sides)


def _expected(family: str, size_px: _Size) -> str:
    width, height = size_px
    cells = f"{height // STRIDE_PX}, {width // STRIDE_PX}"
    return {
        TAGCLIP: f"(1, 1, {cells}), (1, 4, {cells})",
        YOLO: "(1, 4 + classes, N) with N of at least 4 + classes",
        END2END: "(1, N, 6)",
        YOLOX: f"(1, {_yolox_cells(size_px)}, 5 + classes)",
        DETR: "(1, N, 4), (1, N, classes)",
    }[family]


def _fits(family: str, size_px: _Size, shapes: Sequence[tuple[int, ...]]) -> bool:
    if any(len(shape) != (4 if family == TAGCLIP else 3) or shape[0] != 1 for shape in shapes):
        return False
    if family == TAGCLIP:
        cells = (size_px[1] // STRIDE_PX, size_px[0] // STRIDE_PX)
        return shapes == [(1, 1, *cells), (1, 4, *cells)]
    _, rows, columns = shapes[0]
    if family == YOLO:  # the other way round it would be read as thousands of classes
        return 5 <= rows <= columns
    if family == YOLOX:
        return rows == _yolox_cells(size_px) and columns >= 6
    if family == DETR:
        return columns == 4 and shapes[1][1] == rows and shapes[1][2] >= 1
    return columns == 6


def _classes(family: str, shapes: Sequence[tuple[int, ...]]) -> int | None:
    if family == END2END:
        return None
    return {TAGCLIP: 1, YOLO: shapes[0][1] - 4, YOLOX: shapes[0][2] - 5, DETR: shapes[-1][2]}[family]


def _yolox_cells(size_px: _Size) -> int:
    return sum((size_px[0] // stride) * (size_px[1] // stride) for stride in YOLOX_STRIDES_PX)

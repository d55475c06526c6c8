"""What computes a tower: one small interface, and ONNX Runtime behind it. runtime/trt_engine.py is the other one."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tagclip.runtime.bundle_manifest import TensorSpec, Tower
from tagclip.runtime.errors import EngineError, one_line
from tagclip.runtime.providers import CPU, start_session

# int8 and fp16 graphs normalise in low precision; beyond this the graph does not normalise at all.
NORM_TOLERANCE = 0.02


class TowerEngine(Protocol):
    """A loaded tower. Not for several threads at a time."""

    def run(self, array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Input of the tower (N, ...), N at least 1 -> float32 (N, D), a new array. Raises: EngineError."""


class OrtEngine:
    """A loaded graph, checked against what the bundle says about it.

    Args:
        graph: the bytes of the ONNX file; weights outside of it are refused.
        tower: what bundle.json says about the graph.
        threads: CPU threads for one run; None takes one per core that this process may use.
        engine: one of `providers.PROVIDERS`; getting another one than asked is an error, never a fall back.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        EngineError: the provider is not there, or the graph is refused or not what `tower` says.
    """

    def __init__(self, graph: bytes, tower: Tower, *, threads: int | None = None, engine: str = CPU) -> None:
        self._tower = tower
        self._session = start_session(engine, graph, tower, threads)
        self._check("input", self._session.get_inputs(), tower.input)
        self._check("output", self._session.get_outputs(), tower.output)

    def run(self, array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Run the graph once.

        Args:
            array: of the dtype and shape of `tower.input`, N at least 1.

        Returns:
            float32 (N, D), a new array.

        Raises:
            EngineError: the array does not fit, or the run fails.
        """
        spec = self._tower.input
        check_input(array, spec, self._tower.file)
        try:
            (result,) = self._session.run([self._tower.output.name], {spec.name: array})
        except Exception as error:  # as above
            raise EngineError(f"{self._tower.file}: the run failed: {one_line(str(error))}") from error
        expected = (len(array), *self._tower.output.shape[1:])
        if result.shape != expected:
            raise EngineError(f"{self._tower.file}: expected output {expected}, got {result.shape}")
        return np.asarray(result, np.float32)

    def _check(self, role: str, found: list[Any], expected: TensorSpec) -> None:
        """Compare names, then dtypes, then shapes; a dynamic axis must be dynamic."""
        types = {"uint8": "tensor(uint8)", "int64": "tensor(int64)", "float32": "tensor(float)"}
        names = [tensor.name for tensor in found]
        if names != [expected.name]:
            raise EngineError(f"{self._tower.file}: expected one {role} named {expected.name}, found {names}")
        if found[0].type != types[expected.dtype]:
            raise EngineError(f"{self._tower.file}: expected {role} {expected.dtype}, found {found[0].type}")
        # The name of a dynamic axis is the exporter's business, that it is dynamic is not.
        shape = [None if isinstance(size, str) else size for size in found[0].shape]
        if shape != [None if isinstance(size, str) else size for size in expected.shape]:
            raise EngineError(
                f"{self._tower.file}: expected {role} shape {list(expected.shape)}, found {found[0].shape}"
            )


def check_input(array: npt.NDArray[Any], spec: TensorSpec, name: str) -> None:
    """Refuse an array that a graph or an engine, called `name`, cannot take; N is at least 1.

    Raises:
        EngineError: another dtype or shape than `spec`, or no rows.
    """
    if array.dtype != np.dtype(spec.dtype) or array.shape[1:] != spec.shape[1:] or not len(array):
        raise EngineError(
            f"{name}: expected {spec.dtype} {list(spec.shape)}, got {array.dtype} {list(array.shape)}"
        )

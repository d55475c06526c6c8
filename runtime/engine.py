"""ONNX Runtime as an engine: one graph, checked against what the bundle says about it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tagclip.runtime.bundle_manifest import TensorSpec, Tower
from tagclip.runtime.errors import EngineError, MissingExtraError, one_line

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OrtEngine:
    """A loaded graph.

    Args:
        graph: the bytes of the ONNX file; weights outside of it are refused.
        tower: what bundle.json says about the graph.
        threads: CPU threads for one run; None leaves it to ONNX Runtime (one per core).
        provider: "cpu" or "cuda"; getting another one than asked is an error, never a fall back.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        EngineError: the provider is not there, or the graph is refused or not what `tower` says.
    """

    def __init__(
        self, graph: bytes, tower: Tower, *, threads: int | None = None, provider: str = "cpu"
    ) -> None:
        if provider not in PROVIDERS:
            raise EngineError(f"provider {provider!r}: expected one of {', '.join(PROVIDERS)}")
        try:
            import onnxruntime as ort
        except ImportError as error:
            raise MissingExtraError(
                "onnxruntime is not installed; this needs: pip install 'tagclip[cpu]'"
            ) from error
        wanted = PROVIDERS[provider]
        available = ort.get_available_providers()
        if wanted not in available:
            raise EngineError(
                f"{provider} was asked for, but onnxruntime {ort.__version__} offers only "
                f"{', '.join(available)}; install one that has it, or ask for cpu"
            )
        options = ort.SessionOptions()
        options.log_severity_level = 4  # errors arrive as exceptions; the log would only repeat them
        # Weights outside the graph would escape the encoder id; there is nothing under this path to find.
        # Ignored before onnxruntime 1.21; an absolute path in the graph is refused from 1.24 on (measured).
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", "/dev/null")
        if threads is not None:
            options.intra_op_num_threads = threads
        self._tower = tower
        try:
            self._session = ort.InferenceSession(graph, options, providers=[wanted], enable_fallback=0)
        except Exception as error:  # onnxruntime's exceptions have no common base
            raise EngineError(
                f"{tower.file}: onnxruntime {ort.__version__} refuses the graph: {one_line(str(error))}; "
                "upgrade onnxruntime or export the bundle again"
            ) from error
        got = self._session.get_providers()
        if got[0] != wanted:
            raise EngineError(f"{provider} was asked for, but onnxruntime could only start {', '.join(got)}")
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

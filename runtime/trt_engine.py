"""TensorRT and TensorRT-RTX as an engine: what `runtime.engine.OrtEngine` is for ONNX Runtime."""

from __future__ import annotations

import math
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

from tagclip.runtime.bundle_manifest import TensorSpec, Tower
from tagclip.runtime.engine import check_input
from tagclip.runtime.errors import EngineError
from tagclip.runtime.gpu import checked, load_cuda
from tagclip.runtime.trt import load_binding

# What bundle.json may say -> what TensorRT calls it.
_DTYPES = {"uint8": "UINT8", "int64": "INT64", "float32": "FLOAT"}


class TrtEngine:
    """A loaded engine with its memory on the GPU, which is allocated once. Not for several threads at a time.

    Args:
        engine: what `build_engine` returned for `tower`, out of a checked folder: a runtime trusts it like a program.
        tower: what bundle.json says about the graph.
        runtime: one of `trt.RUNTIMES`, the one that built it.
        max_batch: the largest batch that the engine takes.

    Raises:
        MissingExtraError: the runtime or cuda-bindings is not installed.
        EngineError: there is no GPU, or the engine is refused or not what `tower` says.
    """

    def __init__(self, engine: bytes, tower: Tower, *, runtime: str, max_batch: int) -> None:
        self._tower, self._max_batch = tower, max_batch
        self._cuda, self._binding = load_cuda(), load_binding(runtime)
        self._binding.hear()
        self._runtime = self._binding.module.Runtime(self._binding.logger)
        self._engine = self._runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise self._failure("the runtime refuses the engine")
        self._check(tower.input, tower.output)
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise self._failure("no memory for running the engine; build it with a smaller --max-batch")
        self._stream = checked(self._cuda, self._cuda.cudaStreamCreate(), f"{tower.name}: a stream")
        pointers: list[int] = []
        weakref.finalize(self, _free, self._cuda, self._stream, pointers)
        for spec in (tower.input, tower.output):
            size_bytes = max_batch * math.prod(_row(spec)) * np.dtype(spec.dtype).itemsize
            doing = f"{tower.name}: {size_bytes} bytes on the GPU"
            pointers.append(checked(self._cuda, self._cuda.cudaMalloc(size_bytes), doing))
            if not self._context.set_tensor_address(spec.name, int(pointers[-1])):
                raise self._failure(f"the address of {spec.name} is refused")
        self._given, self._result = pointers

    def run(self, array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Run the engine, in batches of at most `max_batch`.

        Args:
            array: of the dtype and shape of `tower.input`, N at least 1.

        Returns:
            float32 (N, D), a new array.

        Raises:
            EngineError: the array does not fit, or the run fails.
        """
        check_input(array, self._tower.input, self._tower.name)
        result = np.empty((len(array), *_row(self._tower.output)), np.float32)
        for start in range(0, len(array), self._max_batch):
            stop = start + self._max_batch
            self._run(np.ascontiguousarray(array[start:stop]), result[start:stop])
        return result

    def _run(self, given: npt.NDArray[Any], result: npt.NDArray[np.float32]) -> None:
        cuda, stream, doing = self._cuda, self._stream, f"{self._tower.name}: the run"
        there, back = cuda.cudaMemcpyKind.cudaMemcpyHostToDevice, cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        copy = cuda.cudaMemcpyAsync(self._given, given.ctypes.data, given.nbytes, there, stream)
        checked(cuda, copy, doing)
        if not self._context.set_input_shape(self._tower.input.name, given.shape):
            raise self._failure(f"the shape {given.shape} is refused")
        if not self._context.execute_async_v3(int(stream)):
            raise self._failure("the run failed")
        copy = cuda.cudaMemcpyAsync(result.ctypes.data, self._result, result.nbytes, back, stream)
        checked(cuda, copy, doing)
        checked(cuda, cuda.cudaStreamSynchronize(stream), doing)

    def _check(self, *specs: TensorSpec) -> None:
        """Compare names, roles, dtypes and shapes with bundle.json's input and output; axis 0 must be dynamic."""
        engine = self._engine
        found = []
        for name in map(engine.get_tensor_name, range(engine.num_io_tensors)):
            # By TensorRT's names: it has types that NumPy has not, and its own `nptype` raises for those.
            dtype = engine.get_tensor_dtype(name).name
            found.append((name, engine.get_tensor_mode(name).name, dtype, *engine.get_tensor_shape(name)))
        roles = zip(("INPUT", "OUTPUT"), specs, strict=True)
        expected = [(spec.name, role, _DTYPES[spec.dtype], -1, *spec.shape[1:]) for role, spec in roles]
        if sorted(found) != sorted(expected):
            raise EngineError(f"{self._tower.name}: expected {expected}, found {found}")

    def _failure(self, what: str) -> EngineError:
        return EngineError(f"{self._tower.name}: {what}: {self._binding.hear() or 'no reason was given'}")


def _row(spec: TensorSpec) -> tuple[int, ...]:
    return tuple(int(size) for size in spec.shape[1:])


def _free(cuda: Any, stream: Any, pointers: list[int]) -> None:
    for pointer in pointers:
        cuda.cudaFree(pointer)
    cuda.cudaStreamDestroy(stream)

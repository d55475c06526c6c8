"""The GPU of this machine, as CUDA sees it, and the check that every call of CUDA goes through."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from tagclip.runtime.errors import EngineError, MissingExtraError


@dataclass(frozen=True)
class Gpu:
    """A GPU that CUDA can use."""

    name: str  # with its number of multiprocessors: every Jetson Orin calls itself just that
    capability: str  # such as "sm87"


def load_cuda() -> Any:
    """The module `cuda.bindings.runtime`.

    Raises:
        MissingExtraError: cuda-bindings is not installed, or does not load.
    """
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except (ImportError, OSError, RuntimeError) as error:
        raise MissingExtraError(
            f"cuda-bindings is not usable ({error}); install the one of this machine's CUDA, see docs/engines.md: "
            "pip install 'cuda-bindings==12.9.*' or 'cuda-bindings==13.0.*'"
        ) from error


def checked(cuda: Any, result: tuple[Any, ...], doing: str) -> Any:
    """What a call of CUDA returned, without its error code.

    Args:
        cuda: the module of `load_cuda`.
        result: the error code, and one value at most.
        doing: what the call was for, for the message.

    Raises:
        EngineError: the code is not success.
    """
    code, *values = result
    if code != cuda.cudaError_t.cudaSuccess:
        text = cuda.cudaGetErrorString(code)[1]
        said = text.decode("utf-8", errors="replace") if isinstance(text, bytes) else str(text)
        raise EngineError(f"{doing}: CUDA says: {said} (error {int(code)})")
    return values[0] if values else None


def find_gpu() -> Gpu:
    """The first GPU that CUDA offers; the environment variable CUDA_VISIBLE_DEVICES chooses among several.

    Raises:
        MissingExtraError: cuda-bindings is not installed.
        EngineError: there is no GPU, or its driver does not answer; the message says what CUDA said.
    """
    cuda = load_cuda()
    count = checked(cuda, cuda.cudaGetDeviceCount(), "no GPU that CUDA can use")
    if not count:
        raise EngineError("no GPU that CUDA can use: it counts none")
    found = checked(cuda, cuda.cudaGetDeviceProperties(0), "the GPU's properties")
    name = found.name.decode("ascii", errors="replace") if isinstance(found.name, bytes) else str(found.name)
    name = " ".join(name.replace("\0", " ").split()) or "unnamed"
    return Gpu(f"{name}, {found.multiProcessorCount} SM", f"sm{found.major}{found.minor}")

"""ONNX Runtime's execution providers: which runs a graph, and the proof that it does.

ONNX Runtime takes another provider than asked without a word where the asked one does not start, and runs single nodes
on the CPU that the asked one does not take. Here both are errors.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tagclip.runtime.bundle_manifest import TensorSpec, Tower
from tagclip.runtime.errors import EngineError, MissingExtraError, one_line
from tagclip.runtime.trt import BEST_BATCH

CPU, CUDA, ORT_TENSORRT, OPENVINO = "cpu", "cuda", "ort-tensorrt", "openvino"
LARGEST_BATCH = 64  # what ort-tensorrt builds for

# ONNX Runtime puts what computes shapes on the CPU on purpose: it is small, and needed there. Anything else there is
# work that the provider did not take.
SHAPE_OPS = frozenset(
    "Add Cast Concat Constant ConstantOfShape Div Equal Expand Gather Identity Max Min Mul Range ReduceProd Reshape "
    "Shape Size Slice Squeeze Sub Unsqueeze Where".split()
)


@dataclass(frozen=True)
class Provider:
    """One of ONNX Runtime's providers.

    Attributes:
        name: what ONNX Runtime calls it.
        options: of the provider, for a graph with this input and so many threads of the CPU.
        way_out: what to do where it is not there.
    """

    name: str
    options: Callable[[TensorSpec, int | None], dict[str, str]]
    way_out: str


def _cuda_options(spec: TensorSpec, threads: int | None) -> dict[str, str]:
    # Else every batch size that was not seen before is searched for the fastest convolutions while people wait.
    return {"cudnn_conv_algo_search": "HEURISTIC"}


def _tensorrt_options(spec: TensorSpec, threads: int | None) -> dict[str, str]:
    # Without a range, every batch size outside of the one so far is a new build while people wait.
    rest = "x".join(str(size) for size in spec.shape[1:])
    sizes = {"min": 1, "opt": BEST_BATCH, "max": LARGEST_BATCH}
    return {f"trt_profile_{which}_shapes": f"{spec.name}:{batch}x{rest}" for which, batch in sizes.items()}


def _openvino_options(spec: TensorSpec, threads: int | None) -> dict[str, str]:
    # Named, since without a name the package chooses among the machine's devices.
    return {"device_type": "CPU"} | ({} if threads is None else {"num_of_threads": str(threads)})


_SHARED = (
    "pip uninstall onnxruntime onnxruntime-gpu onnxruntime-openvino (they share one folder), then pip install"
)
PROVIDERS = {
    CPU: Provider("CPUExecutionProvider", lambda spec, threads: {}, "pip install 'tagclip[cpu]'"),
    CUDA: Provider(
        "CUDAExecutionProvider",
        _cuda_options,
        f"{_SHARED} 'onnxruntime-gpu[cuda,cudnn]'; it needs an NVIDIA GPU and its driver",
    ),
    ORT_TENSORRT: Provider(
        "TensorrtExecutionProvider",
        _tensorrt_options,
        f"{_SHARED} 'onnxruntime-gpu[cuda,cudnn]', and TensorRT of the version that it names; it needs an NVIDIA GPU "
        "and its driver",
    ),
    OPENVINO: Provider("OpenVINOExecutionProvider", _openvino_options, f"{_SHARED} onnxruntime-openvino"),
}


def load_onnxruntime(engine: str) -> Any:
    """The module `onnxruntime`, if it was built with what `engine` needs.

    Args:
        engine: one of PROVIDERS.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        EngineError: it does not load, has no such provider, or cannot say where it runs a node.
    """
    provider = _provider(engine)
    try:
        import onnxruntime as ort
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"onnxruntime is not installed; this needs: {PROVIDERS[CPU].way_out}"
        ) from error
    except (ImportError, OSError) as error:
        raise EngineError(f"onnxruntime does not load: {one_line(str(error))}; install it again") from error
    available = ort.get_available_providers()
    if provider.name not in available:
        raise EngineError(
            f"{engine} was asked for, but onnxruntime {ort.__version__} offers only {', '.join(available)}; ask for "
            f"cpu, or {provider.way_out}"
        )
    if engine != CPU and not hasattr(ort.InferenceSession, "get_provider_graph_assignment_info"):
        raise EngineError(
            f"{engine} was asked for, but onnxruntime {ort.__version__} cannot say which nodes it runs there; ask for "
            "cpu, or install 1.24 or later"
        )
    return ort


def exact_options(graph: bytes) -> Any:
    """SessionOptions of ONNX Runtime under which products of eight bits are what they are on every processor.

    Without them x86 processors that lack VNNI add them up in sixteen bits, where they overflow: sums were off by a
    third (measured, AVX2). With VNNI nothing changes. Only for graphs that have such products: the pass that makes them
    exact breaks a table of words in eight bits (onnxruntime 1.32).

    Args:
        graph: the bytes of the ONNX file.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    if (
        b"QuantizeLinear" in graph
    ):  # of activations; weights alone have DequantizeLinear, which is spelt otherwise
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def own_threads() -> int:
    """Threads of a session: 0, which leaves it to ONNX Runtime (one per core), or as many as this process has cores.

    ONNX Runtime counts the machine's cores, also in a process that may use few of them (taskset, a systemd unit's
    CPUAffinity=, a container's cpuset): its threads then wait for one another.
    """
    if not hasattr(os, "sched_getaffinity"):  # not Linux
        return 0
    mine = len(os.sched_getaffinity(0))
    return mine if mine < (os.cpu_count() or mine) else 0


def start_session(engine: str, graph: bytes, tower: Tower, threads: int | None) -> Any:
    """An InferenceSession in which all work is done by the provider that was asked for.

    Args:
        engine: one of PROVIDERS.
        graph: the bytes of the ONNX file; weights outside of it are refused.
        tower: what bundle.json says about the graph.
        threads: of the CPU; None as many as `own_threads` says.

    Raises:
        MissingExtraError, EngineError: as in `load_onnxruntime`; or the provider does not start, does not take a
            node, or refuses the graph.
    """
    provider, ort = _provider(engine), load_onnxruntime(engine)
    options = exact_options(graph)
    options.log_severity_level = 4  # errors arrive as exceptions; the log would only repeat them
    # Weights outside the graph would escape the encoder id; there is nothing under this path to find.
    # Ignored before onnxruntime 1.21; an absolute path in the graph is refused from 1.24 on (measured).
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", "/dev/null")
    # While they wait for work, threads would spin on the cores that detect and follow people meanwhile: up to twice the
    # CPU time, measured in docs/engines.md.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.intra_op_num_threads = own_threads() if threads is None else threads
    if engine != CPU:
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if engine in (CUDA, ORT_TENSORRT):
        # CUDA from pip lies where the loader does not look. What it prints must not end up in --json.
        with contextlib.redirect_stdout(sys.stderr):
            ort.preload_dlls()
    asked = [(provider.name, provider.options(tower.input, threads))]
    try:
        session = ort.InferenceSession(graph, options, providers=asked, enable_fallback=0)
    except Exception as error:  # onnxruntime's exceptions have no common base
        said = one_line(str(error))
        raise EngineError(
            f"{tower.file}: onnxruntime {ort.__version__} refuses the graph: {said}; upgrade onnxruntime or export it "
            "again"
            if engine == CPU
            else f"{tower.file}: {engine} was asked for, but onnxruntime {ort.__version__} says: {said}; ask for cpu, "
            f"or {provider.way_out}"
        ) from error
    got = session.get_providers()
    if got[0] != provider.name:
        raise EngineError(
            f"{engine} was asked for, but onnxruntime {ort.__version__} could only start {', '.join(got)}, for the "
            f"reason that it gave on stderr; ask for cpu, or {provider.way_out}"
        )
    if engine != CPU:
        assigned = session.get_provider_graph_assignment_info()
        if left := left_over(
            provider.name, ((part.ep_name, node.op_type) for part in assigned for node in part.get_nodes())
        ):
            raise EngineError(
                f"{tower.file}: {engine} was asked for, but leaves {left} to another provider; ask for cpu, or export "
                "the bundle in fp32"
            )
    return session


def left_over(provider: str, assigned: Iterable[tuple[str, str]]) -> str:
    """What of a graph's work runs elsewhere than on `provider`, such as "2 Conv, 1 Softmax"; empty if none does.

    Args:
        provider: as ONNX Runtime calls it.
        assigned: provider and operator of every node.
    """
    stray = Counter(op for name, op in assigned if name != provider and op not in SHAPE_OPS)
    return ", ".join(f"{count} {op}" for op, count in sorted(stray.items()))


def _provider(engine: str) -> Provider:
    if engine not in PROVIDERS:
        raise EngineError(f"engine {engine!r}: expected one of {', '.join(PROVIDERS)}")
    return PROVIDERS[engine]

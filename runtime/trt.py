"""One builder over TensorRT and TensorRT-RTX, whose Python interface is the same under two names.

Networks are strongly typed, so precision stands in the graph: TensorRT 11 knows nothing else, and engines of all
versions then compute in the same precision. The bytes of an engine are what the runtime wrote, nothing around them,
so that trtexec, Triton and DeepStream take them too.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

from tagclip.runtime.errors import EngineError, MissingExtraError, one_line
from tagclip.runtime.trt_monitor import make_monitor

TENSORRT, TENSORRT_RTX = "tensorrt", "tensorrt-rtx"
RUNTIMES = (TENSORRT, TENSORRT_RTX)
OLDEST = (10, 3)  # of TensorRT, major and minor version
# What TensorRT-RTX can build for; it needs no GPU, so it has to be told.
CAPABILITIES = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")
MAX_LIMIT_MB = 1 << 20
BEST_BATCH = 8  # the batch that an engine is tuned for: the people of one frame

_MODULES = {TENSORRT: "tensorrt", TENSORRT_RTX: "tensorrt_rtx_bindings"}
_WAY_OUT = {
    TENSORRT: "on a Jetson it comes with JetPack, see docs/engines.md; elsewhere: pip install 'tagclip[tensorrt]'",
    TENSORRT_RTX: "this needs: pip install tensorrt-rtx-cu13",
}
_MAX_MESSAGE = 600  # characters; one refused graph can fill screens


@dataclass(frozen=True)
class Binding:
    """A loaded runtime."""

    runtime: str  # one of RUNTIMES
    version: str  # such as "10.3.0"
    module: Any
    logger: Any  # one for the life of the process: TensorRT keeps a pointer to the first that it is given
    complaints: list[str]  # errors and warnings that the logger heard

    def hear(self) -> str:
        """What was said since the last call, on one line."""
        said = short_line("; ".join(dict.fromkeys(self.complaints)))
        self.complaints.clear()
        return said


@dataclass(frozen=True)
class Built:
    """What `build_engine` returns."""

    engine: bytes
    batches: tuple[int, int, int]  # smallest, best and largest that the engine takes
    timing_cache: bytes  # to be given to the next build on this GPU; empty where the runtime has none
    warnings: tuple[str, ...]


@cache
def load_binding(runtime: str) -> Binding:
    """Import a runtime.

    Args:
        runtime: one of RUNTIMES.

    Raises:
        MissingExtraError: it is not installed.
        EngineError: it is installed but does not load or is too old, or there is no such runtime.
    """
    if runtime not in _MODULES:
        raise EngineError(f"engine {runtime!r}: expected one of {', '.join(RUNTIMES)}")
    try:
        module = importlib.import_module(_MODULES[runtime])
    except (ImportError, OSError, RuntimeError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == _MODULES[runtime]:
            raise MissingExtraError(f"{runtime} is not installed; {_WAY_OUT[runtime]}") from error
        # Its shared libraries are of another version, or those of the driver are absent.
        raise EngineError(f"{runtime} does not load: {short_line(str(error))}; install it again") from error
    # JetPack 6.0 has 8.6, which knows no strong types; `build_engine` would take it for 11, which knows nothing else.
    if runtime == TENSORRT and tuple(map(int, module.__version__.split(".")[:2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise EngineError(
            f"{runtime} {module.__version__} is too old, expected {oldest} or later; on a Jetson update JetPack, see "
            "docs/engines.md"
        )
    complaints: list[str] = []

    class Logger(module.ILogger):  # type: ignore[misc, name-defined]
        def log(self, severity: Any, message: str) -> None:
            if severity in (module.ILogger.INTERNAL_ERROR, module.ILogger.ERROR):
                complaints.append(message)

    return Binding(runtime, module.__version__, module, Logger(), complaints)


def build_engine(
    runtime: str,
    graph: bytes,
    *,
    name: str,
    max_batch: int,
    workspace_mb: int,
    memory_mb: int | None = None,
    capability: str | None = None,
    timing_cache: bytes = b"",
    progress: Callable[[float], None] | None = None,
) -> Built:
    """Build the engine of one graph. TensorRT needs the GPU that it builds for, TensorRT-RTX needs none.

    Args:
        runtime: one of RUNTIMES.
        graph: the bytes of an ONNX file with one input and one output, axis 0 of both dynamic.
        name: what messages call the graph.
        max_batch: the largest batch, at least 1; memory grows with it. The engine is tuned for 8, or for this
            where it is smaller.
        workspace_mb: the most scratch memory of one layer, in MiB, 1 to 1048576.
        memory_mb: the most memory for trying out kernels, in MiB, a power of two up to 1048576; on a Jetson, what the
            build holds besides counts too. A kernel that needs more is not tried. None leaves it to TensorRT: 3/4 of
            a Jetson's memory, all of another GPU's. Refused with TensorRT-RTX, which tries none.
        capability: what GPU to build for, one of CAPABILITIES. With TensorRT-RTX it is needed, with TensorRT refused.
        timing_cache: `timing_cache` of an earlier build on the same GPU: what was timed is not timed again.
        progress: called now and then with the part that is done, 0 to 1, never falling, from another thread.
            What it raises ends the build and is raised again.

    Raises:
        MissingExtraError: the runtime is not installed.
        EngineError: the runtime does not start, refuses the graph or cannot build it within the limits.
    """
    binding = load_binding(runtime)
    trt = binding.module
    binding.hear()  # what an earlier build left

    def fail(what: str) -> EngineError:
        said = binding.hear()
        return EngineError(f"{name}: {runtime} {binding.version} {what}" + (f": {said}" if said else ""))

    if (runtime == TENSORRT_RTX) != (capability is not None):
        raise fail("needs the GPU named" if capability is None else "builds for the GPU that it runs on only")
    if runtime == TENSORRT_RTX and memory_mb is not None:
        raise fail("tries no kernels while it builds, so there is no memory of it to limit")
    try:
        builder = trt.Builder(binding.logger)
    except Exception as error:  # whatever the binding makes of a null pointer
        raise fail("does not start; it needs a GPU and its driver") from error
    strongly = getattr(
        trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None
    )  # from version 11 the only way
    network = builder.create_network(0 if strongly is None else 1 << int(strongly))
    parser = trt.OnnxParser(network, binding.logger)
    monitor = make_monitor(trt, progress)
    if not _aside(monitor, parser.parse, graph):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        # The parser's own words say the node too; the logger would only repeat them.
        binding.complaints[:] = [
            (f"node {error.node_name()} ({error.node_operator()}): " if error.node_name() else "")
            + error.desc()
            for error in errors
        ]
        raise fail("refuses the graph")
    config = builder.create_builder_config()
    if max_batch < 1:
        raise fail(f"was asked for batches of 1 to {max_batch}")
    if not limit_memory(binding, config, "WORKSPACE", workspace_mb):
        raise fail(f"does not take a workspace of {workspace_mb} MiB; choose 1 to {MAX_LIMIT_MB}")
    if memory_mb is not None and not limit_memory(binding, config, "TACTIC_DRAM", memory_mb):
        raise fail(f"does not take a memory of {memory_mb} MiB; choose a power of two")
    if capability is not None:
        target = getattr(trt.ComputeCapability, capability.upper(), None)
        config.num_compute_capabilities = 1
        if target is None or not config.set_compute_capability(target, 0):
            raise fail(f"cannot build for {capability}; it can for {', '.join(CAPABILITIES)}")
    batches = (1, min(BEST_BATCH, max_batch), max_batch)
    profile = builder.create_optimization_profile()
    if network.num_inputs != 1 or network.num_outputs != 1:
        raise fail(
            f"found {network.num_inputs} inputs and {network.num_outputs} outputs, expected one of each"
        )
    given, (axis, *rest) = network.get_input(0), tuple(network.get_input(0).shape)
    if axis != -1 or min(rest, default=1) < 1 or network.get_output(0).shape[0] != -1:
        raise fail(
            f"found the input shape {[axis, *rest]}; expected axis 0 of input and output dynamic, no other"
        )
    profile.set_shape(given.name, *([batch, *rest] for batch in batches))
    if config.add_optimization_profile(profile) < 0:
        raise fail(f"does not take batches of 1 to {max_batch}")
    warnings = []
    # TensorRT-RTX times nothing before it runs; its timing cache is an empty shell.
    if runtime == TENSORRT and not attach_timing_cache(binding, config, timing_cache):
        warnings.append(
            f"{name}: the timing cache is of another GPU or version, or damaged; built without it"
        )
    config.progress_monitor = monitor
    engine = _aside(monitor, builder.build_serialized_network, network, config)
    if monitor.failure is not None:
        raise monitor.failure
    if engine is None:
        raise fail("cannot build it; a larger workspace or a smaller batch may help")
    timed = bytes(memoryview(config.get_timing_cache().serialize())) if runtime == TENSORRT else b""
    return Built(bytes(memoryview(engine)), batches, timed, tuple(warnings))


def attach_timing_cache(binding: Binding, config: Any, data: bytes) -> bool:
    """Give a builder's config the timing cache `data`, or a new one where the runtime refuses it.

    Args:
        config: an IBuilderConfig of `binding`.
        data: what a timing cache's `serialize` gave; empty for a new one.

    Returns:
        False if the runtime refused `data`.
    """
    binding.hear()
    given = config.create_timing_cache(data)
    # A damaged cache comes back as None, or as an empty one with a complaint, depending on the version.
    taken = given is not None and config.set_timing_cache(given, False) and not binding.hear()
    if not taken:
        config.set_timing_cache(config.create_timing_cache(b""), False)
        binding.hear()
    return taken


def limit_memory(binding: Binding, config: Any, pool: str, limit_mb: int) -> bool:
    """Limit one of a builder's memory pools.

    Args:
        config: an IBuilderConfig of `binding`.
        pool: the name of a MemoryPoolType.
        limit_mb: in MiB.

    Returns:
        False if it is not 1 to 1048576, or the runtime did not take it: it has rules for some pools and keeps its own
        limit where they are broken (seen with RTX 1.7: TACTIC_DRAM has to be a power of two).
    """
    if not 1 <= limit_mb <= MAX_LIMIT_MB:
        return False
    kind = getattr(binding.module.MemoryPoolType, pool)
    config.set_memory_pool_limit(kind, limit_mb << 20)
    return bool(config.get_memory_pool_limit(kind) == limit_mb << 20)


def _aside(monitor: Any, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call what takes long in a thread of its own, and end the build when this one is interrupted.

    Python interrupts its main thread only. In there, Ctrl-C would strike one of our callbacks sooner or later, and
    the C++ that called it swallows exceptions: the build would go on (seen).
    """
    with ThreadPoolExecutor(1) as worker:
        future = worker.submit(function, *arguments)
        try:
            return future.result()
        except BaseException as error:
            monitor.failure = error
            raise


def short_line(text: str) -> str:
    """`text` as `one_line` makes it, of bounded length."""
    line = one_line(text)
    return line if len(line) <= _MAX_MESSAGE else line[: _MAX_MESSAGE - 3] + "..."

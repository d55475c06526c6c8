"""NVIDIA's own builder, on a machine without a GPU: TensorRT-RTX."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("tensorrt_rtx_bindings", reason="tensorrt-rtx is for x86-64 Linux only")

from tagclip.runtime.bundle import Bundle, open_bundle, shipped_bundle_path
from tagclip.runtime.engine import OrtEngine
from tagclip.runtime.errors import BundleSelfTestError, EngineError, MissingExtraError
from tagclip.runtime.gpu import find_gpu
from tagclip.runtime.probe import tower_cosine
from tagclip.runtime.trt import attach_timing_cache, build_engine, limit_memory, load_binding

RTX = "tensorrt-rtx"
LIMITS: dict[str, Any] = {"name": "text", "max_batch": 4, "workspace_mb": 64, "capability": "sm89"}


@pytest.fixture
def bundle(tiny_bundle: Bundle, tmp_path: Path) -> Bundle:
    """A copy to put engines into."""
    return open_bundle(Path(shutil.copytree(tiny_bundle.path, tmp_path / "toy")))


@pytest.fixture
def graph(tiny_bundle: Bundle) -> bytes:
    return tiny_bundle.read_file("text.onnx")


def test_an_engine_is_what_the_runtime_wrote(tiny_bundle: Bundle) -> None:
    for name, tower in tiny_bundle.manifest.towers.items():
        built = build_engine(RTX, tiny_bundle.read_file(tower.file), **LIMITS | {"name": name})
        assert built.engine.startswith(b"vtrt") and len(built.engine) > 1000  # NVIDIA's own first bytes
        assert (built.batches, built.timing_cache, built.warnings) == ((1, 4, 4), b"", ())


def test_progress_never_falls_and_arrives(graph: bytes) -> None:
    parts: list[float] = []
    build_engine(RTX, graph, **LIMITS, progress=parts.append)
    assert len(parts) > 10 and parts == sorted(parts)
    assert 0 <= parts[0] < 0.5 < parts[-1] <= 1


def test_an_interrupt_ends_the_build(graph: bytes) -> None:
    calls = []

    def interrupted(part: float) -> None:
        calls.append(part)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(RTX, graph, **LIMITS, progress=interrupted)
    whole: list[float] = []
    build_engine(RTX, graph, **LIMITS, progress=whole.append)  # and the next one is not disturbed
    assert len(calls) < len(whole) / 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"capability": "sm87"}, "cannot build for sm87; it can for sm75, sm80, sm86, sm89, sm120, sm121"),
        ({"capability": None}, "needs the GPU named"),
        ({"workspace_mb": 0}, "does not take a workspace of 0 MiB; choose 1 to 1048576"),
        ({"workspace_mb": 1 << 21}, "does not take a workspace of 2097152 MiB"),
        ({"memory_mb": 4096}, "tries no kernels while it builds"),
        ({"max_batch": 0}, "batches of 1 to 0"),
    ],
)
def test_limits_that_it_refuses(graph: bytes, change: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError, match=f"text: {RTX} .*{message}"):
        build_engine(RTX, graph, **LIMITS | change)


def test_graphs_that_it_refuses(graph: bytes) -> None:
    from onnx import ModelProto

    with pytest.raises(EngineError, match=f"text: {RTX} .* refuses the graph: .*Failed to parse"):
        build_engine(RTX, graph[: len(graph) // 2], **LIMITS)
    model = ModelProto.FromString(graph)
    model.graph.node[0].op_type, model.graph.node[0].name = "Grate", "first\x1b"
    with pytest.raises(EngineError, match="refuses the graph: node first.* .Grate.: ") as error:
        build_engine(RTX, model.SerializeToString(), **LIMITS)
    assert "\x1b" not in str(error.value) and "\n" not in str(error.value)
    model = ModelProto.FromString(graph)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    with pytest.raises(EngineError, match=r"found the input shape \[1, 12\]; expected axis 0 .* dynamic"):
        build_engine(RTX, model.SerializeToString(), **LIMITS)


def test_runtimes_that_are_not_there(graph: bytes) -> None:
    with pytest.raises(EngineError, match="expected one of tensorrt, tensorrt-rtx"):
        load_binding("onnxruntime")
    try:
        import tensorrt  # noqa: F401
    except ImportError:
        with pytest.raises(MissingExtraError, match="on a Jetson it comes with JetPack"):
            build_engine("tensorrt", graph, **LIMITS | {"capability": None})


@pytest.mark.parametrize(("version", "taken"), [("8.6.2.3", False), ("10.2.0", False), ("10.3.0", True)])
def test_a_tensorrt_that_is_too_old(monkeypatch: pytest.MonkeyPatch, version: str, taken: bool) -> None:
    """JetPack 6.0 has 8.6. A module with nothing but a version and a logger stands in for one that is not here."""
    module = ModuleType("tensorrt")
    module.__version__ = version  # type: ignore[attr-defined]
    module.ILogger = load_binding(RTX).module.ILogger  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    load = load_binding.__wrapped__  # not through the cache: the stand-in must not stay
    if taken:
        assert load("tensorrt").version == version
    else:
        with pytest.raises(
            EngineError, match=f"tensorrt {version} is too old, expected 10.3 or later; .*JetPack"
        ):
            load("tensorrt")


# RTX says that its timing cache is an empty shell; the calls are TensorRT's, and so is the refusal.
@pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning")
def test_a_damaged_timing_cache_is_discarded() -> None:
    binding = load_binding(RTX)
    config = binding.module.Builder(binding.logger).create_builder_config()
    assert attach_timing_cache(binding, config, b"")
    assert not attach_timing_cache(binding, config, b"no timing cache" * 20)
    fresh = config.get_timing_cache()
    assert fresh is not None and len(memoryview(fresh.serialize())) > 0


def test_memory_limits_are_taken_or_not_passed_over() -> None:
    """TensorRT's budget is one of its pools; RTX has the pool too, with no use for it."""
    binding = load_binding(RTX)
    pools = binding.module.MemoryPoolType
    config = binding.module.Builder(binding.logger).create_builder_config()
    assert limit_memory(binding, config, "TACTIC_DRAM", 4096)
    assert limit_memory(binding, config, "WORKSPACE", 7)
    for limit_mb in (
        0,
        3072,
    ):  # the second is no power of two; NVIDIA's builder complains and keeps what it had
        assert not limit_memory(binding, config, "TACTIC_DRAM", limit_mb)
    assert config.get_memory_pool_limit(pools.TACTIC_DRAM) == 4096 << 20
    assert config.get_memory_pool_limit(pools.WORKSPACE) == 7 << 20


def test_the_self_test_tells_right_from_wrong(tiny_bundle: Bundle) -> None:
    """Its judgement does not depend on the engine, so ONNX Runtime stands here for the GPU."""
    towers = tiny_bundle.manifest.towers
    engines = {name: OrtEngine(tiny_bundle.read_file(tower.file), tower) for name, tower in towers.items()}
    for name, engine in engines.items():
        assert tower_cosine(tiny_bundle, towers[name], engine.run) >= 0.999
    with pytest.raises(BundleSelfTestError, match="image-aerial: cosine to the expected vectors is 0"):
        tower_cosine(tiny_bundle, towers["image-aerial"], engines["image-ground"].run)

    def twice(array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        return 2 * engines["text"].run(array)

    with pytest.raises(BundleSelfTestError, match="vectors of length 2 to 2, expected 1"):
        tower_cosine(tiny_bundle, towers["text"], twice)


@pytest.fixture
def build(run: Callable[..., tuple[int, str, str]]) -> Callable[..., tuple[int, str, str]]:
    """Run `tagclip bundle build` in this process: (exit status, stdout, stderr)."""
    return lambda *arguments: run("bundle", "build", *arguments)


def test_build_command(build: Callable[..., tuple[int, str, str]], bundle: Bundle) -> None:
    asked = ("--engine", RTX, "--capability", "sm89")
    status, out, err = build(bundle.path, *asked, "--check")
    assert (status, out) == (1, "") and "no engine" in err

    status, out, err = build(bundle.path, *asked, "--max-batch", "16", "--json")
    assert (status, err.count("building")) == (0, 3)
    result = json.loads(out)
    path = Path(result["path"])
    assert path.parent == bundle.path / "engines" and path.name.endswith("-sm89-fp32")
    assert result["towers"]["text"]["max_batch"] == 16 and result["warnings"] == []
    assert (result["self_test"] is None) == bool(result["self_test_reason"])
    assert build("--check", bundle.path, *asked) == (0, f"{path.name}: fits\n", "")

    # An engine of another version is named, and not used; the new one stands beside it.
    facts = json.loads((path / "engine.json").read_text())
    (path / "engine.json").write_text(json.dumps(facts | {"version": "1.0"}))
    old = path.rename(path.with_name("old"))
    status, out, err = build(bundle.path, *asked)
    assert status == 0 and f"warning: not used: {old}: expected {RTX} version" in err and "found 1.0" in err
    assert f": {path}\n" in out
    status, out, err = build(bundle.path, *asked, "--check", "--json")
    rows = {row["engine"]: row["fits"] for row in json.loads(out)["engines"]}
    assert (status, rows) == (0, {"old": False, path.name: True})
    assert open_bundle(bundle.path).encoder_id == bundle.encoder_id


def test_build_command_refusals(build: Callable[..., tuple[int, str, str]], bundle: Bundle) -> None:
    assert build(bundle.path)[0] == 2
    assert build(bundle.path, "--engine", "tensorrt", "--capability", "sm89")[0] == 2
    assert build(bundle.path, "--engine", RTX, "--capability", "sm89", "--memory-mb", "4096")[0] == 2
    try:
        find_gpu()
    except (EngineError, MissingExtraError):
        status, _, err = build(bundle.path, "--engine", RTX)
        assert status == 1 and "--capability sm75|sm80" in err
    assert not (bundle.path / "engines").exists()


def test_ctrl_c_ends_the_command_and_leaves_nothing(tmp_path: Path) -> None:
    """A real signal: one that strikes a callback is swallowed by the C++ that called it."""
    path = shutil.copytree(shipped_bundle_path(), tmp_path / "shipped")
    command = [sys.executable, "-m", "tagclip.runtime", "bundle", "build", str(path), "--engine", RTX]
    with subprocess.Popen(
        [*command, "--capability", "sm89"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts what it leaves in the background deaf to Ctrl-C, these tests perhaps among it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stderr is not None
        assert "building image-aerial" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.split()) == (1, "", ["interrupted"])
    assert list((path / "engines").iterdir()) == []

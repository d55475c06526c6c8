"""TensorRT's engines: on a GPU against ONNX Runtime, and everywhere on a stand-in for NVIDIA's two libraries.

The stand-in has real memory, checks every copy's bounds, does nothing before the stream is synchronised, and computes
with ONNX Runtime: its engine is the graph. It shows that our side is right, not that NVIDIA's is as we believe.
"""

from __future__ import annotations

import ctypes
import gc
import shutil
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

import tagclip.runtime.engines as engines_module
import tagclip.runtime.trt_engine as trt_engine
from tagclip.runtime.bundle import Bundle, open_bundle
from tagclip.runtime.encoder import ImageEncoder, TextEncoder
from tagclip.runtime.engine import OrtEngine
from tagclip.runtime.engine_build import BuiltTower, build_engines, find_target, write_engines
from tagclip.runtime.engine_facts import Target
from tagclip.runtime.engines import Engines
from tagclip.runtime.errors import BundleSelfTestError, EngineError, EngineMismatchError, MissingExtraError
from tagclip.runtime.gpu import Gpu, find_gpu
from tagclip.runtime.trt import RUNTIMES, Binding
from tagclip.runtime.trt_engine import TrtEngine

CROPS = np.random.default_rng(0).integers(0, 256, (9, 32, 16, 3), dtype=np.uint8)
CROPS_BYTES, VECTOR_BYTES = 32 * 16 * 3, 16 * 4  # of one crop and one vector of the toy bundle
GPU = Gpu("Orin, 8 SM", "sm87")
TARGET = Target("tensorrt", "10.3.0", GPU.name, GPU.capability)


def missing(runtime: str) -> str | None:
    """Why engines of `runtime` cannot run here."""
    try:
        return find_target(runtime)[1]
    except (EngineError, MissingExtraError) as error:
        return str(error)


@pytest.fixture
def bundle(tiny_bundle: Bundle, tmp_path: Path) -> Bundle:
    """A copy to put engines into."""
    return open_bundle(Path(shutil.copytree(tiny_bundle.path, tmp_path / "toy")))


@pytest.mark.gpu
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_engine_on_the_gpu(bundle: Bundle, runtime: str) -> None:
    if reason := missing(runtime):
        pytest.skip(reason)
    target, untested = find_target(runtime)
    assert untested is None and target.gpu == find_gpu().name
    warnings: list[str] = []
    for _ in range(2):  # the second time with the timing cache of the first
        built = build_engines(
            bundle,
            target,
            untested=None,
            max_batch=4,
            workspace_mb=64,
            memory_mb=4096 if runtime == "tensorrt" else None,
            progress=lambda tower, part: None,
            warn=warnings.append,
        )
    assert warnings == []
    assert built.facts.self_test is not None and min(built.facts.self_test.values()) >= 0.999
    tower = bundle.manifest.towers["image-ground"]
    engine = TrtEngine(built.read_tower(tower.name), tower, runtime=runtime, max_batch=4)
    expected = OrtEngine(bundle.read_file(tower.file), tower).run(CROPS)
    for count in (9, 1, 4):
        np.testing.assert_allclose(engine.run(CROPS[:count]), expected[:count], atol=2e-3)
    with pytest.raises(EngineError, match="expected uint8"):
        engine.run(CROPS.astype(np.float32))
    with pytest.raises(EngineError, match="image-aerial: expected"):
        TrtEngine(
            built.read_tower("text"), bundle.manifest.towers["image-aerial"], runtime=runtime, max_batch=4
        )
    with pytest.raises(EngineError, match="refuses the engine"):
        TrtEngine(b"no engine" * 100, tower, runtime=runtime, max_batch=4)
    encoder = ImageEncoder(bundle, "auto", engine=runtime)
    assert min(encoder.check().values()) >= 0.999 and encoder.engine.name == runtime
    assert Engines(bundle, "auto").name in RUNTIMES
    (engine_file,) = built.path.glob("image-ground.engine")
    engine_file.write_bytes((built.path / "image-aerial.engine").read_bytes())
    with pytest.raises(EngineMismatchError, match="truncated or altered"):
        ImageEncoder(bundle, "ground", engine=runtime)


# --- the stand-in ---


class Cuda:
    """What we call of `cuda.bindings.runtime`."""

    class cudaError_t(IntEnum):
        cudaSuccess = 0
        cudaErrorInvalidValue = 1
        cudaErrorMemoryAllocation = 2

    class cudaMemcpyKind(IntEnum):
        cudaMemcpyHostToDevice = 1
        cudaMemcpyDeviceToHost = 2

    def __init__(self) -> None:
        self.memory: dict[int, Any] = {}
        self.allocated_bytes: list[int] = []  # every allocation there ever was
        self.streams: dict[int, list[Callable[[], None]]] = {}
        self.room_bytes = 1 << 30

    def cudaMalloc(self, size: int) -> tuple[Any, int]:
        if size > self.room_bytes:
            return self.cudaError_t.cudaErrorMemoryAllocation, 0
        buffer = ctypes.create_string_buffer(size)
        self.memory[ctypes.addressof(buffer)] = buffer
        self.allocated_bytes.append(size)
        return self.cudaError_t.cudaSuccess, ctypes.addressof(buffer)

    def cudaFree(self, pointer: int) -> tuple[Any]:
        del self.memory[pointer]  # twice, or what was never given, would raise
        return (self.cudaError_t.cudaSuccess,)

    def cudaStreamCreate(self) -> tuple[Any, int]:
        self.streams[len(self.streams) + 1] = []
        return self.cudaError_t.cudaSuccess, len(self.streams)

    def cudaStreamDestroy(self, stream: int) -> tuple[Any]:
        del self.streams[stream]
        return (self.cudaError_t.cudaSuccess,)

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: Any, stream: int) -> tuple[Any]:
        there = kind == self.cudaMemcpyKind.cudaMemcpyHostToDevice
        if size > ctypes.sizeof(self.memory[to if there else source]):
            return (self.cudaError_t.cudaErrorInvalidValue,)
        self.streams[stream].append(lambda: ctypes.memmove(to, source, size) and None)
        return (self.cudaError_t.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any]:
        while self.streams[stream]:
            self.streams[stream].pop(0)()
        return (self.cudaError_t.cudaSuccess,)

    def cudaGetErrorString(self, code: Any) -> tuple[Any, bytes]:
        return self.cudaError_t.cudaSuccess, code.name.encode()


class Engine:
    """What we call of ICudaEngine and IExecutionContext."""

    def __init__(self, cuda: Cuda, graph: bytes) -> None:
        self.cuda, self.session = cuda, ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
        self.tensors = [*self.session.get_inputs(), *self.session.get_outputs()]
        self.num_io_tensors = len(self.tensors)
        self.addresses: dict[str, int] = {}
        self.shape: tuple[int, ...] = ()
        self.fails = False

    def get_tensor_name(self, index: int) -> str:
        return str(self.tensors[index].name)

    def _tensor(self, name: str) -> Any:
        return next(tensor for tensor in self.tensors if tensor.name == name)

    def get_tensor_mode(self, name: str) -> Any:
        return SimpleNamespace(name="INPUT" if self._tensor(name) is self.tensors[0] else "OUTPUT")

    def get_tensor_dtype(self, name: str) -> Any:
        names = {"tensor(uint8)": "UINT8", "tensor(int64)": "INT64", "tensor(float)": "FLOAT"}
        return SimpleNamespace(name=names[self._tensor(name).type])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(-1 if isinstance(size, str) else size for size in self._tensor(name).shape)

    def create_execution_context(self) -> Engine:
        return self

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return address in self.cuda.memory

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = tuple(shape)
        return True

    def execute_async_v3(self, stream: int) -> bool:
        if not self.fails:
            self.cuda.streams[stream].append(self._execute)
        return not self.fails

    def _execute(self) -> None:
        given, result = self.tensors
        dtype = np.dtype({"tensor(uint8)": "u1", "tensor(int64)": "i8"}[given.type])
        there = self.cuda.memory[self.addresses[given.name]]
        array = np.frombuffer(there, dtype, count=int(np.prod(self.shape))).reshape(self.shape)
        data = self.session.run(None, {given.name: array})[0].tobytes()
        assert len(data) <= ctypes.sizeof(self.cuda.memory[self.addresses[result.name]])
        ctypes.memmove(self.addresses[result.name], data, len(data))


class Nvidia:
    """Both libraries, and the engines that were loaded."""

    def __init__(self) -> None:
        self.cuda = Cuda()
        self.complaints: list[str] = []
        self.loaded: list[Engine] = []
        module = SimpleNamespace(Runtime=lambda logger: SimpleNamespace(deserialize_cuda_engine=self._load))
        self.binding = Binding("tensorrt", "10.3.0", module, None, self.complaints)

    def _load(self, data: bytes) -> Engine | None:
        try:
            self.loaded.append(Engine(self.cuda, data))
        except Exception:
            self.complaints.append("magic tag does not match")
            return None
        return self.loaded[-1]


@pytest.fixture
def nvidia(monkeypatch: pytest.MonkeyPatch) -> Nvidia:
    made = Nvidia()
    monkeypatch.setattr(trt_engine, "load_cuda", lambda: made.cuda)
    for module in (trt_engine, engines_module):
        monkeypatch.setattr(module, "load_binding", lambda runtime: made.binding)
    monkeypatch.setattr(engines_module, "find_gpu", lambda: GPU)
    return made


def built(bundle: Bundle, target: Target = TARGET, **instead: str) -> Path:
    """Write the stand-in's engines of the bundle: its graphs; of a tower in `instead` that of another one."""
    towers = [
        BuiltTower(
            name,
            bundle.read_file(bundle.manifest.towers[instead.get(name.removeprefix("image-"), name)].file),
            (1, 4, 4),
            b"",
            None,
        )
        for name in bundle.manifest.towers
    ]
    return write_engines(bundle, target, towers, untested="a stand-in").path


# --- one engine ---


def test_vectors_and_memory(tiny_bundle: Bundle, nvidia: Nvidia) -> None:
    """Batches of at most `max_batch` go through memory that is allocated once and given back at the end."""
    tower = tiny_bundle.manifest.towers["image-ground"]
    graph = tiny_bundle.read_file(tower.file)
    engine = TrtEngine(graph, tower, runtime="tensorrt", max_batch=4)
    expected = OrtEngine(graph, tower).run(CROPS)
    first = engine.run(CROPS[:1])
    for count in (9, 1, 4, 5):
        np.testing.assert_allclose(engine.run(CROPS[:count]), expected[:count], atol=1e-6)
    np.testing.assert_allclose(engine.run(CROPS[::2]), expected[::2], atol=1e-6)  # not contiguous
    np.testing.assert_allclose(first, expected[:1], atol=1e-6)  # what was returned is nobody's buffer
    assert nvidia.cuda.allocated_bytes == [4 * CROPS_BYTES, 4 * VECTOR_BYTES]
    nvidia.loaded.clear()
    del engine
    gc.collect()
    assert (nvidia.cuda.memory, nvidia.cuda.streams) == ({}, {})


def test_what_is_no_engine_of_the_tower(tiny_bundle: Bundle, nvidia: Nvidia) -> None:
    towers = tiny_bundle.manifest.towers
    text = tiny_bundle.read_file("text.onnx")
    with pytest.raises(EngineError, match="image-aerial: expected .*'crops'.* found .*'tokens'"):
        TrtEngine(text, towers["image-aerial"], runtime="tensorrt", max_batch=4)
    with pytest.raises(EngineError, match="text: the runtime refuses the engine: magic tag does not match"):
        TrtEngine(text[:-50], towers["text"], runtime="tensorrt", max_batch=4)


def test_arrays_that_do_not_fit(tiny_bundle: Bundle, nvidia: Nvidia) -> None:
    tower = tiny_bundle.manifest.towers["image-aerial"]
    engine = TrtEngine(tiny_bundle.read_file(tower.file), tower, runtime="tensorrt", max_batch=4)
    for array in (CROPS.astype(np.float32), CROPS[:, :8], CROPS[:0]):
        with pytest.raises(EngineError, match="image-aerial: expected uint8"):
            engine.run(array)


def test_too_little_memory_leaves_none_behind(tiny_bundle: Bundle, nvidia: Nvidia) -> None:
    tower = tiny_bundle.manifest.towers["image-aerial"]
    nvidia.cuda.room_bytes = 4 * CROPS_BYTES - 1
    with pytest.raises(EngineError, match=f"{4 * CROPS_BYTES} bytes on the GPU: .*cudaErrorMemoryAllocation"):
        TrtEngine(tiny_bundle.read_file(tower.file), tower, runtime="tensorrt", max_batch=4)
    nvidia.loaded.clear()
    gc.collect()
    assert (nvidia.cuda.memory, nvidia.cuda.streams) == ({}, {})


def test_a_run_that_fails(tiny_bundle: Bundle, nvidia: Nvidia) -> None:
    tower = tiny_bundle.manifest.towers["image-aerial"]
    engine = TrtEngine(tiny_bundle.read_file(tower.file), tower, runtime="tensorrt", max_batch=4)
    nvidia.loaded[-1].fails = True
    nvidia.complaints.append("out of workspace")
    with pytest.raises(EngineError, match="image-aerial: the run failed: out of workspace"):
        engine.run(CROPS[:1])


# --- the engines of a bundle ---


def test_encoders_on_tensorrt(bundle: Bundle, nvidia: Nvidia) -> None:
    built(bundle)
    engines = Engines(bundle, "tensorrt")
    assert engines.name == "tensorrt" and nvidia.loaded == []
    encoder = ImageEncoder(bundle, "auto", engine=engines)
    assert min(encoder.check().values()) > 0.999
    crops = list(CROPS)
    np.testing.assert_allclose(encoder.embed(crops), ImageEncoder(bundle, "auto").embed(crops), atol=1e-5)
    text = TextEncoder(bundle, engine=engines)
    assert text.check()["text"] > 0.999
    np.testing.assert_allclose(text.embed(["red"]), TextEncoder(bundle).embed(["red"]), atol=1e-5)
    assert len(nvidia.loaded) == 3


def test_auto_prefers_an_engine_that_was_built_here(bundle: Bundle, nvidia: Nvidia) -> None:
    assert Engines(bundle, "auto").passed_over["tensorrt"].startswith(f"{bundle.path} has no engine")
    built(bundle)
    engines = Engines(bundle, "auto")
    assert (engines.name, engines.passed_over) == ("tensorrt", {})


@pytest.mark.parametrize(
    "target",
    [
        Target("tensorrt", "10.4.0", GPU.name, GPU.capability),  # another version of the runtime
        Target("tensorrt", "10.3.0", "Orin, 16 SM", GPU.capability),  # another board
        Target("tensorrt-rtx", "10.3.0", GPU.name, GPU.capability),  # another runtime
    ],
)
def test_engines_of_other_machines_are_not_used(bundle: Bundle, nvidia: Nvidia, target: Target) -> None:
    path = built(bundle, target)
    says = f"has no engine for tensorrt 10.3.0 on {GPU.name} .*there is: '{path.name}'; .*bundle build"
    with pytest.raises(EngineMismatchError, match=says.replace("(", r"\(")):
        ImageEncoder(bundle, "aerial", engine="tensorrt")
    path.rename(path.with_name("tensorrt-10.3.0-orin-8-sm-fp32"))  # its name does not make it ours
    with pytest.raises(EngineMismatchError, match="expected .*, found .*`tagclip bundle build"):
        ImageEncoder(bundle, "aerial", engine="tensorrt")


def test_an_engine_that_computes_something_else(bundle: Bundle, nvidia: Nvidia) -> None:
    """Every hash is right, and it was built from the wrong graph: only the self-test can tell."""
    built(bundle, ground="image-aerial")
    encoder = ImageEncoder(bundle, "ground", engine="tensorrt")
    with pytest.raises(BundleSelfTestError, match="image-ground: cosine .*engine tensorrt does not"):
        encoder.check()


def test_an_engine_that_is_swapped_under_the_process(bundle: Bundle, nvidia: Nvidia) -> None:
    path = built(bundle)
    encoder = ImageEncoder(bundle, "ground", engine="tensorrt")
    shutil.copy(path / "image-aerial.engine", path / "image-ground.engine")
    with pytest.raises(EngineMismatchError, match="image-ground.engine was truncated or altered"):
        encoder.embed(list(CROPS))


def test_without_a_gpu_the_real_runtime_refuses_by_name(tiny_bundle: Bundle) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="tensorrt-rtx is for x86-64 Linux only")
    if missing("tensorrt-rtx") is None:
        pytest.skip("this machine has a GPU for it")
    tower = tiny_bundle.manifest.towers["text"]
    from tagclip.runtime.trt import build_engine

    made = build_engine(
        "tensorrt-rtx",
        tiny_bundle.read_file(tower.file),
        name="text",
        max_batch=4,
        workspace_mb=64,
        capability="sm89",
    )
    with pytest.raises(EngineError, match="^text: "):
        TrtEngine(made.engine, tower, runtime="tensorrt-rtx", max_batch=4)

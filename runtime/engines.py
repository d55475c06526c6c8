"""Which engine runs the towers of a bundle: the one that was asked for, or an error; "auto" says what it took.

| engine | what it is |
|---|---|
| cpu | ONNX Runtime on the CPU |
| cuda | ONNX Runtime on an NVIDIA GPU |
| ort-tensorrt | TensorRT inside ONNX Runtime: builds at every start |
| openvino | OpenVINO inside ONNX Runtime, on the CPU |
| tensorrt, tensorrt-rtx | an engine that `tagclip bundle build` made on this machine |
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from tagclip.runtime.bundle import Bundle
from tagclip.runtime.engine import NORM_TOLERANCE, OrtEngine, TowerEngine
from tagclip.runtime.engine_facts import Target
from tagclip.runtime.engine_store import engine_path, list_engines, open_engine
from tagclip.runtime.errors import ConfigError, EngineError, EngineMismatchError, MissingExtraError
from tagclip.runtime.gpu import find_gpu
from tagclip.runtime.probe import tower_cosine
from tagclip.runtime.providers import CPU, CUDA, PROVIDERS, load_onnxruntime
from tagclip.runtime.trt import RUNTIMES, load_binding
from tagclip.runtime.trt_engine import TrtEngine

AUTO = "auto"
ENGINES = (*PROVIDERS, *RUNTIMES)
# What takes minutes to start (ort-tensorrt) or was slower than the CPU (openvino, docs/engines.md) is only asked for.
AUTO_ORDER = (*RUNTIMES, CUDA, CPU)

Load = Callable[[str], TowerEngine]


class Engines:
    """The towers of a bundle, all on one engine; each is loaded when it is first needed, then kept.

    Its encoders may share it: a tower is then loaded once. Not for several threads at a time.

    Args:
        bundle: an opened bundle.
        asked: one of ENGINES, or "auto": the first of AUTO_ORDER that this machine has and that takes a tower of the
            bundle.
        threads: as in OrtEngine.

    Attributes:
        bundle: as given.
        name: the engine, one of ENGINES.
        passed_over: with "auto", engine -> why it was not taken, in the order in which they were tried.

    Raises:
        ConfigError: there is no engine of that name.
        MissingExtraError: what it needs is not installed.
        EngineMismatchError: the bundle holds no TensorRT engine that was built from it for this machine.
        EngineError: this machine does not have it; the message says the way out.
    """

    def __init__(self, bundle: Bundle, asked: str = CPU, *, threads: int | None = None) -> None:
        self.bundle = bundle
        self.passed_over: dict[str, str] = {}
        self._towers: dict[str, TowerEngine] = {}
        self._cosines: dict[str, float] = {}
        self.name, self._load = (
            self._choose(threads) if asked == AUTO else (asked, self._open(asked, threads))
        )

    def run(self, name: str, array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Run a tower.

        Args:
            name: of the tower.
            array: its input (N, ...), N at least 1.

        Returns:
            float32 (N, D), unit rows, a new array.

        Raises:
            EngineError: the engine refuses the tower, the run fails, or what comes out are no unit vectors.
            BundleIntegrityError: the bundle's folder is not any more what was opened, and the tower not yet loaded.
        """
        vectors = self._tower(name).run(array)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        # Written so that NaN fails too.
        if not np.all(np.abs(norms - 1) <= NORM_TOLERANCE):
            raise EngineError(
                f"{self.bundle.manifest.towers[name].file}: expected unit vectors, got lengths {norms.min():.3g} to "
                f"{norms.max():.3g}; run `tagclip bundle verify`"
            )
        vectors /= norms
        return vectors

    def check(self, name: str) -> float:
        """Load a tower and run the probe through it: afterwards it is known to be right, and warm. Once for each.

        Returns:
            The smallest cosine to the vectors that the bundle was made with, 0.999 to 1.

        Raises:
            BundleSelfTestError: the bundle has no probe, or this engine does not compute what it was made with.
            EngineError, BundleIntegrityError: as in `run`.
        """
        if name not in self._cosines:
            tower, run = self.bundle.manifest.towers[name], self._tower(name).run
            self._cosines[name] = tower_cosine(self.bundle, tower, run, f"engine {self.name}")
        return self._cosines[name]

    def _tower(self, name: str) -> TowerEngine:
        if name not in self._towers:
            self._towers[name] = self._load(name)
        return self._towers[name]

    def _choose(self, threads: int | None) -> tuple[str, Load]:
        for name in AUTO_ORDER[:-1]:
            try:
                load = self._open(name, threads)
                # That it is installed does not mean that it starts.
                first = next(iter(self.bundle.manifest.towers))
                self._towers[first] = load(first)
                return name, load
            except (EngineError, MissingExtraError) as error:
                self.passed_over[name] = str(error)
        return AUTO_ORDER[-1], self._open(AUTO_ORDER[-1], threads)

    def _open(self, name: str, threads: int | None) -> Load:
        """What loads a tower with engine `name`; all that can be said without loading one is checked here."""
        if name in RUNTIMES:
            return _open_tensorrt(self.bundle, name)
        if name not in PROVIDERS:
            raise ConfigError(f"engine {name!r}: expected one of {', '.join(ENGINES)} or {AUTO}")
        load_onnxruntime(name)
        bundle = self.bundle

        def load(tower: str) -> TowerEngine:
            found = bundle.manifest.towers[tower]
            return OrtEngine(bundle.read_file(found.file), found, threads=threads, engine=name)

        return load


def _open_tensorrt(bundle: Bundle, runtime: str) -> Load:
    version = load_binding(runtime).version
    try:
        gpu = find_gpu()
    except (EngineError, MissingExtraError) as error:
        raise type(error)(f"{runtime} was asked for, but {error}; ask for cpu") from error
    target = Target(runtime, version, gpu.name, gpu.capability)
    folder = engine_path(bundle, target)
    if not os.path.lexists(folder):
        there = ", ".join(repr(path.name) for path in list_engines(bundle)) or "none"
        raise EngineMismatchError(
            f"{bundle.path} has no engine for {runtime} {version} on {gpu.name} ({gpu.capability}), there is: {there}; "
            f"build it on this machine: `tagclip bundle build {bundle.path} --engine {runtime}`"
        )
    opened = open_engine(bundle, folder, target)

    def load(name: str) -> TowerEngine:
        tower, facts = bundle.manifest.towers[name], opened.facts.towers[name]
        return TrtEngine(opened.read_tower(name), tower, runtime=runtime, max_batch=facts.max_batch)

    return load

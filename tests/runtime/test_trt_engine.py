"""Engines run where a GPU is, and compute there what ONNX Runtime does. Also on a Jetson, where TensorRT-RTX is not."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tagclip.runtime.bundle import Bundle, open_bundle
from tagclip.runtime.engine import OrtEngine
from tagclip.runtime.engine_build import build_engines, find_target
from tagclip.runtime.errors import EngineError, MissingExtraError
from tagclip.runtime.gpu import find_gpu
from tagclip.runtime.trt import RUNTIMES
from tagclip.runtime.trt_engine import TrtEngine


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
    crops = np.random.default_rng(0).integers(0, 256, (9, 32, 16, 3), dtype=np.uint8)
    tower = bundle.manifest.towers["image-ground"]
    engine = TrtEngine(built.read_tower(tower.name), tower, runtime=runtime, max_batch=4)
    expected = OrtEngine(bundle.read_file(tower.file), tower).run(crops)
    for count in (9, 1, 4):
        np.testing.assert_allclose(engine.run(crops[:count]), expected[:count], atol=2e-3)
    with pytest.raises(EngineError, match="expected uint8"):
        engine.run(crops.astype(np.float32))
    with pytest.raises(EngineError, match="image-aerial: expected"):
        TrtEngine(
            built.read_tower("text"), bundle.manifest.towers["image-aerial"], runtime=runtime, max_batch=4
        )
    with pytest.raises(EngineError, match="refuses the engine"):
        TrtEngine(b"no engine" * 100, tower, runtime=runtime, max_batch=4)

"""One engine for a bundle: the one that was asked for, loaded once, tested, and never another bundle's."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import tagclip.runtime.engines as engines_module
from tagclip.runtime.bundle import Bundle, open_bundle
from tagclip.runtime.bundle_write import write_bundle
from tagclip.runtime.encoder import ImageEncoder, TextEncoder
from tagclip.runtime.engine import OrtEngine
from tagclip.runtime.engines import AUTO_ORDER, ENGINES, Engines
from tagclip.runtime.errors import (
    BundleIntegrityError,
    BundleSelfTestError,
    ConfigError,
    EngineError,
    MissingExtraError,
)
from tagclip.runtime.gpu import find_gpu
from tagclip.runtime.providers import PROVIDERS
from tagclip.runtime.selftest import run_probe

CROPS = list(np.random.default_rng(0).integers(0, 256, (5, 40, 20, 3), dtype=np.uint8))


def without_gpu() -> bool:
    try:
        find_gpu()
    except (EngineError, MissingExtraError):
        return True
    return False


@pytest.fixture
def bundle(tiny_bundle: Bundle, tmp_path: Path) -> Bundle:
    """A copy to do things to."""
    return open_bundle(Path(shutil.copytree(tiny_bundle.path, tmp_path / "toy")))


@pytest.fixture
def other(tiny_parts: dict, tmp_path: Path) -> Bundle:
    """A sound bundle of another encoder: its views are exchanged."""
    graphs = tiny_parts["graphs"]
    swapped = {"image-aerial": graphs["image-ground"], "image-ground": graphs["image-aerial"]}
    return write_bundle(tmp_path / "other", **tiny_parts | {"graphs": graphs | swapped})


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The towers that were loaded, in order."""
    loaded: list[str] = []

    class Counting(OrtEngine):
        def __init__(self, graph: bytes, tower: Any, **options: Any) -> None:
            loaded.append(tower.name)
            super().__init__(graph, tower, **options)

    monkeypatch.setattr(engines_module, "OrtEngine", Counting)
    return loaded


# --- which engine ---


def test_the_engine_says_its_name(tiny_bundle: Bundle) -> None:
    assert ImageEncoder(tiny_bundle, "aerial").engine.name == "cpu"
    assert TextEncoder(tiny_bundle, engine="cpu").engine.name == "cpu"


@pytest.mark.skipif(not without_gpu(), reason="this machine has a GPU")
def test_auto_takes_the_cpu_and_says_why_no_other(tiny_bundle: Bundle) -> None:
    encoder = ImageEncoder(tiny_bundle, "aerial", engine="auto")
    assert encoder.engine.name == "cpu"
    assert tuple(encoder.engine.passed_over) == ("tensorrt", "tensorrt-rtx", "cuda") == AUTO_ORDER[:-1]
    assert "cuda was asked for, but onnxruntime" in encoder.engine.passed_over["cuda"]
    np.testing.assert_array_equal(encoder.embed(CROPS), ImageEncoder(tiny_bundle, "aerial").embed(CROPS))


def test_auto_takes_the_first_that_starts(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, loads: list[str]
) -> None:
    """One that this onnxruntime has not stands for one that is installed and does not start."""
    has = onnxruntime.get_available_providers()
    absent = next(name for name in ("cuda", "openvino") if PROVIDERS[name].name not in has)
    monkeypatch.setattr(engines_module, "AUTO_ORDER", (absent, "cpu", "cuda"))
    monkeypatch.setattr(engines_module, "load_onnxruntime", lambda name: None)
    engines = Engines(tiny_bundle, "auto")
    assert (engines.name, list(engines.passed_over)) == ("cpu", [absent])
    assert loads == ["image-aerial"] * 2  # the last is kept
    engines.run("image-aerial", np.zeros((1, 32, 16, 3), np.uint8))
    assert len(loads) == 2


@pytest.mark.skipif(not without_gpu(), reason="this machine has a GPU")
@pytest.mark.parametrize("engine", ["cuda", "ort-tensorrt", "tensorrt", "tensorrt-rtx"])
def test_what_this_machine_has_not_is_never_replaced(tiny_bundle: Bundle, engine: str) -> None:
    with pytest.raises((EngineError, MissingExtraError), match=f"{engine} (was asked for|is not installed)"):
        ImageEncoder(tiny_bundle, "aerial", engine=engine).check()
    with pytest.raises((EngineError, MissingExtraError), match=engine):
        TextEncoder(tiny_bundle, engine=engine).embed(["red"])


def test_an_unknown_engine(tiny_bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match=f"engine 'npu': expected one of {', '.join(ENGINES)} or auto"):
        Engines(tiny_bundle, "npu")


# --- one for all encoders of a bundle, and of no other ---


def test_encoders_share_their_towers(tiny_bundle: Bundle, loads: list[str]) -> None:
    engines = Engines(tiny_bundle)
    encoders = [ImageEncoder(tiny_bundle, view, engine=engines) for view in ("aerial", "ground", "auto")]
    assert loads == []
    vectors = [encoder.embed(CROPS) for encoder in encoders]
    assert loads == ["image-aerial", "image-ground"]
    for view, shared in zip(("aerial", "ground", "auto"), vectors, strict=True):
        np.testing.assert_array_equal(shared, ImageEncoder(tiny_bundle, view).embed(CROPS))


def test_engines_of_another_encoder_are_refused(tiny_bundle: Bundle, other: Bundle) -> None:
    """The vectors would stand under an encoder id that did not make them."""
    assert tiny_bundle.encoder_id != other.encoder_id
    engines = Engines(other)
    says = f"the engines run encoder {other.encoder_id}, expected {tiny_bundle.encoder_id}"
    with pytest.raises(ConfigError, match=says):
        ImageEncoder(tiny_bundle, "aerial", engine=engines)
    with pytest.raises(ConfigError, match=says):
        TextEncoder(tiny_bundle, engine=engines)
    ImageEncoder(open_bundle(other.path), "aerial", engine=engines)  # opened twice, the same encoder


# --- a bundle that is swapped under a running process ---


def replaced(bundle: Bundle, other: Bundle) -> None:
    """The folder is another one."""
    bundle.path.rename(bundle.path.with_name("old"))
    other.path.rename(bundle.path)


def overwritten(bundle: Bundle, other: Bundle) -> None:
    """The folder is the same, its files are others."""
    for path in other.path.iterdir():
        shutil.copy(path, bundle.path)


@pytest.mark.parametrize("swap", [replaced, overwritten])
def test_a_swapped_bundle_gives_no_vectors(
    bundle: Bundle, other: Bundle, swap: Callable[[Bundle, Bundle], None]
) -> None:
    engines = Engines(bundle)
    aerial, ground = (ImageEncoder(bundle, view, engine=engines) for view in ("aerial", "ground"))
    before = aerial.embed(CROPS)
    swap(bundle, other)
    assert open_bundle(bundle.path).encoder_id == other.encoder_id  # sound, and another
    with pytest.raises(BundleIntegrityError, match="image-ground.onnx changed after the bundle was opened"):
        ground.embed(CROPS)
    with pytest.raises(BundleIntegrityError, match="image-ground.onnx changed"):
        ground.check()
    np.testing.assert_array_equal(aerial.embed(CROPS), before)


def test_a_link_that_leads_to_another_bundle_gives_no_vectors(bundle: Bundle, other: Bundle) -> None:
    link = bundle.path.with_name("current")
    link.symlink_to(bundle.path)
    encoder = ImageEncoder(open_bundle(link), "ground")
    link.unlink()
    link.symlink_to(other.path)
    with pytest.raises(BundleIntegrityError, match="image-ground.onnx changed"):
        encoder.embed(CROPS)


def test_once_checked_nothing_is_read_any_more(bundle: Bundle) -> None:
    encoders = ImageEncoder(bundle, "auto"), TextEncoder(bundle)
    for encoder in encoders:
        encoder.check()
    shutil.rmtree(bundle.path)
    for encoder in encoders:
        encoder.check()
    assert encoders[0].embed(CROPS).shape == (5, 16) and encoders[1].embed(["red"]).shape == (1, 16)


# --- the self-test ---


def test_check_is_the_self_test_of_the_towers_in_use(tiny_bundle: Bundle, loads: list[str]) -> None:
    cosines = run_probe(tiny_bundle)
    del loads[:]
    assert ImageEncoder(tiny_bundle, "ground").check() == {"image-ground": cosines["image-ground"]}
    assert TextEncoder(tiny_bundle).check() == {"text": cosines["text"]}
    assert loads == ["image-ground", "text"]


def test_each_tower_is_tested_once(tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    tested = []
    real = engines_module.tower_cosine

    def counting(bundle: Bundle, tower: Any, *rest: Any) -> float:
        tested.append(tower.name)
        return real(bundle, tower, *rest)

    monkeypatch.setattr(engines_module, "tower_cosine", counting)
    engines = Engines(tiny_bundle)
    for view in ("aerial", "ground", "auto"):
        ImageEncoder(tiny_bundle, view, engine=engines).check()
    assert tested == ["image-aerial", "image-ground"]


def test_an_engine_that_computes_something_else_is_refused(tiny_parts: dict, tmp_path: Path) -> None:
    """The probe of the other view stands for it: what comes out is not what the bundle was made with."""
    with np.load(io.BytesIO(tiny_parts["extra_files"]["probe.npz"])) as arrays:
        probe = dict(arrays)
    probe["vectors_aerial"] = probe["vectors_ground"]
    data = io.BytesIO()
    np.savez(data, **probe)
    files = tiny_parts["extra_files"] | {"probe.npz": data.getvalue()}
    wrong = write_bundle(tmp_path / "wrong", **tiny_parts | {"extra_files": files})
    encoder = ImageEncoder(wrong, "auto")
    with pytest.raises(BundleSelfTestError, match="image-aerial: cosine .* is 0.9.*engine cpu does not"):
        encoder.check()
    with pytest.raises(BundleSelfTestError, match="image-aerial"):
        encoder.check()  # a failure is not taken for done
    assert ImageEncoder(wrong, "ground").check()["image-ground"] > 0.999


def test_without_a_probe_nothing_is_called_right(tiny_parts: dict, tmp_path: Path) -> None:
    bare = write_bundle(tmp_path / "bare", **tiny_parts | {"extra_files": {}})
    with pytest.raises(BundleSelfTestError, match="has no probe.npz"):
        ImageEncoder(bare, "aerial").check()

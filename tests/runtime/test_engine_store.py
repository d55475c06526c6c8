"""An engine is used where it was built, for the bundle it was built from, or refused by name. No runtime is needed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tagclip.runtime.bundle import Bundle, open_bundle
from tagclip.runtime.bundle_write import write_bundle
from tagclip.runtime.engine_build import BuiltTower, foreign_engines, write_engines
from tagclip.runtime.engine_facts import Target
from tagclip.runtime.engine_store import list_engines, open_engine, read_timing_cache
from tagclip.runtime.errors import EngineMismatchError, OutputError

ORIN = Target("tensorrt", "10.3.0", "Orin, 8 SM", "sm87")
RTX = Target("tensorrt-rtx", "1.7.1.116", "none", "sm89")
NAMES = ("image-aerial", "image-ground", "text")


@pytest.fixture
def bundle(tiny_bundle: Bundle, tmp_path: Path) -> Bundle:
    """A copy to put engines into."""
    return open_bundle(Path(shutil.copytree(tiny_bundle.path, tmp_path / "toy")))


def towers(*names: str, cache: bytes = b"") -> list[BuiltTower]:
    """To the store an engine is bytes; test_trt.py has real ones."""
    return [BuiltTower(name, f"engine of {name} ".encode() * 50, (1, 8, 64), cache, 0.9999) for name in names]


def written(bundle: Bundle, target: Target = ORIN) -> Path:
    return write_engines(bundle, target, towers(*NAMES), untested=None).path


def change(folder: Path, **fields: Any) -> None:
    """Overwrite fields of engine.json."""
    path = folder / "engine.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_what_is_written_opens(bundle: Bundle) -> None:
    path = written(bundle)
    assert path == bundle.path / "engines" / "tensorrt-10.3.0-orin-8-sm-fp32"
    assert list_engines(open_bundle(bundle.path)) == [path]
    engine = open_engine(bundle, path, ORIN)
    assert (engine.facts.target, engine.facts.precision) == (ORIN, "fp32")
    assert engine.facts.self_test == dict.fromkeys(NAMES, 0.9999) and engine.facts.self_test_reason is None
    for tower in towers(*NAMES):
        # The runtime's bytes and nothing around them: trtexec, Triton and DeepStream read the file as it is.
        assert (path / f"{tower.name}.engine").read_bytes() == tower.engine
        assert engine.read_tower(tower.name) == tower.engine
        facts = engine.facts.towers[tower.name]
        assert (facts.min_batch, facts.opt_batch, facts.max_batch) == (1, 8, 64)
        assert facts.graph_sha256 == bundle.sha256[f"{tower.name}.onnx"]


def test_an_untested_engine_says_why(bundle: Bundle) -> None:
    built = [replace(tower, min_cosine=None) for tower in towers(*NAMES)]
    path = write_engines(bundle, RTX, built, untested="no GPU here").path
    assert path.name == "tensorrt-rtx-1.7.1.116-sm89-fp32"
    found = json.loads((path / "engine.json").read_text())
    assert (found["self_test"], found["self_test_reason"]) == (None, "no GPU here")
    assert open_engine(bundle, path, RTX).facts.self_test_reason == "no GPU here"


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"runtime": "tensorrt-rtx"}, "expected runtime tensorrt-rtx, found tensorrt;"),
        ({"version": "10.13.2"}, "expected tensorrt version 10.13.2, found 10.3.0;"),
        ({"capability": "sm110"}, "expected GPU capability sm110, found sm87;"),
        ({"gpu": "Orin, 16 SM"}, "expected GPU Orin, 16 SM, found Orin, 8 SM;"),
    ],
)
def test_of_another_machine(bundle: Bundle, other: dict[str, str], message: str) -> None:
    path, target = written(bundle), replace(ORIN, **other)
    with pytest.raises(EngineMismatchError) as error:
        open_engine(bundle, path, target)
    assert f"{path}: {message}" in str(error.value)
    assert f"`tagclip bundle build {bundle.path} --engine {target.runtime}`" in str(error.value)


def test_rtx_engines_fit_every_gpu_of_their_capability(bundle: Bundle) -> None:
    path = written(bundle, RTX)
    open_engine(bundle, path, replace(RTX, gpu="NVIDIA GeForce RTX 4090, 128 SM"))
    with pytest.raises(EngineMismatchError, match="expected GPU capability sm120, found sm89"):
        open_engine(bundle, path, replace(RTX, capability="sm120"))


def test_of_another_bundle(bundle: Bundle, tiny_parts: dict[str, Any], tmp_path: Path) -> None:
    graphs = dict(tiny_parts["graphs"])
    graphs["image-aerial"] = graphs["image-ground"]
    other = write_bundle(tmp_path / "other", **(tiny_parts | {"graphs": graphs}))
    shutil.copytree(written(bundle).parent, other.path / "engines")
    (path,) = list_engines(other)
    expected = f"expected encoder id {other.encoder_id}, found {bundle.encoder_id}"
    with pytest.raises(EngineMismatchError, match=expected):
        open_engine(other, path, ORIN)
    # The id is 64 bits of a hash; the graph's own hash is compared too.
    change(path, encoder_id=other.encoder_id)
    with pytest.raises(
        EngineMismatchError, match="the engine of image-aerial was built from a graph with SHA"
    ):
        open_engine(other, path, ORIN)


def test_of_fewer_towers_or_another_precision(bundle: Bundle) -> None:
    with pytest.raises(
        EngineMismatchError, match="expected engines of image-aerial, image-ground, text, found text"
    ):
        write_engines(bundle, ORIN, towers("text"), untested=None)
    assert list_engines(bundle) == [] and os.listdir(bundle.path / "engines") == []
    path = written(bundle)
    change(path, precision="int8")
    with pytest.raises(EngineMismatchError, match="expected precision fp32, found int8"):
        open_engine(bundle, path, ORIN)


def damage(folder: Path, how: str) -> None:
    file = folder / "text.engine"
    data = file.read_bytes()
    if how == "altered":
        file.write_bytes(data[:100] + b"\xff" + data[101:])
    elif how == "truncated":
        file.write_bytes(data[:-1])
    elif how == "grown":
        file.write_bytes(data + b"\0")
    else:
        file.unlink()
    if how == "linked":
        file.symlink_to(folder / "image-aerial.engine")
    elif how == "pipe":
        os.mkfifo(file)


@pytest.mark.parametrize("how", ["altered", "truncated", "grown", "missing", "linked", "pipe"])
def test_damaged_files(bundle: Bundle, how: str) -> None:
    path = written(bundle)
    engine = open_engine(bundle, path, ORIN)
    damage(path, how)
    with pytest.raises(
        EngineMismatchError, match=f"{path}.*text.engine.*`tagclip bundle build {bundle.path}"
    ):
        open_engine(bundle, path, ORIN)
    with pytest.raises(EngineMismatchError, match=r"text\.engine"):  # also what changes after it was opened
        engine.read_tower("text")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not readable as JSON"),
        (b"{", "not readable as JSON"),
        (b"[]", "expected an object, found a list"),
        (b'{"format_version": 2}', "format_version: expected at most 1, which this tagclip reads"),
        (b"{}" + b" " * 300_000, "expected a plain file of at most 262144 bytes"),
    ],
)
def test_unreadable_facts(bundle: Bundle, content: bytes, message: str) -> None:
    path = written(bundle)
    (path / "engine.json").write_bytes(content)
    with pytest.raises(EngineMismatchError, match=f"{message}.*tagclip bundle build"):
        open_engine(bundle, path, ORIN)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("runtime", "onnxruntime"),
        ("version", "10\n3"),
        ("gpu", ""),
        ("capability", "87"),
        ("precision", "fp8"),
        ("encoder_id", "tc1-xyz"),
        ("built_utc", "yesterday"),
        ("build_s", True),
        ("build_s", -1),
        ("self_test", {"text": "good"}),
        ("self_test", {"texts": 1.0}),
        ("self_test", None),  # without a reason
        ("unknown", 1),
        ("towers", []),
        ("towers", {"text": {}}),
        ("towers", {"../text": {}}),
    ],
)
def test_odd_facts(bundle: Bundle, field: str, value: object) -> None:
    path = written(bundle)
    change(path, **{field: value})
    with pytest.raises(EngineMismatchError, match=r"engine\.json.*tagclip bundle build"):
        open_engine(bundle, path, ORIN)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("file", "../../text.onnx"),
        ("file", "image-ground.engine"),
        ("sha256", "0" * 63),
        ("bytes", 0),
        ("bytes", 2**40),
        ("min_batch", 9),
        ("max_batch", 7),
        ("graph_sha256", None),
    ],
)
def test_odd_towers(bundle: Bundle, field: str, value: object) -> None:
    path = written(bundle)
    found = json.loads((path / "engine.json").read_text())["towers"]
    found["text"][field] = value
    change(path, towers=found)
    with pytest.raises(EngineMismatchError, match=r"engine\.json\.towers\.text\."):
        open_engine(bundle, path, ORIN)


def test_odd_folders(bundle: Bundle) -> None:
    path = written(bundle)
    link = path.parent / "link"
    link.symlink_to(path)
    file = path.parent / "file\x1b[2J"
    file.write_bytes(b"")
    assert list_engines(bundle) == [file, link, path]
    for odd in (link, file):
        with pytest.raises(EngineMismatchError, match="expected a folder, found a link or a file") as error:
            open_engine(bundle, odd, ORIN)
        assert "\x1b" not in str(error.value)
    (path / "readme\x1b.txt").write_bytes(b"")
    with pytest.raises(EngineMismatchError, match=r"'readme\\x1b.txt' does not belong there"):
        open_engine(bundle, path, ORIN)


def test_the_same_key_replaces_and_a_failure_keeps_the_old(bundle: Bundle) -> None:
    """A kill in between is folder_atomic's business, and tested there."""
    path = written(bundle)
    before = {file.name: file.read_bytes() for file in path.iterdir()}

    def failing() -> Iterator[BuiltTower]:
        yield from towers("text")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_engines(bundle, ORIN, failing(), untested=None)
    assert os.listdir(path.parent) == [path.name]
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before

    built = [replace(tower, engine=b"newer") for tower in towers(*NAMES)]
    assert write_engines(bundle, ORIN, built, untested=None).read_tower("text") == b"newer"
    assert os.listdir(path.parent) == [path.name]


def test_a_folder_that_cannot_be_written(bundle: Bundle) -> None:
    """A file in the way, since tests may run as root, whom no permission stops."""
    (bundle.path / "engines").write_bytes(b"")
    with pytest.raises(OutputError, match=f"cp -r {bundle.path} my.bundle.*tagclip bundle build my.bundle"):
        written(bundle)


def test_the_timing_cache_is_kept(bundle: Bundle) -> None:
    path = write_engines(bundle, ORIN, towers(*NAMES, cache=b"timed" * 100_000), untested=None).path
    assert read_timing_cache(path) == b"timed" * 100_000
    (path / "timing.cache").unlink()
    assert read_timing_cache(path) == b""
    (path / "timing.cache").symlink_to("/etc/passwd")
    with pytest.raises(EngineMismatchError, match=r"timing\.cache is not readable as a plain file"):
        read_timing_cache(path)


def test_foreign_engines_are_named_and_neighbours_are_not(bundle: Bundle) -> None:
    for neighbour in (RTX, replace(ORIN, gpu="Orin, 16 SM"), ORIN):
        written(bundle, neighbour)
    assert foreign_engines(bundle, ORIN) == []
    old = written(bundle, replace(ORIN, version="10.2.0"))
    damage(written(bundle, replace(RTX, capability="sm120")), "truncated")
    change(written(bundle, replace(ORIN, gpu="Orin, 4 SM")), encoder_id="tc1-0123456789abcdef")
    version, encoder, damaged = map(str, foreign_engines(bundle, ORIN))
    assert version.startswith(f"{old}: expected tensorrt version 10.3.0, found 10.2.0")
    assert "orin-4-sm" in encoder and "found tc1-0123456789abcdef" in encoder
    assert "sm120" in damaged and "text.engine was truncated or altered" in damaged


def test_inspect_lists_engines_and_says_which_are_not_of_this_bundle(
    run: Callable[..., tuple[int, str, str]], bundle: Bundle
) -> None:
    status, out, _ = run("bundle", "inspect", bundle.path)
    assert status == 0 and "\nengines\n" not in out
    orin, rtx = written(bundle), written(bundle, RTX)
    other = written(bundle, replace(ORIN, gpu="Orin, 16 SM"))
    change(other, encoder_id="tc1-0123456789abcdef")
    damage(written(bundle, replace(RTX, capability="sm120")), "truncated")
    (bundle.path / "engines" / "file\x1b[2J").write_bytes(b"")
    status, out, err = run("bundle", "inspect", bundle.path)
    assert (status, err) == (0, "") and "\x1b" not in out
    assert f"\n  {orin.name}: for Orin, 8 SM (sm87), built from this bundle\n" in out
    assert f"\n  {rtx.name}: for sm89, built from this bundle\n" in out
    assert (
        f"  {other.name}: {other}: expected encoder id {bundle.encoder_id}, found tc1-0123456789abcdef" in out
    )
    assert "file\\u001b[2J: " in out and "expected a folder, found a link or a file" in out

    status, out, _ = run("bundle", "inspect", bundle.path, "--json")
    rows = {row["engine"]: row for row in json.loads(out)["engines"]}
    assert len(rows) == 5 and [name for name, row in rows.items() if row["reason"] is None] == [
        orin.name,
        rtx.name,
    ]
    assert rows[orin.name] == {"engine": orin.name, "gpu": "Orin, 8 SM", "capability": "sm87", "reason": None}
    assert "text.engine was truncated" in rows["tensorrt-rtx-1.7.1.116-sm120-fp32"]["reason"]

"""Writing a bundle and opening it again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

import tagclip.runtime.bundle as bundle_module
from tagclip.runtime.bundle import Bundle, open_bundle
from tagclip.runtime.bundle_manifest import TensorSpec
from tagclip.runtime.bundle_write import write_bundle
from tagclip.runtime.errors import (
    BundleIntegrityError,
    BundleManifestError,
    BundleMissingError,
    OutputError,
)


def test_opens_what_was_written(tiny_bundle: Bundle) -> None:
    manifest = open_bundle(tiny_bundle.path).manifest
    assert manifest == tiny_bundle.manifest
    assert manifest.views == ("aerial", "ground")
    assert list(manifest.towers) == ["image-aerial", "image-ground", "text"]
    assert manifest.towers["image-ground"].input == TensorSpec("crops", "uint8", ("N", 32, 16, 3))
    assert manifest.towers["text"].input == TensorSpec("tokens", "int64", ("N", 12))
    assert manifest.towers["text"].output == TensorSpec("embedding", "float32", ("N", 16))


def test_the_same_parts_make_the_same_bytes(tiny_parts: dict, tiny_bundle: Bundle, tmp_path: Path) -> None:
    again = write_bundle(tmp_path / "again", **tiny_parts)
    names = sorted(path.name for path in tiny_bundle.path.iterdir())
    assert sorted(path.name for path in again.path.iterdir()) == names
    for name in names:
        assert (again.path / name).read_bytes() == (tiny_bundle.path / name).read_bytes(), name


def test_sha256sum_agrees(tiny_bundle: Bundle) -> None:
    subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=tiny_bundle.path, check=True
    )


def test_encoder_id_follows_the_specification(tiny_bundle: Bundle) -> None:
    """Worked out from docs/format.md with nothing of ours."""
    manifest = json.loads((tiny_bundle.path / "bundle.json").read_text())

    def sha256(name: str) -> str:
        return hashlib.sha256((tiny_bundle.path / name).read_bytes()).hexdigest()

    parts = {
        "towers": {name: sha256(tower["file"]) for name, tower in manifest["towers"].items()},
        "preprocess": manifest["preprocess"],
        "tokenizer": {"sha256": sha256("tokenizer.json"), "context_length": 12, "pad_id": 0},
    }
    text = json.dumps(parts, sort_keys=True, indent=2) + "\n"
    assert manifest["encoder_id"] == "tc1-" + hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"name": "other"}, True),
        ({"licence": "MIT", "provenance": {}, "extra_files": {}}, True),
        ({"pad_id": 1}, False),  # other vectors from the same graphs
        ({"tokenizer_json": b"{}"}, False),
    ],
)
def test_encoder_id_changes_with_what_decides_the_vector(
    tiny_parts: dict, tiny_bundle: Bundle, tmp_path: Path, change: dict, same: bool
) -> None:
    other = write_bundle(tmp_path / "other", **(tiny_parts | change))
    assert (other.encoder_id == tiny_bundle.encoder_id) is same


def test_one_view_is_enough(tiny_parts: dict, tmp_path: Path) -> None:
    parts = dict(tiny_parts)
    for key in ("towers", "graphs"):
        parts[key] = {name: value for name, value in tiny_parts[key].items() if name != "image-ground"}
    assert write_bundle(tmp_path / "one", **parts).manifest.views == ("aerial",)


def test_an_existing_folder_is_kept_unless_replaced(tiny_parts: dict, tmp_path: Path) -> None:
    target = tmp_path / "b"
    write_bundle(target, **tiny_parts)
    with pytest.raises(OutputError, match="exists and is not empty"):
        write_bundle(target, **(tiny_parts | {"name": "second"}))
    assert open_bundle(target).manifest.name == "toy"
    assert write_bundle(target, **(tiny_parts | {"name": "second"}), replace=True).path == target
    assert open_bundle(target).manifest.name == "second"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ""}, "bundle.json.name: expected 1 to 100 printable characters"),
        ({"name": "a\x1b[2Jb"}, "bundle.json.name"),
        ({"graphs": {}}, "expected text and one or more of"),
        ({"embedding_dim": 0}, "bundle.json.embedding_dim: expected a whole number from 1"),
        ({"provenance": {"loss": float("nan")}}, "not writable as JSON"),
        ({"extra_files": {"../x": b""}}, "extra file '../x': expected a plain name"),
        ({"extra_files": {"SHA256SUMS": b""}}, "extra file 'SHA256SUMS'"),
        ({"extra_files": {"text.onnx": b""}}, "extra file 'text.onnx'"),
    ],
)
def test_invalid_parts_leave_nothing_behind(
    tiny_parts: dict, tmp_path: Path, change: dict, message: str
) -> None:
    with pytest.raises(BundleManifestError, match=message):
        write_bundle(tmp_path / "b", **(tiny_parts | change))
    assert list(tmp_path.iterdir()) == []


def test_links_to_the_folder_hard_links_engines_and_signature_are_allowed(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    shutil.copytree(tiny_bundle.path, tmp_path / "slot-a")
    (tmp_path / "current").symlink_to("slot-a")
    os.link(tmp_path / "slot-a" / "text.onnx", tmp_path / "elsewhere")  # as package installers do
    (tmp_path / "slot-a" / "engines" / "any").mkdir(parents=True)
    (tmp_path / "slot-a" / "SIGNATURE").write_bytes(b"anything")
    assert open_bundle(tmp_path / "current").encoder_id == tiny_bundle.encoder_id


def test_a_file_swapped_after_opening_is_refused(tiny_bundle: Bundle, tmp_path: Path) -> None:
    opened = open_bundle(Path(shutil.copytree(tiny_bundle.path, tmp_path / "b")))
    (opened.path / "text.onnx").write_bytes((opened.path / "image-aerial.onnx").read_bytes())
    with pytest.raises(BundleIntegrityError, match="changed after the bundle was opened"):
        opened.read_file("text.onnx")


def test_optional_files(tiny_bundle: Bundle) -> None:
    assert tiny_bundle.has("report.json") and not tiny_bundle.has("scores.json")
    with pytest.raises(BundleMissingError, match=r"has no scores.json; it holds bundle.json"):
        tiny_bundle.read_file("scores.json")


def test_absent_bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BundleMissingError, match="is not a folder"):
        open_bundle(tmp_path / "nowhere")
    with pytest.raises(BundleMissingError, match="has no bundle.json"):
        open_bundle(tmp_path)
    monkeypatch.setattr(bundle_module, "shipped_bundle_path", lambda: tmp_path / "nowhere")
    with pytest.raises(BundleMissingError, match="ships no bundle .* --bundle DIR"):
        open_bundle(None)


def test_none_opens_the_shipped_bundle() -> None:
    path = bundle_module.shipped_bundle_path()
    assert path.parts[-3:] == ("runtime", "data", "bundle")
    if not path.is_dir():
        pytest.skip(f"no bundle at {path}")
    assert open_bundle(None).path == path

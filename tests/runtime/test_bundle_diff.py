"""`tagclip bundle diff`: what two bundles differ in, and whether their vectors may be compared."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tagclip.runtime.bundle import Bundle, open_bundle
from tagclip.runtime.bundle_diff import describe, diff_bundles
from tagclip.runtime.bundle_manifest import TowerFacts
from tagclip.runtime.bundle_write import write_bundle
from tagclip.runtime.preprocess import PreprocessSpec


def change_of(parts: dict[str, Any], **change: Any) -> dict[str, Any]:
    return parts | {"name": "other"} | change


def test_the_same(tiny_bundle: Bundle) -> None:
    result = diff_bundles(tiny_bundle, open_bundle(tiny_bundle.path))
    assert result["comparable"] and result["fields"] == {}
    assert result["files"] == {"added": [], "removed": [], "changed": []}
    assert all(tower["same_graph"] and tower["a"] == tower["b"] for tower in result["towers"].values())
    lines = describe(result)
    assert (
        "same encoder id: vectors of the two may be compared" in lines
        and lines[-1] == "all files are the same"
    )


def test_everything_differs(tiny_parts: dict[str, Any], tiny_bundle: Bundle, tmp_path: Path) -> None:
    graphs = dict(tiny_parts["graphs"])
    graphs["text"] += b"\x32\x01x"  # a doc_string: other bytes, the same numbers
    del graphs["image-ground"]
    row = {"r1": 52.5, "map": 60.5, "queries": 8}
    parts = change_of(
        tiny_parts,
        graphs=graphs,
        towers={"image-aerial": TowerFacts("int8", 96), "text": TowerFacts("fp32", 304)},
        licence="MIT",
        pad_id=1,
        provenance={"made_by": "\x1b[2J", "run": {"seed": 3}},
        extra_files={
            "report.json": json.dumps({"retrieval": {"all": row}}).encode(),
            "scores.json": b"{}",
        },
    )
    result = diff_bundles(tiny_bundle, write_bundle(tmp_path / "b", **parts))
    assert not result["comparable"]
    assert result["fields"] == {
        "name": {"a": "toy", "b": "other"},
        "encoder_id": {"a": tiny_bundle.encoder_id, "b": result["b"]["encoder_id"]},
        "views": {"a": ["aerial", "ground"], "b": ["aerial"]},
        "licence": {"a": "Apache-2.0", "b": "MIT"},
        "tokenizer.pad_id": {"a": 0, "b": 1},
        "provenance.made_by": {"a": "tests", "b": "\x1b[2J"},
        "provenance.run.seed": {"a": None, "b": 3},
    }
    towers = result["towers"]
    assert towers["image-ground"]["b"] is None and not towers["image-ground"]["same_graph"]
    assert towers["image-aerial"]["same_graph"] and towers["image-aerial"]["b"]["precision"] == "int8"
    assert not towers["text"]["same_graph"]
    assert towers["text"]["b"]["bytes"] - towers["text"]["a"]["bytes"] == 3
    assert towers["text"]["a"]["sha256"] == tiny_bundle.sha256["text.onnx"]
    numbers = result["retrieval"]["all"]
    assert numbers["r1"] == {"a": 50.0, "b": 52.5, "difference": 2.5}
    assert numbers["map"]["difference"] == 0
    assert numbers["r5"] == {"a": 75.0, "b": None, "difference": None}
    assert result["retrieval"]["ground"]["r1"] == {"a": 50.0, "b": None, "difference": None}
    assert result["files"] == {
        "added": ["scores.json"],
        "removed": ["image-ground.onnx", "probe.npz"],
        "changed": ["bundle.json", "report.json", "text.onnx"],
    }
    lines = describe(result)
    assert "different encoder ids: vectors of one MUST NOT be compared with vectors of the other" in lines
    assert all(line.isprintable() for line in lines)
    assert any(line.startswith("all        b - a  ") and "+2.5" in line for line in lines)
    assert "added    scores.json" in lines


def test_preprocessing_and_signature(tiny_parts: dict[str, Any], tmp_path: Path) -> None:
    a = write_bundle(tmp_path / "a", **tiny_parts)
    b = write_bundle(tmp_path / "b", **(tiny_parts | {"preprocess": PreprocessSpec(32, 18)}))
    (b.path / "SIGNATURE").write_bytes(b"x")
    result = diff_bundles(a, b)
    assert result["fields"]["preprocess.width_px"] == {"a": 16, "b": 18}
    assert result["files"]["added"] == ["SIGNATURE"]


def test_command(
    run: Callable[..., tuple[int, str, str]], tiny_parts: dict[str, Any], tiny_bundle: Bundle, tmp_path: Path
) -> None:
    other = write_bundle(tmp_path / "b", **change_of(tiny_parts, pad_id=1))
    status, out, err = run("bundle", "diff", tiny_bundle.path, other.path, "--json")
    assert (status, err) == (0, "")
    assert json.loads(out) == diff_bundles(tiny_bundle, other)
    status, out, err = run("bundle", "diff", tiny_bundle.path, other.path)
    assert (status, err) == (0, "") and "MUST NOT be compared" in out
    status, out, err = run("bundle", "diff", tiny_bundle.path, tmp_path / "nowhere")
    assert (status, out) == (1, "") and "nowhere is not a folder" in err

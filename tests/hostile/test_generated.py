"""A thousand hostile bundles: each is refused with its named error, at its stage, and opens nothing outside."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cryptography")

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tagclip.runtime.bundle import Bundle
from tagclip.runtime.bundle_sign import sign_bundle
from tagclip.runtime.keys import read_private_key

COUNT = 1000
GENERATOR = Path(__file__).with_name("generate.py")


@pytest.fixture(scope="module")
def world(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good, signed bundle, two keys, and canaries outside of it."""
    world: Path = tmp_path_factory.mktemp("hostile")
    for number, name in enumerate(("trusted.pem", "stranger.pem")):
        key = Ed25519PrivateKey.from_private_bytes(bytes([number + 1]) * 32)
        (world / name).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    shutil.copytree(tiny_bundle.path, world / "good")
    sign_bundle(world / "good", read_private_key(world / "trusted.pem", str))
    outside = world / "outside"
    outside.mkdir()
    (outside / "canary").write_bytes(
        b"\x3f" * 100_000
    )  # as float32 each 0.747: weights, if anybody takes them
    os.mkfifo(outside / "pipe")  # who opens it to read waits for ever
    for path in (world / "good").iterdir():
        shutil.copy(path, outside / f"same-{path.name}")
    (world / "cases").mkdir()
    return world


@pytest.fixture(scope="module")
def results(world: Path) -> list[dict[str, Any]]:
    """What became of each case; a hang or a crash of the interpreter fails here."""
    start = time.monotonic()
    run = subprocess.run(
        [sys.executable, str(GENERATOR), str(world), "2026", str(COUNT)],
        capture_output=True,
        text=True,
        timeout=240,
    )
    rows = [json.loads(line) for line in run.stdout.splitlines()]
    assert run.returncode == 0, f"after {len(rows)} cases, the last {rows[-1:]}: {run.stderr[-2000:]}"
    print(f"{len(rows)} cases in {time.monotonic() - start:.1f} s: {Counter(row['error'] for row in rows)}")
    return rows


def test_each_is_refused_with_its_named_error_at_its_stage(results: list[dict[str, Any]]) -> None:
    assert len(results) == COUNT
    wrong = [
        row
        for row in results
        if row["error"] not in row["expected"]["errors"]
        or row["stage"] not in row["expected"]["stage"].split("|")
    ]
    assert not wrong, f"{len(wrong)}: {json.dumps(wrong[:5], indent=1)}"


def test_every_attack_and_every_error_occurs(results: list[dict[str, Any]]) -> None:
    assert min(Counter(row["attack"] for row in results).values()) >= 20
    assert {row["error"] for row in results} == {
        "BundleIntegrityError",
        "BundleManifestError",
        "BundleSelfTestError",
        "BundleSignatureError",
        "BundleVersionError",
        "EngineError",
    }


def test_nothing_is_opened_outside_of_the_folder(results: list[dict[str, Any]]) -> None:
    assert [row for row in results if row["opened"]] == []


def test_messages_are_one_printable_line(results: list[dict[str, Any]]) -> None:
    """What a bundle says must not rewrite the operator's terminal."""
    assert [row for row in results if not row["message"].isprintable() or len(row["message"]) > 1500] == []


def test_none_takes_long_or_much_memory(results: list[dict[str, Any]]) -> None:
    assert max(row["seconds"] for row in results) < 5
    assert results[-1]["rss_mb"] - results[0]["rss_mb"] < 300

"""What an attacker has: the specification, and no key. And the table that the attacks of this folder enter.

Each attack is a function (folder, rng, world) that damages a copy of the good bundle and returns where it must be
stopped and by which errors: "open" (nothing of the graphs was looked at) or "selftest" (the encoders and the probe).
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

GRAPHS = ["image-aerial.onnx", "image-ground.onnx", "text.onnx"]
LISTED = ["bundle.json", *GRAPHS, "probe.npz", "report.json", "tokenizer.json"]
TRUSTED, STRANGER = "trusted.pem", "stranger.pem"


class Expected(NamedTuple):
    stage: str  # "open" or "selftest"; both when the damage decides which, joined by "|"
    errors: tuple[str, ...]
    key: bool = False  # whether the device requires a signature


MANIFEST = Expected("open", ("BundleManifestError",))
INTEGRITY = Expected("open", ("BundleIntegrityError",))
VERSION = Expected("open", ("BundleVersionError",))
SIGNATURE = Expected("open", ("BundleSignatureError",), key=True)
INTEGRITY_SIGNED = Expected("open", ("BundleIntegrityError",), key=True)
ENGINE = Expected("selftest", ("EngineError",))
SELFTEST = Expected("selftest", ("BundleSelfTestError",))

Attack = Callable[[Path, random.Random, Path], Expected]
ATTACKS: dict[str, Attack] = {}


def attack(function: Attack) -> Attack:
    ATTACKS[function.__name__] = function
    return function


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def seal(folder: Path) -> None:
    """SHA256SUMS of what lies there now."""
    names = [p.name for p in folder.iterdir() if p.is_file() and p.name not in ("SHA256SUMS", "SIGNATURE")]
    (folder / "SHA256SUMS").write_text(
        "".join(f"{digest(folder / name)}  {name}\n" for name in sorted(names))
    )


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change bundle.json and seal."""
    value = json.loads((folder / "bundle.json").read_text())
    change(value)
    (folder / "bundle.json").write_text(json.dumps(value))
    seal(folder)


def rename(folder: Path) -> None:
    """Make the encoder id right again, and seal."""

    def change(value: dict[str, Any]) -> None:
        tokenizer = value["tokenizer"]
        parts = {
            "towers": {name: digest(folder / tower["file"]) for name, tower in value["towers"].items()},
            "preprocess": value["preprocess"],
            "tokenizer": {
                "sha256": digest(folder / tokenizer["file"]),
                "context_length": tokenizer["context_length"],
                "pad_id": tokenizer["pad_id"],
            },
        }
        text = json.dumps(parts, sort_keys=True, indent=2) + "\n"
        value["encoder_id"] = "tc1-" + hashlib.sha256(text.encode()).hexdigest()[:16]

    edit(folder, change)


def sign(folder: Path, key: Path, prefix: bytes = b"tagclip bundle signature 1\n", key_id: str = "") -> bytes:
    """The content of SIGNATURE, by the specification alone."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    private: Any = load_pem_private_key(key.read_bytes(), None)
    own = hashlib.sha256(private.public_key().public_bytes_raw()).hexdigest()[:16]
    signature = private.sign(prefix + (folder / "SHA256SUMS").read_bytes()).hex()
    return f"tagclip-signature 1\nkey-id {key_id or own}\ned25519 {signature}\n".encode()


def graph_of(folder: Path, name: str) -> Any:
    import onnx

    return onnx.load_from_string((folder / name).read_bytes())


def put_graph(folder: Path, name: str, model: Any) -> None:
    (folder / name).write_bytes(model.SerializeToString())
    rename(folder)


def probe_of(folder: Path) -> dict[str, Any]:
    with np.load(folder / "probe.npz") as arrays:
        return dict(arrays)


def put_probe(folder: Path, arrays: dict[str, Any]) -> None:
    np.savez(folder / "probe.npz", **arrays)
    seal(folder)


def flip(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) * 8)
    damaged = bytearray(data)
    damaged[at // 8] ^= 1 << at % 8
    return bytes(damaged)

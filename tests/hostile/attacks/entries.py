"""Entries of the folder that are no plain files, or that nobody listed."""

from __future__ import annotations

import os
import random
from pathlib import Path

from attacks.attacker import INTEGRITY, INTEGRITY_SIGNED, LISTED, MANIFEST, Expected, attack


@attack
def symbolic_link(folder: Path, rng: random.Random, world: Path) -> Expected:
    name = rng.choice([*LISTED, "SHA256SUMS", "SIGNATURE", "extra.bin", "engines"])
    path = folder / name
    same = world / "outside" / f"same-{name}"
    targets = [
        same,
        world / "outside" / "canary",
        world / "outside",
        world / "nowhere",
        Path(name),
        Path("."),
    ]
    path.unlink(missing_ok=True)
    path.symlink_to(rng.choice([t for t in targets if t.exists() or t != same]))
    return INTEGRITY_SIGNED if rng.random() < 0.5 and name not in ("SHA256SUMS", "SIGNATURE") else INTEGRITY


@attack
def hard_link(folder: Path, rng: random.Random, world: Path) -> Expected:
    """To a file outside: what it holds is not what the hashes say, or nobody listed it."""
    path = folder / rng.choice([*LISTED, "SHA256SUMS", "extra.bin"])
    path.unlink(missing_ok=True)
    os.link(world / "outside" / "canary", path)
    return MANIFEST if path.name == "bundle.json" else INTEGRITY


@attack
def no_plain_file(folder: Path, rng: random.Random, world: Path) -> Expected:
    name = rng.choice([*LISTED, "SHA256SUMS", "SIGNATURE"])
    (folder / name).unlink()
    rng.choice([os.mkfifo, os.mkdir])(folder / name)
    return INTEGRITY


@attack
def unlisted(folder: Path, rng: random.Random, world: Path) -> Expected:
    name = rng.choice(
        [
            b"extra.bin",
            b".hidden",
            b"TEXT.ONNX",
            b"\x1b[2J\x1b]0;owned\x07",
            b"a\nb",
            b"\xff\xfe",
            b"text.onnx ",
            "tex\u0442.onnx".encode(),  # a Cyrillic letter
            b"x" * 255,
        ]
    )
    path = os.fsencode(folder) + b"/" + name
    if rng.random() < 0.3:
        os.mkdir(path)
    else:
        with open(path, "wb") as file:
            file.write(rng.randbytes(rng.randint(0, 50)))
    return INTEGRITY

"""Damage in transit: cuts, flipped bits, wrong checksums."""

from __future__ import annotations

import os
import random
from pathlib import Path

from attacks.attacker import (
    GRAPHS,
    INTEGRITY,
    INTEGRITY_SIGNED,
    LISTED,
    MANIFEST,
    SELFTEST,
    SIGNATURE,
    Expected,
    attack,
    flip,
    rename,
    seal,
)


@attack
def truncated(folder: Path, rng: random.Random, world: Path) -> Expected:
    path = folder / rng.choice([*LISTED, "SHA256SUMS"])
    size = path.stat().st_size
    keep = rng.randrange(size)
    os.truncate(path, keep)
    # Without its last line end bundle.json is still JSON, and only its hash tells.
    return MANIFEST if path.name == "bundle.json" and keep < size - 1 else INTEGRITY


@attack
def truncated_where_a_signature_is_required(folder: Path, rng: random.Random, world: Path) -> Expected:
    path = folder / rng.choice([*LISTED, "SHA256SUMS", "SIGNATURE"])
    os.truncate(path, rng.randrange(path.stat().st_size))
    return INTEGRITY_SIGNED if path.name in LISTED else SIGNATURE


@attack
def truncated_and_sealed(folder: Path, rng: random.Random, world: Path) -> Expected:
    path = folder / rng.choice([*GRAPHS, "tokenizer.json"])
    os.truncate(path, rng.randrange(path.stat().st_size))
    seal(folder)
    return INTEGRITY


@attack
def truncated_graph_under_its_own_id(folder: Path, rng: random.Random, world: Path) -> Expected:
    path = folder / rng.choice(GRAPHS)
    os.truncate(path, rng.randrange(path.stat().st_size))
    rename(folder)
    # Cut between two fields of the model it is a graph still, one without operations or without their versions.
    return Expected("open|selftest", ("BundleIntegrityError", "EngineError"))


@attack
def truncated_tokenizer_under_its_own_id(folder: Path, rng: random.Random, world: Path) -> Expected:
    path = folder / "tokenizer.json"
    os.truncate(path, rng.randrange(path.stat().st_size))
    rename(folder)
    return Expected("selftest", ("BundleManifestError",))


@attack
def truncated_probe(folder: Path, rng: random.Random, world: Path) -> Expected:
    path = folder / "probe.npz"
    os.truncate(path, rng.randrange(path.stat().st_size))
    seal(folder)
    return SELFTEST


@attack
def flipped_bit(folder: Path, rng: random.Random, world: Path) -> Expected:
    path = folder / rng.choice([*LISTED, "SHA256SUMS"])
    path.write_bytes(flip(path.read_bytes(), rng))
    if path.name == "bundle.json":  # a 1 may have become a 3, and any text another text
        return Expected("open", ("BundleManifestError", "BundleVersionError", "BundleIntegrityError"))
    return INTEGRITY


@attack
def flipped_bit_where_a_signature_is_required(folder: Path, rng: random.Random, world: Path) -> Expected:
    path = folder / rng.choice([*LISTED, "SHA256SUMS", "SIGNATURE"])
    path.write_bytes(flip(path.read_bytes(), rng))
    return INTEGRITY_SIGNED if path.name in LISTED else SIGNATURE


@attack
def flipped_bit_and_sealed(folder: Path, rng: random.Random, world: Path) -> Expected:
    path = folder / rng.choice([*GRAPHS, "tokenizer.json"])
    path.write_bytes(flip(path.read_bytes(), rng))
    seal(folder)
    return INTEGRITY


@attack
def wrong_checksum(folder: Path, rng: random.Random, world: Path) -> Expected:
    path = folder / "SHA256SUMS"
    lines = path.read_text().splitlines(keepends=True)
    one, other = rng.sample(range(len(lines)), 2)
    at = rng.randrange(64)
    digits = [c for c in "0123456789abcdef" if c != lines[one][at]]
    choice = rng.randrange(6)
    if choice == 0:
        lines[one] = lines[one][:at] + rng.choice(digits) + lines[one][at + 1 :]
    elif choice == 1:
        lines[one], lines[other] = lines[other][:64] + lines[one][64:], lines[one][:64] + lines[other][64:]
    elif choice == 2:
        lines[one], lines[other] = lines[other], lines[one]
    elif choice == 3:
        lines[one] = lines[one].replace("  ", rng.choice([" ", " *", "\t", "   "]))
    elif choice == 4:
        del lines[one]
    else:
        lines.insert(one, lines[one])
    path.write_text("".join(lines))
    return INTEGRITY

"""Sizes that no device has, real or only announced."""

from __future__ import annotations

import os
import random
import zipfile
from pathlib import Path
from typing import Any

from attacks.attacker import (
    ENGINE,
    GRAPHS,
    INTEGRITY,
    LISTED,
    MANIFEST,
    SELFTEST,
    Expected,
    attack,
    edit,
    graph_of,
    put_graph,
    seal,
)


@attack
def huge_file(folder: Path, rng: random.Random, world: Path) -> Expected:
    """Sparse: a terabyte that takes no disk. Nobody may read it, or even begin to."""
    path = folder / rng.choice([*LISTED, "SHA256SUMS", "SIGNATURE"])
    low = {"bundle.json": 18, "SHA256SUMS": 17, "SIGNATURE": 11}.get(path.name, 31)
    os.truncate(path, (1 << rng.randint(low, 42)) + 1)
    return MANIFEST if path.name == "bundle.json" else INTEGRITY


@attack
def huge_number(folder: Path, rng: random.Random, world: Path) -> Expected:
    number = rng.choice([10 ** rng.randint(7, 300), -1, -(10 ** rng.randint(1, 20)), 2**31, 2**63, 2**64])
    places = [
        ("embedding_dim",),
        ("preprocess", "height_px"),
        ("preprocess", "width_px"),
        ("tokenizer", "context_length"),
        ("towers", "text", "input", "shape", 1),
        ("towers", "image-aerial", "input", "shape", 2),
        ("towers", "image-ground", "output", "shape", 1),
    ]

    def change(value: Any) -> None:
        *path, last = rng.choice(places)
        for key in path:
            value = value[key]
        value[last] = number

    edit(folder, change)
    return MANIFEST


@attack
def huge_json(folder: Path, rng: random.Random, world: Path) -> Expected:
    depth = rng.randint(100, 40_000)
    text = (folder / "bundle.json").read_text()
    (folder / "bundle.json").write_text(
        rng.choice(
            [
                '{"format_version": ' + "9" * rng.randint(5000, 100_000) + "}",
                '{"a": ' * depth + "1" + "}" * depth,
                "[" * depth + "]" * depth,
                text + " " * 300_000,
                text.replace(
                    '"provenance": {', '"provenance": {"deep": ' + "[" * depth + "]" * depth + ", ", 1
                ),
                text.replace(
                    '"provenance": {', '"provenance": {"large": 1e' + "9" * rng.randint(3, 9) + ", ", 1
                ),
            ]
        )
    )
    seal(folder)
    return MANIFEST


@attack
def huge_tensor(folder: Path, rng: random.Random, world: Path) -> Expected:
    """Dimensions that the data do not fill."""
    name = rng.choice(GRAPHS)
    model = graph_of(folder, name)
    tensor = rng.choice([t for t in model.graph.initializer if len(t.dims) == 2])
    tensor.dims[rng.randrange(2)] = rng.choice([10 ** rng.randint(5, 18), 2**31, 2**63 - 1, -1, -(2**62)])
    put_graph(folder, name, model)
    return ENGINE


@attack
def huge_probe(folder: Path, rng: random.Random, world: Path) -> Expected:
    """Arrays that unpack to more than a device has, or only say so."""
    path = folder / "probe.npz"
    if rng.random() < 0.1:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("crops.npy", bytes(65 << 20))
    else:
        data = bytearray(path.read_bytes())
        at = data.find(b"PK\x01\x02") + 24  # the size of the first array, as the directory has it
        data[at : at + 4] = rng.randint(1 << 27, (1 << 32) - 2).to_bytes(4, "little")
        path.write_bytes(data)
    seal(folder)
    return SELFTEST

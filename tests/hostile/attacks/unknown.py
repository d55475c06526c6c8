"""What this version does not know."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from attacks.attacker import MANIFEST, VERSION, Expected, attack, edit, seal


@attack
def newer_version(folder: Path, rng: random.Random, world: Path) -> Expected:
    """Whatever else stands there, the version is what is said."""

    def change(value: dict[str, Any]) -> None:
        for key in rng.sample(sorted(value), rng.randint(0, len(value))):
            if rng.random() < 0.5:
                del value[key]
            else:
                value[key] = rng.choice([None, 1, "x", [], {}, {"new": 1}])
        value["format_version"] = rng.choice([2, 3, rng.randint(2, 2**31)])

    edit(folder, change)
    return VERSION


@attack
def unknown_field(folder: Path, rng: random.Random, world: Path) -> Expected:
    name = rng.choice(["new", "Name", "name ", "", "__proto__", "format_Version", "\u0000", "k" * 300])

    def change(value: Any) -> None:
        tower = rng.choice([*value["towers"]])
        places = [
            value,
            value["preprocess"],
            value["tokenizer"],
            value["towers"],
            value["towers"][tower],
            value["towers"][tower]["input"],
            value["towers"][tower]["output"],
        ]
        rng.choice(places)[name] = rng.choice([1, None, "x", [], {}])

    edit(folder, change)
    return MANIFEST


@attack
def repeated_key(folder: Path, rng: random.Random, world: Path) -> Expected:
    text = (folder / "bundle.json").read_text()
    key = rng.choice(
        ["name", "encoder_id", "views", "licence", "file", "height_px", "made_by", "kind", "dtype"]
    )
    at = rng.choice([i for i in range(len(text)) if text.startswith(f'"{key}"', i)])
    (folder / "bundle.json").write_text(f'{text[:at]}"{key}": 1, {text[at:]}')
    seal(folder)
    return MANIFEST

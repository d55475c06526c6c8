"""New captions for old pictures: nothing but the captions changes, and the same seed gives the same words."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from tagclip.runtime.errors import DataError
from tagclip.train.synth.annotate import describe_for, recaption, write_rows
from tagclip.train.synth.appearance import to_json
from tagclip.train.synth.free_words import LEAST_UNSEEN, WORDINGS, phrasings
from tagclip.train.synth.lexicon import held_out
from tagclip.train.synth.people import sample_appearance

SPLITS = ("train", "val", "test")


def row(identity: int, k: int) -> dict[str, Any]:
    person = sample_appearance(np.random.default_rng(identity))
    visible = {"hair": 0.05, "top": 0.3, "sleeves": 0.1, "bottom": 0.2, "shoes": 0.04, "headwear": 0.03}
    visible |= {"bag0": 0.05, "bag1": 0.05, "scarf": 0.02, "top_pattern": 0.05, "inner": 0.05}
    return {
        "file_path": f"{identity:06d}_g{k}.jpg",
        "id": identity,
        "cam_id": 1,
        "captions": ["x"],
        "elevation_deg": 12.0,
        "attributes": to_json(person),
        "visible": visible,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for k, split in enumerate(SPLITS):
        write_rows(tmp_path, split, [row(10 * k + i, j) for i in range(4) for j in range(2)])
    return tmp_path


def read(folder: Path, split: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((folder / f"{split}_reid.json").read_text())
    return rows


def test_only_the_captions_change(folder: Path) -> None:
    before = {split: read(folder, split) for split in SPLITS}
    ticks: list[tuple[int, int]] = []
    counts = recaption(folder, 5, 1, 1, lambda *tick: ticks.append(tick))
    assert counts == {"train": 40, "val": 16, "test": 16} and ticks[-1] == (24, 24)
    for split in SPLITS:
        for old, new in zip(before[split], read(folder, split), strict=True):
            assert {**old, "captions": 0} == {**new, "captions": 0}
            assert new["captions"] == describe_for(split, old, 1, 5)


def test_another_seed_other_words(folder: Path) -> None:
    recaption(folder, 2, 1, 1)
    first = read(folder, "train")
    recaption(folder, 2, 2, 1)
    assert [r["captions"] for r in first] != [r["captions"] for r in read(folder, "train")]


@pytest.mark.parametrize("damage", ["{", "[{}]", "[3]", "3"])
def test_other_annotations_are_refused_and_kept(folder: Path, damage: str) -> None:
    (folder / "val_reid.json").write_text(damage)
    before = (folder / "train_reid.json").read_bytes()
    with pytest.raises(DataError, match="val_reid.json"):
        recaption(folder, 2, 0, 1)
    assert (folder / "train_reid.json").read_bytes() == before


def test_phrasings_say_one_thing_in_three_wordings() -> None:
    found = phrasings([row(i, k) for i in range(60) for k in range(2)], 50)
    assert len(found) == 50 and len({p.row // 2 for p in found}) > 40
    for phrasing in found:
        assert set(phrasing.texts) == set(WORDINGS) and len(phrasing.unseen) >= LEAST_UNSEEN
        assert all(word in phrasing.texts["unseen"].lower() for word in phrasing.unseen)
        assert not held_out(phrasing.texts["plain"]) and not held_out(phrasing.texts["company"])

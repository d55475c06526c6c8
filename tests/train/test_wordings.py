"""The free-words measure: three wordings of the same people, answered in one gallery, paired."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from tagclip.runtime.errors import DataError
from tagclip.runtime.ranking import Vectors
from tagclip.train.datasets.sample import Sample
from tagclip.train.synth.appearance import to_json
from tagclip.train.synth.lexicon import held_out
from tagclip.train.synth.people import sample_appearance
from tagclip.train.wordings import by_wording

PEOPLE = 40
VISIBLE = {
    "hair": 0.05,
    "top": 0.3,
    "sleeves": 0.1,
    "bottom": 0.2,
    "shoes": 0.04,
    "headwear": 0.03,
    "bag0": 0.05,
}
DIRECTIONS = np.random.default_rng(0).normal(size=(PEOPLE, 24)).astype(np.float32)


def samples(folder: Path) -> list[Sample]:
    return [
        Sample(
            folder / "images" / f"test/{person:06d}_g{k}.jpg",
            person,
            k % 2,
            ("x",),
            12.0,
            to_json(sample_appearance(np.random.default_rng(person))),
            VISIBLE,
        )
        for person in range(PEOPLE)
        for k in range(2)
    ]


def knows_seen_words_only(asked: list[Sample]) -> tuple[Vectors, Vectors]:
    """A model that finds everybody by words of training, and is misled by each word that it never saw."""
    texts = []
    for sample in asked:
        for caption in sample.captions:
            lost = min(1.0, 0.5 * len(held_out(caption)))
            texts.append((1 - lost) * DIRECTIONS[sample.identity] - lost * DIRECTIONS[sample.identity])
    images = [DIRECTIONS[sample.identity] for sample in asked]
    return np.array(texts, np.float32), np.array(images, np.float32)


def test_unseen_words_cost_what_the_model_loses_by_them(tmp_path: Path) -> None:
    people = samples(tmp_path)
    images = np.array([DIRECTIONS[s.identity] for s in people])
    found = by_wording(knows_seen_words_only, people, images, tmp_path)
    assert list(found.lines) == ["plain", "new company", "unseen words"]
    assert (
        found.lines["plain"].values[:, 3].mean() == 1 and found.lines["new company"].values[:, 3].mean() == 1
    )
    assert found.lines["unseen words"].values[:, 3].mean() < 0.2
    change = found.differences["unseen words - plain"]["map"]
    assert change["difference"] < -80 and change["interval"] is not None and change["interval"][1] < 0
    assert found.differences["new company - plain"]["map"]["difference"] == 0
    assert found.unseen_words >= 2 and all(len(texts) == 3 for texts in found.examples)


def test_annotations_of_others_are_refused_by_row(tmp_path: Path) -> None:
    people = samples(tmp_path)
    people[3] = replace(people[3], attributes=None, where="test_reid.json row 3")
    with pytest.raises(DataError, match="row 3: expected attributes"):
        by_wording(knows_seen_words_only, people, np.zeros((len(people), 24), np.float32), tmp_path)


def test_too_few_people_is_a_named_failure(tmp_path: Path) -> None:
    people = [replace(s, visible={"top": 0.3}) for s in samples(tmp_path)[:2]]
    with pytest.raises(DataError, match="expected people whom unseen words describe"):
        by_wording(knows_seen_words_only, people, np.zeros((2, 24), np.float32), tmp_path)

"""Class numbers of what a picture shows: known only where it is visible, and a loss that looks at nothing else."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F

from tagclip.runtime.errors import DataError
from tagclip.train.attributes import GROUPS, NONE, UNKNOWN, labels_of, labels_of_samples
from tagclip.train.config import Config
from tagclip.train.data import load_split
from tagclip.train.loop import Run
from tagclip.train.losses import attribute_loss
from tagclip.train.synth.appearance import PARTS, Bag, Headwear, Top, to_json
from tagclip.train.synth.people import sample_appearance

ALL = dict.fromkeys(PARTS, 0.1)
PERSON = replace(
    sample_appearance(np.random.default_rng(0)),
    gender="woman",
    top=Top("t-shirt", "short", (200, 30, 40), "horizontal stripes", (240, 240, 240)),
    headwear=Headwear("cap", (30, 60, 180)),
    bags=(Bag("handbag", (10, 10, 10), "left"), Bag("backpack", (30, 140, 60), "right")),
    scarf=None,
)


def said(person: Any, visible: dict[str, float]) -> dict[str, str | None]:
    labels = labels_of(to_json(person), visible)
    assert len(labels) == len(GROUPS)
    return {
        group: None if label == UNKNOWN else classes[label]
        for (group, classes), label in zip(GROUPS.items(), labels, strict=True)
    }


def test_what_is_visible_is_said() -> None:
    found = said(PERSON, ALL | {"bag0": 0.02, "bag1": 0.2})
    wanted = {
        **{"gender": "woman", "top": "t-shirt", "top colour": "red", "pattern": "horizontal stripes"},
        **{"pattern colour": "white", "sleeve": "short", "sleeve colour": "red", "inner colour": NONE},
        **{
            "headwear": "cap",
            "headwear colour": "blue",
            "handbag": "yes",
            "backpack": "yes",
            "suitcase": "no",
        },
        **{"bag colour": "green", "scarf": "no"},  # of the bag that shows most
    }
    assert {group: found[group] for group in wanted} == wanted


@pytest.mark.parametrize(
    ("part", "groups"),
    [
        ("headwear", ["headwear", "headwear colour"]),
        ("bottom", ["bottom", "bottom colour"]),
        ("shoes", ["shoes", "shoes colour"]),
        ("hair", ["hair length", "hair colour"]),
        ("top_pattern", ["pattern colour"]),
        ("sleeves", ["sleeve colour"]),
        ("bag0", ["handbag"]),
    ],
)
def test_what_is_hidden_is_unknown(part: str, groups: list[str]) -> None:
    person = replace(PERSON, hair=replace(PERSON.hair, length="long"))
    before, found = said(person, ALL), said(person, ALL | {part: 0.001})
    assert all(before[group] is not None for group in groups)
    assert [group for group in GROUPS if before[group] is not None and found[group] is None] == groups


def test_any_person_has_labels() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        found = said(sample_appearance(rng), ALL)
        assert all(found[group] for group in ("gender", "age", "build", "top", "sleeve", "bottom", "shoes"))


def test_loss_is_the_mean_of_each_groups_cross_entropy() -> None:
    torch.manual_seed(0)
    logits, sizes = torch.randn(5, 7), [3, 4]
    labels = torch.tensor([[0, 1], [2, -1], [-1, -1], [1, 3], [-1, 0]])
    wanted = (
        F.cross_entropy(logits[[0, 1, 3], :3], labels[[0, 1, 3], 0])
        + F.cross_entropy(logits[[0, 3, 4], 3:], labels[[0, 3, 4], 1])
    ) / 2
    torch.testing.assert_close(attribute_loss(logits, labels, sizes), wanted)


def test_loss_without_labels_is_zero_and_has_a_gradient() -> None:
    logits = torch.randn(2, 7, requires_grad=True)
    loss = attribute_loss(logits, torch.full((2, 2), -1), [3, 4])
    loss.backward()
    assert loss.item() == 0 and torch.equal(logits.grad, torch.zeros(2, 7))


@pytest.mark.parametrize("broken", [{"attributes": {}}, {"attributes": 3}, {"attributes": to_json(PERSON)}])
def test_broken_attributes_are_named_by_row(tmp_path: Path, broken: dict[str, Any]) -> None:
    """The last has no `visible`."""
    row = {"file_path": "a.png", "id": 0, "cam_id": 0, "captions": ["a man"]}
    (tmp_path / "train_reid.json").write_text(json.dumps([row, row | broken]))
    samples = load_split(tmp_path, "train")
    with pytest.raises(DataError, match="row 1: attributes and visible are not what synth writes"):
        labels_of_samples(samples)


def test_only_training_on_attributes_minds_foreign_ones(
    toy_data: Path, toy_model: dict[str, Any], tmp_path: Path
) -> None:
    shutil.copytree(toy_data, tmp_path / "data")
    for split in ("train", "val"):
        path = tmp_path / "data" / f"{split}_reid.json"
        rows = json.loads(path.read_text())
        path.write_text(json.dumps([row | {"attributes": {"gender": "male"}} for row in rows]))

    def run(weight: float) -> Run:
        config = {"name": "toy", "model": toy_model, "train": {"weight_attributes": weight, "batch": 18}}
        return Run(Config.from_json(config), tmp_path / "data", tmp_path / "out", lambda *_: None)

    assert (run(0.0).train.attributes == UNKNOWN).all()
    with pytest.raises(DataError, match=r"train_reid.json row 0: attributes .* train.weight_attributes=0"):
        run(1.0)


def test_labels_of_samples_follow_their_order(tmp_path: Path) -> None:
    row = {"file_path": "a.png", "id": 0, "captions": ["a man"]}
    known = {"attributes": to_json(PERSON), "visible": dict.fromkeys(PARTS, 0.1)}
    (tmp_path / "train_reid.json").write_text(json.dumps([row, row | known]))
    labels = labels_of_samples(load_split(tmp_path, "train"))
    assert labels.shape == (2, len(GROUPS)) and (labels[0] == UNKNOWN).all()
    assert tuple(labels[1]) == labels_of(known["attributes"], known["visible"])

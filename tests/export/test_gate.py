"""The gate refuses what costs retrieval, names who did it, and lets through what does not."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from tagclip.export.gate import Labels, Side, agreement, check, drop
from tagclip.runtime.errors import ParityError
from tagclip.train.evaluate import by_view

PEOPLE, EACH = 30, 4


def unit(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def labels() -> Labels:
    """Two pictures of each person from each view, one caption a picture."""
    count = PEOPLE * EACH
    return Labels(np.arange(count), np.arange(count) // EACH, np.arange(count) % 2)


@pytest.fixture
def checkpoint(labels: Labels) -> Side:
    rng = np.random.default_rng(0)
    people = rng.normal(size=(PEOPLE, 24))[labels.identity]
    images = unit(people + 0.6 * rng.normal(size=people.shape))
    return Side(
        {
            "text": unit(people + 0.6 * rng.normal(size=people.shape)),
            "image-aerial": images,
            "image-ground": images,
            "image-universal": images,
        }
    )


def noisy(side: Side, tower: str, amount: float) -> Side:
    vectors = side.towers[tower]
    noise = np.random.default_rng(1).normal(size=vectors.shape)
    return Side({**side.towers, tower: unit(vectors + amount * noise)})


def test_what_is_equal_passes(labels: Labels, checkpoint: Side) -> None:
    report = check(labels, checkpoint, checkpoint, 0.0, {})
    expected = by_view(
        checkpoint.towers["text"],
        checkpoint.towers["image-ground"],
        labels.identity,
        labels.identity,
        labels.view,
    )
    assert report["checkpoint"] == report["retrieval"] == report["universal"] == expected
    assert report["drop"] == 0 and report["agreement"] == {"same_first": 1.0, "same_of_first_10": 1.0}


@pytest.mark.parametrize("tower", ["image-aerial", "image-ground", "text", "image-universal"])
def test_the_tower_that_costs_is_named(labels: Labels, checkpoint: Side, tower: str) -> None:
    worst = {tower: "blocks.7.ffn.up"}
    with pytest.raises(
        ParityError, match=r"fell from .*, more than 0\.5 points; .*nothing was written"
    ) as found:
        check(labels, checkpoint, noisy(checkpoint, tower, 1.0), 0.5, worst)
    if tower != "image-universal":  # it serves no picture here that a specialist does not
        assert f"{tower} alone costs" in str(found.value) and "where blocks.7.ffn.up errs most" in str(
            found.value
        )
    view = tower.removeprefix("image-")
    if view in ("aerial", "ground"):
        other = {"aerial": "ground", "ground": "aerial"}[view]
        assert not str(found.value).startswith(other), "the other view lost nothing"


def test_the_budget_is_the_users(labels: Labels, checkpoint: Side) -> None:
    worse = noisy(checkpoint, "image-aerial", 0.05)
    cost = drop(
        labels.retrieval(checkpoint.towers["text"], checkpoint.images(labels)),
        labels.retrieval(worse.towers["text"], worse.images(labels)),
    )
    assert cost > 0.05
    assert check(labels, checkpoint, worse, cost + 0.01, {})["drop"] == pytest.approx(cost)
    with pytest.raises(ParityError):
        check(labels, checkpoint, worse, cost - 0.01, {})


def test_pictures_go_to_the_tower_of_their_view(labels: Labels, checkpoint: Side) -> None:
    marked = {
        f"image-{view}": np.full((len(labels.view), 2), k)
        for k, view in enumerate(("aerial", "ground", "universal"))
    }
    both = {name: marked[name] for name in ("image-aerial", "image-ground")}
    assert (Side(both).images(labels)[:, 0] == labels.view).all()
    one = {name: marked[name] for name in ("image-ground", "image-universal")}
    assert (Side(one).images(labels)[:, 0] == np.where(labels.view == 0, 2, 1)).all()
    alone = {name: vectors for name, vectors in one.items() if not name.endswith("universal")}
    assert (Side(alone).images(labels)[:, 0] == 1).all()  # a bundle of one view, which shows it all


def test_agreement_counts_pictures() -> None:
    texts = np.array([[1, 0], [0, 1]], np.float32)
    images = unit(np.array([[1, 0], [0.9, 0.1], [0, 1]]))
    swapped = images[[1, 0, 2]]
    assert agreement(texts, images, texts, swapped) == {"same_first": 0.5, "same_of_first_10": 1.0}

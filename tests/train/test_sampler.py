"""Batches have the people, images and views that they promise."""

from __future__ import annotations

import numpy as np
import pytest

from tagclip.runtime.errors import DataError
from tagclip.train.config import TrainConfig
from tagclip.train.sampler import balanced_batches, draw_batches, pk_batches, random_batches


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_random_shuffles_all_and_drops_the_short_rest() -> None:
    found = random_batches(10, 4, rng())
    assert [len(b) for b in found] == [4, 4]
    rows = np.concatenate(found)
    assert len(set(rows.tolist())) == 8 and set(rows.tolist()) <= set(range(10))
    assert rows.tolist() != sorted(rows.tolist())
    assert [sorted(b.tolist()) for b in random_batches(3, 4, rng())] == [[0, 1, 2]]


def test_balanced_has_halves_and_every_image_of_the_rarer_view() -> None:
    view = np.array([0] * 70 + [1] * 30)
    found = balanced_batches(view, 10, rng())
    assert len(found) == 10
    assert all((view[rows] == 0).sum() == 5 and len(rows) == 10 for rows in found)
    rows = np.concatenate(found)
    assert set(range(70, 100)) <= set(rows.tolist())
    assert np.bincount(rows).max() == 2  # 50 places for 30 ground images


def test_balanced_without_a_view_is_refused() -> None:
    with pytest.raises(DataError, match="found no ground one in train"):
        balanced_batches(np.zeros(8, np.int64), 4, rng())


def test_pk_has_p_identities_with_k_images() -> None:
    identity = np.repeat(np.arange(12), [1, 2, 3, 4, 5, 6, 7, 8, 4, 4, 4, 4])
    view = np.arange(len(identity)) % 2
    found = pk_batches(identity, view, 12, 3, False, rng())
    for rows in found:
        people, counts = np.unique(identity[rows], return_counts=True)
        assert len(people) == 4 and (counts == 3).all()
    rows = np.concatenate(found)
    enough = np.bincount(identity)[identity[rows]] >= 3
    used = rows[enough]
    assert len(set(used.tolist())) == len(used)  # only identities with fewer than K images show one twice


def test_pk_with_views_in_balance() -> None:
    """Four people from the air only, four from the ground only, four from both."""
    view = np.repeat([0, 1, 0, 1, 0, 1, 0, 1, *[2] * 4], 4)
    identity = np.repeat(np.arange(12), 4)
    view = np.where(view == 2, np.arange(48) % 2, view)
    for seed in range(20):
        found = pk_batches(identity, view, 16, 4, True, np.random.default_rng(seed))
        assert len(found) == 3
        assert all((view[found[0]] == k).sum() == 8 for k in (0, 1))
        for rows in found:
            people = np.unique(identity[rows])
            assert len(people) == 4
            for person in people[people >= 8]:
                assert view[rows[identity[rows] == person]].sum() == 2  # two of four from each view


def test_pk_without_enough_people_is_refused() -> None:
    with pytest.raises(DataError, match="need 4 identities, train has 2"):
        pk_batches(np.array([0, 0, 1, 1]), np.zeros(4, np.int64), 16, 4, False, rng())


@pytest.mark.parametrize(
    "settings",
    [{}, {"view_balanced": True}, {"sampler": "pk"}, {"sampler": "pk", "view_balanced": True}],
)
def test_the_configuration_chooses_and_only_the_generator_draws(settings: dict[str, object]) -> None:
    config = TrainConfig(batch=8, **settings)  # type: ignore[arg-type]
    identity, view = np.repeat(np.arange(10), 4), np.arange(40) % 2
    one, again = (draw_batches(config, identity, view, np.random.default_rng(3)) for _ in range(2))
    other = draw_batches(config, identity, view, np.random.default_rng(4))
    assert len(one) == 5 and all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert all(len(rows) == 8 for rows in one)
    if "sampler" in settings:
        assert all(len(np.unique(identity[rows])) == 2 for rows in one)
    if "view_balanced" in settings:
        assert all(view[rows].sum() == 4 for rows in one)

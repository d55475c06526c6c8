"""Expanded captions against the definition, one caption at a time."""

from __future__ import annotations

import numpy as np
import pytest

from tagclip.train.evaluate import answer
from tagclip.train.expand import expand


def unit(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


def by_hand(text: np.ndarray, gallery: np.ndarray, count: int, own: int) -> np.ndarray:
    scores = {k: float(text @ row) for k, row in enumerate(gallery) if k != own}
    best = sorted(scores, key=lambda k: -scores[k])[:count]
    hits = [(scores[k], gallery[k]) for k in best if scores[k] > 0]
    total = sum(score for score, _ in hits)
    return unit(text + sum(score / total * row for score, row in hits)) if hits else text


@pytest.mark.parametrize("count", [1, 3, 50])
@pytest.mark.parametrize("excluded", [False, True])
def test_text_and_weighted_mean_of_its_hits(count: int, excluded: bool) -> None:
    rng = np.random.default_rng(count)
    texts, gallery = unit(rng.normal(size=(300, 6))), unit(rng.normal(size=(20, 6)))  # 300: more than a block
    own = rng.integers(-1, 20, 300) if excluded else np.full(300, -1)
    found = expand(texts, gallery, count, own if excluded else None)
    expected = [by_hand(texts[k], gallery, count, int(own[k])) for k in range(300)]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_what_hits_nothing_stays() -> None:
    texts = unit(np.array([[1.0, 0.0]]))
    gallery = unit(np.array([[-1.0, 0.2], [-1.0, -0.2]]))
    np.testing.assert_array_equal(expand(texts, gallery, 2), texts)


def test_it_finds_the_other_pictures_of_a_person() -> None:
    """The caption names the hat, which the second picture does not show; the first shows hat and coat."""
    texts = unit(np.array([[1.0, 0.1, 0.0]]))
    images = unit(np.array([[1.0, 1.0, 0.0], [0.1, 1.0, 0.0], [0.4, 0.0, 1.0]]))
    case = texts, images, np.array([0]), np.array([0, 0, 1]), np.array([1, 1, 1])
    assert answer(*case).found["all"].ap[0] == pytest.approx((1 + 2 / 3) / 2)
    assert answer(*case, expanded=1).found["all"].ap[0] == 1

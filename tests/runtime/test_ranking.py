"""Numbers of single queries against plain loops, against all orders of ties, and against scikit-learn."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from tagclip.runtime import ranking
from tagclip.runtime.ranking import (
    PerQuery,
    ap_per_query,
    first_hit_per_query,
    inp_per_query,
    per_query,
    search,
)

metrics = pytest.importorskip("sklearn.metrics")


def of_pattern(right: list[bool]) -> list[float]:
    """The definitions for one ranked list: hit in 1, 5, 10, AP, INP, first rank."""
    ranks = [rank for rank, hit in enumerate(right, 1) if hit]
    precisions = [found / rank for found, rank in enumerate(ranks, 1)]
    hits = [float(ranks[0] <= k) for k in (1, 5, 10)]
    return [*hits, sum(precisions) / len(ranks), len(ranks) / ranks[-1], ranks[0]]


def over_all_orders(scores: list[int], right: list[bool]) -> np.ndarray:
    """Mean of the definitions over every order of the gallery, each sorted by score as it came."""
    rows = []
    for order in itertools.permutations(range(len(scores))):
        ranked = sorted(order, key=lambda k: -scores[k])  # stable: ties stay in the order of the permutation
        rows.append(of_pattern([right[k] for k in ranked]))
    return np.mean(rows, axis=0)


def numbers(found: PerQuery) -> np.ndarray:
    return np.column_stack([found.metrics(), found.first])


def one(scores: list[int], right: list[bool]) -> np.ndarray:
    ids = np.where(right, 7, 3)
    return numbers(per_query(np.array([scores], np.float32), np.array([7]), ids))[0]


def random_case(queries: int, gallery: int, identities: int, seed: int) -> tuple[np.ndarray, ...]:
    """Without ties: all scores differ."""
    rng = np.random.default_rng(seed)
    similarity = rng.permutation(queries * gallery).reshape(queries, gallery).astype(np.float32)
    return similarity, rng.integers(0, identities, queries), rng.integers(0, identities, gallery)


@pytest.mark.parametrize(("queries", "gallery"), [(1, 1), (30, 60), (300, 25)])  # 300: more than one block
def test_without_ties_the_plain_definitions(queries: int, gallery: int) -> None:
    similarity, query_ids, gallery_ids = random_case(queries, gallery, 1 if gallery == 1 else 12, 4)
    found = numbers(per_query(similarity, query_ids, gallery_ids))
    for row, scores, identity in zip(found, similarity, query_ids, strict=True):
        right = (gallery_ids == identity)[np.argsort(-scores)].tolist()
        if any(right):
            assert row == pytest.approx(of_pattern(right), abs=1e-12)
        else:
            assert np.isnan(row).all()


def test_average_precision_is_that_of_scikit_learn() -> None:
    similarity, query_ids, gallery_ids = random_case(40, 90, 6, 0)
    expected = [
        metrics.average_precision_score(gallery_ids == identity, scores)
        for scores, identity in zip(similarity, query_ids, strict=True)
    ]
    assert ap_per_query(similarity, query_ids, gallery_ids) == pytest.approx(expected)


@pytest.mark.parametrize("gallery", [2, 3, 4, 5])
def test_ties_exhaustively(gallery: int) -> None:
    """Every assignment of three scores and of right and wrong, up to the order of the gallery."""
    kinds = list(itertools.product((0, 1, 2), (False, True)))
    cases = [c for c in itertools.combinations_with_replacement(kinds, gallery) if any(hit for _, hit in c)]
    for case in cases:
        scores, right = [score for score, _ in case], [hit for _, hit in case]
        assert one(scores, right) == pytest.approx(over_all_orders(scores, right), abs=1e-12), case


@pytest.mark.parametrize("seed", range(4))
def test_ties_that_cross_the_fifth_place(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, right = rng.integers(0, 2, 7).tolist(), (rng.random(7) < 0.4).tolist()
    right[int(np.argmin(scores))] = True
    assert one(scores, right) == pytest.approx(over_all_orders(scores, right), abs=1e-12)


def test_ties_that_cross_the_tenth_place() -> None:
    """8 wrong pictures stand above 12 that tie, 3 of them right: 220 places for the three, all alike."""
    patterns = [
        of_pattern([False] * 8 + [k in places for k in range(12)])
        for places in itertools.combinations(range(12), 3)
    ]
    got = one([1] * 8 + [0] * 12, [False] * 8 + [True] * 3 + [False] * 9)
    assert got == pytest.approx(np.mean(patterns, axis=0), abs=1e-12)
    assert got[1] == 0 and 0 < got[2] < 1


def test_a_large_level_of_ties_in_exact_fractions() -> None:
    above, size, hits = 5, 90, 7
    places = range(hits, size + 1)
    last = sum(
        Fraction(math.comb(j - 1, hits - 1), math.comb(size, hits)) * Fraction(hits, above + j)
        for j in places
    )
    before = Fraction(hits - 1, size - 1)
    precision = sum(Fraction(hits, size) * (1 + (j - 1) * before) / (above + j) for j in range(1, size + 1))
    got = one([1] * above + [0] * size, [False] * above + [True] * hits + [False] * (size - hits))
    assert got[3:] == pytest.approx([float(precision / hits), float(last), above + (size + 1) / (hits + 1)])


def test_the_order_of_the_gallery_changes_nothing() -> None:
    rng = np.random.default_rng(1)
    similarity = rng.integers(0, 4, (50, 30)).astype(np.float32)
    query_ids, gallery_ids, order = rng.integers(0, 5, 50), rng.integers(0, 5, 30), rng.permutation(30)
    there = numbers(per_query(similarity, query_ids, gallery_ids))
    assert np.array_equal(there, numbers(per_query(similarity[:, order], query_ids, gallery_ids[order])))


def test_a_model_that_scores_all_alike_gets_what_guessing_gets() -> None:
    rng = np.random.default_rng(2)
    ids = np.repeat(np.arange(20), 4)
    guesses = per_query(rng.random((4000, 80)), rng.integers(0, 20, 4000), ids)
    constant = per_query(np.zeros((1, 80)), np.array([3]), ids)
    assert constant.metrics()[0] == pytest.approx(guesses.metrics().mean(0), abs=0.01)
    assert constant.hit[0, 0] == pytest.approx(4 / 80)


def test_a_query_without_a_right_picture_is_nan() -> None:
    similarity, ids, gallery = np.eye(2, dtype=np.float32), np.array([5, 99]), np.array([5, 6])
    for number in (ap_per_query, inp_per_query, first_hit_per_query):
        value = number(similarity, ids, gallery)
        assert value[0] == 1 and np.isnan(value[1])


def test_no_pictures_at_all_is_nan() -> None:
    assert np.isnan(ap_per_query(np.empty((2, 0)), np.arange(2), np.arange(0))).all()


def test_an_ignored_picture_is_as_if_it_were_not_there() -> None:
    rng = np.random.default_rng(3)
    similarity = rng.integers(0, 6, (12, 15)).astype(np.float32)
    query_ids, gallery_ids = rng.integers(0, 3, 12), rng.integers(0, 3, 15)
    ignore = rng.random((12, 15)) < 0.3
    found = numbers(per_query(similarity, query_ids, gallery_ids, ignore))
    for k in range(12):
        keep = ~ignore[k]
        alone = per_query(similarity[k : k + 1, keep], query_ids[k : k + 1], gallery_ids[keep])
        assert found[k] == pytest.approx(numbers(alone)[0], nan_ok=True)


def test_search_is_per_query_on_the_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its own picture left out, and with the person's pictures outside `wanted` left out, in several blocks."""
    monkeypatch.setattr(ranking, "_BLOCK", 7)
    rng = np.random.default_rng(4)
    texts = rng.integers(-2, 3, (20, 4)).astype(np.float32)  # whole numbers: sums are exact in any order
    images = rng.integers(-2, 3, (12, 4)).astype(np.float32)
    text_ids, image_ids = rng.integers(0, 4, 20), rng.integers(0, 4, 12)
    own, wanted = rng.integers(-1, 12, 20), rng.random(12) < 0.6
    ignore = (own[:, None] == np.arange(12)) | ((text_ids[:, None] == image_ids) & ~wanted)
    assert ignore.any(0).sum() > 6 and (own < 0).any()
    found = search(texts, images, text_ids, image_ids, own, wanted)
    expected = per_query(texts @ images.T, text_ids, image_ids, ignore)
    assert np.array_equal(numbers(found), numbers(expected), equal_nan=True)
    plain = per_query(texts @ images.T, text_ids, image_ids)
    assert np.array_equal(numbers(search(texts, images, text_ids, image_ids)), numbers(plain), equal_nan=True)
    assert not np.array_equal(numbers(plain), numbers(expected), equal_nan=True)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_no_numbers_are_refused(bad: float) -> None:
    similarity = np.zeros((2, 3))
    similarity[1, 2] = bad
    with pytest.raises(ValueError, match="finite"):
        per_query(similarity, np.arange(2), np.arange(3))


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(2, 3\) scores.*found \(3, 2\)"):
        per_query(np.zeros((3, 2)), np.arange(2), np.arange(3))
    with pytest.raises(ValueError, match=r"found \(\(2, 3\), \(2, 2\)\)"):
        per_query(np.zeros((2, 3)), np.arange(2), np.arange(3), np.zeros((2, 2), bool))

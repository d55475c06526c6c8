"""Tables of retrieval metrics against loops that follow the definition."""

from __future__ import annotations

import numpy as np
import pytest

from tagclip.train.evaluate import Measured, Retrieval, answer, as_table, by_view, retrieval, rows, summary

VIEW = {"aerial": 0, "ground": 1}


def slow(similarity: np.ndarray, query_ids: np.ndarray, gallery_ids: np.ndarray) -> dict[str, float]:
    """The definition, one query at a time; nothing ties."""
    lines = []
    for scores, identity in zip(similarity, query_ids, strict=True):
        ranked = sorted(range(len(scores)), key=lambda k: -scores[k])
        ranks = [rank for rank, k in enumerate(ranked, 1) if gallery_ids[k] == identity]
        if not ranks:
            continue
        precisions = [found / rank for found, rank in enumerate(ranks, 1)]
        lines.append(
            [*(ranks[0] <= k for k in (1, 5, 10)), sum(precisions) / len(ranks), len(ranks) / ranks[-1]]
        )
    means = 100 * np.mean(lines, axis=0)
    named = dict(zip(("r1", "r5", "r10", "map", "minp"), means.tolist(), strict=True))
    return named | {"queries": len(lines)}


def random_case(queries: int, gallery: int, identities: int, seed: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    similarity = rng.permutation(queries * gallery).reshape(queries, gallery).astype(np.float32)
    return similarity, rng.integers(0, identities, queries), rng.integers(0, identities, gallery)


def check(got: Retrieval, expected: dict[str, float]) -> None:
    for key, value in expected.items():
        assert got[key] == pytest.approx(value), key  # type: ignore[literal-required]


@pytest.fixture
def split() -> dict[str, np.ndarray]:
    """40 captions of 20 pictures of 6 people; person 5 is seen from the ground only."""
    rng = np.random.default_rng(2)
    identity, view = rng.integers(0, 6, 20), rng.integers(0, 2, 20)
    view[identity == 5] = 1
    return {
        "texts": rng.normal(size=(40, 8)).astype(np.float32),
        "images": rng.normal(size=(20, 8)).astype(np.float32),
        "owner": np.repeat(np.arange(20), 2),
        "identity": identity,
        "view": view,
    }


@pytest.mark.parametrize("queries", [1, 300])  # 300: more than one block
def test_all_metrics_without_ties(queries: int) -> None:
    case = random_case(queries, 60, 12, queries)
    check(retrieval(*case), slow(*case))


def test_a_case_worked_out_by_hand() -> None:
    """Relevant images on ranks 2 and 4 of 6: AP (1/2 + 2/4) / 2, INP 2/4, in the first five but not first."""
    similarity = np.array([[0.1, 0.9, 0.8, 0.7, 0.6, 0.2]], np.float32)
    got = retrieval(similarity, np.array([1]), np.array([2, 0, 1, 0, 1, 0]))
    assert got == {"r1": 0, "r5": 100, "r10": 100, "map": 50, "minp": 50, "queries": 1, "gallery": 6}


def test_two_that_tie_for_the_first_place_share_it() -> None:
    """First or second, each half the time: R@1 50, AP (1 + 1/2) / 2."""
    got = retrieval(np.ones((1, 2), np.float32), np.array([1]), np.array([0, 1]))
    assert (got["r1"], got["map"], got["minp"]) == (50, 75, 75)


def test_a_query_without_a_relevant_image_does_not_count() -> None:
    similarity = np.array([[1, 0], [0, 1]], np.float32)
    got = retrieval(similarity, np.array([5, 99]), np.array([5, 6]))
    assert (got["r1"], got["map"], got["queries"], got["gallery"]) == (100, 100, 1, 2)


def test_no_query_with_a_relevant_image_is_zero_not_nan() -> None:
    got = retrieval(np.ones((2, 2), np.float32), np.array([1, 2]), np.array([3, 4]))
    assert (got["r1"], got["map"], got["minp"], got["queries"]) == (0, 0, 0, 0)


def test_by_view_searches_each_gallery_alone(split: dict[str, np.ndarray]) -> None:
    texts, images, identity, view = (split[k] for k in ("texts", "images", "identity", "view"))
    ids = identity[split["owner"]]
    result = by_view(texts, images, ids, identity, view)
    assert list(result) == ["all", "aerial", "ground"]
    check(result["all"], slow(texts @ images.T, ids, identity))
    for name, k in VIEW.items():
        check(result[name], slow(texts @ images[view == k].T, ids, identity[view == k]))
        assert result[name]["gallery"] == (view == k).sum()


def test_a_view_without_images_is_left_out(split: dict[str, np.ndarray]) -> None:
    ones = np.ones((2, 3), np.float32)
    assert list(by_view(ones, ones, np.arange(2), np.arange(2), np.ones(2, int))) == ["all", "ground"]
    split["view"][:] = 0
    assert list(rows(answer(**split))) == ["all", "aerial", "aerial->aerial"]


def test_from_view_to_view(split: dict[str, np.ndarray]) -> None:
    """The captions of aerial pictures in the ground gallery, and the other three."""
    lines = rows(answer(**split))
    arrows = [f"{a}->{b}" for a in VIEW for b in VIEW]
    assert list(lines) == ["all", "aerial", "ground", *arrows]
    ids, source = split["identity"][split["owner"]], split["view"][split["owner"]]
    for name in arrows:
        a, _, b = name.partition("->")
        asks, here = source == VIEW[a], split["view"] == VIEW[b]
        scores = split["texts"][asks] @ split["images"][here].T
        expected = slow(scores, ids[asks], split["identity"][here])
        check(summary(lines[name]), expected)
        assert lines[name].gallery == here.sum()
        assert set(lines[name].queries) <= set(np.flatnonzero(asks))
        assert np.array_equal(lines[name].identity, ids[lines[name].queries])
    assert 5 not in lines["ground->aerial"].identity  # no aerial picture to find
    assert 5 in lines["ground->ground"].identity


def test_the_first_three_lines_are_by_view(split: dict[str, np.ndarray]) -> None:
    lines = rows(answer(**split))
    ids = split["identity"][split["owner"]]
    plain = by_view(split["texts"], split["images"], ids, split["identity"], split["view"])
    assert {name: summary(lines[name]) for name in plain} == plain


def test_lines_of_one_gallery(split: dict[str, np.ndarray]) -> None:
    assert list(rows(answer(**split), "ground")) == ["ground", "aerial->ground", "ground->ground"]
    assert list(rows(answer(**split), "all")) == ["all"]


def test_without_its_own_picture(split: dict[str, np.ndarray]) -> None:
    """Each caption by itself in a gallery that lacks its picture; in the other view's gallery nothing changes."""
    lines, within = rows(answer(**split, exclude_own=True)), rows(answer(**split))
    ids = split["identity"][split["owner"]]
    kept = []
    for q, own in enumerate(split["owner"]):
        others = np.arange(20) != own
        scores = split["texts"][q : q + 1] @ split["images"][others].T
        if (split["identity"][others] == ids[q]).any():
            kept.append(list(slow(scores, ids[q : q + 1], split["identity"][others]).values())[:5])
    got = summary(lines["all"])
    assert [got[m] for m in ("r1", "r5", "r10", "map", "minp")] == pytest.approx(np.mean(kept, axis=0))
    assert summary(lines["aerial->ground"]) == summary(within["aerial->ground"])
    assert summary(lines["ground->ground"]) != summary(within["ground->ground"])


def test_a_line_that_nobody_can_answer_is_absent(split: dict[str, np.ndarray]) -> None:
    """Every person is seen from one view only: no way from view to view."""
    split["view"] = split["identity"] % 2
    assert list(rows(answer(**split))) == ["all", "aerial", "ground", "aerial->aerial", "ground->ground"]


def test_table_has_a_line_a_gallery() -> None:
    row = Retrieval(r1=12.5, r5=50.0, r10=100.0, map=33.333, minp=1.0, queries=8, gallery=4)
    head, line = as_table({"aerial": row}).splitlines()
    assert line.split() == ["aerial", "12.50", "50.00", "100.00", "33.33", "1.00", "8", "4"]
    assert head.split() == ["gallery", "R@1", "R@5", "R@10", "mAP", "mINP", "queries", "images"]
    assert len(head) == len(line)


def test_table_shows_intervals_where_there_are_some() -> None:
    row = Retrieval(r1=90.34, r5=50.0, r10=100.0, map=33.333, minp=1.0, queries=8, gallery=4)
    ends: dict[str, list[float] | None] = {
        "r1": [88.94, 91.56],
        "r5": None,
        "r10": None,
        "map": None,
        "minp": None,
    }
    line = as_table({"all": Measured(**row, interval=ends)}).splitlines()[1]
    assert "90.3 [88.9, 91.6]" in line and " 50.00 " in line

"""Retrieval metrics against scikit-learn and against a loop that follows the definition."""

import numpy as np
import pytest

from tagclip.train.evaluate import Retrieval, as_table, by_view, retrieval

metrics = pytest.importorskip("sklearn.metrics")


def slow(similarity: np.ndarray, query_ids: np.ndarray, gallery_ids: np.ndarray) -> dict[str, float]:
    """The definition, one query at a time; of equal scores the earlier image ranks first."""
    rows = []
    for scores, identity in zip(similarity, query_ids, strict=True):
        ranked = sorted(range(len(scores)), key=lambda k: (-scores[k], k))
        ranks = [rank for rank, k in enumerate(ranked, 1) if gallery_ids[k] == identity]
        if not ranks:
            continue
        precisions = [found / rank for found, rank in enumerate(ranks, 1)]
        rows.append(
            [*(ranks[0] <= k for k in (1, 5, 10)), sum(precisions) / len(ranks), len(ranks) / ranks[-1]]
        )
    means = 100 * np.mean(rows, axis=0)
    return dict(zip(("r1", "r5", "r10", "map", "minp"), means.tolist(), strict=True)) | {"queries": len(rows)}


def random_case(queries: int, gallery: int, identities: int, seed: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    similarity = rng.permutation(queries * gallery).reshape(queries, gallery).astype(np.float32)
    return similarity, rng.integers(0, identities, queries), rng.integers(0, identities, gallery)


def check(got: Retrieval, expected: dict[str, float]) -> None:
    for key, value in expected.items():
        assert got[key] == pytest.approx(value), key  # type: ignore[literal-required]


def test_map_is_that_of_scikit_learn() -> None:
    similarity, query_ids, gallery_ids = random_case(40, 90, 6, 0)
    expected = np.mean(
        [
            metrics.average_precision_score(gallery_ids == i, s)
            for s, i in zip(similarity, query_ids, strict=True)
        ]
    )
    assert retrieval(similarity, query_ids, gallery_ids)["map"] == pytest.approx(100 * expected)


@pytest.mark.parametrize("queries", [1, 300])  # 300: more than one block
def test_all_metrics_without_ties(queries: int) -> None:
    case = random_case(queries, 60, 12, queries)
    check(retrieval(*case), slow(*case))


def test_of_equal_scores_the_earlier_image_ranks_first() -> None:
    similarity, query_ids, gallery_ids = random_case(80, 40, 8, 5)
    similarity = np.floor(similarity / 800)  # four values: ties everywhere
    check(retrieval(similarity, query_ids, gallery_ids), slow(similarity, query_ids, gallery_ids))


def test_a_case_worked_out_by_hand() -> None:
    """Relevant images on ranks 2 and 4 of 6: AP (1/2 + 2/4) / 2, INP 2/4, in the first five but not first."""
    similarity = np.array([[0.1, 0.9, 0.8, 0.7, 0.6, 0.2]], np.float32)
    got = retrieval(similarity, np.array([1]), np.array([2, 0, 1, 0, 1, 0]))
    assert got == {"r1": 0, "r5": 100, "r10": 100, "map": 50, "minp": 50, "queries": 1, "gallery": 6}


def test_a_query_without_a_relevant_image_does_not_count() -> None:
    similarity = np.array([[1, 0], [0, 1]], np.float32)
    got = retrieval(similarity, np.array([5, 99]), np.array([5, 6]))
    assert (got["r1"], got["map"], got["queries"], got["gallery"]) == (100, 100, 1, 2)


def test_no_query_with_a_relevant_image_is_zero_not_nan() -> None:
    got = retrieval(np.ones((2, 2), np.float32), np.array([1, 2]), np.array([3, 4]))
    assert (got["r1"], got["map"], got["minp"], got["queries"]) == (0, 0, 0, 0)


def test_by_view_searches_each_gallery_alone() -> None:
    rng = np.random.default_rng(2)
    texts, images = rng.normal(size=(2, 20, 8)).astype(np.float32)
    text_ids, image_ids, view = rng.integers(0, 4, 20), rng.integers(0, 4, 20), rng.integers(0, 2, 20)
    result = by_view(texts, images, text_ids, image_ids, view)
    assert list(result) == ["all", "aerial", "ground"]
    check(result["all"], slow(texts @ images.T, text_ids, image_ids))
    for k, name in enumerate(("aerial", "ground")):
        check(result[name], slow(texts @ images[view == k].T, text_ids, image_ids[view == k]))
        assert result[name]["gallery"] == (view == k).sum()


def test_a_view_without_images_is_left_out() -> None:
    ones = np.ones((2, 3), np.float32)
    assert list(by_view(ones, ones, np.arange(2), np.arange(2), np.ones(2, int))) == ["all", "ground"]


def test_table_has_a_line_a_gallery() -> None:
    row = Retrieval(r1=12.5, r5=50.0, r10=100.0, map=33.333, minp=1.0, queries=8, gallery=4)
    head, line = as_table({"aerial": row}).splitlines()
    assert line.split() == ["aerial", "12.50", "50.00", "100.00", "33.33", "1.00", "8", "4"]
    assert len(head) == len(line)

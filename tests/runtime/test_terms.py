"""Terms of a query: what counts more, less, or against."""

from __future__ import annotations

import numpy as np
import pytest

from tagclip.runtime.errors import QueryError
from tagclip.runtime.terms import Term, combined, parse_terms


@pytest.mark.parametrize(
    ("query", "terms"),
    [
        ("a woman in a red jacket", [("a woman in a red jacket", 1)]),
        ("red t-shirt, three-quarter trousers", [("red t-shirt, three-quarter trousers", 1)]),
        ("red jacket -backpack", [("red jacket", 1), ("backpack", -1)]),
        ("red jacket +blue jeans*2 -hat*0.5", [("red jacket", 1), ("blue jeans", 2), ("hat", -0.5)]),
        ('+"red jacket" -"long hair"', [("red jacket", 1), ("long hair", -1)]),
        ("man - tall", [("man - tall", 1)]),
        ("man -t-shirt", [("man", 1), ("t-shirt", -1)]),
    ],
)
def test_terms(query: str, terms: list[tuple[str, float]]) -> None:
    assert parse_terms(query) == [Term(*term) for term in terms]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("-backpack", "begin with what they are"),
        ("red jacket -1", "holds no word"),
        ("red jacket +hat*99", "weight of 0.1 to 10"),
        ("a " + " ".join("+b" for _ in range(9)), "limit is 8"),
        ("", "empty"),
        ("red jacket +*2", "empty"),
    ],
)
def test_what_is_refused(query: str, says: str) -> None:
    with pytest.raises(QueryError, match=says.replace("*", r"\*")):
        parse_terms(query)


def test_terms_add_up_by_how_much_people_differ_in_them() -> None:
    """The cosine of the sum orders people as the weighted sum of the terms' standard scores does."""
    rng = np.random.default_rng(0)
    people = rng.normal(size=(500, 32)).astype(np.float32)
    people /= np.linalg.norm(people, axis=1, keepdims=True)
    texts = rng.normal(size=(3, 32)).astype(np.float32)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    people[:, :4] *= 3  # so that the spreads differ
    cosines = people @ texts.T
    spreads = cosines.std(0).astype(np.float64)
    terms = [Term("a", 1), Term("b", 2), Term("c", -0.5)]
    vector = combined(texts, terms, spreads)
    standard = ((cosines - cosines.mean(0)) / spreads) @ np.array([1, 2, -0.5])
    assert float(np.linalg.norm(vector)) == pytest.approx(1, abs=1e-5)
    assert (np.argsort(people @ vector) == np.argsort(standard)).mean() > 0.97
    assert np.corrcoef(people @ vector, standard)[0, 1] == pytest.approx(1, abs=1e-5)


def test_terms_that_cancel_are_refused() -> None:
    texts = np.eye(4, dtype=np.float32)[[0, 0]]
    with pytest.raises(QueryError, match="cancel each other out"):
        combined(texts, [Term("a", 1), Term("a", -1)], np.ones(2))

"""Descriptions with terms that count more, less or against: `red jacket +"blue jeans"*2 -backpack`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.errors import QueryError
from tagclip.runtime.query import check_query

MOST_TERMS = 8
WEIGHTS = (0.1, 10.0)
# A sign counts where a term begins: behind a space (or at the start) and before something; "t-shirt" has none.
_TERM = re.compile(r"(?:^|\s)([+-])(?=\S)")
_WEIGHT = re.compile(r"\s*\*\s*(\d+(?:\.\d+)?)$")


@dataclass(frozen=True)
class Term:
    """A part of a query.

    Attributes:
        text: what is looked for, or not.
        weight: how much it counts; negative for what speaks against somebody.
    """

    text: str
    weight: float


def parse_terms(query: str) -> list[Term]:
    """The terms of a query, in their order.

    Args:
        query: one description; further terms begin with + or - behind a space, and may end with *WEIGHT. Quotation
            marks around a term are dropped.

    Raises:
        QueryError: a term that cannot be searched for, a weight out of range, too many terms, or none for somebody.
    """
    query = check_query(query)
    pieces = _TERM.split(query)
    signed = [("+", pieces[0]), *zip(pieces[1::2], pieces[2::2], strict=True)]
    terms = [_term(sign, text) for sign, text in signed if text.strip()]
    if len(terms) > MOST_TERMS:
        raise QueryError(f"the query has {len(terms)} terms, the limit is {MOST_TERMS}; drop some")
    if all(term.weight < 0 for term in terms):
        raise QueryError(
            f"the query {query!r} says only what somebody is not; begin with what they are, such as: person {query}"
        )
    return terms


def _term(sign: str, text: str) -> Term:
    text, weight = text.strip(), 1.0
    if found := _WEIGHT.search(text):
        text, weight = text[: found.start()], float(found[1])
        if not WEIGHTS[0] <= weight <= WEIGHTS[1]:
            raise QueryError(
                f"expected a weight of {WEIGHTS[0]:g} to {WEIGHTS[1]:g}, found {found[1]} in {text!r}"
            )
    return Term(check_query(text.strip().strip("\"'")), weight if sign == "+" else -weight)


def combined(
    vectors: NDArray[np.float32], terms: Sequence[Term], spreads: NDArray[np.float64]
) -> NDArray[np.float32]:
    """The unit vector (D,) whose cosine adds up the terms, each measured by how much people differ in it.

    Args:
        vectors: (T, D) unit rows, of the terms' texts.
        spreads: (T,) standard deviations of the terms' cosines over the background.

    Raises:
        QueryError: the terms cancel each other out.
    """
    weights = np.array([term.weight for term in terms], np.float64)
    total = (weights / np.maximum(spreads, 1e-6)) @ vectors.astype(np.float64)
    length = float(np.linalg.norm(total))
    if length < 1e-3 * float(np.abs(weights / np.maximum(spreads, 1e-6)).sum()):
        raise QueryError("the terms of the query cancel each other out; drop what stands on both sides")
    return np.asarray(total / length, np.float32)

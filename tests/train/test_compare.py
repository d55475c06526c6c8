"""Two models on the same captions."""

from __future__ import annotations

import numpy as np
import pytest

from tagclip.train.bootstrap import interval
from tagclip.train.compare import Difference, as_table, compare, verdict
from tagclip.train.evaluate import Answers, answer, rows, summary

PEOPLE, EACH = 30, 4


def people(noise: float, seed: int = 0) -> Answers:
    """Two captions a picture; vectors stand near their person's, the nearer the smaller the noise."""
    identity = np.repeat(np.arange(PEOPLE), EACH)
    owner = np.repeat(np.arange(len(identity)), 2)
    centre = np.random.default_rng(99).normal(size=(PEOPLE, 16))
    rng = np.random.default_rng(seed)
    images = centre[identity] + noise * rng.normal(size=(len(identity), 16))
    texts = centre[identity[owner]] + noise * rng.normal(size=(len(owner), 16))
    unit = [(x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32) for x in (texts, images)]
    return answer(*unit, owner, identity, np.arange(len(identity)) % 2)


def test_the_nearer_model_is_better_and_the_other_worse() -> None:
    good, bad = people(0.7), people(1.2)
    there, back = compare(good, bad), compare(bad, good)
    assert list(there) == list(rows(good))
    assert verdict(there["all"]["map"]) == "better" and verdict(back["all"]["map"]) == "worse"
    for line, row in there.items():
        for metric, one in row.items():
            other = back[line][metric]
            assert one["difference"] == pytest.approx(-other["difference"])
            assert (one["won"], one["lost"]) == (other["lost"], other["won"])


def test_numbers_are_those_of_each_model_and_the_interval_is_paired() -> None:
    good, bad = people(0.7), people(1.2)
    for line, row in compare(good, bad).items():
        mine, theirs = rows(good)[line], rows(bad)[line]
        assert row["map"]["this"] == pytest.approx(summary(mine)["map"])
        assert row["map"]["other"] == pytest.approx(summary(theirs)["map"])
        assert row["map"]["difference"] == pytest.approx(row["map"]["this"] - row["map"]["other"])
        change = mine.values - theirs.values
        assert row["map"]["interval"] == pytest.approx(100 * interval(change, mine.identity)[3])
        ap = np.array([good.found["all"].ap, bad.found["all"].ap])
        if line == "all":
            assert row["map"]["won"] == (ap[0] > ap[1]).sum() and row["map"]["lost"] == (ap[0] < ap[1]).sum()


def test_a_model_against_itself_is_equal_on_every_query() -> None:
    for row in compare(people(0.9), people(0.9)).values():
        for one in row.values():
            assert one["difference"] == one["won"] == one["lost"] == 0 and one["interval"] == [0, 0]
            assert verdict(one) == "equal on every query"


def test_a_difference_that_may_be_chance_is_called_open() -> None:
    """The same model but for noise of another seed: wins and losses on both sides, nothing to conclude."""
    one = compare(people(0.9, seed=1), people(0.9, seed=2))["all"]["map"]
    assert one["won"] > 0 and one["lost"] > 0
    assert verdict(one) == "open: the interval includes 0"


def test_only_one_gallery() -> None:
    assert list(compare(people(0.7), people(0.9), "ground")) == ["ground", "aerial->ground", "ground->ground"]


def test_answers_to_other_captions_are_refused() -> None:
    one, other = people(0.7), people(0.9)
    other.found["all"].ap[3] = np.nan
    with pytest.raises(ValueError, match="the same captions"):
        compare(one, other)


def test_table_has_a_line_a_metric_and_says_what_follows() -> None:
    base = Difference(this=80.5, other=80.0, difference=0.5, interval=[-0.1, 1.1], won=30, lost=20)
    row = {
        "r1": base,
        "r5": base | {"interval": [0.1, 0.9]},
        "r10": base | {"difference": -0.5, "interval": [-0.9, -0.1]},
        "map": base | {"interval": None},
        "minp": base | {"won": 0, "lost": 0, "difference": 0.0, "interval": [0.0, 0.0]},
    }
    head, *lines = as_table({"all": row}).splitlines()  # type: ignore[dict-item]
    assert head.split() == ["gallery", "metric", "this", "other", "difference", "won", "lost", "verdict"]
    assert lines[0].startswith("all ") and "R@1" in lines[0] and "+0.50 [-0.10, +1.10]" in lines[0]
    ends = [
        "open: the interval includes 0",
        "better",
        "worse",
        "no interval: one person only",
        "equal on every query",
    ]
    assert [line.endswith("  " + end) for line, end in zip(lines, ends, strict=True)] == [True] * 5

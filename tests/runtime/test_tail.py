"""The tail of a background: against scipy, against distributions whose tail is known, and against itself."""

from __future__ import annotations

import numpy as np
import pytest

from tagclip.runtime.background import Background, People
from tagclip.runtime.judge import MANY_CROPS, Judge, yardstick
from tagclip.runtime.tail import SHAPES, TAIL_SHARE, fit_tail, pooled_shape, shape_of

scipy_stats = pytest.importorskip("scipy.stats")


@pytest.mark.parametrize("shape", [-0.3, -0.1, 0.0, 0.2])
def test_the_shape_is_found_again(shape: float) -> None:
    excesses = np.sort(scipy_stats.genpareto.rvs(shape, scale=0.03, size=200_000, random_state=1))
    assert shape_of(excesses) == pytest.approx(shape, abs=0.02)


@pytest.mark.parametrize("shape", [-0.3, 0.0, 0.2])
def test_chances_are_those_of_scipy(shape: float) -> None:
    """Above the start of the tail: share x survival function of the generalised Pareto distribution."""
    scores = np.random.default_rng(0).normal(0, 0.1, 10_000)
    tail = fit_tail(scores, shape)
    at = np.linspace(tail.start + 1e-6, tail.start + 0.15, 50)
    # Of an exponential distribution whose rate is known from n values, the next exceeds z with chance (1 + z / n)^-n.
    n = tail.share * 10_000
    z = -scipy_stats.genpareto.logsf(at - tail.start, shape, scale=tail.scale)
    wanted = tail.share * (1 + z / n) ** -n
    assert tail.p_values(at) == pytest.approx(np.maximum(wanted, 0.02 / 10_000), rel=1e-9)


@pytest.mark.parametrize(
    ("draw", "quantile"),
    [
        (lambda rng, n: rng.normal(0, 0.12, n), lambda p: scipy_stats.norm.isf(p, 0, 0.12)),
        (lambda rng, n: rng.exponential(0.1, n), lambda p: scipy_stats.expon.isf(p, 0, 0.1)),
        (lambda rng, n: rng.beta(2, 4, n), lambda p: scipy_stats.beta.isf(p, 2, 4)),
    ],
    ids=["normal", "exponential", "beta"],
)
def test_the_promise_is_kept_where_few_are_left(draw: object, quantile: object) -> None:
    """Of 4,000 people the score that 1 in 1,000 exceeds: its true chance is within a factor of 2, in 9 of 10 draws."""
    kept = 0
    draws = np.stack([draw(np.random.default_rng(seed), 4000) for seed in range(40)])  # type: ignore[operator]
    for scores in draws:
        tail = fit_tail(scores, pooled_shape(draws))
        kept += quantile(2e-3) <= tail.score_at(1e-3) <= quantile(0.5e-3)  # type: ignore[operator]
    assert kept >= 36


@pytest.mark.parametrize("shape", [-0.3, -0.1, 0.1])
def test_a_pool_of_queries_tells_the_shape(shape: float) -> None:
    """40 queries with other scales each; their tails are generalised Pareto, so the shape is right everywhere."""
    rng = np.random.default_rng(2)
    scores = rng.uniform(0.02, 0.2, (40, 1)) * scipy_stats.genpareto.rvs(
        shape, size=(40, 3000), random_state=3
    )
    assert pooled_shape(scores) == pytest.approx(shape, abs=0.06)


def test_the_score_of_a_chance_is_the_inverse() -> None:
    tail = fit_tail(np.random.default_rng(3).normal(0, 0.1, 5000))
    for p in (0.5, 0.2, TAIL_SHARE, 0.01, 1e-3, 1e-4):
        assert float(tail.p_values(np.array(tail.score_at(p)))) == pytest.approx(p, rel=0.02)


def test_chances_fall_with_the_score_and_never_reach_zero() -> None:
    tail = fit_tail(np.random.default_rng(4).normal(0, 0.1, 500))
    chances = tail.p_values(np.linspace(-1, 2, 400))
    assert (np.diff(chances) <= 1e-12).all() and chances[0] == 1 and chances[-1] == pytest.approx(0.02 / 500)


@pytest.mark.parametrize("scores", [np.zeros(100), np.r_[np.zeros(99), 1.0], np.linspace(0, 1e-12, 50)])
def test_scores_without_a_spread(scores: np.ndarray) -> None:
    tail = fit_tail(scores)
    chances = tail.p_values(np.array([-1.0, 0.0, 0.5, 2.0]))
    assert np.isfinite(chances).all() and ((chances > 0) & (chances <= 1)).all()
    assert SHAPES[0] <= tail.shape <= SHAPES[1]


def test_two_looks_cost_what_they_add() -> None:
    """Two looks that have nothing to do with one another make twice the false alarms; two of the same, none more."""
    rng = np.random.default_rng(5)
    one, many = rng.normal(0, 0.1, (2, 20_000))
    assert yardstick(one, many).looks == pytest.approx(1.97, abs=0.1)
    assert yardstick(one, one).looks == pytest.approx(1.0, abs=0.06)


def test_a_judge_goes_by_view_and_number_of_pictures() -> None:
    rng = np.random.default_rng(6)
    rows = rng.normal(size=(4, 400, 16)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=-1, keepdims=True)
    background = Background(
        "e", "test", {"aerial": People(rows[0], rows[1]), "ground": People(rows[2], rows[3])}
    )
    queries = rows[0, :3]
    person = queries[1]
    for view, few, several in (("aerial", 0, 1), ("ground", 2, 3)):
        shapes = tuple(pooled_shape((queries @ rows[k].T).astype(np.float64)) for k in (few, several))
        sticks = [
            yardstick((rows[few] @ q).astype(np.float64), (rows[several] @ q).astype(np.float64), shapes)
            for q in queries
        ]
        judge = Judge(queries, background, queries)
        for crops, many in ((1, False), (MANY_CROPS - 1, False), (MANY_CROPS, True)):
            scores, chances = judge.judge(view, person, crops)
            assert scores == pytest.approx(queries @ person, abs=1e-6)
            wanted = [float(s.p_values(x, many)) for s, x in zip(sticks, scores, strict=True)]
            assert chances == pytest.approx(wanted, rel=1e-3)

"""Standing queries: the promise, one hit a person and query, and a run that tells of them."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from tagclip.runtime import judge
from tagclip.runtime.alerts import PRIOR_PER_HOUR, Alerts, Promise, StandingQuery, standing
from tagclip.runtime.armed import Armed, Orders
from tagclip.runtime.background import Background, People, write_background
from tagclip.runtime.bundle import Bundle
from tagclip.runtime.encoder import ImageEncoder, TextEncoder
from tagclip.runtime.engines import Engines
from tagclip.runtime.errors import ConfigError
from tagclip.runtime.health import Health
from tagclip.runtime.hit_log import HitReader
from tagclip.runtime.judge import Judge
from tagclip.runtime.source import decode_image
from tagclip.runtime.store import TrackStore
from tagclip.runtime.store_track import StoredTrack
from tagclip.runtime.sync_messages import Query, QuerySet

Run = Callable[..., tuple[int, str, str]]
DIM = 16
SIZE = (640, 240)


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def crowd(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """People as vectors: seen in one picture, with its noise, and in many."""
    rng = np.random.default_rng(seed)
    people = rng.normal(size=(count, DIM))
    return unit(people + rng.normal(0, 0.8, people.shape)), unit(people + rng.normal(0, 0.3, people.shape))


TYPICAL = unit(np.random.default_rng(11).normal(size=(48, DIM)))


def background(count: int = 4000) -> Background:
    return Background("e", "a crowd", {"ground": People(*crowd(0, count))})


def track(
    vector: np.ndarray, start_s: float = 0.0, end_s: float = 1.0, who: uuid.UUID | None = None
) -> StoredTrack:
    return StoredTrack(
        who or uuid.uuid4(), "north", "ground", start_s, end_s, end_s, 3, (1.0, 2.0, 3.0, 4.0), "e", vector
    )


RARELY = Promise(10.0, per_hour=False)


def queries(count: int, seed: int = 9) -> list[StandingQuery]:
    vectors = unit(np.random.default_rng(seed).normal(size=(count, DIM)))
    return [StandingQuery(f"q{k}", f"query {k}", vector, RARELY) for k, vector in enumerate(vectors)]


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_promise_is_over_zero(rate: float) -> None:
    with pytest.raises(ConfigError, match="rate of false alarms over 0"):
        Promise(rate)


def test_a_promise_as_a_chance() -> None:
    assert Promise(1.0).chance(200.0) == pytest.approx(1 / 200)
    assert Promise(5.0).chance(2.0) == 1.0
    assert Promise(3.0, per_hour=False).chance(1e9) == pytest.approx(3 / 1000)


def test_the_rate_of_people_is_learnt() -> None:
    alerts = Alerts(queries(1), background(200), TYPICAL, SIZE)
    assert alerts.people_per_hour == PRIOR_PER_HOUR
    nobody = unit(np.ones(DIM))
    for k in range(3000):  # 600 an hour, for five hours
        alerts.judge(track(nobody, 6.0 * k, 6.0 * k + 2), 1, last=False)
    assert alerts.people_per_hour == pytest.approx(600, rel=0.02)
    known = Alerts(queries(1), replace(background(200), people_per_hour=20.0), TYPICAL, SIZE)
    assert known.people_per_hour == 20.0


def test_the_promise_is_kept_among_people_that_calibration_never_saw() -> None:
    """5,000 others, each judged by one picture and again by many: 50 queries, 10 false alarms in 1,000 promised."""
    one, many = crowd(1, 5000)
    asked = queries(50)
    alerts = Alerts(asked, background(), TYPICAL, SIZE)
    people: dict[str, set[uuid.UUID]] = {query.id: set() for query in asked}
    for first, later in zip(one, many, strict=True):
        person = track(first)
        hits = alerts.judge(person, 1, last=False)
        hits += alerts.judge(replace(person, vector=later, end_s=5.0), 5, last=True)
        alerts.forget(person.id)
        for hit in hits:
            people[hit.query_id].add(hit.track_id)
    rates = np.array([len(found) for found in people.values()]) / 5.0  # in 1,000 people
    assert 7.5 < rates.mean() < 12.5
    assert ((rates > 5) & (rates < 20)).mean() > 0.95


def test_one_hit_a_person_and_query_which_is_updated() -> None:
    asked = queries(2)
    alerts = Alerts(asked, background(), TYPICAL, SIZE)
    target = asked[1].vector
    other = unit(np.roll(target, 5))
    vague = unit(target + 1.3 * other)
    person = track(vague)
    (first,) = alerts.judge(person, 1, last=False)
    assert (first.query_id, first.revision, first.track_id, first.view) == ("q1", 1, person.id, "ground")
    assert first.score > first.threshold and first.p_value <= 0.01
    assert first.false_alarms_per_hour == pytest.approx(first.p_value * alerts.people_per_hour, rel=0.2)
    assert alerts.judge(replace(person, end_s=2.0), 1, last=False) == []  # no news
    (better,) = alerts.judge(replace(person, end_s=3.0, vector=target), 6, last=False)
    assert (better.id, better.revision, better.crops) == (
        first.id,
        2,
        6,
    ) and better.p_value < first.p_value / 2
    (worse,) = alerts.judge(replace(person, end_s=4.0, vector=other), 6, last=False)
    assert (worse.id, worse.revision) == (first.id, 3) and worse.p_value > 0.01  # told, not hidden
    (end,) = alerts.judge(replace(person, end_s=9.0, vector=target), 6, last=True)
    assert (end.id, end.revision, end.end_s) == (first.id, 4, 9.0)
    alerts.forget(person.id)
    assert not alerts._people


def test_queries_come_and_go() -> None:
    """Somebody in view is a hit of the query that comes; a hit whose query stays is not told anew."""
    first, second = queries(2)
    alerts = Alerts([], background(), TYPICAL, SIZE)
    person = track(unit(first.vector + second.vector))
    assert alerts.judge(person, 5, last=False) == []
    alerts.arm([first])
    (hit,) = alerts.judge(person, 5, last=False)
    alerts.arm([second, first])
    (other,) = alerts.judge(person, 5, last=False)
    assert (hit.query_id, other.query_id, other.revision) == ("q0", "q1", 1)
    alerts.arm([replace(second, promise=Promise(1e-6, per_hour=False))])
    ended = alerts.judge(person, 5, last=True)
    assert [(h.id, h.revision) for h in ended] == [(other.id, 2)] and ended[0].threshold > other.threshold


def test_terms_make_one_vector(tiny_bundle: Bundle) -> None:
    people = Background(tiny_bundle.encoder_id, "", {"ground": People(*crowd(2, 300))})
    encoder = TextEncoder(tiny_bundle)
    plain, both, against = standing(
        ["red jacket", "red jacket +blue shirt", "red jacket -blue"], encoder, people, RARELY
    )
    assert [query.id for query in (plain, both, against)] == ["q1", "q2", "q3"]
    assert plain.vector == pytest.approx(encoder.embed(["red jacket"])[0])
    blue = encoder.embed(["blue"])[0]
    assert both.vector @ blue > plain.vector @ blue > against.vector @ blue


# A whole run


def street(path: Path) -> Path:
    """Ten seconds before grey: one in reds walks by after two seconds, three others in other colours."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, SIZE)
    looks = [((40, 200, 60), (20, 20, 20)), ((30, 30, 220), (40, 20, 150)), ((230, 230, 230), (40, 220, 230))]
    for k in range(100):
        image = np.full((SIZE[1], SIZE[0], 3), 128, np.uint8)
        for number, (top, bottom) in enumerate(looks):
            x = 12 * (k - 5 - 15 * number)
            if 0 <= x < SIZE[0] - 30:
                image[80:120, x : x + 30] = top
                image[120:160, x : x + 30] = bottom
        writer.write(image)
    writer.release()
    return path


def colours(bundle: Bundle, path: Path) -> Path:
    """A background of people in two colours each, drawn at random."""
    rng = np.random.default_rng(7)
    halves = rng.integers(0, 256, (600, 2, 1, 1, 3)).repeat(16, 2).repeat(16, 3).reshape(600, 32, 16, 3)
    vectors = ImageEncoder(bundle, "ground").embed(list(halves.astype(np.uint8)))
    people = People(vectors, vectors)
    write_background(
        path, Background(bundle.encoder_id, "two colours", {"ground": people, "unknown": people})
    )
    return path


@pytest.fixture
def watched(tiny_bundle: Bundle, tmp_path: Path, run: Run) -> tuple[Path, Path, str]:
    """A run that looked for red; its store, its background, and what it printed."""
    clip, site, store = (
        street(tmp_path / "street.mp4"),
        colours(tiny_bundle, tmp_path / "b.npz"),
        tmp_path / "s.db",
    )
    status, out, err = run(
        "run", clip, "--store", store, "--bundle", tiny_bundle.path, "--view", "ground", "--background", site,
        "--query", "red", "--alarms-per-1000", "150", "--json",
    )  # fmt: skip
    assert status == 0, err
    return store, site, out


def test_a_run_tells_of_whom_it_looks_for(
    watched: tuple[Path, Path, str], run: Run, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    store, site, out = watched
    told = [json.loads(line) for line in out.splitlines()]
    assert {row["query"] for row in told} == {"red"} and len({row["id"] for row in told}) == 1
    assert [row["revision"] for row in told] == list(range(1, len(told) + 1))
    # The red one comes into view at 2 s: told of while walking, not at the end.
    assert told[0]["end_s"] - told[0]["start_s"] < 1.5
    hits = list(HitReader(store.with_name("s.db.hits.jsonl")))
    assert [hit.to_json() for hit in hits] == [told[-1]]
    status, said, _ = run("search", "red", store, "--bundle", tiny_bundle.path, "--json")
    assert status == 0 and json.loads(said)["results"][0]["track_id"] == told[0]["track_id"]

    picture = tmp_path / "why.png"
    status, said, err = run(
        "alerts", "explain", told[0]["id"][:20], "--hits", store.with_name("s.db.hits.jsonl"), "--store", store,
        "--bundle", tiny_bundle.path, "--background", site, "--out", picture, "--json",
    )  # fmt: skip
    assert status == 0, err
    why = json.loads(said)
    assert why["background"]["people"] == 600 and why["id"] == told[0]["id"]
    scores = np.sort(TextEncoder(tiny_bundle).embed(["red"])[0] @ colours_of(site).T)
    assert why["background"]["score_higher"] == int((scores >= hits[0].score).sum())
    assert why["terms"][0]["text"] == "red" and why["terms"][0]["sigmas"] > 0.9
    drawn = cv2.imread(str(picture))
    assert drawn is not None and drawn.shape == (760, 1100, 3)
    with TrackStore(store, read_only=True) as kept:
        counted = kept.hit_crops.of(hits[0].id)
    assert [(crop.frame, round(crop.weight, 4)) for crop in counted] == [
        (row["frame"], row["weight"]) for row in why["counted"]
    ]
    # Exactly those whose weighted mean made the score: all of them, and no fewer.
    assert len(counted) == hits[0].crops > 2
    pictures = [image for crop in counted if (image := decode_image(crop.jpeg)) is not None]
    shown = ImageEncoder(tiny_bundle, "ground").embed(pictures)
    weights = np.array([crop.weight for crop in counted])
    assert weights.sum() == pytest.approx(1.0)
    asked = TextEncoder(tiny_bundle).embed(["red"])[0]
    assert float(asked @ unit(weights @ shown)) == pytest.approx(hits[0].score, abs=1e-3)

    status, said, err = run(
        "alerts", "curve", "red", store, "--bundle", tiny_bundle.path, "--background", site,
        "--alarms-per-1000", "150", "--out", tmp_path / "curve.jpg", "--json",
    )  # fmt: skip
    assert status == 0, err
    curve = json.loads(said)
    assert [row["hit"] for row in curve["people"]] == [True, False, False]
    assert curve["people"][0]["track_id"] == told[0]["track_id"]
    thresholds = [row["score"] for row in curve["thresholds"]["ground"]]
    assert thresholds == sorted(thresholds) and cv2.imread(str(tmp_path / "curve.jpg")) is not None
    for command in (["curve", "red", store], ["explain", told[0]["id"], "--hits", f"{store}.hits.jsonl"]):
        status, said, err = run("alerts", *command, "--bundle", tiny_bundle.path, "--background", site)
        assert status == 0 and "red" in said + err or "HIT" in said


def colours_of(site: Path) -> np.ndarray:
    from tagclip.runtime.background import unpack

    return unpack(site.read_bytes(), "b").views["ground"].many


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["--query", "red"], 1, "has no background.npz"),
        (["--query", "-red", "--background", "{site}"], 1, "begin with what they are"),
        (["--alarms-per-hour", "1"], 2, "nobody is looked for"),
        (["--query", "red", "--alarms-per-hour", "1", "--alarms-per-1000", "1"], 2, "drop one"),
        (["--query", "red", "--background", "{site}", "--hits", "{site}"], 1, "hits"),
        (["--query", "red", "--background", "{clip}"], 1, "is no background"),
        (["--query", "red", "--background", "{site}", "--view", "aerial"], 1, "no people of view 'aerial'"),
    ],
)
def test_a_run_says_what_is_wrong(
    tiny_bundle: Bundle, tmp_path: Path, run: Run, arguments: list[str], status: int, says: str
) -> None:
    clip, site = street(tmp_path / "street.mp4"), colours(tiny_bundle, tmp_path / "b.npz")
    filled = [argument.format(site=site, clip=clip) for argument in arguments]
    got, _, err = run("run", clip, "--store", tmp_path / "s.db", "--bundle", tiny_bundle.path, *filled)
    assert got == status and says in err and "Traceback" not in err


def test_queries_that_stay_are_not_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """And all have the yardsticks that they would have, had they come together."""
    one, other, last = queries(3)
    vectors = [query.vector for query in (last, one, other)]
    expected = Judge(np.stack(vectors), background(500), TYPICAL).of("ground")
    counted: list[int] = []
    measured = judge.yardstick

    def count(*given: Any) -> judge.Yardstick:
        counted.append(1)
        return measured(*given)

    monkeypatch.setattr(judge, "yardstick", count)
    alerts = Alerts([one, other], background(500), TYPICAL, SIZE)
    somebody = track(one.vector)
    alerts.judge(somebody, 4, last=False)
    assert len(counted) == 2
    asked = [last, one, other]
    alerts.arm(asked, alerts.judge_of(asked))
    assert len(counted) == 3
    found = {hit.query_id: hit for hit in alerts.judge(replace(somebody, end_s=3.0), 4, last=True)}
    assert len(counted) == 3
    assert found[one.id].p_value == pytest.approx(
        float(expected[1].p_values(np.array(found[one.id].score), True)), rel=1e-4
    )


class Given:
    """A station's link that has one set of queries to hand out."""

    def __init__(self, asked: list[Query]) -> None:
        self._new: list[QuerySet] = [QuerySet(1, 0.0, 1e12, tuple(asked))]

    def new_queries(self) -> QuerySet | None:
        return self._new.pop() if self._new else None


def test_no_frame_waits_for_a_stations_queries(
    tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are measured in another thread; frames go on with those of before, until they are ready."""
    site = colours(tiny_bundle, tmp_path / "b.npz")
    go, where = threading.Event(), []
    measured = judge.yardstick

    def noted(*given: Any) -> judge.Yardstick:
        where.append(threading.current_thread().name)
        assert where[-1] == "MainThread" or go.wait(30)
        return measured(*given)

    orders = Orders(("red",), RARELY, site, tmp_path / "hits.jsonl", look_back_h=0.0)
    health = Health(camera="north", detector="boxes", provider="cpu", encoder_id=tiny_bundle.encoder_id)
    with (
        TrackStore(tmp_path / "s.db") as store,
        Armed(orders, Engines(tiny_bundle), health, print, False, store) as armed,
    ):
        monkeypatch.setattr(judge, "yardstick", noted)
        alerts = armed.alerts("north", SIZE)
        assert where == ["MainThread"] * 2  # of both views, before the first frame
        told = [
            Query(f"s{k}", text, "auto", None, None, None, None, "", None)
            for k, text in enumerate(("green", "blue"))
        ]
        monkeypatch.setattr(armed, "_link", Given(told))
        armed.refresh(0.0)
        armed.refresh(0.0)
        assert [query.text for query in alerts.queries] == ["red"]
        go.set()
        until_s = time.monotonic() + 30
        while len(alerts.queries) < 3 and time.monotonic() < until_s:
            armed.refresh(0.0)
            time.sleep(0.01)
        assert [query.text for query in alerts.queries] == ["red", "green", "blue"]
        vector = TextEncoder(tiny_bundle).embed(["green"])[0]
        alerts.judge(track(vector), 4, last=True)
        assert len(where) == 2 + 2 * 2 and "MainThread" not in where[2:]
        monkeypatch.setattr(armed, "_link", None)

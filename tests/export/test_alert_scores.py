"""The measuring of alerts: numbers that can be counted by hand."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")

from tagclip.export.alert_scenes import Look, Played
from tagclip.export.alert_scores import Person, groups, people_of, promise, queries_of
from tagclip.runtime.background import Background, People
from tagclip.runtime.judge import yardsticks

DIM = 24


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def crowd(seed: int, count: int) -> People:
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(count, DIM))
    return People(unit(base + rng.normal(0, 0.5, base.shape)), unit(base + rng.normal(0, 0.1, base.shape)))


def row(who: int) -> dict[str, Any]:
    return {
        "elevation_deg": 5.0 if who % 2 else 47.0,
        "attributes": {
            "skin_rgb": [40, 30, 20] if who % 3 else [230, 200, 190],
            "build": "slim",
            "age": "adult",
        },
    }


@pytest.fixture
def crowded() -> tuple[Any, ...]:
    """2,000 people from each view, the first 40 of them asked for by their own vectors."""
    own = Background("e", "", {"aerial": crowd(1, 2000), "ground": crowd(2, 2000)})
    yardstick_of = Background("e", "", {"aerial": crowd(3, 3000), "ground": crowd(4, 3000)})
    people = {view: [Person(k, row(k), 50.0) for k in range(2000)] for view in own.views}
    asked = [(k, f"person {k}") for k in range(40)]
    vectors = own.views["aerial"].many[:40]
    typical = unit(np.random.default_rng(5).normal(size=(48, DIM)))
    sticks = {view: yardsticks(vectors, yardstick_of.of(view), typical) for view in own.views}
    return people, own, asked, vectors, sticks


def test_promises_are_counted(crowded: tuple[Any, ...]) -> None:
    table = promise(*crowded)
    assert [(line["view"], line["promised"]) for line in table] == [
        (view, rate) for view in ("aerial", "ground") for rate in (10.0, 3.0, 1.0)
    ]
    for line in table:  # both crowds are drawn alike: what was promised comes
        assert line["came"] == pytest.approx(line["promised"], rel=0.4)
        assert line["within_2_by_chance"] >= line["within_2"] - 15
        # The queries are the people's own vectors from the air; from the ground nobody is meant by them.
        assert line["recall"] == (100.0 if line["view"] == "aerial" else pytest.approx(0, abs=8))


def test_groups_are_told_apart(crowded: tuple[Any, ...]) -> None:
    found = {(line["group"], line["value"]): line for line in groups(*crowded)}
    assert found["view", "aerial"]["recall"] == 100 and found["view", "aerial"]["asked"] == 40
    assert found["skin", "light"]["people"] == 2 * len(range(0, 2000, 3))
    assert found["elevation", "40 to 60"]["people"] == found["elevation", "00 to 20"]["people"] == 2000
    assert found["build", "slim"]["false_alarms"] == pytest.approx(1.0, abs=0.5)


def test_scenes_are_counted_by_the_best_look_of_each_track() -> None:
    """Three are asked for: told of late, like another, without a track; a fourth was in view too briefly."""
    one, other, third = (uuid.UUID(int=k) for k in (1, 2, 3))
    looks = [
        Look(one, None, 1, 30.0, np.array([0.5, 0.9, 0.9, 0.9])),
        Look(other, 12, 2, 41.0, np.array([0.0005, 0.002, 0.9, 0.9])),
        Look(one, 11, 5, 60.0, np.array([0.0009, 0.9, 0.9, 0.9])),
        Look(third, 14, 1, 20.0, np.array([0.9, 0.0001, 0.9, 0.0001])),
    ]
    people = [(11, "red"), (12, "green"), (13, "blue"), (14, "white")]
    played = Played("s", "first", people, {11: 4.0, 12: 3.0, 13: 2.0}, looks)
    assert played.counts(1.0) == {
        "scene": "s", "caption": "first", "promised": 1.0, "people": 3, "recall": 33.3, "tracks": 3, "wrong": 2,
        "false_alarms": round(1000 * 2 / 12, 2),
    }  # fmt: skip
    assert played.counts(3.0)["recall"] == 66.7
    assert played.missed(1.0) == [
        {
            "scene": "s", "by": "first",
            "who": 12, "seen_s": 3.0, "height_px": 41, "crops": 2, "in_1000": 2.0, "rank": 2,
            "caption": "green",
        },
        {
            "scene": "s", "by": "first",
            "who": 13, "seen_s": 2.0, "height_px": None, "crops": None, "in_1000": None, "rank": None,
            "caption": "blue",
        },
    ]  # fmt: skip


def test_a_folder_is_read(tmp_path: Path) -> None:
    for split, who in (("train", 1), ("val", 2), ("test", 3)):
        rows = [
            {"file_path": f"{who}_{cam}.jpg", "id": who, "cam_id": cam, "captions": [f"{split} {cam}"]}
            | row(who)
            for cam in (0, 1)
        ]
        (tmp_path / f"{split}_reid.json").write_text(json.dumps(rows))
        for cam in (0, 1):
            (tmp_path / "images").mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / "images" / f"{who}_{cam}.jpg"), np.zeros((20 * who, 9, 3), np.uint8))
    assert {view: [p.identity for p in people] for view, people in people_of(tmp_path).items()} == {
        "aerial": [1, 2, 3],
        "ground": [1, 2, 3],
    }
    assert [person.height_px for person in people_of(tmp_path)["aerial"]] == [20, 40, 60]
    assert queries_of(tmp_path) == [(3, "test 0"), (2, "val 0")]

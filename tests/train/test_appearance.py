"""People: a wide spread, nothing impossible, and a JSON form that keeps everything."""

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest

from tagclip.train.synth.appearance import Appearance, from_json, to_json
from tagclip.train.synth.palette import basic_name, delta_e, to_lab
from tagclip.train.synth.people import sample_appearance


@pytest.fixture(scope="module")
def people() -> list[Appearance]:
    rng = np.random.default_rng(11)
    return [sample_appearance(rng) for _ in range(3000)]


def test_json_round_trip(people: list[Appearance]) -> None:
    for person in people[:500]:
        assert from_json(json.loads(json.dumps(to_json(person)))) == person


def test_unknown_field_is_refused(people: list[Appearance]) -> None:
    with pytest.raises(TypeError, match="mood"):
        from_json(to_json(people[0]) | {"mood": "good"})


def test_same_seed_same_people() -> None:
    first, second = (np.random.default_rng(4) for _ in range(2))
    assert [sample_appearance(first) for _ in range(50)] == [sample_appearance(second) for _ in range(50)]


def test_at_least_60_attribute_values(people: list[Appearance]) -> None:
    seen: set[tuple[str, Any]] = set()
    for person in people:
        _collect("", to_json(person), seen)
    assert len(seen) >= 60, sorted(map(str, seen))


def test_only_plausible_people(people: list[Appearance]) -> None:
    for person in people:
        top = person.top
        assert (person.bottom is None) == ("dress" in top.kind)
        assert person.gender == "woman" or "dress" not in top.kind
        assert (top.pattern == "plain") == (top.rgb2 is None)
        assert top.inner_rgb is not None or not top.open
        assert len(person.bags) <= 2 and len({bag.kind for bag in person.bags}) == len(person.bags)
        if person.headwear and person.headwear.kind == "hood":
            assert top.has_hood and person.headwear.rgb == top.rgb
        if top.kind in ("vest", "hi-vis vest"):
            assert top.sleeve_rgb == (top.inner_rgb if top.sleeve != "none" else None)
        if top.sleeve_rgb:
            distance = delta_e(to_lab(top.rgb), to_lab(top.sleeve_rgb)[None])[0]
            assert distance > 25  # sleeves that a caption names can be told from the rest


def test_shares_are_as_asked(people: list[Appearance]) -> None:
    n = len(people)
    assert 0.4 < sum(not p.bags for p in people) / n < 0.5
    assert 0.05 < sum(p.scarf is not None for p in people) / n < 0.12
    sleeves = [
        p.top.sleeve_rgb is not None for p in people if p.top.sleeve == "long" and "vest" not in p.top.kind
    ]
    assert 0.09 < float(np.mean(sleeves)) < 0.15
    long_coats = [p for p in people if p.top.kind == "long coat"]
    assert sum(basic_name(p.top.rgb) == "black" for p in long_coats) > 20
    blond_long = [p for p in people if p.hair.name == "blond" and p.hair.length == "long"]
    assert len(blond_long) > 40


def test_skin_says_nothing_about_the_rest(people: list[Appearance]) -> None:
    """Drawn independently: darkness of skin correlates with no attribute, and covers a broad range."""
    light = np.array([to_lab(p.skin_rgb)[0] for p in people])
    assert np.percentile(light, 5) < 35 and np.percentile(light, 95) > 78
    for values in (
        [p.gender == "woman" for p in people],
        [p.hair.name == "black" for p in people],
        [p.hair.name == "blond" for p in people],
        [bool(p.bags) for p in people],
        [p.top.has_hood for p in people],
    ):
        assert abs(np.corrcoef(light, values)[0, 1]) < 0.06  # 3 sigma of chance for 3,000


def test_rare_combinations_occur(people: list[Appearance]) -> None:
    assert any(p.bottom and p.bottom.kind == "shorts" and "coat" in p.top.kind for p in people)
    assert any(p.gender == "man" and p.hair.length == "bun" for p in people)
    assert all(count >= 5 for count in Counter(p.hair.name for p in people).values())


def _collect(path: str, value: Any, seen: set[tuple[str, Any]]) -> None:
    """Words and switches under their names; colours are not counted."""
    if isinstance(value, dict):
        for key, child in value.items():
            _collect(f"{path}/{key}", child, seen)
    elif isinstance(value, list):
        for child in value:
            if isinstance(child, dict):
                _collect(path, child, seen)
    elif isinstance(value, (str, bool)):
        seen.add((path, value))

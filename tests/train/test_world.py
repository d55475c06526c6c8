"""Worlds for experiments: what is left out is not drawn, and the shifted one is another."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("anny")
pytest.importorskip("warp")
pytest.importorskip("matplotlib")

from tagclip.runtime.errors import OutputError
from tagclip.train.synth.crops import identity_crops, write_crops
from tagclip.train.synth.palette import basic_name, delta_e, to_lab
from tagclip.train.synth.people import sample_appearance
from tagclip.train.synth.world import EVERYTHING, World

pytestmark = pytest.mark.slow


def people(world: World, count: int = 300) -> list:
    found = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        found.append(world.dress(sample_appearance(rng), rng))
    return found


def test_the_whole_world_changes_nobody() -> None:
    for seed in range(50):
        rng = np.random.default_rng(seed)
        person = sample_appearance(rng)
        assert EVERYTHING.dress(person, rng) is person


def test_without_patterns_all_is_plain_and_else_as_before() -> None:
    plain, whole = people(World(("patterns",))), people(EVERYTHING)
    assert any(p.top.pattern != "plain" for p in whole) and any(p.bottom and p.bottom.rgb2 for p in whole)
    assert all(p.top.pattern == "plain" and p.top.rgb2 is None for p in plain)
    assert all(p.bottom is None or p.bottom.pattern == "plain" for p in plain)
    assert [p.top.kind for p in plain] == [p.top.kind for p in whole]


def test_without_geometry_nothing_is_carried_and_all_are_on_their_feet() -> None:
    attributes, crops = identity_crops(3, 1, 4, World(("geometry",)))
    assert attributes["bags"] == [] and {crop.posture for _, crop in crops} <= {"walking", "standing"}
    assert not {"bag0", "bag1", "scarf"} & {part for _, crop in crops for part in crop.visible}


def test_without_camera_every_picture_is_sharp_and_of_one_size() -> None:
    plain = [crop for _, crop in identity_crops(3, 2, 6, World(("camera",)))[1]]
    whole = [crop for _, crop in identity_crops(3, 2, 6)[1]]
    assert {crop.jpeg_quality for crop in plain} == {95} and len({crop.jpeg_quality for crop in whole}) > 4
    assert all(max(crop.image.shape[:2]) >= 120 for crop in plain)
    assert min(crop.image.shape[0] for crop in whole) < 100


def test_the_shifted_world_has_another_palette() -> None:
    """Greys, blacks and whites, half of what people wear, are rare there; what has two colours still shows both."""
    dull = {"black", "grey", "white"}
    share = {
        w: np.mean([basic_name(p.top.rgb) in dull for p in people(w)])
        for w in (EVERYTHING, World(shifted=True))
    }
    assert share[World(shifted=True)] < 0.6 * share[EVERYTHING]
    for person in people(World(shifted=True)):
        top = person.top
        for other in (top.rgb2, top.sleeve_rgb, top.inner_rgb):
            if other is not None:
                assert delta_e(to_lab(top.rgb), to_lab(other)[None])[0] > 25
        if person.headwear and person.headwear.kind == "hood":
            assert person.headwear.rgb == top.rgb
        if "vest" in top.kind and top.sleeve != "none":
            assert top.sleeve_rgb == top.inner_rgb


def test_a_run_of_another_world_is_not_gone_on_with(tmp_path: Path) -> None:
    def stop(what: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_crops(tmp_path / "a", 9, 1, 0, 1, stop, world=World(("patterns",)))
    with pytest.raises(OutputError, match=r"without patterns \(now \)"):
        write_crops(tmp_path / "a", 9, 1, 0, 1)
    write_crops(tmp_path / "a", 9, 1, 0, 1, world=World(("patterns",)))
    made = json.loads((tmp_path / "a" / "synth.json").read_text())
    assert (made["without"], made["shifted"]) == ("patterns", 0)

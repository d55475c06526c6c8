"""Postures, carried things and props: bodies that lie, sit and wave as bodies do."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

pytest.importorskip("anny")
pytest.importorskip("warp")
pytest.importorskip("matplotlib")

from tagclip.train.synth.appearance import PARTS, Bag, Bottom, Posture, Top
from tagclip.train.synth.camera import Camera, look_at
from tagclip.train.synth.figure import Figure, Posed
from tagclip.train.synth.people import sample_appearance
from tagclip.train.synth.picture import Stage, visible_parts
from tagclip.train.synth.places import Place, sample_place, to_srgb
from tagclip.train.synth.poses import SHARES, Pose, sample_pose
from tagclip.train.synth.props import clutter, seat
from tagclip.train.synth.shot import ELEVATION_DEG, shoot

pytestmark = pytest.mark.slow
MIDDLE = (0.5, 0.5, 0.5, 0.5)


@pytest.fixture(scope="module")
def figure() -> Figure:
    """An adult in a t-shirt and trousers, without bags and hat."""
    rng = np.random.default_rng(5)
    person = replace(
        sample_appearance(rng), age="adult", height="average", top=Top("t-shirt", "short", (200, 30, 40)),
        bottom=Bottom("trousers", (30, 40, 120)), bags=(), headwear=None, scarf=None,
    )  # fmt: skip
    return Figure(person, rng)


def posed(figure: Figure, posture: Posture, way: tuple[float, float, float, float] = MIDDLE) -> Posed:
    return figure.posed(0.0, 0.0, 0.0, (0.0, 0.0), Pose(posture, way))


def joints(figure: Figure, pose: Posed) -> dict[str, np.ndarray]:
    """Means of the vertices of some segments, world metres."""
    from tagclip.train.synth.body import SEGMENTS

    body = pose.vertices[: len(figure.rest.vertices)]
    return {name: body[figure.model.segment == k].mean(0) for k, name in enumerate(SEGMENTS)}


def over(
    posed: Posed, elevation_deg: float, metres: float = 1.2, pixels: int = 120
) -> tuple[Camera, np.ndarray]:
    """A camera 30 m away that sees a square of 2 x `metres` around the middle of a person; its pixel axis."""
    middle = (posed.vertices.min(0) + posed.vertices.max(0)) / 2
    angle = np.deg2rad(elevation_deg)
    position = middle + 30 * np.array([0, -np.cos(angle), np.sin(angle)])
    camera = look_at(position, middle, 0.0, 1000.0, (0.0, 0.0), up=(0.0, 0.1, 1.0))
    reach = 1000 * metres / 30
    return camera, np.linspace(-reach, reach, pixels).astype(np.float32)


@pytest.mark.parametrize("name", get_args(Posture))
def test_every_posture_stands_on_the_ground_and_is_a_body(figure: Figure, name: Posture) -> None:
    for seed in range(4):
        way = tuple(np.random.default_rng(seed).random(4).tolist())
        pose = posed(figure, name, way)
        assert np.isfinite(pose.vertices).all() and abs(pose.vertices[:, 2].min()) < 1e-5
        extent = np.ptp(pose.vertices, axis=0)
        assert 0.15 < extent[2] < 2.6 and (extent < 2.8).all(), (name, way, extent)
        hip = pose.vertices[: len(figure.rest.vertices)].mean(0)[:2]
        assert np.linalg.norm(hip) < 0.6  # the place is where the person is


def test_shares_are_a_distribution_over_all_postures() -> None:
    assert set(SHARES) == set(get_args(Posture)) and sum(SHARES.values()) == pytest.approx(1)
    rng = np.random.default_rng(0)
    found = [sample_pose(rng).posture for _ in range(4000)]
    assert {name: found.count(name) / 4000 for name in SHARES} == pytest.approx(SHARES, abs=0.03)


def test_low_postures_are_low_and_lying_is_flat(figure: Figure) -> None:
    standing = np.ptp(posed(figure, "standing").vertices[:, 2])
    heights = {
        name: np.ptp(posed(figure, name).vertices[:, 2]) for name in ("sitting", "crouching", "kneeling")
    }
    assert all(0.4 * standing < h < 0.85 * standing for h in heights.values()), heights
    for side in (0.1, 0.5, 0.7, 0.9):  # back, front, both sides
        lying = posed(figure, "lying", (side, 0.5, 0.2, 0.2))
        extent = np.ptp(lying.vertices, axis=0)
        assert extent[2] < 0.75 and extent[:2].max() > 0.75 * standing


def test_who_lies_on_the_back_looks_up_and_on_the_front_down(figure: Figure) -> None:
    """The nose is the foremost point of a head: above its middle, or below."""
    head = figure.model.segment == 1
    nose = np.flatnonzero(head)[figure.rest.vertices[head][:, 1].argmin()]
    for side, sign in ((0.1, 1), (0.5, -1)):
        body = posed(figure, "lying", (side, 0.1, 0.1, 0.1)).vertices
        assert sign * (body[nose, 2] - body[: len(head)][head][:, 2].mean()) > 0.05


def test_gestures(figure: Figure) -> None:
    both = joints(figure, posed(figure, "waving", (0.1, 0.9, 0.2, 0.5)))
    assert min(both["hand.L"][2], both["hand.R"][2]) > both["head"][2]
    one = joints(figure, posed(figure, "waving", (0.9, 0.9, 0.2, 0.5)))
    assert one["hand.R"][2] > one["head"][2] > one["torso"][2] > one["hand.L"][2]
    ear = joints(figure, posed(figure, "phoning", (0.1, 0.5, 0.5, 0.5)))
    assert np.linalg.norm(ear["hand.R"] - ear["head"]) < 0.35 < np.linalg.norm(ear["hand.L"] - ear["head"])
    bent = joints(figure, posed(figure, "bending"))
    assert bent["head"][1] < bent["torso"][1] - 0.15 and bent["head"][2] < 0.85 * 1.7


def holding(figure: Figure, bag: Bag) -> Figure:
    return Figure(replace(figure.person, bags=(bag,)), np.random.default_rng(5))


def test_a_box_is_in_front_and_an_umbrella_hides_from_above(figure: Figure) -> None:
    box = posed(holding(figure, Bag("box", (180, 140, 90), "left")), "standing")
    body, thing = (
        box.vertices[: len(figure.rest.vertices)],
        box.vertices[box.faces[box.face_piece >= 0]].reshape(-1, 3),
    )
    assert thing[:, 1].mean() < body[:, 1].min() + 0.2 and 0.6 < thing[:, 2].mean() < 1.5

    shares = {}
    for name, bags in (("without", None), ("with", Bag("umbrella", (20, 20, 160), "right"))):
        pose = posed(holding(figure, bags) if bags else figure, "standing")
        camera, pixels = over(pose, 88)
        _, person, part = Stage([pose], sample_place(np.random.default_rng(0))).render(camera, pixels, pixels)
        shares[name] = visible_parts(person, part, 0)
    assert shares["with"]["bag0"] > 0.6 and shares["with"].get("hair", 0) < 0.25 * shares["without"]["hair"]


def test_things_in_the_hand_are_put_down_or_left_out(figure: Figure) -> None:
    carried = holding(figure, Bag("handbag", (200, 200, 0), "left"))
    sitting = posed(carried, "sitting", (0.6, 0.5, 0.5, 0.5))
    thing = sitting.vertices[np.unique(sitting.faces[sitting.face_piece >= 0])]
    assert thing[:, 2].min() == pytest.approx(0, abs=0.05)
    assert (posed(carried, "lying").face_piece < 0).all()


@pytest.mark.parametrize("kind", ["trousers", "skirt", "sweatpants"])
@pytest.mark.parametrize("pattern", ["vertical stripes", "checks", "print"])
def test_patterns_of_what_is_worn_below_are_drawn(figure: Figure, kind: str, pattern: str) -> None:
    """Two colours that differ in hue only at the second's pixels."""
    bottom = Bottom(kind, (20, 20, 200), pattern, (220, 200, 20))  # type: ignore[arg-type]
    pose = posed(Figure(replace(figure.person, bottom=bottom), np.random.default_rng(5)), "standing")
    rng = np.random.default_rng(0)
    place = replace(sample_place(rng), sun_strength=0.0, sky=np.ones(3, np.float32))
    camera, pixels = over(pose, 20)
    linear, _, part = Stage([pose], place).render(camera, pixels, pixels)
    rgb = to_srgb(linear[part == PARTS.index("bottom")])
    yellow = (rgb[:, 0] > rgb[:, 2]).mean()
    assert 0.02 < yellow < 0.8, yellow


def test_props_hide_and_seats_are_under_the_hips(figure: Figure) -> None:
    rng = np.random.default_rng(1)
    sitting = posed(figure, "sitting", (0.2, 0.5, 0.5, 0.5))
    bench = seat(sitting.hip_m, 0.0, rng)
    assert sitting.hip_m - 0.2 < bench.mesh.vertices[:, 2].max() < sitting.hip_m
    standing = posed(figure, "standing")
    camera, pixels = over(standing, 10)
    hidden = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        props = clutter(camera, rng)
        _, person, _ = Stage([standing], sample_place(rng), props).render(camera, pixels, pixels)
        hidden.append((person == 0).sum())
    whole = max(hidden)
    assert 2 <= sum(h < 0.9 * whole for h in hidden) <= 25 and np.median(hidden) > 0.97 * whole


def test_shade_covers_its_share() -> None:
    place = replace(sample_place(np.random.default_rng(2)), shade=0.3, shade_m=3.0, sun_strength=0.8)
    at = np.random.default_rng(0).uniform(-200, 200, (20_000, 2))
    points = np.column_stack([at, np.zeros(len(at))]).astype(np.float32)
    offset = points - np.array([0, 0, 50], np.float32)
    distance = np.linalg.norm(offset, axis=1)
    rays = (offset / distance[:, None]).astype(np.float32)
    origin = np.array([0, 0, 50], np.float32)
    assert 0.2 < place.shaded(origin, rays, distance).mean() < 0.4
    assert not replace(place, shade=0.0).shaded(origin, rays, distance).any()
    assert not Place(**{**vars(place), "sun_strength": 0.0}).shaded(origin, rays, distance).any()


def test_shots_are_within_their_ranges() -> None:
    rng = np.random.default_rng(4)
    figures = [Figure(sample_appearance(rng), rng) for _ in range(2)]
    shots = {view: [shoot(figures[0], figures[1], view, rng) for _ in range(25)] for view in ELEVATION_DEG}
    for view, crops in shots.items():
        low, high = ELEVATION_DEG[view]
        for crop in crops:
            assert low - 2 <= crop.elevation_deg <= high + 2
            assert 12 <= crop.image.shape[0] <= 220 and crop.image.dtype == np.uint8
            assert sum(crop.visible.values()) == pytest.approx(1, abs=1e-6)
    assert len({crop.posture for crops in shots.values() for crop in crops}) >= 4

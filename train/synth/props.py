"""Things that stand about: seats, posts, bins, bushes, walls, cars. They cast shadows, and hide part of a person."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tagclip.train.synth.body import Array, turn
from tagclip.train.synth.camera import Camera
from tagclip.train.synth.shapes import Mesh, rings, rounded_box

CLUTTER_MEAN = 0.6  # things a picture, on average
HIDING_SHARE = 0.12  # of pictures have one between camera and person


@dataclass(frozen=True)
class Prop:
    """A mesh of one colour: rgb (3,) sRGB 0..1, grain its contrast."""

    mesh: Mesh
    rgb: Array
    grain: float


def seat(hip_m: float, yaw: float, rng: np.random.Generator) -> Prop:
    """What somebody sits on whose hips are `hip_m` over the ground at the origin: a block, a bench, a chair's seat."""
    top = max(0.2, hip_m - 0.1)
    half = (float(rng.choice([0.25, rng.uniform(0.5, 0.9)])), 0.2, top / 2 if rng.random() < 0.6 else 0.03)
    mesh = rounded_box(np.array([0.0, 0.12, top - half[2]]), half, 0.15)
    return Prop(
        Mesh((mesh.vertices @ turn((0, 0, 1), yaw).T).astype(np.float32), mesh.faces), _dull(rng), 0.1
    )


def clutter(camera: Camera, rng: np.random.Generator) -> list[Prop]:
    """Things around a person at the origin, now and then one in the way."""
    found = []
    for _ in range(rng.poisson(CLUTTER_MEAN)):
        angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.7, 4.0)
        found += _thing(
            str(rng.choice(list(_KINDS))), distance * np.array([np.cos(angle), np.sin(angle)]), rng
        )
    if rng.random() < HIDING_SHARE:
        towards = -camera.axes[2, :2] / max(float(np.linalg.norm(camera.axes[2, :2])), 1e-3)
        across = camera.axes[0, :2]
        at = towards * rng.uniform(0.45, 1.2) + across * rng.normal(0, 0.3)
        steep = camera.axes[2, 2] < -0.6
        found += (
            _canopy(camera, rng)
            if steep
            else _thing(str(rng.choice(["post", "bush", "bin", "wall"])), at, rng)
        )
    return found


def scattered(at: Array, rng: np.random.Generator) -> list[Prop]:
    """Something that may stand at `at` (2,), metres: any of the things of a crop, a tree, a fence, a sign."""
    kind = str(rng.choice([*_KINDS, "tree", "tree", "fence", "sign"]))
    x, y = float(at[0]), float(at[1])
    if kind == "tree":
        height, radius = rng.uniform(1.8, 7.0), rng.uniform(0.5, 2.2)
        ends = np.array([[x, y, 0.0], [x, y, height]], np.float32)
        angles = np.linspace(0, 2 * np.pi, 9)[:-1]
        trunk = rings(ends, np.full((2, 1, 1), rng.uniform(0.06, 0.2)), angles, wrap=True)
        bark = (np.array([0.35, 0.28, 0.2]) * rng.uniform(0.5, 1.4)).clip(0, 1).astype(np.float32)
        crowns = [
            Prop(
                _blob(
                    np.array([x, y, height]) + rng.normal(0, 0.5 * radius, 3),
                    (radius, radius * rng.uniform(0.6, 1), radius * rng.uniform(0.5, 1)),
                    rng,
                ),
                _leaves(rng),
                0.4,
            )
            for _ in range(rng.integers(1, 4))
        ]
        return [Prop(trunk, bark, 0.3), *crowns]
    if kind in ("fence", "sign"):
        along, half_height = (
            (rng.uniform(2, 8), rng.uniform(0.4, 1.5))
            if kind == "fence"
            else (rng.uniform(0.2, 0.5), rng.uniform(0.4, 1.0))
        )
        mesh = rounded_box(np.zeros(3), (along, 0.04, half_height), 0.15)
        turned = mesh.vertices @ turn((0, 0, 1), rng.uniform(0, np.pi)).T + np.array([x, y, half_height])
        return [Prop(Mesh(turned.astype(np.float32), mesh.faces), _dull(rng), 0.2)]
    return _thing(kind, at, rng)


def _dull(rng: np.random.Generator) -> Array:
    """Mostly greys and browns, now and then any colour."""
    if rng.random() < 0.25:
        return rng.uniform(0.05, 0.95, 3).astype(np.float32)
    return (
        (rng.uniform(0.08, 0.85) * np.array([1.0, 0.96, 0.9]) * rng.uniform(0.9, 1.1, 3))
        .clip(0, 1)
        .astype(np.float32)
    )


def _leaves(rng: np.random.Generator) -> Array:
    return (
        (np.array([0.25, 0.36, 0.16]) * rng.uniform(0.5, 1.7) * rng.uniform(0.8, 1.2, 3))
        .clip(0, 1)
        .astype(np.float32)
    )


def _blob(centre: Array, half: tuple[float, float, float], rng: np.random.Generator) -> Mesh:
    mesh = rounded_box(np.zeros(3), half, 1.0)
    rough = 1 + rng.normal(0, 0.12, (len(mesh.vertices), 1))
    return Mesh((mesh.vertices * rough + centre).astype(np.float32), mesh.faces)


def _canopy(camera: Camera, rng: np.random.Generator) -> list[Prop]:
    """A branch of leaves over the person, off the line of sight by about its own size."""
    height = rng.uniform(2.3, 4.0)
    towards = camera.position / camera.position[2]
    at = np.array([towards[0] * (height - 1), towards[1] * (height - 1), height]) + np.append(
        rng.normal(0, 0.55, 2), 0
    )
    radius = rng.uniform(0.3, 0.7)
    return [Prop(_blob(at, (radius, radius * rng.uniform(0.5, 1), 0.3), rng), _leaves(rng), 0.4)]


def _thing(kind: str, at: Array, rng: np.random.Generator) -> list[Prop]:
    x, y = float(at[0]), float(at[1])
    yaw = turn((0, 0, 1), rng.uniform(0, np.pi))

    def block(half: tuple[float, float, float], up: float, rgb: Array, power: float = 0.15) -> Prop:
        mesh = rounded_box(np.zeros(3), half, power)
        return Prop(
            Mesh((mesh.vertices @ yaw.T + np.array([x, y, up])).astype(np.float32), mesh.faces), rgb, 0.15
        )

    if kind == "post":
        radius, height = rng.uniform(0.03, 0.12), rng.uniform(0.9, 4.0)
        ends = np.array([[x, y, 0.0], [x, y, height]], np.float32)
        angles = np.linspace(0, 2 * np.pi, 9)[:-1]
        return [Prop(rings(ends, np.full((2, 1, 1), radius), angles, wrap=True), _dull(rng), 0.1)]
    if kind == "bush":
        radius, height = rng.uniform(0.25, 0.8), rng.uniform(0.15, 0.55)
        return [Prop(_blob(np.array([x, y, height * 0.8]), (radius, radius, height), rng), _leaves(rng), 0.4)]
    if kind == "wall":
        half = (rng.uniform(0.6, 2.5), rng.uniform(0.05, 0.2), rng.uniform(0.2, 0.55))
        return [block(half, half[2], _dull(rng))]
    if kind == "car":
        colour = _dull(rng)
        glass = np.array([0.1, 0.12, 0.14], np.float32)
        return [block((2.1, 0.85, 0.4), 0.6, colour), block((1.2, 0.75, 0.35), 1.2, glass, 0.5)]
    half = (rng.uniform(0.15, 0.5), rng.uniform(0.15, 0.4), rng.uniform(0.2, 0.55))
    return [block(half, half[2], _dull(rng))]


_KINDS = ("post", "bush", "bin", "bin", "wall", "car")

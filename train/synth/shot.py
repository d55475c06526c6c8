"""One picture of one person: where the camera stands, what the detector cuts, what stands in the way."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tagclip.train.synth.appearance import Posture
from tagclip.train.synth.body import Array
from tagclip.train.synth.camera import Camera, elevation_of, look_at
from tagclip.train.synth.figure import Figure, Posed
from tagclip.train.synth.picture import Stage, visible_parts
from tagclip.train.synth.places import sample_place
from tagclip.train.synth.poses import Pose, sample_pose
from tagclip.train.synth.props import clutter, seat
from tagclip.train.synth.sensor import record, shrink
from tagclip.train.synth.world import EVERYTHING, World

ELEVATION_DEG = {"aerial": (30.0, 88.0), "ground": (-5.0, 25.0)}
DISTANCE_M = {"aerial": (4.0, 130.0), "ground": (3.0, 45.0)}
ALTITUDE_M = (2.0, 120.0)  # of a camera in the air
FIELD_OF_VIEW_DEG = (15.0, 80.0)  # a person may be anywhere in it, and leans outwards at its edges
HEIGHT_PX = (18, 220)  # of a box as a detector gives it; log-uniform: mostly small, rarely large
RENDER_PX = (4_000, 20_000)  # fewest and most rays per crop; between, four to a pixel of the final picture
NEIGHBOUR_SHARE = 0.2  # of crops show part of another person
OCCLUDED_SHARE = 0.05
LEAST_SHOWN = 0.12  # of a crop's pixels that are the person; where a thing hides more, it is left out


@dataclass(frozen=True)
class Crop:
    """One picture of one identity.

    Attributes:
        image: (H, W, 3) RGB uint8.
        jpeg_quality: 0..100.
        elevation_deg: true elevation of the camera.
        visible: share of the person's pixels by part.
        posture: what the person does.
    """

    image: NDArray[np.uint8]
    jpeg_quality: int
    elevation_deg: float
    visible: dict[str, float]
    posture: Posture


def shoot(
    figure: Figure, neighbour: Figure, view: str, rng: np.random.Generator, world: World = EVERYTHING
) -> Crop:
    """A picture of `figure`, now and then with `neighbour` beside it, from somewhere in `view`."""
    pose = sample_pose(rng)
    if "geometry" in world.without:
        pose = Pose("walking" if rng.random() < 0.7 else "standing")
    if "camera" in world.without:
        return _ideal(
            figure.posed(0.0, 0.0, float(rng.uniform(0, 2 * np.pi)), (0.0, 0.0), pose), pose, view, rng
        )
    moving = {"walking": float(rng.uniform(0.3, 1.0)), "running": 1.5}.get(pose.posture, 0.0)
    yaw = float(rng.uniform(0, 2 * np.pi))
    posed = figure.posed(float(rng.uniform(0, 2 * np.pi)), moving, yaw, (0.0, 0.0), pose)
    people = [posed]
    camera, elevation = _camera(view, float(posed.vertices[:, 2].max()), rng)
    if rng.random() < NEIGHBOUR_SHARE:
        people.append(_beside(neighbour, camera, rng))
    props = clutter(camera, rng)
    seats = [seat(posed.hip_m, yaw, rng)] if pose.on_seat and rng.random() < 0.85 else []
    size_px = float(np.exp(rng.uniform(*np.log(HEIGHT_PX))))
    x_px, y_px = _window(camera, posed, int(np.clip(2 * size_px**2, *RENDER_PX)), rng)
    place = sample_place(rng)
    linear, person, part = Stage(people, place, [*props, *seats]).render(camera, x_px, y_px)
    if (person == 0).mean() < LEAST_SHOWN:
        linear, person, part = Stage(people, place, seats).render(camera, x_px, y_px)
    if rng.random() < OCCLUDED_SHARE:
        _occlude(linear, person, rng)
    visible = visible_parts(person, part, 0)
    height = max(12, round(size_px * min(1.0, len(y_px) / len(x_px))))
    image = record(linear, height, rng, world.shifted)
    return Crop(image, int(rng.integers(22, 96)), elevation, visible, pose.posture)


def _ideal(posed: Posed, pose: Pose, view: str, rng: np.random.Generator) -> Crop:
    """What a perfect camera sees on an overcast day of somebody who is alone: for experiments."""
    target = np.array([0, 0, 0.52 * posed.vertices[:, 2].max()], np.float32)
    elevation, azimuth = np.deg2rad(rng.uniform(*ELEVATION_DEG[view])), rng.uniform(0, 2 * np.pi)
    position = _around(target, elevation, azimuth, 20.0)
    camera = look_at(position, target, 0.0, 1000.0, (0.0, 0.0))
    x_px, y_px = _window(camera, posed, RENDER_PX[1], rng)
    place = replace(sample_place(rng), sun_strength=0.0, sky=np.ones(3, np.float32), shade=0.0)
    linear, person, part = Stage([posed], place).render(camera, x_px, y_px)
    visible = visible_parts(person, part, 0)
    height = max(12, round(128 * min(1.0, len(y_px) / len(x_px))))
    return Crop(shrink(linear, height), 95, elevation_of(position, target), visible, pose.posture)


def _camera(view: str, height_m: float, rng: np.random.Generator) -> tuple[Camera, float]:
    elevation_deg = float(rng.uniform(*ELEVATION_DEG[view]))
    target = np.array([0, 0, 0.52 * height_m], np.float32)
    elevation, azimuth = np.deg2rad(elevation_deg), rng.uniform(0, 2 * np.pi)
    distance = float(np.exp(rng.uniform(*np.log(DISTANCE_M[view]))))
    if view == "aerial":
        distance = float(np.clip(distance, *((np.array(ALTITUDE_M) - target[2]) / np.sin(elevation))))
    position = _around(target, elevation, azimuth, distance)
    # Near the nadir a person may lie any way in the picture; else nearly upright.
    roll = rng.normal(0, 4 if elevation_deg < 30 else 9) if elevation_deg < 72 else rng.uniform(-50, 50)
    # The person stands off the axis by up to half of the field of view.
    half = np.deg2rad(rng.uniform(*FIELD_OF_VIEW_DEG) / 2)
    off, around = np.tan(half) * np.sqrt(rng.random()) * 0.9, rng.uniform(0, 2 * np.pi)
    camera = look_at(position, target, float(roll), 1000.0, (0.0, 0.0))
    aside = off * distance * (np.cos(around) * camera.axes[0] + np.sin(around) * camera.axes[1])
    camera = look_at(position, (target + aside).astype(np.float32), float(roll), 1000.0, (0.0, 0.0))
    return camera, elevation_of(position, target)


def _around(target: Array, elevation: float, azimuth: float, distance: float) -> Array:
    """Where (3,) a camera is that sees `target` (3,) from these angles (radians) at `distance` (metres)."""
    level = np.cos(elevation)
    position: Array = target + distance * np.array(
        [level * np.cos(azimuth), level * np.sin(azimuth), np.sin(elevation)]
    )
    position[2] = max(position[2], 0.4)  # no camera below the ground
    return position


def _beside(neighbour: Figure, camera: Camera, rng: np.random.Generator) -> Posed:
    """The other person at arm's length to one side, and a little nearer or farther."""
    side = camera.axes[0, :2] * rng.choice([-1, 1]) * rng.uniform(0.5, 0.95)
    depth = camera.axes[2, :2] * rng.uniform(-0.5, 0.9)
    place = side + depth
    phase, yaw = rng.uniform(0, 2 * np.pi, 2)
    return neighbour.posed(
        float(phase), float(rng.random() < 0.7), float(yaw), (float(place[0]), float(place[1]))
    )


def _window(camera: Camera, posed: Posed, rays: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Pixel columns and rows of a crop as an imperfect detector cuts it."""
    points = camera.project(posed.vertices)
    low, high = points.min(0), points.max(0)
    size = high - low
    low = low - size * rng.uniform(-0.05, 0.16, 2)
    high = high + size * rng.uniform(-0.05, 0.16, 2)
    if rng.random() < 0.06:  # cut off below or above by something, or by the edge of the frame
        cut = size[1] * rng.uniform(0.1, 0.4)
        if rng.random() < 0.75:
            high[1] -= cut
        else:
            low[1] += 0.4 * cut
    width, height = high - low
    rows = int(np.sqrt(rays * height / width))
    columns = max(8, round(rows * width / height))
    x = low[0] + (np.arange(columns) + 0.5) * width / columns
    y = low[1] + (np.arange(rows) + 0.5) * height / rows
    return x.astype(np.float32), y.astype(np.float32)


def _occlude(linear: Array, person: NDArray[np.int64], rng: np.random.Generator) -> None:
    """Something near the lens, of one noisy colour."""
    height, width = person.shape
    if rng.random() < 0.5:
        x = int(rng.integers(0, width))
        area: tuple[slice, slice] = np.s_[:, x : x + max(1, int(width * rng.uniform(0.05, 0.2)))]
    else:
        area = np.s_[int(height * rng.uniform(0.6, 0.9)) :, :]
    shape = person[area].shape
    linear[area] = rng.uniform(0.02, 0.6) * rng.uniform(0.7, 1.3, 3) * rng.uniform(0.8, 1.2, (*shape, 1))
    person[area] = -1

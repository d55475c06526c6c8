"""One picture of one person: where the camera stands, what the detector cuts, what stands in the way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tagclip.train.synth.body import Array
from tagclip.train.synth.camera import Camera, elevation_of, look_at
from tagclip.train.synth.figure import Figure, Posed
from tagclip.train.synth.picture import Stage, record, visible_parts
from tagclip.train.synth.places import sample_place

ELEVATION_DEG = {"aerial": (30.0, 88.0), "ground": (-5.0, 25.0)}
RENDER_PX = (4_000, 20_000)  # fewest and most rays per crop; between, four to a pixel of the final picture
NEIGHBOUR_SHARE = 0.2  # of crops show part of another person
OCCLUDED_SHARE = 0.1


@dataclass(frozen=True)
class Crop:
    """One picture of one identity.

    Attributes:
        image: (H, W, 3) RGB uint8.
        jpeg_quality: 0..100.
        elevation_deg: true elevation of the camera.
        visible: share of the person's pixels by part.
    """

    image: NDArray[np.uint8]
    jpeg_quality: int
    elevation_deg: float
    visible: dict[str, float]


def shoot(
    figure: Figure,
    neighbour: Figure,
    view: str,
    rng: np.random.Generator,
) -> Crop:
    moving = float(rng.choice([0.0, rng.uniform(0.3, 1.0)], p=[0.3, 0.7]))
    posed = figure.posed(rng.uniform(0, 2 * np.pi), moving, rng.uniform(0, 2 * np.pi), (0.0, 0.0))
    people = [posed]
    elevation = rng.uniform(*ELEVATION_DEG[view])
    camera, elevation = _camera(elevation, float(posed.vertices[:, 2].max()), rng)
    if rng.random() < NEIGHBOUR_SHARE:
        people.append(_beside(neighbour, camera, rng))
    # People as a detector finds them: mostly small, rarely large; log-uniform in size.
    size_px = float(np.exp(rng.uniform(np.log(26), np.log(200))))
    x_px, y_px = _window(camera, posed, int(np.clip(2 * size_px**2, *RENDER_PX)), rng)
    linear, person, part = Stage(people, sample_place(rng)).render(camera, x_px, y_px)
    if rng.random() < OCCLUDED_SHARE:
        _occlude(linear, person, rng)
    visible = visible_parts(person, part, 0)
    height = max(12, round(size_px * min(1.0, len(y_px) / len(x_px))))
    image = record(linear, height, rng)
    return Crop(image, int(rng.integers(35, 96)), elevation, visible)


def _camera(elevation_deg: float, height_m: float, rng: np.random.Generator) -> tuple[Camera, float]:
    target = np.array([0, 0, 0.52 * height_m], np.float32)
    distance = float(np.exp(rng.uniform(np.log(4.0), np.log(45.0))))
    elevation, azimuth = np.deg2rad(elevation_deg), rng.uniform(0, 2 * np.pi)
    position = target + distance * np.array(
        [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)]
    )
    position[2] = max(position[2], 0.4)  # no camera below the ground
    # Near the nadir a person may lie any way in the picture; else nearly upright.
    roll = rng.normal(0, 4 if elevation_deg < 30 else 9) if elevation_deg < 72 else rng.uniform(-50, 50)
    return look_at(position, target, float(roll), 1000.0, (0.0, 0.0)), elevation_of(position, target)


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
    """A post, a rail or a bush in front, of one noisy colour."""
    height, width = person.shape
    if rng.random() < 0.5:
        x = int(rng.integers(0, width))
        area: tuple[slice, slice] = np.s_[:, x : x + max(1, int(width * rng.uniform(0.05, 0.2)))]
    else:
        area = np.s_[int(height * rng.uniform(0.6, 0.9)) :, :]
    shape = person[area].shape
    linear[area] = rng.uniform(0.02, 0.6) * rng.uniform(0.7, 1.3, 3) * rng.uniform(0.8, 1.2, (*shape, 1))
    person[area] = -1

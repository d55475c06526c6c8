"""`tagclip synth scene`: a video of people who walk under a fixed camera, with the truth beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.errors import ConfigError, OutputError
from tagclip.runtime.files import write_atomic
from tagclip.runtime.mp4 import mp4_atomic
from tagclip.train.synth.appearance import sample_appearance, to_json
from tagclip.train.synth.body import Array
from tagclip.train.synth.camera import Camera, elevation_of, look_at
from tagclip.train.synth.captions import captions
from tagclip.train.synth.figure import Figure, Posed
from tagclip.train.synth.picture import Stage, empty_picture, visible_parts
from tagclip.train.synth.places import Place, sample_place, smooth, to_srgb

FIELD_OF_VIEW_DEG = 50.0  # horizontal
RAYS_PER_SIDE = 2  # of a pixel: edges of people are smooth
STRIDE_PER_LEG = 0.85  # a step with a thigh swing of 1 rad, in leg lengths; keeps feet from sliding
LEG_M = 0.85
NEAREST_M = 0.3  # before the camera, for a point to be projected
LEAST_IN_FRAME = 0.3  # of a person's box, for it to be truth
LEAST_PIXELS = 12  # of a person that must show
NOISE = 0.007  # of the sensor, in sRGB 0..1
MIDDLE_GREY = 0.42  # sRGB 0..1 to which the median of the empty scene is exposed


@dataclass(frozen=True)
class Walker:
    """Who walks where: in a straight line at a steady speed, in the middle of the way at `middle_s`.

    Attributes:
        middle: (2,) world x and y in metres; velocity: (2,) metres a second.
        phase: of the gait at time 0, radians.
    """

    figure: Figure
    middle: Array
    velocity: Array
    middle_s: float
    phase: float

    def at(self, time_s: float) -> Posed:
        """The person at a time."""
        gone = time_s - self.middle_s
        place = self.middle + gone * self.velocity
        speed = float(np.hypot(*self.velocity))
        # Two steps a cycle; a figure at yaw 0 faces -y.
        cycle_m = 4 * STRIDE_PER_LEG * LEG_M * np.sin(self.figure.gait.stride)
        phase = self.phase + 2 * np.pi * speed * gone / cycle_m
        yaw = float(np.arctan2(self.velocity[0], -self.velocity[1]))
        return self.figure.posed(float(phase), 1.0, yaw, (float(place[0]), float(place[1])))


def parse_size(text: str) -> tuple[int, int]:
    """Width and height in pixels of "640x360".

    Raises:
        ConfigError: not of this form, odd, or outside of 64 to 4096.
    """
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text.strip().lower())
    sizes = [int(value) for value in found.groups()] if found else []
    if not sizes or any(value % 2 or not 64 <= value <= 4096 for value in sizes):
        raise ConfigError(f"--size must be two even numbers of 64 to 4096 such as 640x360, found {text!r}")
    return sizes[0], sizes[1]


def pole_camera(altitude_m: float, pitch_deg: float, width_px: int, height_px: int) -> Camera:
    """A level camera at (0, 0, altitude_m) that looks along +y, `pitch_deg` below the horizon."""
    focal_px = width_px / 2 / np.tan(np.deg2rad(FIELD_OF_VIEW_DEG / 2))
    pitch = np.deg2rad(pitch_deg)
    position = np.array([0, 0, altitude_m], np.float32)
    ahead = np.array([0, np.cos(pitch), -np.sin(pitch)], np.float32)
    centre = ((width_px - 1) / 2, (height_px - 1) / 2)
    return look_at(position, position + ahead, 0.0, float(focal_px), centre)


def lanes(
    camera: Camera, width_px: int, height_px: int, people: int, rng: np.random.Generator
) -> list[Array]:
    """Where each person is in the middle of the way: (2,) world points, a lane each, spread over the depth."""
    half_px = (height_px - 1) / 2 * np.array([0.9, -0.62])  # rows of the nearest and the farthest feet
    pitch = np.arcsin(-camera.axes[2, 2])
    down = np.maximum(pitch + np.arctan(half_px / camera.focal_px), np.deg2rad(4.0))
    near_m, far_m = camera.position[2] / np.tan(down)
    edges = np.linspace(near_m, far_m, people + 1)
    found = []
    for k in rng.permutation(people):
        depth = rng.uniform(0.75 * edges[k] + 0.25 * edges[k + 1], 0.25 * edges[k] + 0.75 * edges[k + 1])
        reach = np.hypot(depth, camera.position[2]) * width_px / 2 / camera.focal_px
        found.append(np.array([rng.uniform(-0.35, 0.35) * reach, depth], np.float32))
    return found


def sample_walkers(
    camera: Camera, width_px: int, height_px: int, people: int, seconds: float, rng: np.random.Generator
) -> list[Walker]:
    """People who cross the picture, each in the middle of it at some time of the video."""
    walkers = []
    for k, middle in enumerate(lanes(camera, width_px, height_px, people, rng)):
        speed, heading = rng.uniform(0.9, 1.6), rng.normal(0, 0.15) + np.pi * (rng.random() < 0.5)
        velocity = speed * np.array([np.cos(heading), np.sin(heading)], np.float32)
        middle_s = seconds * (0.15 + 0.7 * (k + rng.random()) / people)
        figure = Figure(sample_appearance(rng), rng)
        walkers.append(Walker(figure, middle, velocity, float(middle_s), float(rng.uniform(0, 2 * np.pi))))
    return walkers


class Filming:
    """A camera over a place: gives the frame of one or more posed people."""

    def __init__(self, camera: Camera, place: Place, width_px: int, height_px: int):
        self.camera, self.place = camera, place
        self.width_px, self.height_px = width_px, height_px
        side = RAYS_PER_SIDE
        self._x = ((np.arange(width_px * side) + 0.5) / side - 0.5).astype(np.float32)
        self._y = ((np.arange(height_px * side) + 0.5) / side - 0.5).astype(np.float32)
        self._empty = self._shrunk(empty_picture(place, camera, self._x, self._y))
        middle = float(np.median(to_srgb(self._empty)))
        self._gain = np.float32((MIDDLE_GREY / max(middle, 0.02)) ** 2.2)

    def _shrunk(self, linear: Array) -> Array:
        size = (linear.shape[1] // RAYS_PER_SIDE, linear.shape[0] // RAYS_PER_SIDE)
        return cv2.resize(linear, size, interpolation=cv2.INTER_AREA).astype(np.float32)

    def window(self, posed: Posed) -> tuple[int, int, int, int] | None:
        """Pixels (left, top, right, bottom) that a person and the shadow may change; None when out of the picture."""
        points = posed.vertices
        if self.place.sun_strength:
            sun = self.place.sun
            points = np.concatenate([points, points - points[:, 2:] / sun[2] * sun])
        points = points[self.camera.depth(points) > NEAREST_M]
        if not len(points):
            return None
        at = self.camera.project(points)
        low = np.maximum(np.floor(at.min(0)) - 1, 0).astype(int)
        high = np.minimum(np.ceil(at.max(0)) + 2, (self.width_px, self.height_px)).astype(int)
        return (low[0], low[1], high[0], high[1]) if (high > low).all() else None

    def frame(
        self, people: list[Posed], rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
        """What the camera records.

        Returns:
            RGB uint8 (H, W, 3); person (H, W) index into `people`, -1 for none; part (H, W) index into PARTS or -1.
        """
        linear = self._empty.copy()
        person = np.full((self.height_px, self.width_px), -1, np.int64)
        part = np.full_like(person, -1)
        stage = Stage(people, self.place)
        for posed in people:
            window = self.window(posed)
            if window is None:
                continue
            left, top, right, bottom = window
            x = self._x[left * RAYS_PER_SIDE : right * RAYS_PER_SIDE]
            y = self._y[top * RAYS_PER_SIDE : bottom * RAYS_PER_SIDE]
            seen, who, what = stage.render(self.camera, x, y)
            linear[top:bottom, left:right] = self._shrunk(seen)
            thin = np.s_[::RAYS_PER_SIDE, ::RAYS_PER_SIDE]
            person[top:bottom, left:right], part[top:bottom, left:right] = who[thin], what[thin]
        srgb = to_srgb(smooth(linear, 0.5) * self._gain)
        srgb += rng.normal(0, NOISE, srgb.shape).astype(np.float32)
        return (np.clip(srgb, 0, 1) * 255 + 0.5).astype(np.uint8), person, part

    def box(self, posed: Posed) -> tuple[float, float, float, float] | None:
        """Box x, y, w, h in pixels of a person's part inside the picture; None when too little of it is."""
        if (self.camera.depth(posed.vertices) < NEAREST_M).any():
            return None
        at = self.camera.project(posed.vertices) + 0.5  # from pixel centres to edges
        low, high = at.min(0), at.max(0)
        inside_low, inside_high = np.maximum(low, 0), np.minimum(high, (self.width_px, self.height_px))
        size = inside_high - inside_low
        if (size <= 0).any() or size.prod() < LEAST_IN_FRAME * (high - low).prod():
            return None
        x, y, w, h = (round(float(v), 1) for v in (*inside_low, *size))
        return x, y, w, h


def write_scene(
    out: Path,
    *,
    people: int,
    seconds: float,
    fps: int,
    altitude_m: float,
    pitch_deg: float,
    width_px: int,
    height_px: int,
    seed: int,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Make `out` (.mp4) and the truth beside it (.json).

    Args:
        altitude_m: of the camera over the ground.
        pitch_deg: below the horizon.
        tick: called with (frames done, all frames).

    Returns:
        frames, people, and the path of the truth: {"fps", "width_px", "height_px", "camera", "people": [{"id",
        "captions", "attributes"}], "frames": [{"frame", "time_s", "people": [{"id", "box_xywh_px"}]}]}.

    Raises:
        OutputError: a file is there already, or cannot be written; nothing is left behind.
    """
    truth_path = out.with_suffix(".json")
    if out.suffix.lower() != ".mp4":
        raise OutputError(f"{out}: expected a name that ends in .mp4")
    for path in (out, truth_path):
        if path.exists():
            raise OutputError(f"{path} exists; remove it or choose another name")
    if not out.parent.is_dir():
        raise OutputError(f"{out.parent} is no folder; make it first")
    rng = np.random.default_rng([seed, 1])
    camera = pole_camera(altitude_m, pitch_deg, width_px, height_px)
    place = sample_place(rng)
    walkers = sample_walkers(camera, width_px, height_px, people, seconds, rng)
    filming = Filming(camera, place, width_px, height_px)
    best: dict[int, tuple[int, dict[str, float], float]] = {}  # id -> most pixels, parts then, elevation then
    frames: list[dict[str, Any]] = []
    total = max(1, round(seconds * fps))
    with mp4_atomic(out, fps, (width_px, height_px)) as write:
        for number in range(total):
            time_s = number / fps
            present = [walker.at(time_s) for walker in walkers]
            image, person, part = filming.frame(present, np.random.default_rng([seed, 2, number]))
            rows = []
            for k, posed in enumerate(present):
                box, pixels = filming.box(posed), int((person == k).sum())
                if box is None or pixels < LEAST_PIXELS:
                    continue
                rows.append({"id": k + 1, "box_xywh_px": box})
                if pixels > best.get(k, (0,))[0]:
                    elevation = elevation_of(camera.position, posed.vertices.mean(0))
                    best[k] = (pixels, visible_parts(person, part, k), elevation)
            frames.append({"frame": number, "time_s": round(time_s, 3), "people": rows})
            write(image[..., ::-1].copy())
            tick(number + 1, total)
    truth = {
        "fps": fps,
        "width_px": width_px,
        "height_px": height_px,
        "seed": seed,
        "camera": {"altitude_m": altitude_m, "pitch_deg": pitch_deg, "focal_px": camera.focal_px},
        "people": [_person(k, walkers[k], *best[k][1:], seed) for k in sorted(best)],
        "frames": frames,
    }
    try:
        write_atomic(truth_path, (json.dumps(truth, separators=(",", ":")) + "\n").encode())
    except OutputError:
        out.unlink()  # a video without its truth is no scene
        raise
    return {"frames": total, "people": len(best), "truth": str(truth_path)}


def _person(k: int, walker: Walker, visible: dict[str, float], elevation: float, seed: int) -> dict[str, Any]:
    words = np.random.default_rng([seed, 3, k])
    texts = captions(walker.figure.person, visible, elevation, words, 2, complete=True)
    return {"id": k + 1, "captions": texts, "attributes": to_json(walker.figure.person)}

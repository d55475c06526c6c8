"""The frames of a scene, and what the truth says about who is in them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, fields

import cv2
import numpy as np
from numpy.typing import NDArray

from tagclip.train.synth.body import Array
from tagclip.train.synth.camera import Camera
from tagclip.train.synth.figure import Posed
from tagclip.train.synth.picture import Stage, background
from tagclip.train.synth.places import Place, smooth, to_srgb
from tagclip.train.synth.raycast import Caster

RAYS_PER_SIDE = 2  # of a pixel: edges of people are smooth, and the ground's grain does not flicker
NEAREST_M = 0.3  # before the camera, for a point to be projected
PERSON_M = 1.7  # around a point at the height of the hips, in which a person and what is carried lie
TALLEST_M = 2.4
LEAST_IN_FRAME = 0.3  # of a person's box, for it to be truth
FADING = 4  # at 15 m the ground then flickers by 2 grey levels of 255, no more than the sensor; by 8 without
NOISE = 0.007  # of the sensor, in sRGB 0..1
MIDDLE_GREY = 0.42  # sRGB 0..1 to which the median of the empty scene is exposed


class SteadyPlace(Place):
    """A place whose ground does not flicker under a camera that moves.

    A place gives one value of its grain to a ray, however much ground the ray's pixel covers. One picture shows that as
    texture, a video from a drone as noise that is another one in every frame. So the grain fades `FADING` times sooner.
    """

    @classmethod
    def of(cls, place: Place) -> SteadyPlace:
        """The same place, steady."""
        return cls(**{field.name: getattr(place, field.name) for field in fields(place)})

    def ground_rgb(self, x_m: Array, y_m: Array, footprint_m: Array) -> Array:
        """As of any place."""
        return super().ground_rgb(x_m, y_m, FADING * footprint_m)


@dataclass(frozen=True)
class Shot:
    """One frame.

    Attributes:
        image: RGB uint8 (H, W, 3).
        person: (H, W) number of whom each pixel shows, -1 for nobody.
        part: (H, W) index into PARTS, -1 for none.
    """

    image: NDArray[np.uint8]
    person: NDArray[np.int64]
    part: NDArray[np.int64]


class Filming:
    """Pictures of one place, all of one size and with one exposure."""

    def __init__(self, place: Place, camera: Camera, width_px: int, height_px: int):
        """Expose for what `camera` sees of the empty place."""
        self.place = place
        self.width_px, self.height_px = width_px, height_px
        side = RAYS_PER_SIDE
        self._x = ((np.arange(width_px * side) + 0.5) / side - 0.5).astype(np.float32)
        self._y = ((np.arange(height_px * side) + 0.5) / side - 0.5).astype(np.float32)
        self._empty = (camera, self._without_people(camera))
        middle = float(np.median(to_srgb(self._empty[1])))
        self._gain = np.float32((MIDDLE_GREY / max(middle, 0.02)) ** 2.2)

    def _shrunk(self, linear: Array) -> Array:
        size = (linear.shape[1] // RAYS_PER_SIDE, linear.shape[0] // RAYS_PER_SIDE)
        return cv2.resize(linear, size, interpolation=cv2.INTER_AREA).astype(np.float32)

    def _without_people(self, camera: Camera) -> Array:
        """The empty place, linear (H, W, 3)."""
        rays = camera.rays(self._x, self._y).reshape(-1, 3)
        down = rays[:, 2] < -1e-4
        distance = np.where(down, -camera.position[2] / np.where(down, rays[:, 2], -1), np.inf)
        sunlit = ~self.place.shaded(camera.position, rays, distance)
        linear = background(self.place, camera, rays, distance, sunlit)
        return self._shrunk(linear.reshape(len(self._y), len(self._x), 3))

    def near(self, camera: Camera, place: Array) -> bool:
        """Whether somebody at `place` (2,) world metres, or the shadow, can be in the picture; may err towards yes."""
        around_m = PERSON_M
        if self.place.sun_strength:
            around_m += TALLEST_M * float(np.hypot(*self.place.sun[:2]) / self.place.sun[2])
        local = camera.axes @ (np.array([*place, 1.0]) - camera.position)
        # Distances to the four planes through the picture's edges, positive inside.
        halves = np.array([self.width_px, self.height_px]) / 2 / camera.focal_px
        inside = (halves * local[2] - np.abs(local[:2])) / np.hypot(1, halves)
        return bool(local[2] > -around_m and (inside > -around_m).all())

    def window(self, camera: Camera, posed: Posed) -> tuple[int, int, int, int] | None:
        """Pixels (left, top, right, bottom) that a person and the shadow may change; None when out of the picture."""
        points = posed.vertices
        if self.place.sun_strength:
            sun = self.place.sun
            points = np.concatenate([points, points - points[:, 2:] / sun[2] * sun])
        points = points[camera.depth(points) > NEAREST_M]
        if not len(points):
            return None
        at = camera.project(points)
        low = np.maximum(np.floor(at.min(0)) - 1, 0).astype(int)
        high = np.minimum(np.ceil(at.max(0)) + 2, (self.width_px, self.height_px)).astype(int)
        return (low[0], low[1], high[0], high[1]) if (high > low).all() else None

    def frame(self, camera: Camera, people: Mapping[int, Posed], rng: np.random.Generator) -> Shot:
        """What the camera records of people, by number."""
        if self._empty[0] is not camera:
            self._empty = (camera, self._without_people(camera))
        linear = self._empty[1].copy()
        person = np.full((self.height_px, self.width_px), -1, np.int64)
        part = np.full_like(person, -1)
        windows = {k: self.window(camera, posed) for k, posed in people.items()}
        present = {k: window for k, window in windows.items() if window}
        numbers = np.array([*present, -1])  # of the people on the stage; its -1 for nobody stays -1
        stages = [Stage([people[k] for k in present], self.place)] if present else []  # none to be empty
        for stage, (left, top, right, bottom) in itertools.product(stages, present.values()):
            x = self._x[left * RAYS_PER_SIDE : right * RAYS_PER_SIDE]
            y = self._y[top * RAYS_PER_SIDE : bottom * RAYS_PER_SIDE]
            seen, who, what = stage.render(camera, x, y)
            linear[top:bottom, left:right] = self._shrunk(seen)
            thin = np.s_[::RAYS_PER_SIDE, ::RAYS_PER_SIDE]
            person[top:bottom, left:right] = numbers[who[thin]]
            part[top:bottom, left:right] = what[thin]
        srgb = to_srgb(smooth(linear, 0.5) * self._gain)
        srgb += rng.normal(0, NOISE, srgb.shape).astype(np.float32)
        return Shot((np.clip(srgb, 0, 1) * 255 + 0.5).astype(np.uint8), person, part)

    def box(self, camera: Camera, posed: Posed) -> tuple[float, float, float, float] | None:
        """Box x, y, w, h in pixels of a person's part inside the picture; None when too little of it is."""
        return box_inside(camera, posed, (self.width_px, self.height_px))

    def visible(self, camera: Camera, posed: Posed, who: int, person: NDArray[np.int64]) -> float:
        """Share, 0..1, of a person that shows: of the pixels that there were alone and in an endless picture.

        Args:
            posed: who has a box.
            who: the person's number in `person` (H, W), which is `frame`'s.
        """
        low, high = extent(camera, posed)
        left, top = np.floor(low).astype(int)
        right, bottom = np.ceil(high).astype(int)
        inside = person[max(top, 0) : bottom, max(left, 0) : right]
        seen = int((inside == who).sum())
        whole = left >= 0 and top >= 0 and right <= self.width_px and bottom <= self.height_px
        if whole and ((inside == who) | (inside < 0)).all():
            return 1.0
        # The same rays that fill `person`: the first of each pixel.
        x = np.arange(left, right, dtype=np.float32) + self._x[0]
        y = np.arange(top, bottom, dtype=np.float32) + self._y[0]
        rays = camera.rays(x, y).reshape(-1, 3)
        hit = Caster(posed.vertices, posed.faces).cast(camera.position, rays, self.place.sun).face >= 0
        return min(1.0, seen / max(1, int(hit.sum())))


def box_inside(
    camera: Camera, posed: Posed, size_px: tuple[int, int]
) -> tuple[float, float, float, float] | None:
    """Box x, y, w, h of a person's part inside a picture of `size_px` (w, h); None when too little of it is."""
    if (camera.depth(posed.vertices) < NEAREST_M).any():
        return None
    low, high = extent(camera, posed)
    inside_low, inside_high = np.maximum(low, 0), np.minimum(high, size_px)
    size = inside_high - inside_low
    if (size <= 0).any() or size.prod() < LEAST_IN_FRAME * (high - low).prod():
        return None
    x, y, w, h = (round(float(v), 1) for v in (*inside_low, *size))
    return x, y, w, h


def extent(camera: Camera, posed: Posed) -> tuple[Array, Array]:
    """Low and high corner (2,) of a person in the endless picture, pixels from its left top edge."""
    at = camera.project(posed.vertices) + 0.5  # from pixel centres to edges
    return at.min(0), at.max(0)

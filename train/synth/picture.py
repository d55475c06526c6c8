"""From posed people to what a camera records: shading, then the sensor's faults."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from tagclip.train.synth.appearance import PARTS
from tagclip.train.synth.body import Array, vertex_normals
from tagclip.train.synth.camera import Camera
from tagclip.train.synth.figure import Posed
from tagclip.train.synth.places import Place, noise, smooth, to_linear, to_srgb
from tagclip.train.synth.raycast import Caster

PART_NONE = -1


class Stage:
    """Posed people at one place, ready to be looked at from anywhere."""

    def __init__(self, people: Sequence[Posed], place: Place):
        self.people = people
        self.place = place
        starts = np.cumsum([0, *(len(p.vertices) for p in people)])
        self._first_face = np.cumsum([0, *(len(p.faces) for p in people)])
        vertices = np.concatenate([p.vertices for p in people])
        faces = np.concatenate([p.faces + start for p, start in zip(people, starts[:-1], strict=True)])
        self._faces = faces.astype(np.int32)
        self._normals = vertex_normals(vertices, self._faces)
        self._caster = Caster(vertices, self._faces)

    def render(
        self, camera: Camera, x_px: Array, y_px: Array
    ) -> tuple[Array, NDArray[np.int64], NDArray[np.int64]]:
        """What the camera sees through pixel columns x_px (W,) and rows y_px (H,).

        Returns:
            linear picture (H, W, 3) float32; person (H, W) index into `people`, -1 for none; part (H, W) index into
            PARTS, -1 for none.
        """
        rays = camera.rays(x_px, y_px)
        shape = rays.shape[:2]
        rays = rays.reshape(-1, 3)
        seen = self._caster.cast(camera.position, rays, self.place.sun)
        linear = np.empty((len(rays), 3), np.float32)
        person = np.full(len(rays), -1, np.int64)
        part = np.full(len(rays), PART_NONE, np.int64)
        free = seen.face < 0
        linear[free] = background(self.place, camera, rays[free], seen.distance[free], seen.sunlit[free])
        owner = np.searchsorted(self._first_face, seen.face, side="right") - 1
        for k, posed in enumerate(self.people):
            here = np.flatnonzero((owner == k) & (seen.face >= 0))
            if not len(here):
                continue
            face = seen.face[here].astype(np.int64)
            weights = seen.weights[here]
            rgb, part[here] = posed.paint(face - self._first_face[k], weights)
            person[here] = k
            normals = np.einsum("nk,nkc->nc", weights, self._normals[self._faces[face]])
            # Cloth seen from within (an open skirt) faces the camera too.
            normals *= np.where((normals * rays[here]).sum(1) > 0, -1, 1)[:, None]
            corners = posed.faces[face - self._first_face[k]]
            at = np.einsum("nk,nkc->nc", weights, posed.rest[corners])
            # Folds: cloth is never evenly lit.
            folds = 1 + 0.09 * noise("patches", at[:, 0] * 0.9 + at[:, 1] * 0.7, at[:, 2] * 0.5)
            linear[here] = to_linear(rgb) * self.place.light(normals, seen.sunlit[here]) * folds[:, None]
        return linear.reshape(*shape, 3), person.reshape(shape), part.reshape(shape)


def background(
    place: Place, camera: Camera, rays: Array, distance: Array, sunlit: NDArray[np.bool_]
) -> Array:
    """Linear colours (n, 3) of what rays see that hit nobody: the ground, and what is behind it.

    Args:
        rays: (n, 3) unit vectors.
        distance: (n,) metres to the ground plane, inf above the horizon.
        sunlit: (n,) whether the sun reaches the ground there.
    """
    # Ground up to where it is far away; beyond, the background stands upright.
    far_m = 14.0 + 4 * camera.position[2]
    ground = distance < far_m
    out = np.empty((len(rays), 3), np.float32)
    points = camera.position + rays[ground] * distance[ground, None]
    footprint = distance[ground] / camera.focal_px / np.maximum(-rays[ground, 2], 0.05)
    rgb = place.ground_rgb(points[:, 0], points[:, 1], footprint)
    up = np.tile(np.array([0, 0, 1], np.float32), (int(ground.sum()), 1))
    out[ground] = to_linear(rgb) * place.light(up, sunlit[ground])
    behind = rays[~ground]
    azimuth = np.arctan2(behind[:, 1], behind[:, 0])
    horizon = -camera.position[2] / far_m
    out[~ground] = to_linear(place.far_rgb(azimuth, np.maximum(behind[:, 2] - horizon, 0)))
    return out


def empty_picture(place: Place, camera: Camera, x_px: Array, y_px: Array) -> Array:
    """Linear picture (H, W, 3) of a place without people, through pixel columns x_px (W,) and rows y_px (H,)."""
    rays = camera.rays(x_px, y_px).reshape(-1, 3)
    down = rays[:, 2] < -1e-4
    distance = np.where(down, -camera.position[2] / np.where(down, rays[:, 2], -1), np.inf)
    lit = np.ones(len(rays), bool)
    return background(place, camera, rays, distance, lit).reshape(len(y_px), len(x_px), 3)


def visible_parts(person: NDArray[np.int64], part: NDArray[np.int64], who: int) -> dict[str, float]:
    """Share (0..1) of each visible part in the pixels of person `who`."""
    own = part[person == who]
    counts = np.bincount(own, minlength=len(PARTS))
    return {name: float(counts[k] / max(1, len(own))) for k, name in enumerate(PARTS) if counts[k]}


def record(linear: Array, height_px: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """What a sensor makes of a linear picture (H, W, 3): a small RGB uint8 image (height_px, w, 3).

    Exposure, white balance, blur and motion, scaling down, noise, tone and JPEG, each drawn at random.
    """
    gain = np.float32(np.exp(rng.normal(0.1, 0.3)))
    balance = np.exp(rng.normal(0, 0.05, 3) + rng.normal(0, 0.06) * np.array([1, 0, -1])).astype(np.float32)
    picture = linear * gain * balance
    width_px = max(6, round(height_px * linear.shape[1] / linear.shape[0]))
    scale = linear.shape[0] / height_px
    picture = smooth(picture, scale * float(rng.choice([0.0, rng.uniform(0.3, 1.0)], p=[0.4, 0.6])))
    if rng.random() < 0.2:
        picture = _motion(picture, scale * rng.uniform(1, 4), rng.uniform(0, np.pi))
    small: Array = cv2.resize(picture, (width_px, height_px), interpolation=cv2.INTER_AREA)
    srgb = to_srgb(small)
    # A veil of haze lifts the blacks; a strong tone curve deepens them.
    srgb = srgb + rng.uniform(0, 0.1) * (1 - srgb) * (rng.random() < 0.3)
    srgb = srgb + rng.uniform(-0.25, 0.45) * (srgb - srgb * srgb) * (srgb - 0.5)
    grey = srgb.mean(-1, keepdims=True)
    srgb = grey + (srgb - grey) * np.float32(rng.uniform(0.75, 1.3))
    srgb = srgb + rng.normal(0, 1, srgb.shape) * rng.uniform(0, 0.03)
    if rng.random() < 0.2:  # over-sharpened by the camera
        srgb = srgb + 0.7 * (srgb - smooth(srgb.astype(np.float32), 1.0))
    image = (np.clip(srgb, 0, 1) * 255).astype(np.uint8)
    return image


def _motion(picture: Array, length_px: float, angle: float) -> Array:
    size = int(length_px) | 1
    if size < 3:
        return picture
    kernel = np.zeros((size, size), np.float32)
    middle = size // 2
    dx, dy = np.cos(angle) * middle, np.sin(angle) * middle
    cv2.line(kernel, (round(middle - dx), round(middle - dy)), (round(middle + dx), round(middle + dy)), 1.0)
    return cv2.filter2D(picture, -1, kernel / kernel.sum()).astype(np.float32)

"""The light that reaches a camera from posed people, things and the ground."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tagclip.train.synth.appearance import PARTS
from tagclip.train.synth.body import Array, vertex_normals
from tagclip.train.synth.camera import Camera
from tagclip.train.synth.figure import Posed
from tagclip.train.synth.places import Place, noise, to_linear
from tagclip.train.synth.props import Prop
from tagclip.train.synth.raycast import Caster

PART_NONE = -1
WRINKLES = 0.12  # of a unit normal
FOLDS = 0.1  # of the light


class Stage:
    """Posed people and things at one place, ready to be looked at from anywhere."""

    def __init__(self, people: Sequence[Posed], place: Place, props: Sequence[Prop] = ()):
        self.people = people
        self.place = place
        self.props = props
        meshes = [*((p.vertices, p.faces) for p in people), *((p.mesh.vertices, p.mesh.faces) for p in props)]
        starts = np.cumsum([0, *(len(vertices) for vertices, _ in meshes)])
        self._first_face = np.cumsum([0, *(len(faces) for _, faces in meshes)])
        vertices = np.concatenate([v for v, _ in meshes]).astype(np.float32)
        faces = np.concatenate([f + start for (_, f), start in zip(meshes, starts[:-1], strict=True)])
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
        sunlit = seen.sunlit & ~self.place.shaded(camera.position, rays, seen.distance)
        linear = np.empty((len(rays), 3), np.float32)
        person = np.full(len(rays), -1, np.int64)
        part = np.full(len(rays), PART_NONE, np.int64)
        free = seen.face < 0
        linear[free] = background(self.place, camera, rays[free], seen.distance[free], sunlit[free])
        owner = np.searchsorted(self._first_face, seen.face, side="right") - 1
        for k, posed in enumerate(self.people):
            here = np.flatnonzero((owner == k) & (seen.face >= 0))
            if not len(here):
                continue
            face = seen.face[here].astype(np.int64)
            weights = seen.weights[here]
            own = face - self._first_face[k]
            rgb, part[here] = posed.paint(own, weights)
            person[here] = k
            at = np.einsum("nk,nkc->nc", weights, posed.rest[posed.faces[own]])
            # Cloth is never smooth nor evenly lit: wrinkles turn the normals, folds change the brightness.
            u, v = at[:, 0] * 0.9 + at[:, 1] * 0.7, at[:, 2] * 0.5
            normals = self._facing(rays[here], face, weights)
            for axis in range(3):
                normals[:, axis] += WRINKLES * noise("patches", 3 * u + 0.37 * axis, 3 * v + 0.21 * axis)
            normals /= np.linalg.norm(normals, axis=1, keepdims=True)
            light = self.place.light(normals, sunlit[here])
            linear[here] = to_linear(rgb) * light * (1 + FOLDS * noise("patches", u, v))[:, None]
        for k, prop in enumerate(self.props, len(self.people)):
            here = np.flatnonzero((owner == k) & (seen.face >= 0))
            points = camera.position + rays[here] * seen.distance[here, None]
            grain = 1 + prop.grain * noise(
                "patches", points[:, 0] + points[:, 2], points[:, 1] + 0.7 * points[:, 2]
            )
            normals = self._facing(rays[here], seen.face[here].astype(np.int64), seen.weights[here])
            linear[here] = (
                to_linear(prop.rgb)
                * self.place.light(normals, sunlit[here])
                * np.maximum(grain, 0.1)[:, None]
            )
        return linear.reshape(*shape, 3), person.reshape(shape), part.reshape(shape)

    def _facing(self, rays: Array, face: NDArray[np.int64], weights: Array) -> Array:
        """Smooth normals (n, 3) at points on triangles; what is seen from within (an open skirt) faces us."""
        normals: Array = np.einsum("nk,nkc->nc", weights, self._normals[self._faces[face]])
        normals *= np.where((normals * rays).sum(1) > 0, -1, 1)[:, None]
        return normals


def ground_reach_m(altitude_m: float) -> float:
    """Metres from the camera within which there is ground; farther away the background stands upright."""
    return 14.0 + 4 * altitude_m


def background(
    place: Place, camera: Camera, rays: Array, distance: Array, sunlit: NDArray[np.bool_]
) -> Array:
    """Linear colours (n, 3) of what rays see that hit nobody: the ground, and what is behind it.

    Args:
        rays: (n, 3) unit vectors.
        distance: (n,) metres to the ground plane, inf above the horizon.
        sunlit: (n,) whether the sun reaches the ground there.
    """
    far_m = ground_reach_m(camera.position[2])
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


def visible_parts(person: NDArray[np.int64], part: NDArray[np.int64], who: int) -> dict[str, float]:
    """Share (0..1) of each visible part in the pixels of person `who`."""
    own = part[person == who]
    counts = np.bincount(own, minlength=len(PARTS))
    return {name: float(counts[k] / max(1, len(own))) for k, name in enumerate(PARTS) if counts[k]}

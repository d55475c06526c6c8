"""Small closed and open meshes that clothes and bags are made of; metres, (n, 3) vertices and (m, 3) triangles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tagclip.train.synth.body import Array

Faces = NDArray[np.int32]


@dataclass(frozen=True)
class Mesh:
    """vertices (n, 3) float32 in metres, faces (m, 3) int32."""

    vertices: Array
    faces: Faces

    def moved(self, transform: Array) -> Mesh:
        """The mesh under a (4, 4) transform."""
        return Mesh(self.vertices @ transform[:3, :3].T + transform[:3, 3], self.faces)


def grid_faces(rows: int, columns: int, wrap: bool) -> Faces:
    """Triangles of a (rows, columns) grid of vertices; `wrap` joins the last column to the first."""
    last = columns if wrap else columns - 1
    row, column = np.meshgrid(np.arange(rows - 1), np.arange(last), indexing="ij")
    right = (column + 1) % columns
    a, b = row * columns + column, row * columns + right
    c, d = a + columns, b + columns
    return np.concatenate(
        [np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)]
    ).astype(np.int32)


def rings(centres: Array, radii: Array, angles: Array, *, wrap: bool) -> Mesh:
    """A tube of rings in planes of constant height.

    Args:
        centres: (R, 3) middle of each ring.
        radii: (R, A, 2) or broadcastable: half-width along x and along y at each angle.
        angles: (A,) radians; 0 points to +y (the back), pi/2 to +x (the left).
        wrap: close each ring.
    """
    direction = np.stack([np.sin(angles), np.cos(angles)], -1)
    flat = np.broadcast_to(radii, (len(centres), len(angles), 2)) * direction
    vertices = np.repeat(centres[:, None], len(angles), 1).astype(np.float32)
    vertices[:, :, :2] += flat
    return Mesh(vertices.reshape(-1, 3), grid_faces(len(centres), len(angles), wrap))


def rounded_box(centre: Array, half: tuple[float, float, float], power: float = 0.35) -> Mesh:
    """A superellipsoid: `power` 1 is an ellipsoid, towards 0 a box; `half` are its half sizes in x, y, z."""
    latitude = np.linspace(-np.pi / 2, np.pi / 2, 9)
    longitude = np.linspace(-np.pi, np.pi, 17)[:-1]

    def bend(value: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.sign(value) * np.abs(value) ** power

    ring = bend(np.cos(latitude))[:, None]
    x = ring * bend(np.cos(longitude))[None]
    y = ring * bend(np.sin(longitude))[None]
    z = np.broadcast_to(bend(np.sin(latitude))[:, None], x.shape)
    vertices = np.stack([x, y, z], -1).reshape(-1, 3) * np.asarray(half) + centre
    return Mesh(vertices.astype(np.float32), grid_faces(len(latitude), len(longitude), True))


def skirt(body: Array, centre_xy: Array, z_top: float, z_hem: float, ease: float, flare: float) -> Mesh:
    """Cloth that hangs round hips and legs, open at top and bottom.

    Each ring follows the support function of the body's horizontal slice, so it spans the gap between the legs
    and moves with a stride; it never narrows downwards.

    Args:
        body: (n, 3) posed vertices of hips and legs.
        centre_xy: (2,) middle of the hips.
        ease: gap between body and cloth, metres.
        flare: growth of the radius per metre downwards.
    """
    angles = np.linspace(0, 2 * np.pi, 29)[:-1]
    direction = np.stack([np.sin(angles), np.cos(angles)])
    heights = np.linspace(z_top, z_hem, 12)
    around = (body[:, :2] - centre_xy) @ direction  # (n, A) reach of every vertex in every direction
    radius = np.zeros(len(angles))
    rows = []
    for k, z in enumerate(heights):
        near = np.abs(body[:, 2] - z) < 0.05
        reach = around[near].max(0) if near.any() else radius
        grown = radius * (0.985 if k > 2 else 0.0)
        radius = np.maximum(reach + ease + flare * (z_top - z), grown)
        rows.append(radius)
    centres = np.stack([np.full(12, centre_xy[0]), np.full(12, centre_xy[1]), heights], -1)
    return rings(centres.astype(np.float32), np.array(rows)[:, :, None], angles, wrap=True)

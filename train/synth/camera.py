"""A pinhole camera that looks at a place from an elevation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tagclip.train.synth.body import Array


@dataclass(frozen=True)
class Camera:
    """Pinhole camera.

    Attributes:
        position: (3,) metres.
        axes: (3, 3) rows: right, down and forward as unit vectors in the world.
        focal_px: focal length in pixels.
        centre_px: (x, y) of the principal point in pixels.
    """

    position: Array
    axes: Array
    focal_px: float
    centre_px: tuple[float, float]

    def project(self, points: Array) -> Array:
        """Pixels (n, 2) x, y of world points (n, 3) in front of the camera."""
        local = (points - self.position) @ self.axes.T
        return local[:, :2] / local[:, 2:] * self.focal_px + np.asarray(self.centre_px)

    def depth(self, points: Array) -> Array:
        """Metres (n,) along the view of world points (n, 3); below 0 behind the camera."""
        return (points - self.position) @ self.axes[2]

    def rays(self, x_px: Array, y_px: Array) -> Array:
        """Unit vectors (H, W, 3) through the pixel columns x_px (W,) and rows y_px (H,)."""
        x, y = np.meshgrid(x_px - self.centre_px[0], y_px - self.centre_px[1])
        local = np.stack([x, y, np.full_like(x, self.focal_px)], -1)
        world = local @ self.axes
        return (world / np.linalg.norm(world, axis=-1, keepdims=True)).astype(np.float32)


def elevation_of(position: Array, target: Array) -> float:
    """Degrees of elevation of a camera at `position` (3,) over `target` (3,): 0 from the side, 90 straight above."""
    offset = position - target
    return float(np.rad2deg(np.arctan2(offset[2], np.hypot(offset[0], offset[1]))))


def look_at(
    position: Array,
    target: Array,
    roll_deg: float,
    focal_px: float,
    centre_px: tuple[float, float],
    up: tuple[float, float, float] = (0.0, 0.0, 1.0),
) -> Camera:
    """A camera at `position` (3,) that sees `target` (3,) at its principal point, turned by `roll_deg`.

    Args:
        up: world direction that points up in the picture; only its part across the view counts.
    """
    forward = (target - position) / np.linalg.norm(target - position)
    right = np.cross(forward, np.asarray(up))
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    angle = np.deg2rad(roll_deg)
    axes = np.stack(
        [np.cos(angle) * right + np.sin(angle) * down, np.cos(angle) * down - np.sin(angle) * right, forward]
    )
    return Camera(position.astype(np.float32), axes.astype(np.float32), focal_px, centre_px)

"""Where people stand: ground, what is behind it, sun and sky."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from statistics import NormalDist

import cv2
import numpy as np
from numpy.typing import NDArray

from tagclip.train.synth.body import Array

NOISE_PX = 512

# Ground covers: mean sRGB, strength of the fine grain, strength of the large patches.
GROUNDS = {
    "asphalt": ((105, 107, 110), 0.10, 0.12),
    "concrete": ((165, 163, 157), 0.07, 0.10),
    "grass": ((82, 105, 52), 0.22, 0.25),
    "dry grass": ((142, 132, 88), 0.20, 0.25),
    "sand": ((196, 176, 138), 0.08, 0.12),
    "snow": ((228, 232, 238), 0.04, 0.06),
    "soil": ((110, 86, 64), 0.18, 0.22),
    "gravel": ((150, 142, 130), 0.26, 0.10),
    "leaves": ((120, 88, 52), 0.30, 0.20),
    "deck": ((140, 110, 82), 0.08, 0.10),
    "red paving": ((150, 100, 84), 0.10, 0.10),
    "grey paving": ((140, 140, 138), 0.09, 0.10),
}
PAVED = ("concrete", "red paving", "grey paving")


@functools.cache
def _noise(kind: str) -> Array:
    """Tileable noise (512, 512), mean 0, deviation 1: "fine" is nearly white, "patches" has all scales."""
    rng = np.random.default_rng(7 if kind == "fine" else 8)
    spectrum = np.fft.rfft2(rng.standard_normal((NOISE_PX, NOISE_PX)))
    frequency = np.hypot(
        np.fft.fftfreq(NOISE_PX)[:, None] * NOISE_PX, np.fft.rfftfreq(NOISE_PX)[None] * NOISE_PX
    )
    spectrum *= 1 / np.maximum(frequency, 1) ** (0.4 if kind == "fine" else 1.3)
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, (NOISE_PX, NOISE_PX))
    return (field / field.std()).astype(np.float32)


def noise(kind: str, u: Array, v: Array) -> Array:
    """Values of the tileable noise at coordinates u, v in tiles (any shape)."""
    table = _noise(kind)
    return table[(v * NOISE_PX).astype(np.int64) % NOISE_PX, (u * NOISE_PX).astype(np.int64) % NOISE_PX]


@dataclass(frozen=True)
class Place:
    """Ground, background and light of one picture.

    Attributes:
        ground: name in GROUNDS; tint (3,) multiplies it.
        tiles_m: edge of paving slabs, 0 for none.
        line_m: offset of painted lines from the origin, nan for none; line_yaw their direction in radians.
        line_every_m, line_half_m: distance of one line to the next, and half of its width.
        far: colours (3, 3) sRGB 0..1 of what stands behind: low, middle, high.
        far_grain: contrast of it.
        sun: (3,) unit vector towards the sun; sun_strength 0 (overcast) to 1.
        sky: (3,) tint of the light from the sky.
        shift: (2,) places the noise.
        shade: share of the ground, 0..1, that lies in the shadow of what is not in the picture: trees, houses.
        shade_m: size of those shadows, metres.
    """

    ground: str
    tint: Array
    tiles_m: float
    line_m: float
    line_yaw: float
    far: Array
    far_grain: float
    sun: Array
    sun_strength: float
    sky: Array
    shift: Array
    line_every_m: float = 5.0
    line_half_m: float = 0.12
    shade: float = 0.0
    shade_m: float = 10.0

    def ground_rgb(self, x_m: Array, y_m: Array, footprint_m: Array) -> Array:
        """Ground colour (n, 3) sRGB at world points; `footprint_m` (n,) is what one pixel covers, which fades grain."""
        mean, fine, patches = GROUNDS[self.ground]
        u, v = x_m + self.shift[0], y_m + self.shift[1]
        sharp = np.clip(0.04 / np.maximum(footprint_m, 1e-6), 0, 1)
        value = (
            1 + fine * sharp * noise("fine", u / 4, v / 4) + patches * 0.6 * noise("patches", u / 23, v / 23)
        )
        if self.tiles_m:
            edge = np.minimum((u / self.tiles_m) % 1, (v / self.tiles_m) % 1) * self.tiles_m
            value = value * np.where(edge < 0.012, 1 - 0.25 * np.clip(0.03 / footprint_m, 0, 1), 1)
        rgb = value[:, None] * np.asarray(mean, np.float32) / 255 * self.tint
        if not np.isnan(self.line_m):
            across = u * np.cos(self.line_yaw) + v * np.sin(self.line_yaw) - self.line_m
            rgb[across % self.line_every_m < 2 * self.line_half_m] = (0.85, 0.85, 0.8)
        return np.clip(rgb, 0, 1).astype(np.float32)

    def far_rgb(self, azimuth: Array, height: Array) -> Array:
        """Colour (n, 3) sRGB of what is behind: walls, trees, sky.

        Args:
            azimuth: (n,) radians.
            height: (n,) 0 where the background begins, growing upwards.
        """
        h = np.clip(height * 3, 0, 2)
        rgb = np.stack([np.interp(h, [0, 1, 2], self.far[:, c]) for c in range(3)], -1)
        blocks = noise("patches", np.floor(azimuth * 25) / 40, np.floor(height * 40) / 90)
        grain = noise("patches", azimuth * 1.5 + self.shift[0], height * 1.5 + self.shift[1])
        value = 1 + self.far_grain * (0.6 * blocks + grain)
        return np.clip(rgb * value[:, None], 0, 1).astype(np.float32)

    def shaded(self, origin: Array, rays: Array, distance: Array) -> NDArray[np.bool_]:
        """Whether something outside of the picture keeps the sun from where rays (n, 3) end after `distance` (n,) m."""
        if not self.shade or not self.sun_strength:
            return np.zeros(len(rays), bool)
        points = origin + rays * np.where(np.isfinite(distance), distance, 0)[:, None]
        # Followed towards the sun up to the height of the leaves and roofs.
        at = points[:, :2] + (6.0 - points[:, 2:]) * self.sun[:2] / self.sun[2] + self.shift
        cover = noise("patches", at[:, 0] / self.shade_m / 6, at[:, 1] / self.shade_m / 6)
        return cover < NormalDist().inv_cdf(self.shade)

    def light(self, normals: Array, sunlit: NDArray[np.bool_]) -> Array:
        """Light (n, 3), linear, on surfaces with normals (n, 3)."""
        sky = (0.62 + 0.38 * normals[:, 2])[:, None] * self.sky
        direct = np.clip(normals @ self.sun, 0, 1) * sunlit
        return ((0.95 - 0.45 * self.sun_strength) * sky + 0.95 * self.sun_strength * direct[:, None]).astype(
            np.float32
        )


def sample_place(rng: np.random.Generator) -> Place:
    """A random place."""
    ground = str(
        rng.choice(list(GROUNDS), p=[0.21, 0.11, 0.17, 0.08, 0.07, 0.06, 0.07, 0.05, 0.09, 0.04, 0.03, 0.02])
    )
    height, azimuth = rng.uniform(0.3, 1.4), rng.uniform(0, 2 * np.pi)
    sun = np.array(
        [np.cos(height) * np.cos(azimuth), np.cos(height) * np.sin(azimuth), np.sin(height)], np.float32
    )
    crossing = rng.random() < 0.2  # stripes for those who walk
    return Place(
        ground=ground,
        tint=(rng.uniform(0.65, 1.25) * rng.uniform(0.92, 1.08, 3)).astype(np.float32),
        tiles_m=float(rng.uniform(0.3, 1.2)) if ground in PAVED and rng.random() < 0.6 else 0.0,
        line_m=float(rng.uniform(-2, 2)) if rng.random() < 0.2 and ground != "snow" else float("nan"),
        line_yaw=float(rng.uniform(0, np.pi)),
        far=(rng.uniform(0.12, 0.9, (3, 1)) * rng.uniform(0.8, 1.2, (3, 3))).clip(0, 1).astype(np.float32),
        far_grain=float(rng.uniform(0.05, 0.4)),
        sun=sun,
        # Half of all days are overcast or nearly so; then shadows are weak or absent.
        sun_strength=float(rng.choice([0.0, rng.uniform(0, 0.4), rng.uniform(0.4, 0.9)], p=[0.3, 0.3, 0.4])),
        sky=np.clip(1 + rng.normal(0, 0.04, 3) + rng.normal(0, 0.05) * np.array([-1, 0, 1]), 0.8, 1.2).astype(
            np.float32
        ),
        shift=rng.uniform(0, 100, 2).astype(np.float32),
        line_every_m=1.0 if crossing else float(rng.choice([5.0, rng.uniform(2.5, 8.0)])),
        line_half_m=0.25 if crossing else float(rng.uniform(0.05, 0.1)),
        shade=float(rng.uniform(0.2, 0.9)) if rng.random() < 0.35 else 0.0,
        shade_m=float(np.exp(rng.uniform(np.log(1.0), np.log(20.0)))),
    )


def to_linear(srgb: Array) -> Array:
    """sRGB 0..1 to linear light, by the plain 2.2 power."""
    return np.asarray(srgb, np.float32) ** np.float32(2.2)


def to_srgb(linear: Array) -> Array:
    """Linear light to sRGB 0..1, clipped."""
    return np.clip(linear, 0, 1) ** np.float32(1 / 2.2)


def smooth(picture: Array, sigma: float) -> Array:
    """Gaussian blur of an (H, W, C) float picture; 0 leaves it."""
    return cv2.GaussianBlur(picture, (0, 0), sigma).astype(np.float32) if sigma > 0.05 else picture

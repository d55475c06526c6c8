"""From light to a picture: the faults of a camera."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from tagclip.train.synth.body import Array
from tagclip.train.synth.places import smooth, to_srgb


def shrink(linear: Array, height_px: int) -> NDArray[np.uint8]:
    """What a perfect camera makes of a linear picture (H, W, 3): RGB uint8 (height_px, w, 3)."""
    width_px = _width_px(linear, height_px)
    small: Array = cv2.resize(linear, (width_px, height_px), interpolation=cv2.INTER_AREA)
    return (to_srgb(small) * 255).astype(np.uint8)


def record(
    linear: Array, height_px: int, rng: np.random.Generator, shifted: bool = False
) -> NDArray[np.uint8]:
    """What a camera makes of a linear picture (H, W, 3): a small RGB uint8 image (height_px, w, 3).

    Exposure, colour temperature, defocus, motion of the drone, rolling shutter, scaling down, noise, tone, and what
    video does to colour, each drawn at random. JPEG follows when the picture is written.

    Args:
        shifted: of another camera than any that is drawn else: its colours are off by more, it blurs in another way.
    """
    gain = np.float32(np.exp(rng.normal(0.1, 0.35)))
    warmth = rng.normal(0, 0.09) * np.array([1, 0, -1])
    balance = np.exp(rng.normal(0, 0.04, 3) + warmth).astype(np.float32)
    picture = linear * gain * balance
    width_px = _width_px(linear, height_px)
    scale = linear.shape[0] / height_px
    # Few pixels that are blurred as well show nobody: small people are blurred less.
    radius_px = scale * min(1.0, 0.25 + height_px / 100)
    focus = rng.random()
    if focus < 0.5:
        picture = smooth(picture, radius_px * rng.uniform(0.3, 1.0))
    elif focus < 0.57:
        picture = _disc(picture, radius_px * rng.uniform(0.8, 1.8))
    if rng.random() < 0.2:
        picture = _motion(picture, radius_px * rng.uniform(1, 4), rng.uniform(0, np.pi))
    if rng.random() < 0.08:
        picture = _rolling_shutter(picture, rng)
    zoomed = 0.6 if height_px > 40 and rng.random() < 0.15 else 1.0  # enlarged by the camera
    size = (max(6, round(width_px * zoomed)), max(8, round(height_px * zoomed)))
    small: Array = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    if zoomed < 1:
        small = cv2.resize(small, (width_px, height_px), interpolation=cv2.INTER_LINEAR)
    srgb = to_srgb(small)
    # A veil of haze lifts the blacks; a strong tone curve deepens them.
    srgb = srgb + rng.uniform(0, 0.12) * (1 - srgb) * (rng.random() < 0.3)
    srgb = srgb + rng.uniform(-0.25, 0.45) * (srgb - srgb * srgb) * (srgb - 0.5)
    grey = srgb.mean(-1, keepdims=True)
    srgb = grey + (srgb - grey) * np.float32(rng.uniform(0.6, 1.35))
    # A dark picture was amplified, and its noise with it.
    srgb = srgb + rng.normal(0, 1, srgb.shape) * rng.uniform(0, 0.03) * (1.6 if gain > 1.4 else 1.0)
    if rng.random() < 0.2:  # over-sharpened by the camera
        srgb = srgb + 0.7 * (srgb - smooth(srgb.astype(np.float32), 1.0))
    if shifted:
        cast = np.array([1, 0.4, -1]) * rng.choice([-1, 1]) * rng.uniform(0.03, 0.1)
        srgb = cv2.medianBlur(np.clip(srgb + cast, 0, 1).astype(np.float32), 3) ** rng.uniform(0.7, 1.4)
    if rng.random() < 0.45:
        srgb = _video_colour(srgb, float(rng.uniform(1.5, 4.0)))
    return (np.clip(srgb, 0, 1) * 255).astype(np.uint8)


def _width_px(linear: Array, height_px: int) -> int:
    return max(6, round(height_px * linear.shape[1] / linear.shape[0]))


def _video_colour(srgb: Array, blocks: float) -> Array:
    """Colour at a fraction 1 / `blocks` of the resolution, as video keeps it."""
    grey = srgb.mean(-1, keepdims=True)
    height, width = srgb.shape[:2]
    size = (max(2, round(width / blocks)), max(2, round(height / blocks)))
    colour = cv2.resize((srgb - grey).astype(np.float32), size, interpolation=cv2.INTER_AREA)
    widened: Array = cv2.resize(colour, (width, height), interpolation=cv2.INTER_LINEAR)
    return grey + widened


def _disc(picture: Array, radius_px: float) -> Array:
    """Out of focus: every point becomes a disc."""
    size = 2 * int(np.ceil(radius_px)) + 1
    y, x = np.mgrid[:size, :size] - size // 2
    kernel = (np.hypot(x, y) <= radius_px + 0.3).astype(np.float32)
    return cv2.filter2D(picture, -1, kernel / kernel.sum()).astype(np.float32)


def _rolling_shutter(picture: Array, rng: np.random.Generator) -> Array:
    """Rows that are read one after the other lean while the camera turns; lamps that flicker light them in bands."""
    height, width = picture.shape[:2]
    if rng.random() < 0.5:
        rows = np.sin(np.linspace(0, rng.uniform(2, 12), height) + rng.uniform(0, 6))
        return (picture * (1 + 0.2 * rows[:, None, None])).astype(np.float32)
    lean = rng.uniform(-0.18, 0.18) * width / height
    shear = np.array([[1, lean, -lean * height / 2], [0, 1, 0]], np.float32)
    return cv2.warpAffine(picture, shear, (width, height), borderMode=cv2.BORDER_REPLICATE).astype(np.float32)


def _motion(picture: Array, length_px: float, angle: float) -> Array:
    size = int(length_px) | 1
    if size < 3:
        return picture
    kernel = np.zeros((size, size), np.float32)
    middle = size // 2
    dx, dy = np.cos(angle) * middle, np.sin(angle) * middle
    cv2.line(kernel, (round(middle - dx), round(middle - dy)), (round(middle + dx), round(middle + dy)), 1.0)
    return cv2.filter2D(picture, -1, kernel / kernel.sum()).astype(np.float32)

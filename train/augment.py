"""Augmentation of training images. All chance of a batch is drawn at once, so that a process that works on a slice of
the batch sees what one process alone would.

"light" is ours, cheap enough for a CPU. "released" is that of the released TAG-CLIP: two operations drawn
with replacement from six of torchvision.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.transforms import v2

from tagclip.runtime.preprocess import PreprocessSpec

LIGHT_DRAWS = 16


def kept_spec(spec: PreprocessSpec, augment: str) -> PreprocessSpec:
    """Size at which training images are kept: for "light" a sixteenth more each way, for random crops."""
    if augment == "released":
        return spec
    return PreprocessSpec(spec.height_px * 17 // 16, spec.width_px * 17 // 16)


def light(images: NDArray[np.uint8], spec: PreprocessSpec, draws: NDArray[np.float64]) -> NDArray[np.float32]:
    """Random crop, mirror, light and erasing.

    Args:
        images: (B, H', W', 3) uint8, of `kept_spec`.
        draws: (B, LIGHT_DRAWS) uniform in 0..1, all the chance there is.

    Returns:
        (B, H, W, 3) float32, 0..255.
    """
    count, tall, wide = images.shape[:3]
    out = np.empty((count, spec.height_px, spec.width_px, 3), np.float32)
    column = iter(draws.T)

    def below(high: NDArray[np.int64] | int) -> NDArray[np.int64]:
        """Whole numbers from 0, `high` excluded."""
        return (next(column) * high).astype(np.int64)

    tops = below(tall - spec.height_px + 1)
    lefts = below(wide - spec.width_px + 1)
    mirrored = next(column) < 0.5
    cast = np.stack([0.94 + 0.12 * next(column) for _ in range(3)], -1)
    gain = (0.8 + 0.45 * next(column))[:, None] * cast
    lift = -15 + 30 * next(column)
    for k in range(count):
        crop = images[k, tops[k] : tops[k] + spec.height_px, lefts[k] : lefts[k] + spec.width_px]
        out[k] = crop[:, ::-1] if mirrored[k] else crop
    out *= gain[:, None, None, :].astype(np.float32)
    out += lift[:, None, None, None].astype(np.float32)
    erased = next(column) < 0.3
    heights = (spec.height_px * (0.08 + 0.22 * next(column))).astype(np.int64)
    widths = (spec.width_px * (0.15 + 0.45 * next(column))).astype(np.int64)
    y, x = below(spec.height_px - heights), below(spec.width_px - widths)
    colours = np.stack([255 * next(column) for _ in range(3)], -1)
    for k in np.flatnonzero(erased).tolist():
        out[k, y[k] : y[k] + heights[k], x[k] : x[k] + widths[k]] = colours[k]
    return np.clip(out, 0, 255, out=out)


# One operation of torchvision and the parameters it drew.
Step = tuple[v2.Transform, dict[str, Any]]


class Released:
    """The released augmentation for images of one size."""

    def __init__(self, spec: PreprocessSpec):
        size = (spec.height_px, spec.width_px)
        self.shape = torch.empty(3, *size)
        self.operations: list[v2.Transform] = [
            v2.ColorJitter(0.1, 0.1, 0.1, 0),
            v2.RandomRotation(15),
            v2.RandomResizedCrop(size, (0.9, 1)),
            v2.RandomGrayscale(),
            v2.RandomHorizontalFlip(),
            v2.RandomErasing(scale=(0.10, 0.20)),
        ]

    def draw(self, count: int, seed: int) -> list[list[Step]]:
        """What to do with each of `count` images; call it in the main thread only.

        torchvision draws from torch's one global generator, which is put back as it was.
        """
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return [self._draw_one() for _ in range(count)]

    def _draw_one(self) -> list[Step]:
        steps: list[Step] = []
        for number in torch.randint(len(self.operations), (2,)).tolist():
            operation = self.operations[number]
            chance = getattr(operation, "p", 1.0)
            if chance < 1.0 and float(torch.rand(())) >= chance:
                continue
            steps.append((operation, operation.make_params([self.shape])))
        return steps

    def __call__(self, images: NDArray[np.uint8], drawn: list[list[Step]]) -> NDArray[np.float32]:
        """(B, H, W, 3) uint8 -> (B, H, W, 3) float32, 0..255. Safe in any thread."""
        out = np.empty(images.shape, np.float32)
        for k, steps in enumerate(drawn):
            image = torch.from_numpy(images[k]).permute(2, 0, 1).float() / 255  # as ToTensor
            for operation, parameters in steps:
                image = operation.transform(image, parameters)
            out[k] = (image * 255).permute(1, 2, 0).numpy()
        return np.clip(out, 0, 255, out=out)

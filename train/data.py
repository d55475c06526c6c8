"""Annotations of docs/data.md and the arrays that training and evaluation take from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.errors import DataError
from tagclip.runtime.preprocess import PreprocessSpec, prepare
from tagclip.train.datasets.layout import find_layouts, read_rows
from tagclip.train.datasets.sample import Sample

__all__ = ["Sample", "augment", "batches", "load_images", "load_split", "train_spec"]


def load_split(folder: Path, split: str, name: str | None = None) -> list[Sample]:
    """Read one split of a data folder in any format of docs/data.md, a set of shards included.

    Args:
        split: "train", "val" or "test".
        name: the format, see `datasets.layout.find_layouts`; None finds out.

    Returns:
        the images in the order of the file; identities are those of the file, not contiguous.

    Raises:
        DataError: no data, no such split, or a row that breaks the contract; the message names file and row.
    """
    return [
        layout.sample(row, where)
        for layout in find_layouts(folder, name)
        for where, row in read_rows(layout, split)
    ]


def load_images(
    samples: list[Sample],
    spec: PreprocessSpec,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> NDArray[np.uint8]:
    """Prepared crops (N, height, width, 3) RGB uint8, in the order of `samples`.

    Raises:
        DataError: an image cannot be read.
    """
    out = np.empty((len(samples), spec.height_px, spec.width_px, 3), np.uint8)

    def load(k: int) -> None:
        image = cv2.imread(str(samples[k].path))
        if image is None:
            raise DataError(f"cannot read the image {samples[k].path}; make the data set again")
        prepare([np.ascontiguousarray(image[..., ::-1], np.uint8)], spec, out=out[k : k + 1])

    with ThreadPoolExecutor(4) as pool:
        for done, _ in enumerate(pool.map(load, range(len(samples))), 1):
            if done % 500 == 0 or done == len(samples):
                tick(done, len(samples))
    return out


def train_spec(spec: PreprocessSpec) -> PreprocessSpec:
    """Size at which training images are kept: a sixteenth more each way, for random crops."""
    return PreprocessSpec(spec.height_px * 17 // 16, spec.width_px * 17 // 16)


def augment(images: NDArray[np.uint8], spec: PreprocessSpec, rng: np.random.Generator) -> NDArray[np.float32]:
    """Random crop, mirror, light and erasing of images (B, H', W', 3) uint8 -> (B, H, W, 3) float32, 0..255."""
    count, tall, wide = images.shape[:3]
    out = np.empty((count, spec.height_px, spec.width_px, 3), np.float32)
    tops = rng.integers(0, tall - spec.height_px + 1, count)
    lefts = rng.integers(0, wide - spec.width_px + 1, count)
    mirrored = np.less(rng.random(count), 0.5)
    gain = rng.uniform(0.8, 1.25, (count, 1, 1, 1)) * rng.uniform(0.94, 1.06, (count, 1, 1, 3))
    lift = rng.uniform(-15, 15, (count, 1, 1, 1))
    for k in range(count):
        crop = images[k, tops[k] : tops[k] + spec.height_px, lefts[k] : lefts[k] + spec.width_px]
        out[k] = crop[:, ::-1] if mirrored[k] else crop
    out = out * gain.astype(np.float32) + lift.astype(np.float32)
    for erased in np.flatnonzero(rng.random(count) < 0.3):
        height = int(spec.height_px * rng.uniform(0.08, 0.3))
        width = int(spec.width_px * rng.uniform(0.15, 0.6))
        y, x = int(rng.integers(0, spec.height_px - height)), int(rng.integers(0, spec.width_px - width))
        out[erased, y : y + height, x : x + width] = rng.uniform(0, 255, 3)
    return np.clip(out, 0, 255)


def batches(count: int, size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Shuffled index batches of one epoch; the last short one is dropped unless it is the only one."""
    order = rng.permutation(count)
    for start in range(0, max(count - size + 1, 1), size):
        yield order[start : start + size]

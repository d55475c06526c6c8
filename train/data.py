"""Annotations of docs/data.md and the arrays that training and evaluation take from them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.preprocess import PreprocessSpec, prepare
from tagclip.train.config import ModelConfig
from tagclip.train.datasets.layout import find_layouts, read_rows
from tagclip.train.datasets.picture import decode
from tagclip.train.datasets.sample import Sample

__all__ = ["Sample", "load_images", "load_split"]


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
        DataError: an image is missing, cut off or broken; the message names the file.
    """
    out = np.empty((len(samples), spec.height_px, spec.width_px, 3), np.uint8)

    def load(k: int) -> None:
        image, _ = decode(samples[k].path)
        prepare([np.ascontiguousarray(image[..., ::-1], np.uint8)], spec, out=out[k : k + 1])

    with ThreadPoolExecutor(4) as pool:
        for done, _ in enumerate(pool.map(load, range(len(samples))), 1):
            if done % 500 == 0 or done == len(samples):
                tick(done, len(samples))
    return out


def input_spec(config: ModelConfig) -> PreprocessSpec:
    """The size of the crops that a model takes."""
    return PreprocessSpec(config.height_px, config.width_px)

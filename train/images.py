"""The images of a split: all in memory where they fit, else read from disk batch by batch."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.errors import DataError
from tagclip.runtime.preprocess import PreprocessSpec
from tagclip.train.data import Sample, load_images
from tagclip.train.datasets.picture import is_there

CGROUP = Path("/sys/fs/cgroup")


class Images(Protocol):
    """N prepared images; `images[rows]` is uint8 (R, H, W, 3) for a slice or an array of R numbers."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> NDArray[np.uint8]: ...


class DiskImages:
    """Images that are read and stretched when they are asked for. Safe to use from several threads."""

    def __init__(self, samples: list[Sample], spec: PreprocessSpec):
        """Raises: DataError when an image is absent, so that a run does not find out in its second hour."""
        for k, sample in enumerate(samples):
            if not is_there(sample.path):
                raise DataError(f"expected the image {sample.path} (number {k} of its split), found none")
        self.samples, self.spec = samples, spec

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, rows: Any, /) -> NDArray[np.uint8]:
        """uint8 (R, H, W, 3) of a slice or an array of numbers.

        Raises:
            DataError: an image cannot be read.
        """
        return load_images([self.samples[k] for k in np.arange(len(self))[rows]], self.spec)


def spread_crops(samples: list[Sample], spec: PreprocessSpec, most: int) -> NDArray[np.uint8]:
    """Fewer than `most` images, evenly spread over `samples`; uint8 (R, H, W, 3).

    Raises:
        DataError: as `DiskImages`.
    """
    return DiskImages(samples[:: len(samples) // most + 1], spec)[:]


def open_images(
    samples: list[Sample],
    spec: PreprocessSpec,
    share: float,
    copies: int,
    tick: Callable[[int, int], None],
) -> tuple[Images, str]:
    """Images of a split at the size of `spec`, and a sentence that says where they are kept.

    Args:
        share: of the free memory (0..1) that all copies together may take.
        copies: processes on this machine that hold the split.

    Raises:
        DataError: an image is missing or cannot be read.
    """
    need, free = len(samples) * spec.height_px * spec.width_px * 3 * copies, free_bytes()
    room = f"{need / 1e9:.2f} GB of {free / 1e9:.1f} GB free, up to {share:.0%} allowed"
    if need <= share * free:
        return load_images(samples, spec, tick), f"{len(samples)} images in memory ({room})"
    return DiskImages(samples, spec), f"{len(samples)} images read from disk in every epoch ({room})"


def free_bytes() -> int:
    """Memory that is free to use on this machine or in this container."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    except OSError:
        pass  # no Linux: all of the machine's memory is the best that is known
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        if limit != "max":
            free = min(free, int(limit) - int((CGROUP / "memory.current").read_text()))
    except OSError:
        pass  # no container, or one of the older kind
    return max(0, free)

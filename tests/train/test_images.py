"""In memory or on disk: the same pixels, and the choice is by bytes."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from tagclip.runtime.errors import DataError
from tagclip.runtime.preprocess import PreprocessSpec
from tagclip.train.data import Sample, load_images, load_split
from tagclip.train.images import DiskImages, free_bytes, open_images

SPEC = PreprocessSpec(32, 16)


def silent(done: int, total: int) -> None:
    pass


def test_both_have_the_same_pixels(toy_data: Path) -> None:
    samples = load_split(toy_data, "val")
    memory, said = open_images(samples, SPEC, 0.5, 1, silent)
    disk, said_disk = open_images(samples, SPEC, 0.0, 1, silent)
    assert isinstance(memory, np.ndarray) and isinstance(disk, DiskImages)
    assert said.startswith("24 images in memory (0.00 GB of ")
    assert said_disk.startswith("24 images read from disk") and "up to 0% allowed" in said_disk
    assert len(memory) == len(disk) == 24
    for rows in (np.array([3, 0, 3]), slice(20, 300), slice(0, 0)):
        np.testing.assert_array_equal(disk[rows], memory[rows])


def test_copies_of_all_processes_count(toy_data: Path) -> None:
    """24 images take 36,864 bytes; a share that has room for ten copies has none for twelve."""
    samples, need = load_split(toy_data, "val"), 24 * 32 * 16 * 3
    share = 11 * need / free_bytes()
    assert isinstance(open_images(samples, SPEC, share * 0.95, 10, silent)[0], np.ndarray)
    assert isinstance(open_images(samples, SPEC, share, 13, silent)[0], DiskImages)


def test_a_missing_file_is_named_before_it_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected the image .*a.png \(number 0 of its split\), found none"):
        DiskImages([Sample(tmp_path / "a.png", 0, 0, ("a man",))], SPEC)


def test_a_broken_file_is_named_when_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    images = DiskImages([Sample(tmp_path / "a.png", 0, 0, ("a man",))], SPEC)
    with pytest.raises(DataError, match="a.png"):
        images[np.array([0])]


def test_half_a_file_is_refused_and_not_half_seen(tmp_path: Path, toy_data: Path) -> None:
    """cv2.imread returns the upper half of such a file with a line on stderr."""
    picture = np.random.default_rng(0).integers(0, 255, (64, 32, 3), dtype=np.uint8)
    path = tmp_path / "a.jpg"
    path.write_bytes(cv2.imencode(".jpg", picture)[1].tobytes()[:-900])
    with pytest.raises(DataError, match=r"truncated image: .*a.jpg ends too early"):
        load_images([Sample(path, 0, 0, ("a man",))], SPEC)


def test_free_memory_is_at_most_the_machines() -> None:
    assert 0 < free_bytes() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

"""Bands of elevation and of image height."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tagclip.runtime.errors import DataError
from tagclip.runtime.ranking import per_query
from tagclip.train.data import Sample
from tagclip.train.groups import by_band, elevations, heights


def test_each_band_by_its_definition() -> None:
    """A caption's gallery: its person's pictures of the band, and everybody else's of all bands."""
    rng = np.random.default_rng(0)
    identity, owner = rng.integers(0, 5, 30), np.repeat(np.arange(30), 2)
    texts = rng.normal(size=(60, 6)).astype(np.float32)
    images = rng.normal(size=(30, 6)).astype(np.float32)
    value = rng.uniform(0, 40, 30)
    value[:3] = np.nan, 10, 20  # a picture without a value is in no band; a lower end belongs to its band
    for exclude_own in (False, True):
        bands = by_band(texts, images, owner, identity, value, (10, 20), "deg", exclude_own)
        assert list(bands) == ["under 10 deg", "10 to 20 deg", "from 20 deg"]
        inside = [value < 10, (value >= 10) & (value < 20), value >= 20]
        for row, here in zip(bands.values(), inside, strict=True):
            assert row.gallery == here.sum()
            expected, asked = [], []
            for q, own in enumerate(owner):
                keep = (identity != identity[own]) | here
                keep[own] &= not exclude_own
                scores = texts[q : q + 1] @ images[keep].T
                got = per_query(scores, identity[own : own + 1], identity[keep]).metrics()[0]
                if not np.isnan(got).any():
                    expected.append(got)
                    asked.append(q)
            assert row.queries.tolist() == asked
            assert np.array_equal(row.identity, identity[owner][asked])
            assert row.values == pytest.approx(np.array(expected))


def test_an_empty_band_is_absent() -> None:
    ones = np.ones((3, 2), np.float32)
    ids = np.arange(3)
    bands = by_band(ones, ones, ids, ids, np.array([5.0, 25.0, 25.0]), (10, 20), "px")
    assert list(bands) == ["under 10 px", "from 20 px"]


def test_elevations_follow_the_samples() -> None:
    samples = [
        Sample(Path(f"{k}.png"), k, 0, ("a man",), value) for k, value in enumerate((52.5, None, -3.0))
    ]
    assert elevations(samples) == pytest.approx([52.5, np.nan, -3], nan_ok=True)
    with pytest.raises(DataError, match="found none; leave out --by elevation"):
        elevations(samples[1:2])


def test_heights_are_those_of_the_files(tmp_path: Path) -> None:
    sizes = [(40, 20), (7, 90), (128, 64)]
    samples = []
    for k, (tall, wide) in enumerate(sizes):
        path = tmp_path / f"{k}.png"
        cv2.imwrite(str(path), np.zeros((tall, wide, 3), np.uint8))
        samples.append(Sample(path, k, 0, ("a man",)))
    told: list[tuple[int, int]] = []
    assert heights(samples, lambda done, total: told.append((done, total))).tolist() == [40, 7, 128]
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="bad.png"):
        heights([Sample(tmp_path / "bad.png", 0, 0, ("a man",))])

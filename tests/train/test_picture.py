"""Whole pictures pass; a missing, truncated or foreign file is named for what it is."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tagclip.runtime.errors import DataError
from tagclip.train.datasets.picture import Picture, read_picture, read_pictures

NOISE = np.random.default_rng(0).integers(0, 256, (40, 20, 3), dtype=np.uint8)


def encoded(suffix: str) -> bytes:
    return cv2.imencode(suffix, NOISE)[1].tobytes()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp"])
def test_a_whole_picture(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "a").write_bytes(encoded(suffix))
    found = read_picture(tmp_path / "a")
    assert (found.width_px, found.height_px, len(found.digest)) == (20, 40, 16)


def test_bytes_after_the_end_of_a_jpeg_do_no_harm(tmp_path: Path) -> None:
    """Some cameras pad their files."""
    (tmp_path / "a.jpg").write_bytes(encoded(".jpg") + b"\0" * 100)
    assert read_picture(tmp_path / "a.jpg").height_px == 40


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("share", [0.3, 0.9, 0.99])
def test_a_truncated_picture(tmp_path: Path, suffix: str, share: float) -> None:
    data = encoded(suffix)
    (tmp_path / "a").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match=r"^truncated image: .*/a ends too early"):
        read_picture(tmp_path / "a")


@pytest.mark.parametrize("data", [b"", b"no picture", b"<html>sign in first</html>"])
def test_no_picture_at_all(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(DataError, match=r"^broken image: .*a.jpg cannot be decoded"):
        read_picture(tmp_path / "a.jpg")


def test_a_missing_picture_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^missing file: expected the image .*a.jpg, found none"):
        read_picture(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"^missing file: .* cannot be read"):
        read_picture(tmp_path)


def test_many_come_in_order_with_progress(tmp_path: Path) -> None:
    paths = [tmp_path / f"{k}.png" for k in range(600)]
    for k, path in enumerate(paths):
        if k != 7:
            path.write_bytes(cv2.imencode(".png", NOISE[: k % 30 + 1])[1].tobytes())
    ticks: list[tuple[int, int]] = []
    found = list(read_pictures(paths, lambda done, total: ticks.append((done, total))))
    assert isinstance(found[7], DataError)
    heights = [p.height_px for p in found if isinstance(p, Picture)]
    assert heights == [k % 30 + 1 for k in range(600) if k != 7]
    assert ticks == [(256, 600), (512, 600), (600, 600)]

"""Crops to the input of the graphs; the expected pixels are worked out by hand, not by OpenCV."""

from __future__ import annotations

import numpy as np
import pytest

from tagclip.runtime.errors import BundleManifestError, SourceError
from tagclip.runtime.preprocess import PreprocessSpec, prepare

SPEC = PreprocessSpec(4, 2)


def test_shrinking_averages_areas() -> None:
    crop = np.zeros((8, 4, 3), np.uint8)
    crop[::2] = 200  # every 2x2 block holds two rows of 200 and 0
    assert (prepare([crop], SPEC) == 100).all()


def test_same_size_is_untouched_and_keeps_the_channel_order() -> None:
    crop = np.random.default_rng(0).integers(0, 256, (4, 2, 3), dtype=np.uint8)
    np.testing.assert_array_equal(prepare([crop], SPEC)[0], crop)


def test_enlarging_interpolates_linearly() -> None:
    crop = np.array([[[0] * 3], [[100] * 3]], np.uint8)  # 2 x 1
    column = prepare([crop], SPEC)[0, :, 0, 0]
    # Pixel centres of the four rows lie at -0.25, 0.25, 0.75, 1.25 of the two.
    np.testing.assert_allclose(column, [0, 25, 75, 100], atol=1)


def test_one_side_grows_uses_linear() -> None:
    # 8 -> 4 rows shrinks, 1 -> 2 columns grows: linear takes between rows 0.5, 2.5, ... = the mean of a pair.
    crop = np.repeat(np.arange(8, dtype=np.uint8) * 10, 3).reshape(8, 1, 3)
    np.testing.assert_allclose(prepare([crop], SPEC)[0, :, 1, 2], [5, 25, 45, 65], atol=1)


def test_out_is_written_in_place_and_windows_of_frames_work() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    buffer = np.zeros((5, 4, 2, 3), np.uint8)
    result = prepare([frame[3:23, 7:19], frame[0:4, 0:2]], SPEC, buffer)
    assert result.shape == (2, 4, 2, 3) and np.shares_memory(result, buffer)
    np.testing.assert_array_equal(result[1], frame[0:4, 0:2])
    np.testing.assert_array_equal(result, prepare([frame[3:23, 7:19], frame[0:4, 0:2]], SPEC))


def test_no_crops() -> None:
    result = prepare([], SPEC)
    assert result.shape == (0, 4, 2, 3) and result.dtype == np.uint8


@pytest.mark.parametrize(
    "crop",
    [
        np.zeros((0, 5, 3), np.uint8),  # a box outside the frame
        np.zeros((5, 5), np.uint8),  # grey
        np.zeros((5, 5, 4), np.uint8),  # with alpha
        np.zeros((5, 5, 3), np.float32),
    ],
)
def test_wrong_crops_are_refused(crop: np.ndarray) -> None:
    with pytest.raises(SourceError, match=r"crop 1: expected uint8 \(H, W, 3\)"):
        prepare([np.zeros((5, 5, 3), np.uint8), crop], SPEC)


@pytest.mark.parametrize("shape", [(0, 4, 2, 3), (1, 2, 4, 3)])
def test_wrong_buffer_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="out: expected uint8"):
        prepare([np.zeros((5, 5, 3), np.uint8)], SPEC, np.zeros(shape, np.uint8))


def test_json_is_the_documented_one_and_comes_back() -> None:
    expected = {
        "height_px": 128,
        "width_px": 64,
        "color": "RGB",
        "layout": "NHWC",
        "dtype": "uint8",
        "resize": "stretch",
        "interpolation": "area-or-linear",
    }
    assert PreprocessSpec(128, 64).to_json() == expected
    assert PreprocessSpec.from_json(expected) == PreprocessSpec(128, 64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"color": "BGR"}, "preprocess.color: expected one of RGB, found 'BGR'"),
        ({"resize": "letterbox"}, "preprocess.resize"),
        ({"height_px": 0}, "preprocess.height_px: expected a whole number from 1 to 2048, found 0"),
        ({"width_px": True}, "preprocess.width_px"),
        ({"width_px": 64.0}, "preprocess.width_px"),
        ({"mean": [0, 0, 0]}, "preprocess.mean: unknown field"),
        ({"layout": None}, "preprocess.layout: expected text, found None"),
    ],
)
def test_unknown_pipelines_are_refused(change: dict, message: str) -> None:
    with pytest.raises(BundleManifestError, match=message):
        PreprocessSpec.from_json(PreprocessSpec(128, 64).to_json() | change)

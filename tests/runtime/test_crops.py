"""Crop choice: good ones, from different moments, never more than asked for."""

from __future__ import annotations

import numpy as np
import pytest

from tagclip.runtime.boxes import Detections
from tagclip.runtime.crops import KEEP, MAX_HEIGHT_PX, Crop, CropKeeper, cut
from tagclip.runtime.source import Frame, Image
from tagclip.runtime.tracker import Match

NOISE = np.random.default_rng(0).integers(0, 255, (300, 400, 3)).astype(np.uint8)


def offer(
    keeper: CropKeeper,
    index: int,
    box: tuple[float, float, float, float] = (100, 100, 40, 100),
    *,
    image: Image = NOISE,
    fill: float = 0.6,
    score: float = 1.0,
    agreement: float = 1.0,
    others: tuple[tuple[float, float, float, float], ...] = (),
) -> None:
    """Offer one box of track 1 in frame `index`, 10 frames a second."""
    boxes = np.array([box, *others], np.float32)
    scores = np.full(len(boxes), score, np.float32)
    found = Detections(boxes, scores, np.full(len(boxes), fill, np.float32))
    keeper.offer(Frame(index, index / 10.0, image), found, [Match(1, 0, agreement)])


def quality(**changes: object) -> float:
    """Quality of the usual box with `changes`."""
    keeper = CropKeeper()
    offer(keeper, 0, **changes)  # type: ignore[arg-type]
    (crop,) = keeper.crops(1)
    assert 0.0 < crop.quality <= 1.0
    return crop.quality


@pytest.mark.parametrize(
    "changes",
    [
        {"box": (100, 100, 16, 40)},  # small
        {"box": (0, 100, 40, 100)},  # cut by the left edge
        {"box": (100, 210, 40, 100)},  # cut by the lower edge
        {"image": np.full_like(NOISE, 90)},  # blurred to nothing
        {"others": ((120, 100, 40, 100),)},  # half hidden
        {"fill": 0.2},  # something static stands in front
        {"score": 0.4},
        {"agreement": 0.5},  # two people in one box
    ],
    ids=["small", "left edge", "lower edge", "blurred", "hidden", "not filled", "poor score", "two in one"],
)
def test_each_fault_lowers_the_quality(changes: dict[str, object]) -> None:
    assert quality(**changes) < 0.75 * quality()


def test_at_most_k_are_kept_in_order_and_spread_over_time() -> None:
    keeper = CropKeeper()
    for index in range(400):
        offer(keeper, index)
    crops = keeper.crops(1)
    assert len(crops) == KEEP
    times = np.array([crop.time_s for crop in crops])
    assert (np.diff(times) > 0).all()
    assert times[0] < 8.0 and times[-1] > 32.0
    assert np.diff(times).max() < 15.0
    assert keeper.crops(2) == []


def test_good_crops_drive_out_bad_ones() -> None:
    keeper = CropKeeper()
    for index in range(100):
        if index % 10 == 5:
            offer(keeper, index)
        else:
            offer(keeper, index, fill=0.2, agreement=0.5)
    good = [crop for crop in keeper.crops(1) if crop.frame % 10 == 5]
    assert len(good) >= KEEP - 1


def test_pixels_are_copied_and_the_box_is_the_detectors() -> None:
    image = NOISE.copy()
    keeper = CropKeeper()
    offer(keeper, 7, (100, 100, 40, 100), image=image)
    image[:] = 0
    (crop,) = keeper.crops(1)
    assert isinstance(crop, Crop)
    assert (crop.frame, crop.time_s, crop.box_xywh_px) == (7, 0.7, (100, 100, 40, 100))
    np.testing.assert_array_equal(crop.image, NOISE[95:205, 98:142])  # 5 % wider on each side


@pytest.mark.parametrize(
    ("box", "shape"),
    [
        ((-20, -20, 60, 120), (106, 43, 3)),  # clipped to the frame
        ((100, 0, 80, 300), (MAX_HEIGHT_PX, 75, 3)),  # scaled down, proportions kept
        ((500, 100, 40, 100), None),  # outside
        ((399, 100, 40, 100), None),  # nearly outside
    ],
)
def test_cut_stays_in_the_frame(box: tuple[float, ...], shape: tuple[int, ...] | None) -> None:
    crop = cut(NOISE, np.array(box, np.float32))
    assert (crop.shape if crop is not None else None) == shape

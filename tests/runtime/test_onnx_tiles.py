"""A frame larger than a detector's input is looked at in tiles, where everybody counts once."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

from fixtures.onnx_detectors import (
    INPUT,
    OWN,
    PLAIN,
    ROWS,
    YOLO,
    Boxes,
    bright,
    constant,
    frame,
    scene,
    write,
)

from tagclip.runtime.boxes import MOST_PEOPLE
from tagclip.runtime.errors import ConfigError
from tagclip.runtime.onnx_detector import OnnxDetector
from tagclip.runtime.tiles import MOST_TILES, merged, tiles, whole


def in_order(boxes: Boxes) -> Boxes:
    return boxes[np.lexsort(boxes.round().T)]


# Large frames


def spread(size: tuple[int, int], person: tuple[int, int], gap: int, jitter: int, seed: int = 0) -> Boxes:
    """People in rows and columns, each somewhere else in its field; nobody touches anybody."""
    rng = np.random.default_rng(seed)
    columns = np.arange(4, size[0] - person[0] - jitter - 4, person[0] + gap + jitter)
    rows = np.arange(4, size[1] - person[1] - jitter - 4, person[1] + gap + jitter)
    corners = np.stack(np.meshgrid(columns, rows), -1).reshape(-1, 2)
    corners = corners + rng.integers(0, jitter + 1, corners.shape)
    return np.column_stack([corners, np.tile(person, (len(corners), 1))])


def test_everybody_counts_once_where_tiles_meet(tmp_path: Path) -> None:
    size = (1280, 720)
    detector = OnnxDetector(write(tmp_path, OWN | {"input": INPUT | PLAIN}, bright()), size)
    assert len(detector.views) == 1 + 5 * 4  # steps of at most 240 and 192 pixels: 1 + 960/240, 1 + 464/192
    for left, top in ((240, 155), (320, 256), (480, 309), (560, 411), (0, 0), (1240, 650)):
        # Around every kind of tile corner, and over it.
        for dx in (-13, -8, -4, -1, 0, 1, 4, 9):
            where = np.array([[max(left + dx, 0), max(top + dx, 0), 16, 40]])
            found = detector.detect(scene(size, where))
            np.testing.assert_allclose(found.boxes_xywh_px, where, err_msg=str((left, top, dx)))


def test_crowds_are_counted_to_the_last(tmp_path: Path) -> None:
    size = (1280, 720)
    detector = OnnxDetector(write(tmp_path, OWN, bright()), size)
    people = spread(size, (14, 36), gap=20, jitter=22)
    assert 200 < len(people) < MOST_PEOPLE
    found = detector.detect(scene(size, people))
    np.testing.assert_allclose(in_order(found.boxes_xywh_px), in_order(people))


@pytest.mark.parametrize(
    "where", [[600, 100, 90, 240], [250, 40, 200, 420], [0, 0, 150, 400], [1100, 300, 180, 420]]
)
def test_tall_people_are_found_in_the_whole_frame(tmp_path: Path, where: list[int]) -> None:
    """No tile of 320x256 holds them."""
    found = OnnxDetector(write(tmp_path, OWN, bright()), (1280, 720)).detect(
        scene((1280, 720), np.array([where]))
    )
    assert len(found.scores) == 1
    assert np.abs(found.boxes_xywh_px - where).max() <= 4  # one pixel of the whole frame's input


def test_tall_and_small_together(tmp_path: Path) -> None:
    people = np.array([[100, 80, 150, 430], [270, 80, 12, 30], [620, 350, 30, 60], [900, 100, 120, 300]])
    found = OnnxDetector(write(tmp_path, OWN, bright()), (1280, 720)).detect(scene((1280, 720), people))
    np.testing.assert_allclose(in_order(found.boxes_xywh_px), in_order(people), atol=4)


def test_people_of_20_px_in_a_4k_frame(tmp_path: Path) -> None:
    size = (3840, 2160)
    contract = OWN | {"input": INPUT | PLAIN | {"width_px": 640, "height_px": 640}}
    people = spread(size, (8, 20), gap=120, jitter=64)
    assert 150 < len(people) < MOST_PEOPLE
    seen = scene(size, people)
    tiled = OnnxDetector(write(tmp_path, contract, bright()), size)
    assert len(tiled.views) == 1 + 8 * 5
    np.testing.assert_allclose(in_order(tiled.detect(seen).boxes_xywh_px), in_order(people))
    # Nothing of the frame's size (25 MB) is made anew.
    tracemalloc.start()
    tiled.detect(seen)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6e6
    assert len(tiled.detect(scene(size, people[:0])).scores) == 0
    # Shrunk to the input they are 3 pixels tall: without tiles hardly anybody is found.
    untiled = OnnxDetector(write(tmp_path, contract | {"tile_overlap": 0}, bright()), size)
    assert len(untiled.views) == 1 and len(untiled.detect(seen).scores) < len(people) / 2


def test_two_who_stand_close_are_two_in_one_tile_and_one_in_two_tiles() -> None:
    """Boxes 20 x 40, one 6 pixels beside the other: 14/26 of their union in common, less than the contract's 0.6."""
    size = (1280, 720)
    views = [
        whole(size, (320, 256), stretch=False, centred=False),
        *tiles(size, (320, 256), 0.25, centred=False),
    ]
    pair = np.array([[100, 100, 120, 140], [106, 100, 126, 140]], np.float32)
    scores, nobody = np.array([0.9, 0.8], np.float32), (np.empty((0, 4), np.float32), np.empty(0, np.float32))
    others = [nobody] * (len(views) - 3)
    boxes, got = merged(size, views, [nobody, (pair, scores), nobody, *others])
    np.testing.assert_array_equal(boxes, pair)
    np.testing.assert_array_equal(got, scores)
    boxes, got = merged(size, views, [nobody, (pair[:1], scores[:1]), (pair[1:], scores[1:]), *others])
    np.testing.assert_array_equal(boxes, pair[:1])


@pytest.mark.parametrize(
    ("size", "share", "count"),
    [
        ((320, 256), 0.25, 0),
        ((400, 320), 0.25, 0),  # 0.8 of its size is near enough
        ((401, 320), 0.25, 4),
        ((640, 200), 0.25, 3),  # 1 + 320/240
        ((640, 200), 0.5, 3),
        ((640, 512), 0.25, 9),
        ((1280, 720), 0.05, 15),  # 1 + 960/304, 1 + 464/243, rounded up
        ((1920, 1080), 0.25, 48),
        ((1920, 1080), 0.0, 0),
    ],
)
def test_how_many_tiles(tmp_path: Path, size: tuple[int, int], share: float, count: int) -> None:
    detector = OnnxDetector(write(tmp_path, YOLO | {"tile_overlap": share}, constant({"o": ROWS})), size)
    assert len(detector.views) - 1 == count
    cut = detector.views[1:]
    for axis, start, extent in ((0, "left_px", "width_px"), (1, "top_px", "height_px")):
        starts = sorted({getattr(tile, start) for tile in cut})
        if not starts:
            continue
        tile = getattr(cut[0], extent)
        assert starts[0] == 0 and starts[-1] + tile == size[axis]
        assert all(a + tile - b >= share * tile for a, b in zip(starts, starts[1:], strict=False))


def test_too_many_tiles_are_refused_before_the_work(tmp_path: Path) -> None:
    path = write(tmp_path, YOLO, constant({"o": ROWS}))
    with pytest.raises(
        ConfigError, match=f"3840x2160 takes 176 tiles of 320x256, expected at most {MOST_TILES}; export"
    ):
        OnnxDetector(path, (3840, 2160))
    detector = OnnxDetector(path, (640, 480))
    with pytest.raises(ConfigError, match="takes 176 tiles"):
        detector.detect(frame(3840, 2160))


def test_frames_of_another_size_are_taken(tmp_path: Path) -> None:
    detector = OnnxDetector(write(tmp_path, OWN, bright()), (1280, 720))
    for size in ((320, 240), (1280, 720), (100, 250), (640, 480)):
        where = np.array([[60, 100, 20, 48]])
        np.testing.assert_allclose(detector.detect(scene(size, where)).boxes_xywh_px, where)


def test_an_input_of_any_size_follows_small_frames(tmp_path: Path) -> None:
    detector = OnnxDetector(write(tmp_path, OWN, bright()), (150, 100))
    assert detector._whole.size_px == (160, 128)
    assert detector.views[0].shown_px == (150, 100)

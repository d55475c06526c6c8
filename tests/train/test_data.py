"""Annotations that break the contract are refused by row; images and augmentation keep their shapes and ranges."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tagclip.runtime.errors import DataError
from tagclip.runtime.preprocess import PreprocessSpec
from tagclip.train.data import (
    Sample,
    augment,
    batches,
    load_images,
    load_split,
    train_spec,
)

ROW = {"file_path": "a.png", "id": 3, "cam_id": 0, "captions": ["a man"]}
SPEC = PreprocessSpec(32, 16)


def write(folder: Path, split: str, rows: Any) -> None:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / f"{split}_reid.json").write_text(json.dumps(rows))
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict) and row.get("file_path") == "a.png":
            cv2.imwrite(str(folder / "images" / row["file_path"]), np.full((8, 4, 3), 90, np.uint8))


def test_a_row_becomes_a_sample(tmp_path: Path) -> None:
    write(tmp_path, "train", [ROW | {"captions": ["a man", "a person"], "elevation_deg": 40.0}])
    path = tmp_path / "images" / "a.png"
    found = load_split(tmp_path, "train")
    assert found == [Sample(path, 3, 0, ("a man", "a person"), 40.0)]
    assert found[0].where == f"{tmp_path / 'train_reid.json'} row 0"


def test_foreign_attributes_are_kept_unread(tmp_path: Path) -> None:
    """Only training on them needs synth's form; tests/train/test_attributes.py has its refusal."""
    write(tmp_path, "train", [ROW | {"attributes": {"age": 3}, "visible": None}])
    found = load_split(tmp_path, "train")[0]
    assert (found.attributes, found.visible) == ({"age": 3}, None)


def test_a_missing_cam_id_is_ground(tmp_path: Path) -> None:
    write(tmp_path, "train", [{k: v for k, v in ROW.items() if k != "cam_id"}])
    assert load_split(tmp_path, "train")[0].view == 1


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("a.png", "expected an object, found str"),
        (ROW | {"file_path": None}, "file_path must be a path below images/, found None"),
        (ROW | {"file_path": ""}, "file_path must be a path"),
        (ROW | {"file_path": "../a.png"}, "must stay below images/, found '../a.png'"),
        (ROW | {"file_path": "b/../../a.png"}, "must stay below images/"),
        (ROW | {"file_path": "/etc/a.png"}, "must stay below images/, found '/etc/a.png'"),
        (ROW | {"id": "3"}, "id must be a whole number, found '3'"),
        (ROW | {"id": True}, "id must be a whole number, found True"),
        (ROW | {"cam_id": 2}, "cam_id must be 0 (aerial) or 1 (ground), found 2"),
        (ROW | {"cam_id": True}, "cam_id must be 0 (aerial) or 1 (ground), found True"),
        (ROW | {"cam_id": None}, "cam_id must be 0 (aerial) or 1 (ground), found None"),
        (ROW | {"captions": []}, "captions must be a list of at least one sentence"),
        (ROW | {"captions": "a man"}, "captions must be a list of at least one sentence"),
        (ROW | {"captions": ["a man", " "]}, "captions must be a list of at least one sentence"),
        ({k: v for k, v in ROW.items() if k != "captions"}, "captions must be a list"),
        (ROW | {"elevation_deg": "40"}, "elevation_deg must be a number of degrees, found '40'"),
        (ROW | {"elevation_deg": float("nan")}, "elevation_deg must be a number of degrees, found nan"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, bad: Any, words: str) -> None:
    write(tmp_path, "train", [ROW, ROW, bad])
    with pytest.raises(DataError) as error:
        load_split(tmp_path, "train")
    assert f"{tmp_path / 'train_reid.json'} row 2: " in str(error.value) and words in str(error.value)


@pytest.mark.parametrize("rows", [[], {"rows": []}])
def test_an_annotation_file_without_images_is_refused(tmp_path: Path, rows: Any) -> None:
    write(tmp_path, "train", rows)
    with pytest.raises(DataError, match="expected a list of at least one image"):
        load_split(tmp_path, "train")


@pytest.mark.parametrize("content", [b"[{", b"\xff\xfe\x00"])
def test_an_annotation_file_that_is_no_json_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "val_reid.json").write_bytes(content)
    with pytest.raises(DataError, match="val_reid.json cannot be read as JSON"):
        load_split(tmp_path, "val")


def test_a_missing_split_says_how_to_make_one(tmp_path: Path) -> None:
    write(tmp_path, "train", [ROW])
    with pytest.raises(DataError, match="test_reid.json, found none; make data with `tagclip synth crops"):
        load_split(tmp_path, "test")


def test_load_images_keeps_order_and_channel_order(tmp_path: Path) -> None:
    colours = [(250, 10, 10), (10, 250, 10), (10, 10, 250)] * 4
    samples = []
    for k, colour in enumerate(colours):
        path = tmp_path / f"{k}.png"
        cv2.imwrite(str(path), np.full((20 + k, 10, 3), colour[::-1], np.uint8))
        samples.append(Sample(path, k, 0, ("a man",)))
    seen: list[tuple[int, int]] = []
    images = load_images(samples, SPEC, lambda done, total: seen.append((done, total)))
    assert images.shape == (12, 32, 16, 3) and images.dtype == np.uint8
    np.testing.assert_array_equal(images[:, 5, 5], colours)
    assert seen == [(12, 12)]


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match="cannot read the image .*broken.jpg"):
        load_images([Sample(tmp_path / "broken.jpg", 0, 0, ("a man",))], SPEC)


def test_augment_shapes_and_ranges() -> None:
    rng = np.random.default_rng(0)
    larger = train_spec(SPEC)
    assert (larger.height_px, larger.width_px) == (34, 17)
    images = rng.integers(0, 256, (200, 34, 17, 3), dtype=np.uint8)
    kept = images.copy()
    out = augment(images, SPEC, rng)
    assert out.shape == (200, 32, 16, 3) and out.dtype == np.float32
    assert out.min() >= 0 and out.max() <= 255 and np.isfinite(out).all()
    np.testing.assert_array_equal(images, kept)


def test_augment_crops_mirrors_and_erases() -> None:
    """A ramp along x tells where each picture was cut and whether it was mirrored, a flat one what was erased."""
    ramp = np.broadcast_to((10 * np.arange(17))[None, None, :, None], (300, 34, 17, 3)).astype(np.uint8)
    out = augment(ramp, SPEC, np.random.default_rng(1))
    rising = out[:, :, -1, 0].mean(1) > out[:, :, 0, 0].mean(1)
    assert 0.35 < rising.mean() < 0.65
    flat = augment(np.full((300, 34, 17, 3), 128, np.uint8), SPEC, np.random.default_rng(2))
    erased = np.ptp(flat, axis=(1, 2)).max(-1) > 1
    assert 0.2 < erased.mean() < 0.4
    levels = flat[~erased].mean((1, 2))
    low, high = 128 * 0.8 * 0.94 - 15, 128 * 1.25 * 1.06 + 15  # gain, colour cast and lift at their ends
    assert levels.std() > 10 and low <= levels.min() and levels.max() <= high


def test_augment_draws_only_from_its_generator() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 34, 17, 3), dtype=np.uint8)
    one, again = (augment(images, SPEC, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(one, again)


def test_batches_shuffle_all_and_drop_the_short_rest() -> None:
    found = list(batches(10, 4, np.random.default_rng(0)))
    assert [len(b) for b in found] == [4, 4]
    rows = np.concatenate(found)
    assert len(set(rows.tolist())) == 8 and set(rows.tolist()) <= set(range(10))
    assert rows.tolist() != sorted(rows.tolist())
    assert [sorted(b.tolist()) for b in batches(3, 4, np.random.default_rng(0))] == [[0, 1, 2]]

"""Annotations that break the contract are refused by row; images keep their order and channels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tagclip.runtime.errors import DataError
from tagclip.runtime.preprocess import PreprocessSpec
from tagclip.train.data import Sample, load_images, load_split

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
        (ROW | {"elevation_deg": "40"}, "elevation_deg must be -90 to 90 degrees, found '40'"),
        (ROW | {"elevation_deg": float("nan")}, "elevation_deg must be -90 to 90 degrees, found nan"),
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
    with pytest.raises(DataError, match="broken image: .*broken.jpg"):
        load_images([Sample(tmp_path / "broken.jpg", 0, 0, ("a man",))], SPEC)

"""Each thing that can be wrong with a data folder is found, with file and row; a good one is only counted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tagclip.runtime.errors import DataError
from tagclip.train.config import ModelConfig
from tagclip.train.datasets.check import check_data, token_limit
from tagclip.train.words import PAD_ID, build_words, encode

Rows = list[dict[str, Any]]


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (40, 20, 3), dtype=np.uint8)
    assert cv2.imwrite(str(path), noise)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small good folder of the form of TAG-PEDES: three people in train, one in test."""
    rows = [
        {
            "file_path": f"Market/000{k}_c1s1_00000{k}_00.jpg",
            "id": k,
            "cam_id": 1,
            "captions": ["a man", "he"],
        }
        for k in range(1, 5)
    ]
    for k, row in enumerate(rows):
        row["id"] = k
        picture(tmp_path / "images" / str(row["file_path"]), k)
    put(tmp_path, "train", rows[:3])
    put(tmp_path, "test", rows[3:])
    return tmp_path


def put(folder: Path, split: str, rows: Any) -> None:
    (folder / "anno_dir").mkdir(exist_ok=True)
    (folder / "anno_dir" / f"{split}_reid.json").write_text(json.dumps(rows))


def change(folder: Path, split: str, edit: Callable[[Rows], None]) -> None:
    path = folder / "anno_dir" / f"{split}_reid.json"
    rows = json.loads(path.read_text())
    edit(rows)
    path.write_text(json.dumps(rows))


def test_counts_of_a_good_folder(toy_data: Path) -> None:
    report = check_data(toy_data)
    assert report.format == "tagclip" and report.problems == []
    counts = {
        "identities": 6,
        "identities_in_both_views": 6,
        "captions_over_limit": 0,
        "mean_caption_words": 6.0,
    }
    assert report.splits == {
        "train": counts | {"images": 72, "captions": 144, "aerial": 36, "ground": 36},
        "val": counts | {"images": 24, "captions": 48, "aerial": 12, "ground": 12},
        "test": counts | {"images": 24, "captions": 48, "aerial": 12, "ground": 12},
    }


def test_a_folder_without_validation_is_good(folder: Path) -> None:
    report = check_data(folder)
    assert (report.format, list(report.splits), report.problems) == ("tag-pedes", ["train", "test"], [])
    assert report.splits["train"]["mean_caption_words"] == 1.5
    assert report.splits["train"]["identities_in_both_views"] == 0


def test_captions_over_the_limit_are_those_that_the_tokenizer_cuts(folder: Path) -> None:
    words = ["hat"] * token_limit()
    captions = [" ".join(words), " ".join([*words, "hat"]), "a" * 20, "unbelievably " * 40, "1 2 3 " * 100]
    change(folder, "train", lambda rows: rows[0].update(captions=captions))
    tokens = encode(build_words(ModelConfig().word_vectors, ()).tokenizer_json, captions, 1000)
    wanted = ((tokens != PAD_ID).sum(1) > ModelConfig().context_length).tolist()
    assert wanted[:3] == [False, True, False]
    assert check_data(folder).splits["train"]["captions_over_limit"] == sum(wanted)


def missing(folder: Path) -> None:
    (folder / "images/Market/0002_c1s1_000002_00.jpg").unlink()


def truncated(folder: Path) -> None:
    path = folder / "images/Market/0002_c1s1_000002_00.jpg"
    path.write_bytes(path.read_bytes()[:-60])


def broken(folder: Path) -> None:
    (folder / "images/Market/0002_c1s1_000002_00.jpg").write_bytes(b"<html>")


def no_captions(folder: Path) -> None:
    change(folder, "train", lambda rows: rows[1].update(captions=[]))


def wrong_type(folder: Path) -> None:
    change(folder, "train", lambda rows: rows[1].update(id="7"))


def absolute(folder: Path) -> None:
    change(folder, "train", lambda rows: rows[1].update(file_path="/etc/passwd"))


def parent(folder: Path) -> None:
    change(folder, "train", lambda rows: rows[1].update(file_path="../../secret.jpg"))


def wrong_view(folder: Path) -> None:
    change(folder, "train", lambda rows: rows[1].update(cam_id=0))


def crossing(folder: Path) -> None:
    change(folder, "test", lambda rows: rows[0].update(id=2))


def listed_twice(folder: Path) -> None:
    change(folder, "train", lambda rows: rows[1].update(file_path=rows[0]["file_path"]))


def same_bytes(folder: Path) -> None:
    images = folder / "images/Market"
    shutil.copy(images / "0001_c1s1_000001_00.jpg", images / "0002_c1s1_000002_00.jpg")


def gap(folder: Path) -> None:
    change(folder, "train", lambda rows: rows[2].update(id=3000))


def from_one(folder: Path) -> None:
    change(folder, "train", lambda rows: [row.update(id=row["id"] + 1) for row in rows] and None)
    change(folder, "test", lambda rows: rows[0].update(id=9))


def no_test(folder: Path) -> None:
    (folder / "anno_dir/test_reid.json").unlink()


def no_json(folder: Path) -> None:
    (folder / "anno_dir/test_reid.json").write_text("[{")


@pytest.mark.parametrize(
    ("damage", "kind", "where", "words"),
    [
        (missing, "missing file", "train_reid.json row 1", "expected the image "),
        (truncated, "truncated image", "train_reid.json row 1", "ends too early"),
        (broken, "broken image", "train_reid.json row 1", "cannot be decoded"),
        (no_captions, "no captions", "train_reid.json row 1", "at least one sentence, none empty, found []"),
        (wrong_type, "bad row", "train_reid.json row 1", "id must be a whole number, found '7'"),
        (absolute, "bad row", "train_reid.json row 1", "must stay below images/, found '/etc/passwd'"),
        (parent, "bad row", "train_reid.json row 1", "must stay below images/, found '../../secret.jpg'"),
        (wrong_view, "view against file name", "train_reid.json row 1", "0 (aerial), the file name 0002_c1"),
        (crossing, "identity in two splits", "test_reid.json row 0", "identity 2 is in train ("),
        (listed_twice, "duplicate file", "train_reid.json row 1", "is listed already in "),
        (
            same_bytes,
            "duplicate file",
            "train_reid.json row 1",
            "has the very bytes of 0001_c1s1_000001_00.jpg",
        ),
        (
            gap,
            "id gap",
            "train_reid.json",
            "count up from 0; found 0 to 3000, absent: 2, 3, 4, 5, 6 and 2993 more",
        ),
        (from_one, "id gap", "train_reid.json", "count up from 0; found 1 to 3, absent: 0"),
        (no_test, "annotations", "test_reid.json", "found none; the tag-pedes set comes with one"),
        (no_json, "annotations", "test_reid.json", "cannot be read as JSON"),
    ],
)
def test_each_problem_is_found(
    folder: Path, damage: Callable[[Path], None], kind: str, where: str, words: str
) -> None:
    damage(folder)
    # A row that cannot be read has no id, which then is a gap as well.
    problems = [p for p in check_data(folder).problems if p.kind == kind]
    assert len(problems) == 1, problems
    assert problems[0].where == str(folder / "anno_dir" / where)
    assert words in problems[0].message


def test_only_the_damage_is_a_problem(folder: Path) -> None:
    truncated(folder)
    wrong_view(folder)
    assert check_data(folder).by_kind() == {"view against file name": 1, "truncated image": 1}


def test_the_same_bytes_of_one_person_in_one_split_are_allowed(folder: Path) -> None:
    same_bytes(folder)
    change(folder, "train", lambda rows: [row.update(id=0) for row in rows] and None)
    assert check_data(folder).problems == []


def test_cuhk_counts_from_one(tmp_path: Path) -> None:
    """Only formats whose published loaders assert it have to count without a gap."""
    rows = [
        {"file_path": f"CUHK01/{k}.png", "id": k, "split": split, "captions": ["a man"]}
        for k, split in ((1, "train"), (2, "train"), (3, "val"), (4, "test"))
    ]
    for row in rows:
        picture(tmp_path / "imgs" / str(row["file_path"]), int(str(row["id"])))
    (tmp_path / "reid_raw.json").write_text(json.dumps(rows))
    assert check_data(tmp_path).problems == []
    rows[1]["id"] = 7
    (tmp_path / "reid_raw.json").write_text(json.dumps(rows))
    assert check_data(tmp_path).by_kind() == {"id gap": 1}


def test_shards_are_checked_as_one(toy_data: Path, tmp_path: Path) -> None:
    """The second copy's people have other ids, but their pictures are the same ones."""
    for shard in ("a", "b"):
        shutil.copytree(toy_data, tmp_path / shard)
    (tmp_path / "shards.json").write_text('{"shards": ["a", "b"]}')
    report = check_data(tmp_path)
    assert (report.format, report.splits["train"]["images"]) == ("shards", 144)
    assert report.splits["train"]["identities"] == 12
    assert report.by_kind() == {"duplicate file": 120}


def test_no_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found nothing at"):
        check_data(tmp_path / "absent")

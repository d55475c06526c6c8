"""Every public format is recognised by its files and read with its own names for things."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tagclip.runtime.errors import DataError
from tagclip.train.data import load_split
from tagclip.train.datasets.layout import FORMATS, find_layouts, has_split


def put(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def row(file_path: str, identity: int, **more: Any) -> dict[str, Any]:
    return {"file_path": file_path, "id": identity, "captions": ["A man.", "He walks."], **more}


def tagclip(folder: Path) -> None:
    for k, split in enumerate(("train", "val", "test")):
        put(folder / f"{split}_reid.json", [row(f"{split}/a.jpg", k, cam_id=0)])


def tag_pedes(folder: Path) -> None:
    """TAG-PEDES: two files in anno_dir/, ids of test go on after train's, no val."""
    put(folder / "anno_dir/train_reid.json", [row("G2APS/D1_30_000255_1_train.jpg", 0, cam_id=0)])
    put(folder / "anno_dir/test_reid.json", [row("Market/0002_c6s1_073426_00.jpg", 4840, cam_id=1)])


def cuhk_pedes(folder: Path) -> None:
    """CUHK-PEDES: one file, ids from 1, tokens that nobody needs, no cam_id."""
    rows = [
        row("CUHK01/0363004.png", 1, split="train"),
        row("Market/0002_c1s1_000451_03.jpg", 2, split="val"),
    ]
    rows = [*rows, row("test_query/p1.jpg", 3, split="test"), row("CUHK01/0363005.png", 1, split="train")]
    put(folder / "reid_raw.json", [r | {"processed_tokens": [["a", "man"], ["he", "walks"]]} for r in rows])


def icfg_pedes(folder: Path) -> None:
    """ICFG-PEDES: MSMT17's folders in the path contradict the split, whose case varies; one caption, no val."""
    rows = [row("test/0627/0627_010_05_0303morning_1591_1.jpg", 0, split="TRAIN")]
    rows.append(row("train/0000/0000_000_01_0303morning_0008_0.jpg", 1, split="test"))
    put(folder / "ICFG-PEDES.json", [r | {"captions": ["A man."]} for r in rows])


def rstpreid(folder: Path) -> None:
    """RSTPReid: the path is under img_path."""
    rows = [row(f"000{k}_c14_0031.jpg", k, split=s) for k, s in enumerate(("train", "val", "test"))]
    put(folder / "data_captions.json", [{**r, "img_path": r["file_path"], "file_path": None} for r in rows])


MAKERS: dict[str, Callable[[Path], None]] = {
    "tagclip": tagclip,
    "tag-pedes": tag_pedes,
    "cuhk-pedes": cuhk_pedes,
    "icfg-pedes": icfg_pedes,
    "rstpreid": rstpreid,
}


@pytest.mark.parametrize(
    ("name", "split", "path", "identity", "view"),
    [
        ("tagclip", "val", "images/val/a.jpg", 1, 0),
        ("tag-pedes", "train", "images/G2APS/D1_30_000255_1_train.jpg", 0, 0),
        ("tag-pedes", "test", "images/Market/0002_c6s1_073426_00.jpg", 4840, 1),
        ("cuhk-pedes", "train", "imgs/CUHK01/0363004.png", 1, 1),
        ("cuhk-pedes", "val", "imgs/Market/0002_c1s1_000451_03.jpg", 2, 1),
        ("cuhk-pedes", "test", "imgs/test_query/p1.jpg", 3, 1),
        ("icfg-pedes", "train", "imgs/test/0627/0627_010_05_0303morning_1591_1.jpg", 0, 1),
        ("icfg-pedes", "test", "imgs/train/0000/0000_000_01_0303morning_0008_0.jpg", 1, 1),
        ("rstpreid", "train", "imgs/0000_c14_0031.jpg", 0, 1),
        ("rstpreid", "val", "imgs/0001_c14_0031.jpg", 1, 1),
    ],
)
def test_formats(tmp_path: Path, name: str, split: str, path: str, identity: int, view: int) -> None:
    MAKERS[name](tmp_path)
    assert [layout.name for layout in find_layouts(tmp_path)] == [name]
    first = load_split(tmp_path, split)[0]
    assert (first.path, first.identity, first.view) == (tmp_path / path, identity, view)
    assert first.captions[0] == "A man."


def test_all_formats_are_tested() -> None:
    assert set(MAKERS) == set(FORMATS)


def test_rows_of_a_split_only_and_where_they_stand(tmp_path: Path) -> None:
    cuhk_pedes(tmp_path)
    assert [s.where for s in load_split(tmp_path, "train")] == [
        f"{tmp_path / 'reid_raw.json'} row 0",
        f"{tmp_path / 'reid_raw.json'} row 3",
    ]


def test_icfg_under_its_readmes_name(tmp_path: Path) -> None:
    icfg_pedes(tmp_path)
    (tmp_path / "ICFG-PEDES.json").rename(tmp_path / "ICFG_PEDES.json")
    assert len(load_split(tmp_path, "train")) == 1
    icfg_pedes(tmp_path)
    with pytest.raises(DataError, match=r"ICFG-PEDES.json and ICFG_PEDES.json; expected one of them"):
        find_layouts(tmp_path)


@pytest.mark.parametrize("name", ["tag-pedes", "icfg-pedes"])
def test_no_validation_split_names_the_way_out(tmp_path: Path, name: str) -> None:
    MAKERS[name](tmp_path)
    assert not has_split(find_layouts(tmp_path)[0], "val")
    with pytest.raises(DataError) as error:
        load_split(tmp_path, "val")
    assert f"data build OUT --from {name} --source {tmp_path} --val-identities 200" in str(error.value)


@pytest.mark.parametrize("split", ["dev", None, 3])
def test_a_row_of_no_split_is_named(tmp_path: Path, split: Any) -> None:
    put(tmp_path / "reid_raw.json", [row("a.png", 1, split="train"), row("b.png", 2, split=split)])
    with pytest.raises(DataError, match=f"row 1: split must be one of train, val, test, found {split!r}"):
        load_split(tmp_path, "train")


def test_paths_of_rstpreid_stay_below_imgs(tmp_path: Path) -> None:
    put(tmp_path / "data_captions.json", [row("", 0, split="train", img_path="../x.jpg")])
    with pytest.raises(DataError, match=r"row 0: img_path must stay below imgs/, found '../x.jpg'"):
        load_split(tmp_path, "train")


def test_two_formats_in_one_folder_have_to_be_chosen_from(tmp_path: Path) -> None:
    cuhk_pedes(tmp_path)
    rstpreid(tmp_path)
    with pytest.raises(DataError, match="cuhk-pedes and rstpreid.*--format cuhk-pedes.*data build OUT"):
        load_split(tmp_path, "train")
    assert load_split(tmp_path, "train", "rstpreid")[0].path.name == "0000_c14_0031.jpg"
    with pytest.raises(DataError, match="expected annotations of tagclip, found those of cuhk-pedes and"):
        find_layouts(tmp_path, "tagclip")


def test_a_folder_without_annotations_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"expected .*train_reid.json, found none, nor any of .*reid_raw.json"
    ):
        find_layouts(tmp_path)
    with pytest.raises(DataError, match="expected a data folder, found nothing at"):
        find_layouts(tmp_path / "absent")


def test_shards_are_one_set_whose_ids_never_collide(tmp_path: Path) -> None:
    for shard in ("a", "b"):
        tagclip(tmp_path / shard)
        put(tmp_path / shard / "train_reid.json", [row("x.jpg", 5), row("y.jpg", 0)])
    put(tmp_path / "shards.json", {"shards": ["a", "b"]})
    splits = {split: load_split(tmp_path, split) for split in ("train", "val", "test")}
    assert [s.path.relative_to(tmp_path).as_posix() for s in splits["train"]] == [
        f"{shard}/images/{name}" for shard in "ab" for name in ("x.jpg", "y.jpg")
    ]
    ids = [[s.identity for s in samples] for samples in splits.values()]
    assert ids == [[10, 0, 11, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"shards": []}, r'expected {"shards": \[names of sub-folders\]}'),
        (["a"], "expected {"),
        ({"shards": ["a", "../a"]}, r"shard 1 must stay below .*, found '../a'"),
        ({"shards": ["a", "/a"]}, "shard 1 must stay below"),
        ({"shards": [3]}, "shard 0 must be a path below .*, found 3"),
        ({"shards": ["a", "a/"]}, "shard 1: expected sub-folders, each once, found 'a/' again"),
        ({"shards": ["a", "absent"]}, r"shard 1: expected .*absent/train_reid.json, found none"),
    ],
)
def test_bad_shards_are_named(tmp_path: Path, content: Any, words: str) -> None:
    tagclip(tmp_path / "a")
    put(tmp_path / "shards.json", content)
    with pytest.raises(DataError, match=words):
        load_split(tmp_path, "train")


def test_a_shard_without_the_split_is_no_silent_gap(tmp_path: Path) -> None:
    tagclip(tmp_path / "a")
    tagclip(tmp_path / "b")
    (tmp_path / "b" / "val_reid.json").unlink()
    put(tmp_path / "shards.json", {"shards": ["a", "b"]})
    with pytest.raises(DataError, match=r"b/val_reid.json, found none; every shard has the same splits"):
        load_split(tmp_path, "val")

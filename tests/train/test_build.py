"""Folders with the public sets' names become one data folder; every file is in it or counted with a reason."""

from __future__ import annotations

import errno
import json
import os
import tarfile
from pathlib import Path
from typing import Any
from zlib import crc32

import cv2
import numpy as np
import pytest

from tagclip.runtime.errors import DataError, OutputError
from tagclip.train.data import load_split
from tagclip.train.datasets.build import Plan, build_data
from tagclip.train.datasets.check import check_data


def picture(path: Path, height: int = 40) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(crc32(str(path).encode()))
    cv2.imwrite(str(path), rng.integers(0, 256, (height, 30, 3), dtype=np.uint8))


def caption_all(folder: Path, to: Path, prefix: str = "") -> Path:
    paths = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.jpg"))
    to.write_text(json.dumps({prefix + p: [f"A person, {p}."] for p in paths}))
    return to


@pytest.fixture
def ag_reid(tmp_path: Path) -> Path:
    """AG-ReID.v2: twelve people, three cameras each, in the set's folders."""
    folder = tmp_path / "ag"
    for k in range(12):
        part = ("train_all", "query", "gallery")[k % 3]
        who = f"P{k:04d}T04041A0"
        for camera in "023":
            for frame in (31, 62):
                picture(folder / part / who / f"{who}C{camera}F{frame}.jpg")
    picture(folder / "exp1_aerial_to_cctv" / "P0000T04041A0C0F31.jpg")
    (folder / "readme.txt").write_text("hello")
    return folder


@pytest.fixture
def market(tmp_path: Path) -> Path:
    """Market-1501: six people, a distractor, junk, a tiny picture, a truncated one, the hand-drawn boxes."""
    folder = tmp_path / "market"
    for k in range(1, 7):
        picture(folder / "bounding_box_train" / f"{k:04d}_c1s1_00000{k}_01.jpg")
    test = folder / "bounding_box_test"
    picture(test / "0000_c1s1_000151_01.jpg")
    picture(test / "-1_c1s1_000401_03.jpg")
    picture(test / "0009_c1s1_000401_03.jpg", height=33)  # 990 pixels
    picture(test / "0010_c1s1_000401_03.jpg", height=34)  # 1,020
    picture(test / "0011_c1s1_000401_03.jpg")
    cut = (test / "0011_c1s1_000401_03.jpg").read_bytes()[:-50]
    (test / "0011_c1s1_000401_03.jpg").write_bytes(cut)
    (test / "Thumbs.db").write_bytes(b"x")
    picture(folder / "gt_bbox" / "0001_c1s1_000001_00.jpg")
    picture(folder / "query" / "0001_c1s1_000001_01.jpg")  # the same name as in bounding_box_train
    return folder


def rows(folder: Path) -> dict[str, list[dict[str, Any]]]:
    return {
        split: json.loads((folder / f"{split}_reid.json").read_text())
        for split in ("train", "val", "test")
        if (folder / f"{split}_reid.json").exists()
    }


def test_a_set_becomes_a_good_data_folder(ag_reid: Path, tmp_path: Path) -> None:
    captions = caption_all(ag_reid, tmp_path / "c.json")
    out = tmp_path / "out"
    plan = Plan((("ag-reid-v2", ag_reid),), (captions,), val_identities=2, test_identities=3)
    summary = build_data(out, plan)
    report = check_data(out)
    assert report.problems == [] and report.format == "tagclip"
    found = {split: (c["identities"], c["images"], c["aerial"]) for split, c in report.splits.items()}
    assert found == {"train": (7, 28, 14), "val": (2, 8, 4), "test": (3, 12, 6)}
    assert summary["splits"] == {
        split: {key: counts[key] for key in ("images", "identities", "captions", "aerial", "ground")}
        for split, counts in report.splits.items()
    }
    everyone = [row for split in rows(out).values() for row in split]
    assert sorted({row["id"] for row in everyone}) == list(range(12))
    for row in everyone:
        who = row["source"].removeprefix("ag-reid-v2/")
        assert Path(row["file_path"]).name.startswith(who + "C") and "C2" not in row["file_path"]
        assert row["captions"] == [f"A person, {row['file_path'].removeprefix('ag-reid-v2/')}."]
        original = ag_reid / row["file_path"].removeprefix("ag-reid-v2/")
        assert os.path.samefile(out / "images" / row["file_path"], original)  # a hard link, nothing moved


def test_every_file_is_taken_or_left_out_with_a_reason(market: Path, tmp_path: Path) -> None:
    captions = caption_all(market, tmp_path / "c.json")
    content = json.loads(captions.read_text())
    del content["bounding_box_train/0006_c1s1_000006_01.jpg"]
    content["bounding_box_train/0077_c1s1_000006_01.jpg"] = ["nobody"]
    captions.write_text(json.dumps(content))
    plan = Plan((("market-1501", market),), (captions,), val_identities=1, test_identities=1)
    summary = build_data(tmp_path / "out", plan)
    assert summary["sets"]["market-1501"] == {
        "files": sum(path.is_file() for path in market.rglob("*")),
        "taken": 6,
        "left_out": {
            "at most 1,000 pixels": 1,
            "distractor (0000)": 1,
            "junk (-1)": 1,
            "no caption": 1,
            "not a picture": 1,
            "outside bounding_box_train, bounding_box_test, query": 1,
            "same name in another folder": 1,
            "truncated image": 1,
        },
    }
    assert summary["captions_without_picture"] == 1
    written = json.loads((tmp_path / "out" / "build.json").read_text())
    assert (
        written["left_out"]["market-1501"]["bounding_box_test/0011_c1s1_000401_03.jpg"] == "truncated image"
    )
    assert {k: v for k, v in written.items() if k != "left_out"} == summary


def test_the_seed_decides_and_only_the_seed(ag_reid: Path, tmp_path: Path) -> None:
    captions = caption_all(ag_reid, tmp_path / "c.json")
    built = []
    for k, seed in enumerate((4, 4, 5)):
        plan = Plan((("ag-reid-v2", ag_reid),), (captions,), 3, 3, per_view=1, seed=seed)
        build_data(tmp_path / str(k), plan)
        built.append(rows(tmp_path / str(k)))
    assert built[0] == built[1] != built[2]


def test_at_most_so_many_of_a_person_and_view(ag_reid: Path, tmp_path: Path) -> None:
    captions = caption_all(ag_reid, tmp_path / "c.json")
    plan = Plan((("ag-reid-v2", ag_reid),), (captions,), per_view=1, with_wearable=True)
    summary = build_data(tmp_path / "out", plan)
    groups = [(row["id"], row["cam_id"]) for split in rows(tmp_path / "out").values() for row in split]
    assert len(groups) == len(set(groups)) == 24
    assert summary["sets"]["ag-reid-v2"]["left_out"]["beyond 1 of a person and view"] == 12 + 36
    assert "wearable camera (C2)" not in summary["sets"]["ag-reid-v2"]["left_out"]
    assert {split: c["identities"] for split, c in summary["splits"].items()} == {
        "train": 10,
        "val": 1,
        "test": 1,
    }


def test_several_sets_in_one_folder_do_not_collide(ag_reid: Path, market: Path, tmp_path: Path) -> None:
    for name in ("P000S03", "D000S03"):
        picture(tmp_path / "uav" / f"{name}G10B00H20UC021000LC021000A018R0_09301543_063_bbx.jpg")
    for who in ("0001", "0002"):
        picture(tmp_path / "g2aps" / who / "D1_30_000255_1_train.jpg")
        picture(tmp_path / "g2aps" / who / "S2_20_001904_0_gallery.jpg")
    picture(tmp_path / "prai" / "00000001_0001_00000002.jpg")
    sources = {"ag-reid-v2": ag_reid, "market-1501": market, "uav-human": tmp_path / "uav"}
    sources |= {"g2aps": tmp_path / "g2aps", "prai-1581": tmp_path / "prai"}
    captions = [caption_all(folder, tmp_path / f"{k}.json", f"{k}/") for k, folder in sources.items()]
    build_data(tmp_path / "out", Plan(tuple(sources.items()), tuple(captions), 2, 2, copy=True))
    report = check_data(tmp_path / "out")
    assert report.problems == []
    people = {row["source"]: row["id"] for split in rows(tmp_path / "out").values() for row in split}
    assert len(people) == len(set(people.values())) == 12 + 7 + 2 + 2 + 1
    assert sum(counts["identities_in_both_views"] for counts in report.splits.values()) == 12 + 2
    taken = next((tmp_path / "out" / "images" / "market-1501").rglob("*.jpg"))
    assert taken.stat().st_nlink == 1  # a copy


def test_validation_is_carved_from_train_and_test_stays(tmp_path: Path) -> None:
    """TAG-PEDES has no val; its test is the benchmark's and must not change."""
    source = tmp_path / "tag"
    (source / "anno_dir").mkdir(parents=True)
    extra = {"elevation_deg": 50.0, "attributes": {"hat": True}, "visible": {"hat": 0.5}}
    for split, ids in (("train", range(10)), ("test", range(10, 14))):
        content = []
        for k in ids:
            name = f"PRAI-1581/{k:08d}_0001_00000002.jpg"
            picture(source / "images" / name, height=20)  # 600 pixels: an annotated set stays whole
            content.append({"file_path": name, "id": k, "cam_id": 0, "captions": ["a", "b"], **extra})
        (source / "anno_dir" / f"{split}_reid.json").write_text(json.dumps(content))
    build_data(tmp_path / "out", Plan((("tag-pedes", source),), val_identities=3))
    found = {
        s: [int(r["source"].rpartition("/")[2]) for r in part] for s, part in rows(tmp_path / "out").items()
    }
    assert {split: len(ids) for split, ids in found.items()} == {"train": 7, "val": 3, "test": 4}
    assert sorted(found["train"] + found["val"]) == list(range(10)) and found["test"] == [10, 11, 12, 13]
    assert found["val"] != [7, 8, 9]
    val = load_split(tmp_path / "out", "val")[0]
    assert val.elevation_deg == 50.0 and (val.attributes, val.visible) == ({"hat": True}, {"hat": 0.5})
    assert check_data(tmp_path / "out").problems == []


def test_a_set_with_its_own_validation_is_not_drawn_from(toy_data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="tagclip has a validation split of its own; leave out --val"):
        build_data(tmp_path / "out", Plan((("tagclip", toy_data),), val_identities=1))
    summary = build_data(tmp_path / "out", Plan((("tagclip", toy_data),), copy=True))
    assert [counts["images"] for counts in summary["splits"].values()] == [72, 24, 24]


def test_pictures_in_tars_are_copied_and_never_linked(toy_data: Path, tmp_path: Path) -> None:
    source = tmp_path / "tars"
    (source / "images").mkdir(parents=True)
    for split in ("train", "val", "test"):
        rows = json.loads((toy_data / f"{split}_reid.json").read_text())
        with tarfile.open(source / "images" / f"{split}-000000.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for k, row in enumerate(rows):
                tar.add(toy_data / "images" / row["file_path"], f"{k:04d}{Path(row['file_path']).suffix}")
                row["file_path"] = f"{split}-000000.tar/{k:04d}{Path(row['file_path']).suffix}"
        (source / f"{split}_reid.json").write_text(json.dumps(rows))
    with pytest.raises(OutputError, match="lies in a tar and cannot be hard-linked; use --images copy"):
        build_data(tmp_path / "out", Plan((("tagclip", source),)))
    assert not (tmp_path / "out").exists()
    build_data(tmp_path / "out", Plan((("tagclip", source),), copy=True))
    assert check_data(tmp_path / "out").problems == []
    before = [sample.path.read_bytes() for sample in load_split(toy_data, "test")]
    assert [sample.path.read_bytes() for sample in load_split(tmp_path / "out", "test")] == before


def test_a_broken_picture_of_an_annotated_set_is_refused(toy_data: Path, tmp_path: Path) -> None:
    build_data(tmp_path / "in", Plan((("tagclip", toy_data),), copy=True))
    path = load_split(tmp_path / "in", "val")[0].path
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"val_reid.json row 0: truncated image: .*data check .* lists all"):
        build_data(tmp_path / "out", Plan((("tagclip", tmp_path / "in"),)))
    assert not (tmp_path / "out").exists()


def test_a_foreign_name_is_refused_and_nothing_is_written(market: Path, tmp_path: Path) -> None:
    captions = caption_all(market, tmp_path / "c.json")
    picture(market / "query" / "holiday.jpg")
    with pytest.raises(
        DataError, match=r"query/holiday.jpg: no file name of market-1501; expected one like 0002"
    ):
        build_data(tmp_path / "out", Plan((("market-1501", market),), (captions,)))
    assert not list(tmp_path.glob("*out*"))


def test_no_captions_at_all_are_refused_with_the_form_of_the_paths(market: Path, tmp_path: Path) -> None:
    plan = Plan((("market-1501", market),))
    with pytest.raises(DataError, match="comes without captions .* found no --captions"):
        build_data(tmp_path / "out", plan)
    (tmp_path / "c.json").write_text('{"C:/x/1.jpg": "a man"}')
    with pytest.raises(DataError) as error:
        build_data(tmp_path / "out", Plan(plan.sources, (tmp_path / "c.json",)))
    assert "with paths such as 'bounding_box_test/0009_c1s1_000401_03.jpg' or 'market-1501/bou" in str(
        error.value
    )
    assert "found paths such as 'C:/x/1.jpg'" in str(error.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"val_identities": 13}, "--val-identities 13: only 11 identities can be drawn from"),
        ({"test_identities": 99}, "--test-identities 99: only 12 identities"),
        ({"test_identities": 6, "val_identities": 6}, "all 12 identities went to val and test"),
    ],
)
def test_more_people_than_there_are(
    ag_reid: Path, tmp_path: Path, change: dict[str, int], words: str
) -> None:
    captions = caption_all(ag_reid, tmp_path / "c.json")
    with pytest.raises(DataError, match=words):
        build_data(tmp_path / "out", Plan((("ag-reid-v2", ag_reid),), (captions,), **change))


def test_what_is_there_already_stays(ag_reid: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(OutputError, match="exists and is not empty"):
        build_data(tmp_path / "out", Plan((("ag-reid-v2", ag_reid),)))
    with pytest.raises(DataError, match="ag-reid-v2 is given twice; put its pictures below one folder"):
        build_data(tmp_path / "new", Plan((("ag-reid-v2", ag_reid),) * 2))
    with pytest.raises(DataError, match="expected the folder of g2aps, found nothing at"):
        build_data(tmp_path / "new", Plan((("g2aps", tmp_path / "absent"),)))


def test_a_link_across_disks_names_the_way_out(
    ag_reid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No second disk in a test, so the system call answers as one would."""

    def refuse(*_: Any) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    captions = caption_all(ag_reid, tmp_path / "c.json")
    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(OutputError, match="Invalid cross-device link; use --images copy"):
        build_data(tmp_path / "out", Plan((("ag-reid-v2", ag_reid),), (captions,)))
    assert not list(tmp_path.glob("*out*"))

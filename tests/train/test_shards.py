"""Parts of a data set and what is made of them: files or tars, the same rows, the same bytes each time."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from tagclip.runtime.errors import DataError
from tagclip.train.synth.annotate import describe_for, recaption
from tagclip.train.synth.appearance import to_json
from tagclip.train.synth.people import sample_appearance
from tagclip.train.synth.shards import describe_anew, gather, packed, unpacked

SPLIT_OF = ("test", "val", *["train"] * 5)  # of identities 0..6
VISIBLE = {"hair": 0.05, "top": 0.4, "sleeves": 0.2, "bottom": 0.3, "shoes": 0.05}


def sample(identity: int, k: int) -> tuple[dict[str, Any], bytes]:
    split = SPLIT_OF[identity]
    row = {
        "file_path": f"{split}/{identity:06d}_g{k}.jpg",
        "id": identity,
        "cam_id": 1,
        "captions": [],
        "elevation_deg": 10.5,
        "attributes": to_json(sample_appearance(np.random.default_rng(identity))) | {"posture": "standing"},
        "visible": VISIBLE,
    }
    return row | {"captions": describe_for(split, row, 0, 3)}, f"picture {identity} {k}".encode() * 50


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    """Two parts: four people and three, two pictures each."""
    paths = []
    for n, people in enumerate((range(4), range(4, 7))):
        paths.append(tmp_path / f"{n}.tar")
        paths[-1].write_bytes(packed(sample(i, k) for i in people for k in range(2)))
    return paths


def rows_of(folder: Path) -> dict[str, list[dict[str, Any]]]:
    return {s: json.loads((folder / f"{s}_reid.json").read_text()) for s in ("train", "val", "test")}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def make(folder: Path, parts: list[Path], people_per_tar: int | None) -> Path:
    for _ in gather(parts, folder, people_per_tar, lambda done: None):
        pass
    return folder


def test_single_files(tmp_path: Path, parts: list[Path]) -> None:
    ticks: list[int] = []
    (tmp_path / "set").mkdir()
    listed = list(gather(parts, tmp_path / "set", None, ticks.append))
    assert ticks == [14] and [row["id"] for _, row in listed] == [i for i in range(7) for _ in range(2)]
    found = rows_of(tmp_path / "set")
    assert {s: [r for n, r in listed if n == s] for s in found} == found
    for identity, split in enumerate(SPLIT_OF):
        for k in range(2):
            row, picture = sample(identity, k)
            assert row in found[split]
            assert (tmp_path / "set/images" / row["file_path"]).read_bytes() == picture


def test_tars_are_what_webdataset_reads(tmp_path: Path, parts: list[Path]) -> None:
    """KEY.jpg and KEY.json one after the other, whole people, plain ustar without times and owners."""
    (tmp_path / "set").mkdir()
    make(tmp_path / "set", parts, 2)
    images = tmp_path / "set/images"
    people = {p.name: [] for p in sorted(images.iterdir())}  # type: dict[str, list[int]]
    listed = {row["file_path"]: row for rows in rows_of(tmp_path / "set").values() for row in rows}
    for name in people:
        data = (images / name).read_bytes()
        assert data[257:265] == b"ustar\x0000" and data[-1024:] == bytes(1024)
        with tarfile.open(images / name, "r:") as tar:
            members = tar.getmembers()
            for m in members:
                assert (m.mode, m.uid, m.gid, m.mtime, m.uname, m.gname) == (0o644, 0, 0, 0, "", "")
            for jpg, text in zip(members[::2], members[1::2], strict=True):
                key = jpg.name.removesuffix(".jpg")
                assert text.name == f"{key}.json" and "." not in key
                row = json.loads(tar.extractfile(text).read())  # type: ignore[union-attr]
                assert row == listed.pop(f"{name}/{jpg.name}")
                identity, k = row["id"], int(key[-1])
                assert tar.extractfile(jpg).read() == sample(identity, k)[1]  # type: ignore[union-attr]
                people[name].append(identity)
    assert listed == {}
    assert people == {
        "test-000000.tar": [0, 0],
        "train-000000.tar": [2, 2, 3, 3],
        "train-000001.tar": [4, 4, 5, 5],
        "train-000002.tar": [6, 6],
        "val-000000.tar": [1, 1],
    }


@pytest.mark.parametrize("people_per_tar", [None, 2])
def test_the_same_bytes_whatever_the_parts(
    tmp_path: Path, parts: list[Path], people_per_tar: int | None
) -> None:
    other = [tmp_path / f"other{i}.tar" for i in range(7)]
    for i, path in enumerate(other):
        path.write_bytes(packed(sample(i, k) for k in range(2)))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one = contents(make(tmp_path / "one", parts, people_per_tar))
    two = contents(make(tmp_path / "two", other, people_per_tar))
    assert one == two and len(one) == (17 if people_per_tar is None else 8)


def test_only_file_path_depends_on_the_layout(tmp_path: Path, parts: list[Path]) -> None:
    """The words, too, are the same, and stay the same when both are described anew."""
    for name, limit in (("files", None), ("tars", 2)):
        (tmp_path / name).mkdir()
        make(tmp_path / name, parts, limit)
        (tmp_path / name / "synth.json").write_text('{"seed": 0, "captions": 3}')
    before = contents(tmp_path / "tars")
    for anew in (False, True):
        if anew:
            assert recaption(tmp_path / "files", 4, 9, 1) == recaption(tmp_path / "tars", 4, 9, 1)
        files, tars = rows_of(tmp_path / "files"), rows_of(tmp_path / "tars")
        for split in files:
            for a, b in zip(files[split], tars[split], strict=True):
                assert a["file_path"] != b["file_path"]
                assert a | {"file_path": ""} == b | {"file_path": ""}
    note = json.loads((tmp_path / "tars/synth.json").read_text())
    assert note == {"seed": 0, "captions": 4, "captions_seed": 9, "wording": "train"}
    # The annotations within the tars went along, the pictures are what they were.
    after = {row["file_path"]: row for rows in tars.values() for row in rows}
    for path in sorted((tmp_path / "tars/images").iterdir()):
        assert path.read_bytes() != before[f"images/{path.name}"]
        for row, picture in unpacked(path):
            assert row == after.pop(row["file_path"]) and len(row["captions"]) == (4 if row["id"] > 1 else 2)
            assert picture == sample(row["id"], int(Path(row["file_path"]).stem[-1]))[1]
    assert after == {}


def test_a_path_that_leaves_the_folder_is_not_followed(tmp_path: Path, parts: list[Path]) -> None:
    (tmp_path / "set").mkdir()
    make(tmp_path / "set", parts, 2)
    path = tmp_path / "set/val_reid.json"
    path.write_text(path.read_text().replace("val-000000.tar/", "../../0.tar/"))
    before = contents(tmp_path)
    with pytest.raises(DataError, match=r"val_reid.json row 0: file_path must stay below images/"):
        recaption(tmp_path / "set", 2, 0, 1)
    assert contents(tmp_path) == before


def test_a_tar_with_more_than_its_annotations_is_kept(parts: list[Path]) -> None:
    before = parts[0].read_bytes()
    with pytest.raises(DataError, match="holds 000000_g1, which no annotation names"):
        describe_anew(parts[0], {"000000_g0": sample(0, 0)[0]})
    assert parts[0].read_bytes() == before


def test_a_damaged_part_is_named(tmp_path: Path, parts: list[Path]) -> None:
    parts[1].write_bytes(parts[1].read_bytes()[:3000])
    (tmp_path / "set").mkdir()
    with pytest.raises(DataError, match=r"truncated tar: .*1.tar"):
        make(tmp_path / "set", parts, None)


def test_a_part_without_a_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(packed([sample(0, 0)]))
    with tarfile.open(tmp_path / "a.tar", "r:") as tar, tarfile.open(tmp_path / "b.tar", "w") as other:
        text = tar.getmember("000000_g0.json")
        other.addfile(text, tar.extractfile(text))
    with pytest.raises(DataError, match=r"b.tar holds no whole samples"):
        list(unpacked(tmp_path / "b.tar"))

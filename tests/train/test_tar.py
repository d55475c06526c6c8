"""Pictures in a tar are read as those in files are; a tar that is not sound is named for what is wrong with it."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from tagclip.runtime.errors import DataError
from tagclip.runtime.preprocess import PreprocessSpec
from tagclip.train.data import load_images, load_split
from tagclip.train.datasets.check import check_data
from tagclip.train.datasets.picture import decode, is_there, read_bytes
from tagclip.train.images import DiskImages

SPEC = PreprocessSpec(32, 16)


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 20, 3), dtype=np.uint8)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def make_tar(path: Path, members: dict[str, bytes], **options: int) -> None:
    with tarfile.open(path, "w", **options) as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One data set twice: the pictures of `files` in files, those of `tars` in a tar a split."""
    for kind in ("files", "tars"):
        for k, split in enumerate(("train", "val", "test")):
            images = tmp_path / kind / "images"
            below = f"{split}-000000.tar" if kind == "tars" else split
            names = [f"{10 * k + n:06d}_g0.jpg" for n in range(6)]
            data = {name: picture(10 * k + n) for n, name in enumerate(names)}
            images.mkdir(parents=True, exist_ok=True)
            if kind == "tars":
                make_tar(images / below, data)
            else:
                (images / below).mkdir()
                for name in names:
                    (images / below / name).write_bytes(data[name])
            rows = [{"file_path": f"{below}/{n}", "id": int(n[:6]), "captions": ["a man"]} for n in names]
            (tmp_path / kind / f"{split}_reid.json").write_text(json.dumps(rows))
    return tmp_path


def test_training_sees_the_same_pixels_from_tars(folder: Path) -> None:
    files, tars = (load_split(folder / kind, "train") for kind in ("files", "tars"))
    wanted = load_images(files, SPEC)
    assert wanted.std() > 10
    np.testing.assert_array_equal(load_images(tars, SPEC), wanted)
    np.testing.assert_array_equal(DiskImages(tars, SPEC)[np.array([4, 0, 4])], wanted[[4, 0, 4]])


def test_data_check_decodes_what_lies_in_tars(folder: Path) -> None:
    report = check_data(folder / "tars")
    assert report.problems == [] and report.splits == check_data(folder / "files").splits
    tar = folder / "tars/images/val-000000.tar"
    data = {f"{10 + n:06d}_g0.jpg": picture(10 + n) for n in range(5)}
    make_tar(tar, {**data, "000014_g0.jpg": picture(14)[:300]})  # one cut off, one gone
    assert check_data(folder / "tars").by_kind() == {"truncated image": 1, "missing file": 1}


def test_a_missing_member_is_found_before_a_run_begins(folder: Path) -> None:
    samples = load_split(folder / "tars", "test")
    make_tar(samples[0].path.parent, {samples[0].path.name: picture(1)})
    assert is_there(samples[0].path) and not is_there(samples[1].path)
    with pytest.raises(DataError, match=r"expected the image .*test-000000.tar/000021_g0.jpg \(number 1"):
        DiskImages(samples, SPEC)
    with pytest.raises(DataError, match=r"^missing file: expected 000021_g0.jpg in .*, found no such member"):
        decode(samples[1].path)


def test_a_missing_tar_reads_like_a_missing_picture(folder: Path) -> None:
    path = folder / "tars/images/no.tar/000000_g0.jpg"
    assert not is_there(path)
    with pytest.raises(DataError, match=r"^missing file: expected the image .*no.tar/000000_g0.jpg, found"):
        decode(path)


def test_many_threads_read_one_tar(tmp_path: Path) -> None:
    members = {f"{k}.bin": os.urandom(5_000 + k) for k in range(200)}
    make_tar(tmp_path / "a.tar", members)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda name: read_bytes(tmp_path / "a.tar" / name), list(members) * 3))
    assert found == list(members.values()) * 3


def test_a_tar_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    make_tar(tmp_path / "a.tar", {"x": b"old", "y": b"1"})
    assert read_bytes(tmp_path / "a.tar/x") == b"old"
    make_tar(tmp_path / "b.tar", {"y": b"22", "x": b"newer"})
    os.replace(tmp_path / "b.tar", tmp_path / "a.tar")
    assert read_bytes(tmp_path / "a.tar/x") == b"newer"


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_folders_and_long_names_within_a_tar(tmp_path: Path, format: int) -> None:
    name = "./" + "/".join(["long" * 10] * 4) + "/k.jpg"  # 170 letters
    make_tar(tmp_path / "a.tar", {name: b"x" * 700}, format=format)
    assert read_bytes(tmp_path / "a.tar" / name) == b"x" * 700


def test_a_folder_may_be_called_tar(tmp_path: Path) -> None:
    (tmp_path / "a.tar").mkdir()
    (tmp_path / "a.tar/x.jpg").write_bytes(b"x")
    assert is_there(tmp_path / "a.tar/x.jpg") and read_bytes(tmp_path / "a.tar/x.jpg") == b"x"


@pytest.mark.parametrize(
    "keep", [700, 1536, 1536 + 100, 3072], ids=["in data", "after a member", "in a header", "no end"]
)
def test_a_truncated_tar(tmp_path: Path, keep: int) -> None:
    """Two members of 1,000 bytes: each a block of header and two of data."""
    tar = tmp_path / "a.tar"
    make_tar(tar, {"x": b"x" * 1000, "y": b"y" * 1000})
    tar.write_bytes(tar.read_bytes()[:keep])
    for _ in range(2):  # what is wrong is remembered
        with pytest.raises(DataError, match=r"^truncated tar: .*a.tar ends too early"):
            read_bytes(tar / "x")


def test_a_damaged_header(tmp_path: Path) -> None:
    tar = tmp_path / "a.tar"
    make_tar(tar, {"x": b"x" * 1000, "y": b"y" * 1000})
    data = bytearray(tar.read_bytes())
    data[1536 + 3] ^= 1  # in y's name, so its checksum is wrong
    tar.write_bytes(data)
    with pytest.raises(DataError, match=r"^broken tar: .*a.tar is damaged at byte 1536"):
        read_bytes(tar / "x")


@pytest.mark.parametrize("data", [b"", b"no tar " * 200])
def test_no_tar_at_all(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(DataError, match=r"^broken tar: .*a.tar is no uncompressed tar"):
        read_bytes(tmp_path / "a.tar/x")


def test_a_compressed_tar(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w:gz"):
        pass
    with pytest.raises(DataError, match=r"^broken tar: .*a.tar is no uncompressed tar"):
        read_bytes(tmp_path / "a.tar/x")


def linked(member: tarfile.TarInfo) -> None:
    member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"


def piped(member: tarfile.TarInfo) -> None:
    member.type = tarfile.FIFOTYPE


def above(member: tarfile.TarInfo) -> None:
    member.name = "../x"


def absolute(member: tarfile.TarInfo) -> None:
    member.name = "/x"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (linked, "holds 'x', a link or device"),
        (piped, "holds 'x', a link or device"),
        (above, "holds '../x'; expected plain relative names"),
        (absolute, "holds '/x'; expected plain relative names"),
        (lambda member: setattr(member, "name", "y"), "holds y twice"),
    ],
)
def test_a_member_that_is_not_plain(
    tmp_path: Path, change: Callable[[tarfile.TarInfo], None], message: str
) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("y"))
        member = tarfile.TarInfo("x")
        change(member)
        tar.addfile(member)
    with pytest.raises(DataError, match=message):
        read_bytes(tmp_path / "a.tar/y")

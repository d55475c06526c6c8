"""Probes that make NumPy and zipfile raise what is no error of theirs for a bad file."""

from __future__ import annotations

import hashlib
import io
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tagclip.runtime.bundle import Bundle, open_bundle
from tagclip.runtime.errors import BundleSelfTestError
from tagclip.runtime.selftest import run_probe


def encrypted(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[data.find(b"PK\x03\x04") + 6] |= 1  # the flag, in the local header and in the directory
    data[data.find(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)


def no_array(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("crops", b"not .npy: NumPy hands out the bytes")


def more_than_there_is(path: Path) -> None:
    """A hundred bytes that say they are 900 terabytes: the size in the archive is small."""
    header = io.BytesIO()
    shape = (10**15,)
    np.lib.format.write_array_header_1_0(
        header,
        {"descr": "|u1", "fortran_order": False, "shape": shape},  # type: ignore[arg-type]
    )
    with np.load(path) as arrays:
        others = {name: arrays[name] for name in arrays.files if name != "crops"}
    np.savez(path, **others)  # type: ignore[arg-type]
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("crops.npy", header.getvalue() + bytes(100))


def unknown_words(path: Path) -> None:
    with np.load(path) as arrays:
        changed = {name: arrays[name] for name in arrays.files}
    changed["texts"] = np.array(["zzz", "zzz"])
    np.savez(path, **changed)  # type: ignore[arg-type]


@pytest.mark.parametrize("damage", [encrypted, no_array, more_than_there_is, unknown_words])
def test_is_refused_by_name(tiny_bundle: Bundle, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    folder = Path(shutil.copytree(tiny_bundle.path, tmp_path / "b"))
    damage(folder / "probe.npz")
    names = sorted(path.name for path in folder.iterdir() if path.name != "SHA256SUMS")
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (folder / "SHA256SUMS").write_text("".join(lines))
    bundle = open_bundle(folder)
    with pytest.raises(BundleSelfTestError, match=r"probe\.npz"):
        run_probe(bundle)

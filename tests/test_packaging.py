"""What is installed is what is here: package lists, and the content of the wheel."""

from __future__ import annotations

import configparser
import importlib.metadata
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tagclip.runtime.cli import EXTRAS

ROOT = Path(__file__).parent.parent
PARTS = ("train", "export", "runtime", "calibration")


@pytest.fixture(scope="module")
def setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def shipped_sources() -> set[str]:
    """Names in the wheel of all code and package data, such as tagclip/runtime/cli.py."""
    found = {path for part in PARTS for path in (ROOT / part).rglob("*.py")}
    found |= {path for part in PARTS for path in (ROOT / part).rglob("py.typed")}
    found |= {path for path in (ROOT / "runtime" / "data").glob("*") if path.is_file()}
    found |= set((ROOT / "train" / "dictionary").glob("*.tsv"))
    found |= {path for path in (ROOT / "runtime" / "station" / "page").rglob("*") if path.is_file()}
    found |= {path for path in (ROOT / "runtime" / "data" / "bundle").glob("*") if path.is_file()}
    return {f"tagclip/{path.relative_to(ROOT).as_posix()}" for path in found if not path.name.startswith(".")}


def test_every_package_folder_is_listed(setup: configparser.ConfigParser) -> None:
    folders = {path.parent.relative_to(ROOT) for part in PARTS for path in (ROOT / part).rglob("__init__.py")}
    expected = {f"tagclip.{'.'.join(folder.parts)}": folder.as_posix() for folder in folders}
    assert set(setup["options"]["packages"].split()) == set(expected)
    pairs = (line.split("=") for line in setup["options"]["package_dir"].strip().splitlines())
    assert {name.strip(): folder.strip() for name, folder in pairs} == expected


def test_no_folder_shadows_the_namespace() -> None:
    """A folder `tagclip/` at the root would hide the installed package from everything run here."""
    assert not (ROOT / "tagclip").exists()


def test_extras_in_hints_exist(setup: configparser.ConfigParser) -> None:
    assert set(EXTRAS.values()) <= set(setup["options.extras_require"])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from a copy: a stale build/lib in the working tree would ship deleted modules again."""
    if int(importlib.metadata.version("setuptools").partition(".")[0]) < 77:
        pytest.skip("needs setuptools 77, as pyproject.toml says")
    folder = tmp_path_factory.mktemp("wheel")
    for part in PARTS:
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, folder / name)
    code = "import setuptools.build_meta as backend; backend.build_wheel('dist')"
    result = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (path,) = (folder / "dist").glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_all_sources_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    found = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert found == shipped_sources()


def test_the_wheel_holds_the_licence_and_the_command(wheel: zipfile.ZipFile) -> None:
    info = {name.partition(".dist-info/")[2]: name for name in wheel.namelist() if ".dist-info/" in name}
    assert {"licenses/LICENSE", "licenses/NOTICE"} <= set(info)
    assert b"Apache License" in wheel.read(info["licenses/LICENSE"])
    assert "tagclip = tagclip.runtime.cli:main" in wheel.read(info["entry_points.txt"]).decode()


def test_the_device_install_has_no_torch(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    requires = [
        line.partition(": ")[2]
        for line in wheel.read(name).decode().splitlines()
        if line.startswith("Requires-Dist") and "extra ==" not in line
    ]
    assert {line.partition(">")[0] for line in requires} == {
        "click",
        "numkong",
        "numpy",
        "opencv-python-headless",
        "prometheus-client",
        "pyyaml",
        "tokenizers",
    }

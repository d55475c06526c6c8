"""Captions by picture from JSON or CSV; what is neither is named by entry or line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tagclip.runtime.errors import DataError
from tagclip.train.datasets.caption_file import read_captions


def test_json_and_csv_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(
        json.dumps({"./a/b.jpg": ["A man, old.", "He"], "c.jpg": "Zoë", "d.jpg": []})
    )
    (tmp_path / "c.csv").write_text(
        'caption,file_path\n"A man, old.",a/b.jpg\nZoë,c.jpg\nHe,a/b.jpg\n', "utf-8-sig"
    )
    wanted = {"a/b.jpg": ("A man, old.", "He"), "c.jpg": ("Zoë",)}
    assert read_captions(tmp_path / "c.json") == read_captions(tmp_path / "c.csv") == wanted


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (["a"], "expected an object .*, found list"),
        ({}, "expected captions of at least one picture, found none"),
        ({"a.jpg": 3}, "entry 'a.jpg': expected sentences, none empty, found 3"),
        ({"a.jpg": ["x", " "]}, "entry 'a.jpg': expected sentences"),
    ],
)
def test_bad_json(tmp_path: Path, content: Any, words: str) -> None:
    (tmp_path / "c.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=words):
        read_captions(tmp_path / "c.json")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a.jpg,x\n", r"line 1: expected columns file_path,caption, found \['a.jpg', 'x'\]"),
        (b"", "line 1: expected columns file_path,caption, found None"),
        (
            b"file_path,caption\na.jpg,x\na.jpg, \n",
            r"line 3: expected file_path,caption, found \['a.jpg', ' '\]",
        ),
        (b"file_path,caption\na.jpg\n", "line 2: expected file_path,caption"),
        (
            b"file_path,caption\na.jpg,red coat, blue hat\n",
            "line 2: expected file_path,caption",
        ),  # not quoted
        (b'file_path,caption\na.jpg,"x\n', "cannot be read as CSV"),
        (b"\xff\xfe", "cannot be read as CSV"),
    ],
)
def test_bad_csv(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "c.csv").write_bytes(content)
    with pytest.raises(DataError, match=words):
        read_captions(tmp_path / "c.csv")


@pytest.mark.parametrize("name", ["absent.csv", "absent.json"])
def test_no_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"expected .*{name}, found none"):
        read_captions(tmp_path / name)

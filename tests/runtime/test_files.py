"""Atomic folders: replaced in one step, and what the dead left is removed, what the living write is not."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from tagclip.runtime import files
from tagclip.runtime.errors import OutputError
from tagclip.runtime.files import folder_atomic, swap, write_atomic


def make(target: Path, text: str, *, replace: bool = False) -> None:
    with folder_atomic(target, replace=replace) as work:
        (work / "inner").mkdir()
        (work / "inner" / "file").write_text(text)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    for text in ("one", "two"):
        make(tmp_path / "b", text, replace=True)
        assert (tmp_path / "b" / "inner" / "file").read_text() == text
        assert names(tmp_path) == ["b"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    make(tmp_path / "b", "one")
    assert (tmp_path / "b" / "inner" / "file").read_text() == "one"


def test_a_failure_leaves_the_old(tmp_path: Path) -> None:
    make(tmp_path / "b", "one")
    with pytest.raises(ZeroDivisionError), folder_atomic(tmp_path / "b", replace=True) as work:
        (work / "half").touch()
        raise ZeroDivisionError
    assert names(tmp_path) == ["b"] and (tmp_path / "b" / "inner" / "file").read_text() == "one"


def test_a_symbolic_link_is_no_target(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(OutputError, match="link is a symbolic link; name the folder"):
        make(tmp_path / "link", "one", replace=True)
    assert names(tmp_path) == ["link", "real"] and names(tmp_path / "real") == []


def test_leftovers_of_the_dead_are_removed_only(tmp_path: Path) -> None:
    for name in (".b.abcdefgh.part", ".b.living00.part", ".b.c.abcdefgh.part", ".bb.abcdefgh.part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    living = os.open(tmp_path / ".b.living00.part", os.O_RDONLY)
    try:
        fcntl.flock(living, fcntl.LOCK_EX)
        make(tmp_path / "b", "one")
        kept = [".b.c.abcdefgh.part", ".b.living00.part", ".bb.abcdefgh.part", "b"]
        assert names(tmp_path) == kept
    finally:
        os.close(living)
    make(tmp_path / "b", "two", replace=True)
    assert names(tmp_path) == [".b.c.abcdefgh.part", ".bb.abcdefgh.part", "b"]


def test_two_writers_of_one_target(tmp_path: Path) -> None:
    """The second does not take the first's work for a leftover."""
    with folder_atomic(tmp_path / "b", replace=True) as first:
        (first / "file").write_text("first")
        with folder_atomic(tmp_path / "b", replace=True) as second:
            (second / "file").write_text("second")
        assert (tmp_path / "b" / "file").read_text() == "second"
    assert (tmp_path / "b" / "file").read_text() == "first"
    assert names(tmp_path) == ["b"]


@pytest.mark.parametrize("exchange", [True, False])
def test_swap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool) -> None:
    if exchange:
        monkeypatch.setattr(os, "replace", None)  # one step, or an error here
    else:
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    swap(tmp_path / "one", tmp_path / "other")
    assert names(tmp_path) == ["one", "other"]
    assert names(tmp_path / "one") == ["other"] and names(tmp_path / "other") == ["one"]


def test_swap_says_what_is_absent(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    with pytest.raises(FileNotFoundError):
        swap(tmp_path / "one", tmp_path / "other")


def test_what_a_kill_moved_away_is_put_back(tmp_path: Path) -> None:
    """Where names cannot be exchanged; the next writer fails, and the old folder stands again."""
    make(tmp_path / ".b.old", "one")
    with pytest.raises(ZeroDivisionError), folder_atomic(tmp_path / "b", replace=True):
        raise ZeroDivisionError
    assert names(tmp_path) == ["b"] and (tmp_path / "b" / "inner" / "file").read_text() == "one"


def test_write_atomic_through_another_name(tmp_path: Path) -> None:
    write_atomic(tmp_path / "f", b"one")
    write_atomic(tmp_path / "f", b"two", waiting=tmp_path / "w")
    assert (tmp_path / "f").read_bytes() == b"two" and names(tmp_path) == ["f"]
    with pytest.raises(OutputError, match="cannot write .*No such file"):
        write_atomic(tmp_path / "f", b"three", waiting=tmp_path / "nowhere" / "w")
    assert (tmp_path / "f").read_bytes() == b"two"

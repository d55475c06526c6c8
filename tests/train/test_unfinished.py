"""Where a data set grows: one run at a time, with one set of settings, removed when all is done."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from tagclip.runtime.errors import OutputError
from tagclip.runtime.files import folder_atomic
from tagclip.train.synth.unfinished import part_path, unfinished

SETTINGS = {"generator": 2, "seed": 5}


def interrupted(out: Path) -> Path:
    """The folder that a run leaves which ended after its first part."""
    with pytest.raises(KeyboardInterrupt), unfinished(out, SETTINGS) as work:
        part_path(work, 0).write_bytes(b"part")
        raise KeyboardInterrupt
    return work


def test_parts_stay_until_the_block_succeeds(tmp_path: Path) -> None:
    work = interrupted(tmp_path / "a/b/out")
    assert work == tmp_path / "a/b/.out.unfinished" and not (tmp_path / "a/b/out").exists()
    (work / "parts/.000001.tar.77.part").write_bytes(b"half")  # of a killed process
    with unfinished(tmp_path / "a/b/out", SETTINGS) as again:
        assert again == work and [p.name for p in (work / "parts").iterdir()] == ["000000.tar"]
    assert not work.exists()


def test_another_writer_of_the_same_folder_leaves_them(tmp_path: Path) -> None:
    work = interrupted(tmp_path / "out")
    with folder_atomic(tmp_path / "out"):
        pass
    assert part_path(work, 0).read_bytes() == b"part"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"generator": 2, "seed": 6}, r"settings: seed 5 \(now 6\); start it with the settings that it had"),
        ({"generator": 3, "seed": 5}, r"generator 2 \(now 3\); .* or remove .*\.out\.unfinished"),
        ({"generator": 2, "seed": 5, "more": 1}, r"more None \(now 1\)"),
    ],
)
def test_other_settings_are_refused(tmp_path: Path, settings: dict[str, int], message: str) -> None:
    work = interrupted(tmp_path / "out")
    with pytest.raises(OutputError, match=message), unfinished(tmp_path / "out", settings):
        pass
    assert part_path(work, 0).read_bytes() == b"part"


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"[" * 100_000])
def test_settings_that_cannot_be_read_are_refused(tmp_path: Path, content: bytes) -> None:
    work = interrupted(tmp_path / "out")
    (work / "synth.json").write_bytes(content)
    with pytest.raises(OutputError, match="cannot be read.*remove"), unfinished(tmp_path / "out", SETTINGS):
        pass
    assert part_path(work, 0).read_bytes() == b"part"


def test_two_at_once_are_kept_apart(tmp_path: Path) -> None:
    with unfinished(tmp_path / "out", SETTINGS) as work:
        part_path(work, 0).write_bytes(b"part")
        with pytest.raises(OutputError, match=r"another run is writing .*out: it holds"):
            with unfinished(tmp_path / "out", SETTINGS):
                pass
        assert part_path(work, 0).exists()


def test_what_cannot_become_a_folder_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path)
    for name, message in {
        "file": "is a file",
        "full": "exists and is not empty",
        "link": "symbolic link",
        "file/out": "cannot write .*unfinished: Not a directory",
    }.items():
        with pytest.raises(OutputError, match=message), unfinished(tmp_path / name, SETTINGS):
            pass
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "full", "link"]


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / ".out.unfinished").symlink_to(tmp_path / "other")
    with pytest.raises(OutputError, match="cannot write"), unfinished(tmp_path / "out", SETTINGS):
        pass
    assert list((tmp_path / "other").iterdir()) == []


def test_what_was_left_beside_a_complete_set_is_removed(tmp_path: Path) -> None:
    """A kill after the last rename: the folder is complete, its parts are still there."""
    work = interrupted(tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/synth.json").write_bytes((work / "synth.json").read_bytes())
    with pytest.raises(OutputError, match="exists and is not empty"), unfinished(tmp_path / "out", SETTINGS):
        pass
    assert not work.exists()

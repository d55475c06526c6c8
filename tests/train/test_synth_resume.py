"""`tagclip synth crops` when it is interrupted: nothing half-listed, and the same bytes in the end."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("anny")
pytest.importorskip("warp")
pytest.importorskip("matplotlib")

from click.testing import CliRunner

from tagclip.runtime.errors import ConfigError, OutputError
from tagclip.train.data import load_split
from tagclip.train.datasets.check import check_data
from tagclip.train.datasets.picture import read_bytes
from tagclip.train.synth.cli import synth
from tagclip.train.synth.crops import GENERATOR, write_crops

pytestmark = pytest.mark.slow
PEOPLE, IMAGES, SEED = 20, 1, 3  # three parts: workers take eight people at a time
IMAGES_TOTAL = {"train": 32, "val": 4, "test": 4}


def make(out: Path, workers: int = 1, **options: bool) -> list[tuple[str, int, int]]:
    ticks: list[tuple[str, int, int]] = []
    counts = write_crops(
        out, PEOPLE, IMAGES, SEED, workers, lambda *tick: ticks.append(tick), captions=1, **options
    )
    assert counts == IMAGES_TOTAL
    return ticks


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made without interruption."""
    out = tmp_path_factory.mktemp("whole") / "out"
    people = [("people", 8, 20), ("people", 16, 20), ("people", 20, 20)]
    assert make(out) == [*people, ("pictures", 40, 40)]
    return out


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tars") / "out"
    make(out, tar=True)
    return out


def test_a_set_says_how_it_was_made(whole: Path) -> None:
    wanted = {"generator": GENERATOR, "seed": SEED, "identities": PEOPLE, "images_per_view": IMAGES}
    found = json.loads((whole / "synth.json").read_text())
    assert found == {**wanted, "captions": 1, "device": "cpu", "without": "", "shifted": 0}
    assert sorted(p.name for p in whole.parent.iterdir()) == ["out"]


def test_tars_hold_the_same_pictures(whole: Path, tars: Path) -> None:
    assert check_data(tars).problems == []
    assert len(contents(tars)) == 3 + 3 + 2
    assert (tars / "sheet.png").read_bytes() == (whole / "sheet.png").read_bytes()
    for split, count in IMAGES_TOTAL.items():
        files, members = load_split(whole, split), load_split(tars, split)
        assert len(files) == len(members) == count
        for a, b in zip(files, members, strict=True):
            assert read_bytes(a.path) == read_bytes(b.path) and (a.captions, a.identity) == (
                b.captions,
                b.identity,
            )


CHILD = """
import os, signal
from pathlib import Path
from tagclip.train.synth.crops import write_crops

def tick(what, done, total):
    print(what, done, flush=True)
    if what == {moment!r}:
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    write_crops(Path("out"), {people}, {images}, {seed}, {workers}, tick, captions=1)
"""


def kill_at(folder: Path, moment: str, workers: int) -> None:
    """Run in another process that is killed at its first tick of a kind."""
    script = folder / "run.py"
    settings = {"people": PEOPLE, "images": IMAGES, "seed": SEED, "workers": workers, "moment": moment}
    script.write_text(CHILD.format(**settings))
    run = subprocess.run([sys.executable, "run.py"], cwd=folder, capture_output=True, text=True, timeout=300)
    assert run.returncode == -signal.SIGKILL and moment in run.stdout, run.stderr
    script.unlink()


@pytest.mark.parametrize("workers", [1, 2])
def test_after_a_kill_the_same_command_gives_the_same_bytes(
    whole: Path, tmp_path: Path, workers: int
) -> None:
    kill_at(tmp_path, "people", workers)
    assert [p.name for p in tmp_path.iterdir()] == [".out.unfinished"]
    deadline = time.monotonic() + 20
    while workers_in(tmp_path):  # they end with their parent
        assert time.monotonic() < deadline
        time.sleep(0.1)
    done = sum(min(8, PEOPLE - 8 * int(p.stem)) for p in tmp_path.glob(".out.unfinished/parts/[0-9]*.tar"))
    assert 4 <= done < PEOPLE
    ticks = make(tmp_path / "out")
    assert ticks[0] == ("people", done, PEOPLE) and ticks[-2] == ("people", PEOPLE, PEOPLE)
    assert contents(tmp_path / "out") == contents(whole)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_after_a_kill_while_the_set_is_put_together(whole: Path, tmp_path: Path) -> None:
    kill_at(tmp_path, "pictures", 1)
    assert len(list(tmp_path.iterdir())) == 2 and not (tmp_path / "out").exists()
    assert make(tmp_path / "out") == [("people", PEOPLE, PEOPLE), ("pictures", 40, 40)]
    assert contents(tmp_path / "out") == contents(whole)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def workers_in(folder: Path) -> list[str]:
    """Living processes whose working folder is `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == folder and b"spawn_main" in (process / "cmdline").read_bytes():
                found.append(process.name)
        except OSError:
            pass  # ended, or somebody else's
    return found


def test_what_is_done_serves_both_layouts(tars: Path, tmp_path: Path) -> None:
    def stop(what: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_crops(tmp_path / "out", PEOPLE, IMAGES, SEED, 1, stop, captions=1)
    assert make(tmp_path / "out", tar=True)[0] == ("people", 8, PEOPLE)
    assert contents(tmp_path / "out") == contents(tars)


def test_a_file_that_may_not_grow(whole: Path, tmp_path: Path) -> None:
    """As a full disk or a quota, but for everybody who runs this."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*000000.tar: File too large.*same command"):
            make(tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert contents(tmp_path).keys() == {".out.unfinished/synth.json"}
    make(tmp_path / "out")
    assert contents(tmp_path / "out") == contents(whole)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)]
    if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.run(mount).returncode != 0:
        pytest.skip("needs root and mount: a small tmpfs is the disk that gets full")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_gets_full(whole: Path, tars: Path, small_disk: Path) -> None:
    """First while people are drawn, then while the set is put together of them."""
    parts = sum(p.stat().st_size for p in (tars / "images").iterdir())
    for size, where in (
        (parts // 2, r"cannot write .*\d\.tar: No space left on device"),
        (parts + 60_000, r"cannot write .*/out: No space left on device"),
    ):
        grow(small_disk, size)
        with pytest.raises(OutputError, match=f"{where}.* is kept in .*unfinished, and the same command"):
            make(small_disk / "out")
        assert [p.name for p in small_disk.iterdir()] == [".out.unfinished"]
    grow(small_disk, 16_000_000)
    assert make(small_disk / "out")[0] == ("people", PEOPLE, PEOPLE)
    assert contents(small_disk / "out") == contents(whole)


def grow(disk: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


def test_a_damaged_part_says_what_to_remove(whole: Path, tmp_path: Path) -> None:
    def stop(what: str, done: int, total: int) -> None:
        if done == PEOPLE:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_crops(tmp_path / "out", PEOPLE, IMAGES, SEED, 1, stop, captions=1)
    part = tmp_path / ".out.unfinished/parts/000001.tar"
    part.write_bytes(part.read_bytes()[:5_000])
    with pytest.raises(OutputError, match=r"000001.tar ends too early.*remove that file"):
        make(tmp_path / "out")
    part.unlink()
    make(tmp_path / "out")
    assert contents(tmp_path / "out") == contents(whole)


def test_a_device_that_is_not_here(tmp_path: Path) -> None:
    import warp

    if warp.is_cuda_available():
        pytest.skip("a CUDA device is here")
    with pytest.raises(ConfigError, match="--device cuda needs an NVIDIA GPU"):
        write_crops(tmp_path / "out", 3, device="cuda")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--identities", "2"],
        ["--identities", "1000001"],
        ["--identities", "x"],
        ["--identities", "3", "--images-per-view", "0"],
        ["--identities", "3", "--captions", "21"],
        ["--identities", "3", "--seed", "-1"],
        ["--identities", "3", "--workers", "0"],
        ["--identities", "3", "--device", "tpu"],
        [],
    ],
)
def test_impossible_settings(tmp_path: Path, arguments: list[str]) -> None:
    result = CliRunner().invoke(synth, ["crops", str(tmp_path / "out"), *arguments])
    assert result.exit_code == 2 and "Error: " in result.output
    assert list(tmp_path.iterdir()) == []

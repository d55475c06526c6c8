"""A kill at any moment leaves the old bundle or the new one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tagclip.runtime.bundle import Bundle

pytest.importorskip("onnxruntime")

KILLER = Path(__file__).with_name("kill.py")
MEMORY = Path(
    "/dev/shm"
)  # where fsync costs nothing; a kill, unlike a power cut, leaves the same on any disk


@pytest.fixture
def kill(tiny_bundle: Bundle, tmp_path: Path) -> Iterator[Callable[..., list[dict[str, Any]]]]:
    """Run kill.py: what each killed process left, then what a whole run left."""
    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else tmp_path) as memory:

        def kill(mode: str, *, step: int, rounds: int, disk: bool = True) -> list[dict[str, Any]]:
            work = tmp_path if disk else Path(memory)
            (work / mode).mkdir()
            run = subprocess.run(
                [sys.executable, KILLER, mode, tiny_bundle.path, work / mode, str(step), str(rounds), "7"],
                capture_output=True,
                text=True,
                timeout=240,
            )
            assert run.returncode == 0, run.stderr[-2000:]
            return [json.loads(line) for line in run.stdout.splitlines()]

        yield kill


def check(rows: list[dict[str, Any]], *, at_least: int) -> None:
    *states, last, _ = rows
    broken = [row for row in states if row["found"] not in (row["was"], row["writes"])]
    assert broken == []
    killed = [row for row in states if row["killed"]]
    assert len(killed) >= at_least
    # Kills before the switch and after it: else the moments were chosen badly.
    assert {row["found"] == row["writes"] for row in killed} == {True, False}
    assert last["last"] == last["writes"]


def test_export(kill: Callable[..., list[dict[str, Any]]]) -> None:
    rows = kill("export", step=1, rounds=30)
    check(rows, at_least=60)
    assert rows[-1] == {"left": ["bundle"]}  # the next write removed what the killed ones left


def test_sign(kill: Callable[..., list[dict[str, Any]]]) -> None:
    pytest.importorskip("cryptography")
    rows = kill("sign", step=1, rounds=10)
    check(rows, at_least=50)
    assert rows[-1] == {"left": ["bundle"]}


def test_install(kill: Callable[..., list[dict[str, Any]]]) -> None:
    rows = kill("install", step=2, rounds=20, disk=False)
    check(rows, at_least=80)
    *slots, one, other = sorted(rows[-1]["left"], reverse=True)
    assert [one, other] == ["previous", "current"] and len(slots) == 2


def test_where_two_names_cannot_be_exchanged(kill: Callable[..., list[dict[str, Any]]]) -> None:
    """There is one moment without a bundle, this test finds it, and the next write puts the old one back."""
    *states, last, left = kill("fallback", step=1, rounds=0)
    (broken,) = (n for n, row in enumerate(states) if row["found"].startswith("BundleMissingError"))
    after = states[broken + 1]
    # Killed one moment later, when the new one stands already.
    assert after["found"] == after["writes"]
    assert last["last"] == last["writes"]
    assert left == {"left": ["bundle"]}

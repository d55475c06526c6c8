"""Fixtures of all tests, by subject in fixtures/; versions in the header."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tagclip.runtime import cli
from tagclip.runtime.source import VideoSource

pytest_plugins = ("fixtures.bundle", "fixtures.checkpoints", "fixtures.once")


def pytest_report_header() -> str:
    found = []
    for package in (
        "tagclip",
        "numpy",
        "opencv-python-headless",
        "onnxruntime",
        "tokenizers",
        "torch",
        "onnx",
    ):
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{package} absent")
    return f"python {platform.python_version()}: " + ", ".join(found)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run `tagclip` in this process: (exit status, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_:
            cli.main([str(argument) for argument in arguments])
        return exit_.value.code, *capsys.readouterr()  # type: ignore[return-value]

    return run


@pytest.fixture
def one_playing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A video that is searched many times is played once: who is in it does not depend on the description."""
    from tagclip.runtime import search

    find_people = search.find_people
    played: dict[Path, search.People] = {}

    def remembered(source: VideoSource, *arguments: Any, **options: Any) -> search.People:
        if source.path not in played:
            played[source.path] = find_people(source, *arguments, **options)
        return played[source.path]

    monkeypatch.setattr(search, "find_people", remembered)

"""Every command answers --help with nothing but click installed."""

from __future__ import annotations

import importlib
import subprocess
import sys

import click
import pytest

from tagclip.runtime.cli import COMMANDS, EXTRAS

END = "(here one help ends)"
HEAVY = sorted({*EXTRAS, "numpy", "cv2", "tokenizers", "scipy", "PIL"})


def help_of(*commands: list[str]) -> list[str]:
    """What `tagclip COMMAND --help` prints, each, in one process where no other library can be imported."""
    code = f"""
import sys
for name in {HEAVY}:
    sys.modules[name] = None
from tagclip.runtime.cli import main
for command in {commands}:
    try:
        main([*command, "--help"])
    except SystemExit as ended:
        assert ended.code == 0, command
    else:
        raise AssertionError(command)
    print("{END}")
"""
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    *pages, rest = result.stdout.split(f"{END}\n")
    assert (len(pages), rest) == (len(commands), "")
    return pages


def test_root_lists_every_command_with_a_short_help() -> None:
    (root,) = help_of([])
    lines = root.partition("Commands:\n")[2].splitlines()
    described = {
        line.split()[0]: line.split()[1:] for line in lines if line.startswith("  ") and line[2] != " "
    }
    assert list(described) == list(COMMANDS)
    assert all(described.values()), described


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_and_subcommand(name: str) -> None:
    module, attribute = COMMANDS[name].split(":")
    command = getattr(importlib.import_module(module), attribute)
    assert command.name == name
    asked = [[name]]
    if isinstance(command, click.Group):
        assert command.commands, f"tagclip {name} has no sub-command"
        asked += [[name, sub] for sub in command.commands]
    for words, page in zip(asked, help_of(*asked), strict=True):
        assert f"Usage: tagclip {' '.join(words)} " in page

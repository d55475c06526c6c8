"""Every command answers --help with nothing but click installed."""

from __future__ import annotations

import importlib
import subprocess
import sys

import click
import pytest

from tagclip.runtime.cli import COMMANDS, EXTRAS

HEAVY = sorted({*EXTRAS, "numpy", "cv2", "tokenizers", "scipy", "PIL"})


def help_of(*command: str) -> str:
    """What `tagclip COMMAND --help` prints in a process where no other library can be imported."""
    code = (
        "import sys\n"
        f"for name in {HEAVY}:\n    sys.modules[name] = None\n"
        "from tagclip.runtime.cli import main\n"
        f"main({[*command, '--help']})\n"
    )
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def test_root_lists_every_command_with_a_short_help() -> None:
    lines = help_of().partition("Commands:\n")[2].splitlines()
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
    assert f"Usage: tagclip {name} " in help_of(name)
    if isinstance(command, click.Group):
        assert command.commands, f"tagclip {name} has no sub-command"
        for sub in command.commands:
            assert f"Usage: tagclip {name} {sub} " in help_of(name, sub)

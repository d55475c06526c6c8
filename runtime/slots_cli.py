"""`tagclip bundle install` and `tagclip bundle rollback`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tagclip.runtime.slots import Slot

slots_option = click.option(
    "--slots",
    metavar="DIR",
    required=True,
    type=click.Path(path_type=Path),
    help="The device's folder: the bundle in use is DIR/current, the last good one DIR/previous.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.command()
@click.argument("folder", metavar="BUNDLE", type=click.Path(path_type=Path))
@click.option(
    "--public-key",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Refuse what this Ed25519 key (PEM) did not sign.",
)
@slots_option
@json_option
def install(folder: Path, public_key: Path | None, slots: Path, as_json: bool) -> None:
    """Copy BUNDLE into DIR, run its self-test there, and make it the bundle in use.

    A bundle that fails is removed again and the one in use stays. The one that was in use is kept as the last
    good one. Give commands `--bundle DIR/current`, and start those again that were running.
    """
    from tagclip.runtime.errors import BundleError, EngineError
    from tagclip.runtime.keys import read_public_key
    from tagclip.runtime.slots import install as install_bundle

    key = None if public_key is None else read_public_key(public_key)
    try:
        slot = install_bundle(folder, slots, public_key=key)
    except (BundleError, EngineError):
        click.echo(f"{folder} is not installed; {slots / 'current'} is what it was", err=True)
        raise
    _tell("installed", slot, slots, as_json)


@click.command()
@slots_option
@json_option
def rollback(slots: Path, as_json: bool) -> None:
    """Make the last good bundle of DIR the one in use again.

    It has to pass its self-test first. The one that was in use stays in DIR/previous, so that a second rollback
    undoes the first.
    """
    from tagclip.runtime.slots import rollback as roll_back

    _tell("back to", roll_back(slots), slots, as_json)


def _tell(what: str, slot: Slot, slots: Path, as_json: bool) -> None:
    manifest = slot.bundle.manifest
    if slot.warning is not None:
        click.echo(f"warning: {slot.warning}", err=True)
    if as_json:
        result = {
            "name": manifest.name,
            "encoder_id": manifest.encoder_id,
            "slot": str(slot.bundle.path),
            "min_cosine": slot.min_cosine,
            "warning": slot.warning,
        }
        click.echo(json.dumps(result, indent=2))
        return
    click.echo(f"{what} {manifest.name}, {manifest.encoder_id}; it is {slots / slot.link} from now on")

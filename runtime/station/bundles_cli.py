"""`tagclip station bundle`: which bundle devices are to have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

_DATA = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("station"),
    show_default=True,
    help="Folder of the station, which may run or not.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group()
def bundle() -> None:
    """The bundles that the station hands out to devices."""


@bundle.command()
@click.argument("folder", metavar="BUNDLE", type=click.Path(path_type=Path))
@click.option(
    "--device", "devices", multiple=True, metavar="NAME", help="May be given often.  [default: all]"
)
@_DATA
@_JSON
def push(folder: Path, devices: tuple[str, ...], data: Path, as_json: bool) -> None:
    """Keep a copy of BUNDLE and order it for devices: each fetches it, proves it, and switches to it.

    An older bundle is pushed in the same way; devices take what was ordered last.
    """
    from tagclip.runtime.background import read_background
    from tagclip.runtime.bundle import open_bundle
    from tagclip.runtime.errors import BackgroundError
    from tagclip.runtime.station.bundles_api import described

    order = described(_with_bundles(data, lambda all_: all_.push(folder, devices or None, "console")))
    try:
        read_background(open_bundle(folder), None)
    except BackgroundError as error:
        click.echo(f"warning: devices cannot look for anybody with it and will go back: {error}", err=True)
    if as_json:
        click.echo(json.dumps(order, indent=2))
        return
    whom = ", ".join(order["devices"]) if order["devices"] else "every device"
    click.echo(f"{order['name']}, {order['bytes'] / 1e6:.1f} MB, encoder {order['encoder_id']}, for {whom}")
    click.echo(order["digest"])


@bundle.command("list")
@_DATA
@_JSON
def list_(data: Path, as_json: bool) -> None:
    """Print the bundles, the newest first."""
    rows = _with_bundles(data, lambda all_: all_.listed())
    if as_json:
        click.echo(json.dumps({"bundles": rows}, indent=2))
        return
    from tagclip.runtime.when import show_when

    for row in rows:
        devices = row["devices"]
        whom = "every device" if devices is None else ", ".join(devices) or "nobody"
        click.echo(f"{row['digest'][:16]}  {show_when(row['pushed_s'])}  {row['name']}, for {whom}")


@bundle.command()
@click.argument("digest")
@_DATA
def withdraw(digest: str, data: Path) -> None:
    """Order the bundle with DIGEST, or digits that it alone begins with, for nobody. Who runs it keeps it."""
    from tagclip.runtime.errors import ConfigError

    def work(all_: Any) -> str:
        found = [row["digest"] for row in all_.listed() if row["digest"].startswith(digest)]
        if len(found) != 1:
            raise ConfigError(f"{digest[:64]!r} begins {len(found)} digests; `tagclip station bundle list`")
        all_.withdraw(found[0], "console")
        return str(found[0])

    click.echo(f"withdrawn: {_with_bundles(data, work)}")


def _with_bundles(data: Path, work: Any) -> Any:
    from tagclip.runtime.station.cli import with_records
    from tagclip.runtime.station.station import bundles_of

    return with_records(data, lambda database: work(bundles_of(data, database)))

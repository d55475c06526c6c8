"""`tagclip station`: the ground station, and what is done to its records by whoever sits at its machine."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tagclip.runtime.key_cli import PICTURE_KEY
from tagclip.runtime.station.out_cli import annotate, out_options

_DATA = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("station"),
    show_default=True,
    help="Folder of records and keys; made on the first start.",
)
_ROLE = click.Choice(["operator", "reviewer", "admin"])


@click.group(invoke_without_command=True)
@_DATA
@click.option(
    "--listen",
    default="127.0.0.1:8443",
    show_default=True,
    metavar="[ADDRESS:]PORT",
    help="0.0.0.0:8443 for other machines.",
)
@click.option(
    "--name",
    "names",
    multiple=True,
    metavar="HOST",
    help="Host name or IP address that devices reach it by; the first stands in enrolments.",
)
@click.option("--bundle", type=click.Path(path_type=Path), help="Encodes the queries.  [default: ours]")
@click.option(
    "--database",
    metavar="URL",
    help="Keep the records in PostgreSQL: postgresql://USER@HOST/DATABASE. Needed once.  [default: a file in --data]",
)
@click.option(
    "--vectors",
    metavar="URL",
    help="Search everybody in Qdrant: https://HOST:6333.  [default: in this process]",
)
@click.option("--cert", type=click.Path(path_type=Path), help="Certificate chain, PEM; else its own is made.")
@click.option("--key", type=click.Path(path_type=Path), help="Its private key, PEM.")
@click.option(
    "--days", type=click.FloatRange(min=0.01), default=30.0, show_default=True, help="How long hits are kept."
)
@click.option(
    "--max-gb", type=click.FloatRange(min=0.001), default=20.0, show_default=True, help="The same, by size."
)
@click.option(
    "--keep-confirmed-days",
    type=click.FloatRange(min=0.01, max=3660),
    default=365.0,
    show_default=True,
    help="How long confirmed hits are kept after the decision and the end of their query.",
)
@PICTURE_KEY
@click.option(
    "--mbtiles",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Raster tiles to draw the page's map on; else a plain grid.",
)
@click.option(
    "--mqtt", metavar="URL", help="Broker of devices that have no way here: mqtts://USER@HOST:8883."
)
@click.option(
    "--mqtt-password-file",
    type=click.Path(path_type=Path),
    help="The station's password at the broker; or in TAGCLIP_MQTT_PASSWORD.",
)
@click.option(
    "--mqtt-ca",
    type=click.Path(path_type=Path),
    help="Authority of the broker, PEM.  [default: the station's]",
)
@out_options
@click.option(
    "--log", "log_form", type=click.Choice(["auto", "text", "json"]), default="auto", show_default=True
)
@click.pass_context
def station(context: click.Context, /, log_form: str, **given: Any) -> None:
    """Be the ground station: hand queries out to devices, and keep the hits that come home.

    The first start makes its certificate authority, its signing key and an admin with a one-time password.
    """
    if context.invoked_subcommand is not None:
        return
    from tagclip.runtime.logs import logging_to

    with logging_to(sys.stderr, log_form):
        from tagclip.runtime.station.out import Out
        from tagclip.runtime.station.run import run_station

        out = Out(**{field: given.pop(field) for field in Out.__dataclass_fields__})
        run_station(**given, out=out, mqtt_password=os.environ.get("TAGCLIP_MQTT_PASSWORD"), tell=click.echo)


@station.command()
@click.argument("device")
@_DATA
@click.option("--minutes", type=click.FloatRange(min=1, max=10080), default=60.0, show_default=True)
def enrol(device: str, data: Path, minutes: float) -> None:
    """Print what to copy to DEVICE, so that it may report here: good once, and for --minutes."""
    from tagclip.runtime.station.station import enrolment
    from tagclip.runtime.station.store import Store

    def make(database: Any) -> str:
        code, _ = Store(database).make_code(device, "console", minutes)
        return enrolment(data, code)

    click.echo(with_records(data, make))


@station.command("mqtt-users")
@_DATA
def mqtt_users(data: Path) -> None:
    """Print NAME:PASSWORD of every device, for the broker's password file; see docs/link.md, MQTT.

    Enrolling a device changes its password.
    """
    from tagclip.runtime.station.mqtt_access import passwords
    from tagclip.runtime.station.store import Store

    for line in with_records(data, lambda database: list(passwords(Store(database)))):
        click.echo(line)


@station.command()
@_DATA
@PICTURE_KEY
def encrypt(data: Path, picture_keys: tuple[Path, ...]) -> None:
    """Encrypt the pictures in --data that are not yet, with the first --picture-key; the station has to be stopped.

    To change the key, name the new one and then the old one. An interrupted run goes on when started again.
    """
    from tagclip.runtime.picture_key import read_picture_keys
    from tagclip.runtime.station.encrypt import seal_pictures
    from tagclip.runtime.station.station import hold
    from tagclip.runtime.terminal import Progress

    keys = read_picture_keys(picture_keys)
    if keys is None:
        raise click.UsageError("name a --picture-key; `tagclip key new FILE` makes one")
    shown = Progress("encrypting", "pictures")

    def work(database: Any) -> int:
        lock = hold(data)
        try:
            return seal_pictures(database, keys, shown.update)
        finally:
            os.close(lock)

    done = with_records(data, work)
    shown.end()
    click.echo(f"{done} pictures encrypted with key {keys.id}")


@station.group()
def user() -> None:
    """The people who may ask the station."""


# In a module of its own, which like this one imports only click at its top.
station.add_command(importlib.import_module("tagclip.runtime.station.bundles_cli").bundle)
station.add_command(annotate)


@user.command("add")
@click.argument("name")
@click.option("--role", type=_ROLE, required=True)
@_DATA
def add(name: str, role: str, data: Path) -> None:
    """Add the user NAME and print a one-time password."""
    from tagclip.runtime.station.users import Users

    click.echo(with_records(data, lambda database: Users(database).add(name, role, "console")))


@user.command("reset")
@click.argument("name")
@_DATA
def reset(name: str, data: Path) -> None:
    """Print a new one-time password of the user NAME, whose sessions end."""
    from tagclip.runtime.station.users import Users

    click.echo(with_records(data, lambda database: Users(database).change(name, "console", reset=True)))


@station.group()
def audit() -> None:
    """The log of who did what."""


@audit.command("verify")
@click.option("--known", metavar="HASH", help="That an earlier call printed: has to be in the log.")
@_DATA
def verify(known: str | None, data: Path) -> None:
    """Check that no row of the log was changed, and print the last hash: keep it elsewhere."""
    from tagclip.runtime.errors import StoreError
    from tagclip.runtime.station.audit import verify_audit

    verdict = with_records(data, lambda database: verify_audit(database, known=known))
    if verdict.broken is not None:
        raise StoreError(
            f"row {verdict.broken} of the audit log is not what was written; somebody changed the records"
        )
    click.echo(f"{verdict.rows} rows, last {verdict.last}")


def with_records(data: Path, work: Callable[[Any], Any]) -> Any:
    """Do something to the records of a station, whether it runs or not."""
    from tagclip.runtime.errors import StoreError
    from tagclip.runtime.station.records import has_records
    from tagclip.runtime.station.station import open_records

    if not has_records(data):
        raise StoreError(f"{data} holds no records of a station; name its --data")
    database = open_records(data)
    try:
        return work(database)
    finally:
        database.close()

"""`tagclip query`: standing queries of a station."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tagclip.runtime.station.client import Client

_STATION = click.option("--station", "url", metavar="URL", help="https://HOST:PORT  [default: the token's]")
_TOKEN = click.option(
    "--token-file",
    "token",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path(click.get_app_dir("tagclip")) / "station.json",
    envvar="TAGCLIP_TOKEN_FILE",
    help="Of `tagclip query login`.  [default: in the user's own configuration]",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def query() -> None:
    """Standing queries: whom every device of a station looks for."""


@query.command()
@click.option("--station", "url", required=True, metavar="URL", help="https://HOST:PORT")
@click.option("--user", "name", required=True)
@click.option(
    "--fingerprint", metavar="HEX", help="Of the station's authority, as `tagclip station` prints it."
)
@click.option("--ca", type=click.Path(path_type=Path), help="The authority's certificate, PEM, instead.")
@_TOKEN
def login(url: str, name: str, fingerprint: str | None, ca: Path | None, token: Path) -> None:
    """Log in with a password, and keep a token for 30 days.

    The password is asked for; where stdin is no terminal it is read from there, a line. A one-time password has to be
    changed: the new one is asked for too, or is the second line. Without --fingerprint and --ca the station needs a
    certificate that this machine trusts.
    """
    from tagclip.runtime.station.client import Client, fetch_ca, save_login

    pem = ca.read_text(encoding="ascii") if ca else fetch_ca(url, fingerprint) if fingerprint else None
    client = Client(url.rstrip("/"), pem)
    password = _secret("Password", confirm=False)
    given = {"name": name, "password": password}
    session, cookie = client.exchange("POST", "/api/v1/login", given)
    headers = {"Cookie": cookie, "X-CSRF-Token": str(session["csrf"])}
    if session["must_change_password"]:
        click.echo("that was a one-time password; choose your own, of at least 12 characters", err=True)
        new = _secret("New password", confirm=True)
        client.ask("POST", "/api/v1/password", {"old": password, "new": new}, headers)
        given["password"] = new
    else:
        client.ask("POST", "/api/v1/logout", {}, headers)
    answer = client.ask("POST", "/api/v1/login", {**given, "kind": "token"})
    save_login(token, client, answer["token"])
    click.echo(f"logged in as {answer['name']}, {answer['role']}; the token is in {token}")


@query.command()
@click.argument("text")
@click.option("--reason", required=True, help="Why somebody is looked for; it is kept with the query.")
@click.option("--view", type=click.Choice(["auto", "aerial", "ground"]), default="auto", show_default=True)
@click.option(
    "--hours", type=click.FloatRange(min=0.01), default=24.0, show_default=True, help="How long it stands."
)
@click.option("--until-removed", is_flag=True, help="It stands until it is removed, instead.")
@click.option("--alarms-per-hour", type=click.FloatRange(min=0, min_open=True), help="False alarms allowed.")
@click.option(
    "--alarms-per-1000", type=click.FloatRange(min=0, min_open=True), help="The same among 1,000 people."
)
@_STATION
@_TOKEN
@_JSON
def add(
    text: str, url: str | None, token: Path, as_json: bool, until_removed: bool, hours: float, **given: Any
) -> None:
    """Look for TEXT on every device of the station, now and when it comes into reach."""
    body = {"text": text, "hours": None if until_removed else hours, **given}
    answer = _client(token, url).ask("POST", "/api/v1/queries", body)
    click.echo(json.dumps(answer, indent=2) if as_json else _line(answer))


@query.command("list")
@_STATION
@_TOKEN
@_JSON
def list_(url: str | None, token: Path, as_json: bool) -> None:
    """The queries that stand, oldest first."""
    answer = _client(token, url).ask("GET", "/api/v1/queries")
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    else:
        for row in answer["queries"]:
            click.echo(_line(row))


@query.command()
@click.argument("id_", metavar="ID")
@_STATION
@_TOKEN
def remove(id_: str, url: str | None, token: Path) -> None:
    """Look for the query ID no longer; its hits stay."""
    from tagclip.runtime.station.client import part

    _client(token, url).ask("DELETE", f"/api/v1/queries/{part(id_)}")
    click.echo(f"removed {id_}")


def _client(token: Path, url: str | None) -> Client:
    from tagclip.runtime.station.client import read_login

    return read_login(token, url)


def _line(row: dict[str, Any]) -> str:
    from tagclip.runtime.errors import one_line
    from tagclip.runtime.when import show_when

    until = "until it is removed" if row["expires_s"] is None else f"until {show_when(row['expires_s'])}"
    return one_line(f"{row['id']}  {row['view']}  {until}  {row['text']}  ({row['reason']})")


def _secret(what: str, *, confirm: bool) -> str:
    if sys.stdin.isatty():
        return str(click.prompt(what, hide_input=True, confirmation_prompt=confirm, err=True))
    return sys.stdin.readline().rstrip("\n")

"""Where a station's records are: in its folder, or in the PostgreSQL database that the folder names from then on."""

from __future__ import annotations

from pathlib import Path

from tagclip.runtime.errors import ConfigError, StoreError
from tagclip.runtime.files import write_atomic
from tagclip.runtime.station.database import Database

RECORDS, DATABASE = "records.sqlite", "database"


def named_database(data: Path) -> str | None:
    """The URL of the database in use, None for the folder's own file. Raises: StoreError: it cannot be read."""
    path = data / DATABASE
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read ({error}); it holds the URL of --database") from error


def has_records(data: Path) -> bool:
    """Whether a station was started there."""
    return (data / DATABASE).is_file() or (data / RECORDS).is_file()


def records_in(data: Path, *, alone: bool) -> Database:
    """The records of the station in the folder `data`.

    Args:
        alone: be the station that works on them.

    Raises:
        StoreError, ConfigError, MissingExtraError: they cannot be used.
    """
    url = named_database(data)
    if url is None:
        return Database(data / RECORDS)
    from tagclip.runtime.station.postgres import PostgresDatabase
    from tagclip.runtime.station.postgres_address import parse_address

    return PostgresDatabase(parse_address(url), alone=alone)


def choose_database(data: Path, url: str) -> None:
    """Have the station in the folder `data` keep its records in PostgreSQL; the folder names the database from now on.

    Raises:
        ConfigError: it keeps them elsewhere already.
        StoreError: they cannot be used; nothing was changed.
    """
    from tagclip.runtime.station.postgres import PostgresDatabase
    from tagclip.runtime.station.postgres_address import parse_address

    address = parse_address(url)
    named = named_database(data)
    if named == url:
        return
    if named is not None:
        raise ConfigError(
            f"the records of {data} are in {named}; if they moved to {url}, write that into {data / DATABASE}"
        )
    if (data / RECORDS).exists():
        raise ConfigError(
            f"{data} has its records in {RECORDS} already; choose another --data for a new station"
        )
    PostgresDatabase(address).close()
    write_atomic(data / DATABASE, f"{url}\n".encode())

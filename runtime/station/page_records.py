"""What pages show of the records and the API does not give: SQL beside that of store.py."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from tagclip.runtime.station.database import Database
from tagclip.runtime.station.store import HIT_COLUMNS, Filter, conditions, shown

NEAR_S = 300.0
NEAR = 8


def counts(database: Database, where: Filter) -> dict[str, int]:
    """How many hits there are by review, of all reviews, whatever `where` says of that."""
    text, values = conditions(replace(where, review=None))
    with database.read() as connection:
        rows = connection.execute(
            f"SELECT review, count(*) FROM hits WHERE {text} GROUP BY review", values
        ).fetchall()
    return dict(rows)


def counts_by_query(database: Database) -> dict[str, dict[str, int]]:
    """How many hits each query has, by review."""
    with database.read() as connection:
        rows = connection.execute(
            "SELECT query_id, review, count(*) FROM hits GROUP BY query_id, review"
        ).fetchall()
    found: dict[str, dict[str, int]] = {}
    for query, review, count in rows:
        found.setdefault(query, {})[review] = count
    return found


def counts_by_device(database: Database) -> dict[str, int]:
    """How many hits of each device are here, also of devices that were removed."""
    with database.read() as connection:
        return dict(connection.execute("SELECT device, count(*) FROM hits GROUP BY device").fetchall())


def queries_of_hits(database: Database) -> dict[str, str]:
    """Texts by id of all queries that hits are of, also of those that were removed."""
    with database.read() as connection:
        ids = [row[0] for row in connection.execute("SELECT DISTINCT query_id FROM hits").fetchall()]
        # One look at the index for each: the texts stand in the hits alone, once a query was removed.
        last = "SELECT json_extract(document, '$.query') FROM hits WHERE query_id = ? ORDER BY place DESC LIMIT 1"
        return {id_: connection.execute(last, (id_,)).fetchone()[0] for id_ in ids}


def hits_of(database: Database, ids: list[str], where: Filter) -> list[dict[str, Any]]:
    """Those of `ids` that are here, the oldest first; "fits" says whether `where` is true of it."""
    text, values = conditions(where)
    marks = ",".join("?" * len(ids))
    with database.read() as connection:
        rows = connection.execute(
            f"SELECT {HIT_COLUMNS}, ({text}) FROM hits WHERE id IN ({marks}) ORDER BY place", (*values, *ids)
        ).fetchall()
    return [shown(row[:-1]) | {"fits": bool(row[-1])} for row in rows]


def hit(database: Database, id_: str) -> dict[str, Any] | None:
    """One hit, None if there is no such."""
    return next(iter(hits_of(database, [id_], Filter())), None)


def neighbours(database: Database, of: dict[str, Any]) -> list[dict[str, Any]]:
    """Other hits of the same camera at about the same time, the nearest in time first."""
    with database.read() as connection:
        rows = connection.execute(
            f"SELECT {HIT_COLUMNS} FROM hits WHERE device = ? AND id != ? AND best_s BETWEEN ? AND ?"
            " AND json_extract(document, '$.camera') = ? ORDER BY abs(best_s - ?), place LIMIT ?",
            (
                of["device"],
                of["id"],
                of["best_s"] - NEAR_S,
                of["best_s"] + NEAR_S,
                of["camera"],
                of["best_s"],
                NEAR,
            ),
        ).fetchall()
    return [shown(row) for row in rows]


def places(database: Database, where: Filter, most: int) -> list[dict[str, Any]]:
    """Of hits whose place is known, the newest first: what a map shows of them."""
    text, values = conditions(where)
    # In PostgreSQL json_extract gives texts.
    columns = ", ".join(
        f"CAST(json_extract(document, '$.{path}') AS {kind})" for path, kind in _PLACE.values()
    )
    with database.read() as connection:
        rows = connection.execute(
            f"SELECT device, review, {columns} FROM hits"
            f" WHERE {text} AND json_extract(document, '$.place') IS NOT NULL ORDER BY place DESC LIMIT ?",
            (*values, most),
        ).fetchall()
    return [dict(zip(("device", "review", *_PLACE), row, strict=True)) for row in rows]


_PLACE = {name: (name, "TEXT") for name in ("id", "query", "camera")} | {
    name: (f"{where}{name}", "DOUBLE PRECISION")
    for where, name in (
        ("", "best_s"),
        ("place.", "latitude_deg"),
        ("place.", "longitude_deg"),
        ("place.", "error_m"),
    )
}


def people(database: Database, device: str | None, most: int) -> list[list[float]]:
    """Latitude and longitude, degrees, of tracks whose place is known, the newest first; of one device or all."""
    of, values = ("device = ?", [device]) if device else ("1 = 1", [])
    with database.read() as connection:
        rows = connection.execute(
            f"SELECT latitude_deg, longitude_deg FROM tracks WHERE {of} AND latitude_deg IS NOT NULL"
            " ORDER BY place DESC LIMIT ?",
            (*values, most),
        ).fetchall()
    return [list(row) for row in rows]


def audit(database: Database, before: int, most: int) -> list[dict[str, Any]]:
    """Rows of the audit log with a number below `before`, the newest first."""
    with database.read() as connection:
        rows = connection.execute(
            "SELECT entry FROM audit WHERE row < ? ORDER BY row DESC LIMIT ?", (before, most)
        ).fetchall()
    return [json.loads(entry) for (entry,) in rows]

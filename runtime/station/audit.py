"""The log of who did what. Each row holds a hash over the row before, so that a change of an old one shows.

It shows to whoever kept a later hash elsewhere, or finds the chain broken; somebody who can write to the file and
knows this form can make a whole new chain. `tagclip station audit verify` therefore prints the last hash, to be kept.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from typing import Any

from tagclip.runtime.fields import canonical_json
from tagclip.runtime.station.database import Connection, Database

START = bytes(32)  # what the first row follows


def record(connection: Connection, who: str, action: str, **facts: Any) -> None:
    """Add a row; part of the transaction of what it tells about.

    Args:
        connection: within `Database.write`.
        who: name of the user or device, or "" for somebody unknown.
        action: such as "query.add".
        facts: anything that JSON can say.
    """
    last = connection.execute("SELECT row, hash FROM audit ORDER BY row DESC LIMIT 1").fetchone()
    row, before = last if last else (0, START)
    entry = {"row": row + 1, "time_s": round(time.time(), 3), "who": who, "action": action, "facts": facts}
    connection.execute(
        "INSERT INTO audit(row, hash, entry) VALUES(?, ?, ?)",
        (row + 1, _hash(before, entry), json.dumps(entry, sort_keys=True, ensure_ascii=False)),
    )


@dataclass(frozen=True)
class Verdict:
    """What `verify_audit` found.

    Attributes:
        rows: how many were looked at.
        broken: number of the first row that is not what was written, None if all are.
        last: hash of the last good row, hexadecimal.
    """

    rows: int
    broken: int | None
    last: str


def verify_audit(database: Database, *, known: str | None = None) -> Verdict:
    """Go through the whole chain.

    Args:
        known: a hash that an earlier call gave. If the chain holds it nowhere, rows were cut off or all was made anew,
            and row 1 counts as broken.
    """
    before, rows, seen = START, 0, known is None or known == START.hex()
    while True:
        with database.read() as connection:  # by parts: others read in between
            part = connection.execute(
                "SELECT row, hash, entry FROM audit WHERE row > ? ORDER BY row LIMIT 1000", (rows,)
            ).fetchall()
        for row, found, text in part:
            if not _fits(before, row, found, text):
                return Verdict(rows, rows + 1, before.hex())
            before, rows = found, row
            seen = seen or found.hex() == known
        if not part:
            return Verdict(rows, None if seen else 1, before.hex())


def audit_page(database: Database, after: int, limit: int) -> list[dict[str, Any]]:
    """Rows with a number greater than `after`, oldest first."""
    with database.read() as connection:
        rows = connection.execute(
            "SELECT hash, entry FROM audit WHERE row > ? ORDER BY row LIMIT ?", (after, limit)
        ).fetchall()
    return [json.loads(entry) | {"hash": found.hex()} for found, entry in rows]


def _hash(before: bytes, entry: dict[str, Any]) -> bytes:
    return hashlib.sha256(before + canonical_json(entry)).digest()


def _fits(before: bytes, row: int, found: object, text: object) -> bool:
    try:
        entry = json.loads(text) if isinstance(text, str) else None
        return isinstance(entry, dict) and entry.get("row") == row and _hash(before, entry) == found
    except ValueError:
        return False

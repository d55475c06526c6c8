"""What the station forgets: by age, and by size, the oldest first. The audit log says so, and stays."""

from __future__ import annotations

from tagclip.runtime.station.audit import record
from tagclip.runtime.station.database import Database

MESSAGE_DAYS = (
    90.0  # how long a message's id is remembered: a device that was away for longer may repeat itself
)

_LOOSE = "hit_id NOT IN (SELECT id FROM hits)"
_ALL_S = 1e12


def forget(database: Database, now_s: float, days: float, max_bytes: int) -> int:
    """Delete hits and pictures that came more than `days` ago, then the oldest until `max_bytes` are left.

    Args:
        now_s: Unix time; of a clock whose steps nobody has to fear, see store_clock.
        max_bytes: of hits, pictures and what is in quarantine, together.

    Returns:
        How many hits were deleted.
    """
    before_s = now_s - days * 86400
    gone = 0
    while count := _delete(database, before_s, 500, f"older than {days:g} days"):
        gone += count
    with database.write() as connection:
        # Of hits that never came, and what is no longer sent again.
        connection.execute(f"DELETE FROM pictures WHERE received_s < ? AND {_LOOSE}", (before_s,))
        connection.execute("DELETE FROM quarantine WHERE received_s < ?", (before_s,))
        connection.execute("DELETE FROM messages WHERE received_s < ?", (now_s - MESSAGE_DAYS * 86400,))
    while _size(database) > max_bytes:
        count = _delete(database, _ALL_S, 50, f"more than {max_bytes} bytes")
        gone += count
        if not count:
            with database.write() as connection:
                connection.execute(f"DELETE FROM pictures WHERE {_LOOSE}")
                connection.execute("DELETE FROM quarantine")
            break
    return gone


def _delete(database: Database, before_s: float, most: int, reason: str) -> int:
    """The oldest hits, in transactions that are short: devices wait for them."""
    with database.write() as connection:
        rows = connection.execute(
            "SELECT id FROM hits WHERE received_s < ? ORDER BY received_s, place LIMIT ?", (before_s, most)
        ).fetchall()
        connection.executemany("DELETE FROM pictures WHERE hit_id = ?", rows)
        connection.executemany("DELETE FROM hits WHERE id = ?", rows)
        if rows:
            first, last = rows[0][0], rows[-1][0]
            record(
                connection, "station", "hits.delete", count=len(rows), reason=reason, first=first, last=last
            )
    return len(rows)


def _size(database: Database) -> int:
    with database.read() as connection:
        row = connection.execute(
            "SELECT (SELECT coalesce(sum(length(document)), 0) FROM hits)"
            " + (SELECT coalesce(sum(length(jpeg)), 0) FROM pictures)"
            " + (SELECT coalesce(sum(length(raw)), 0) FROM quarantine)"
        ).fetchone()
    return int(row[0])

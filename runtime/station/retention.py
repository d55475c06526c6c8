"""What the station forgets: by age, by size, and by order. The audit log says so, and stays.

A hit that a person confirmed outlives others: it stays while its query stands, and then for days of its own, counted
from the decision or from the end of the query, whichever came later. For room it goes only after everything else.
"""

from __future__ import annotations

import json
import logging
import time

from tagclip.runtime.hit import CONFIRMED
from tagclip.runtime.station.audit import record
from tagclip.runtime.station.database import Connection, Database
from tagclip.runtime.station.tracks import ROW_BYTES, delete_oldest

MESSAGE_DAYS = (
    90.0  # how long a message's id is remembered: a device that was away for longer may repeat itself
)
CONFIRMED_DAYS = 365.0
CROWDED = 0.9  # of the room, with confirmed hits: what is new has none

_LOOSE = "hit_id NOT IN (SELECT id FROM hits)"
_OLD = f"""received_s < ? AND (review <> '{CONFIRMED}' OR (
    query_id NOT IN (SELECT id FROM queries)
    AND coalesce(reviewed_s, received_s) < ?
    AND query_id NOT IN (SELECT id FROM closed_queries WHERE closed_s >= ?)))"""

_NEVER_S = 1e12
# Where a hit or its track is known by its id.
_ABOUT = (("hits", "id"), ("tracks", "id"), ("pictures", "hit_id"), ("wanted_pictures", "track_id"))

log = logging.getLogger(__name__)


def forget(
    database: Database, now_s: float, days: float, max_bytes: int, confirmed_days: float = CONFIRMED_DAYS
) -> int:
    """Delete hits, tracks and pictures that came more than `days` ago, then the oldest until `max_bytes` are left.

    Args:
        now_s: Unix time; of a clock whose steps nobody has to fear, see store_clock.
        max_bytes: of hits, tracks, pictures and what is in quarantine, together.
        confirmed_days: for which confirmed hits stay after the decision and the end of their query.

    Returns:
        How many hits were deleted.
    """
    before_s, decided_s = now_s - days * 86400, now_s - confirmed_days * 86400
    gone = 0
    while count := delete_oldest(
        database, "hits", _OLD, (before_s, decided_s, decided_s), 500, f"older than {days:g} days"
    ):
        gone += count
    while delete_oldest(database, "tracks", "received_s < ?", (before_s,), 500, f"older than {days:g} days"):
        pass
    with database.write() as connection:
        # Of hits that never came, and what is no longer sent again.
        connection.execute(f"DELETE FROM pictures WHERE received_s < ? AND {_LOOSE}", (before_s,))
        connection.execute("DELETE FROM quarantine WHERE received_s < ?", (before_s,))
        messages_s = now_s - MESSAGE_DAYS * 86400
        connection.execute("DELETE FROM messages WHERE received_s < ?", (messages_s,))
        connection.execute("DELETE FROM deleted_hits WHERE deleted_s < ?", (messages_s,))
        connection.execute("DELETE FROM closed_queries WHERE closed_s < ?", (decided_s,))
    return gone + _make_room(database, max_bytes)


def _make_room(database: Database, max_bytes: int) -> int:
    """Whoever has most gives first, so that one device, were it taken over, cannot push out what others told."""
    gone, reason = 0, f"more than {max_bytes} bytes"
    while _size(database) > max_bytes:
        device = _largest(database)
        if device is not None:
            gone += _less_of(database, device, reason)
            continue
        with database.write() as connection:
            others = connection.execute("DELETE FROM quarantine").rowcount
        if others:
            continue
        count = delete_oldest(database, "hits", "1 = 1", (), 50, f"{reason}, confirmed ones alone")
        if not count:
            break
        gone += count
        log.error("%d confirmed hits were deleted, as they alone took more than --max-gb", count)
    return gone


def _largest(database: Database) -> str | None:
    """The device of which most bytes are kept, confirmed hits and quarantine aside; None if of nobody."""
    with database.read() as connection:
        row = connection.execute(
            "SELECT device, sum(size) FROM ("
            " SELECT device, length(document) AS size FROM hits WHERE review <> ?"
            " UNION ALL SELECT device, ? FROM tracks"
            " UNION ALL SELECT device, length(jpeg) FROM pictures"
            "  WHERE hit_id NOT IN (SELECT id FROM hits WHERE review = ?)"
            ") AS kept GROUP BY device ORDER BY 2 DESC, device LIMIT 1",
            (CONFIRMED, ROW_BYTES, CONFIRMED),
        ).fetchone()
    return None if row is None else str(row[0])


def _less_of(database: Database, device: str, reason: str) -> int:
    """Delete a device's pictures of nothing that it told, else its oldest tracks or hits; how many hits."""
    with database.write() as connection:
        loose = connection.execute(
            "DELETE FROM pictures WHERE device = ? AND hit_id NOT IN (SELECT id FROM hits WHERE device = ?)"
            " AND hit_id NOT IN (SELECT id FROM tracks WHERE device = ?)",
            (device, device, device),
        )
        if loose.rowcount:
            return 0
    oldest_s = _oldest_s(database, device)
    if delete_oldest(database, "tracks", "device = ? AND received_s < ?", (device, oldest_s), 2000, reason):
        return 0
    return delete_oldest(database, "hits", "device = ? AND review <> ?", (device, CONFIRMED), 50, reason)


def _oldest_s(database: Database, device: str) -> float:
    """When a device's oldest hit came that nobody confirmed; what came before it is older."""
    with database.read() as connection:
        row = connection.execute(
            "SELECT min(received_s) FROM hits WHERE device = ? AND review <> ?", (device, CONFIRMED)
        ).fetchone()
    return _NEVER_S if row[0] is None else float(row[0])


def crowded(database: Database, max_bytes: int) -> str:
    """What to say when confirmed hits leave no room for others; empty when they do."""
    with database.read() as connection:
        (documents,) = connection.execute(
            "SELECT coalesce(sum(length(document)), 0) FROM hits WHERE review = ?", (CONFIRMED,)
        ).fetchone()
        (pictures,) = connection.execute(
            "SELECT coalesce(sum(length(jpeg)), 0) FROM pictures WHERE hit_id IN"
            " (SELECT id FROM hits WHERE review = ?)",
            (CONFIRMED,),
        ).fetchone()
    taken = int(documents) + int(pictures)
    if taken <= CROWDED * max_bytes:
        return ""
    return (
        f"confirmed hits take {taken / 1e6:,.0f} of {max_bytes / 1e6:,.0f} MB: new hits go as soon as they come, "
        "then the oldest confirmed ones; allow more with --max-gb, or delete what is no longer needed"
    )


def close_query(connection: Connection, query_id: str, now_s: float) -> None:
    """Note when a query ended: from then on count the days of its confirmed hits."""
    connection.execute(
        "INSERT INTO closed_queries(id, closed_s) VALUES(?, ?)"
        " ON CONFLICT(id) DO UPDATE SET closed_s = excluded.closed_s",
        (query_id, now_s),
    )


def delete_hit(database: Database, hit_id: str, by: str) -> bool:
    """Delete a hit for good, with its track, both their pictures and what of them is in quarantine.

    Newer revisions and pictures that still come are taken and dropped. The log names the hit and nothing of it. Hits
    of the same track by other queries stay.

    Returns:
        Whether there was such a hit.
    """
    with database.write() as connection:
        row = connection.execute("SELECT document FROM hits WHERE id = ?", (hit_id,)).fetchone()
        if row is None:
            return False
        for id_ in (hit_id, str(json.loads(row[0])["track_id"])):
            for table, column in _ABOUT:
                connection.execute(f"DELETE FROM {table} WHERE {column} = ?", (id_,))
            connection.execute("DELETE FROM quarantine WHERE raw LIKE ?", (f"%{id_}%",))
            connection.execute(
                "INSERT INTO deleted_hits(id, deleted_s) VALUES(?, ?)"
                " ON CONFLICT(id) DO UPDATE SET deleted_s = excluded.deleted_s",
                (id_, time.time()),
            )
        record(connection, by, "hit.delete", hit=hit_id)
    database.fold()
    return True


def _size(database: Database) -> int:
    with database.read() as connection:
        row = connection.execute(
            "SELECT (SELECT coalesce(sum(length(document)), 0) FROM hits)"
            " + (SELECT coalesce(sum(length(jpeg)), 0) FROM pictures)"
            " + (SELECT coalesce(sum(length(raw)), 0) FROM quarantine)"
        ).fetchone()
        (tracks,) = connection.execute("SELECT count(*) FROM tracks").fetchone()
    return int(row[0]) + ROW_BYTES * int(tracks)

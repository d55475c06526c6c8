"""The standing queries, and the signed set of them that every device ends with."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

from tagclip.runtime.errors import ConfigError, SyncError
from tagclip.runtime.ids import uuid7
from tagclip.runtime.keys import PrivateKey
from tagclip.runtime.station.audit import record
from tagclip.runtime.station.database import Connection, Database
from tagclip.runtime.station.retention import close_query
from tagclip.runtime.sync_messages import MAX_QUERIES, sign, verify

# A device that was away for less than this comes back with a set that still holds.
SET_S = 30 * 86400.0
RENEW_S = 86400.0


class Queries:
    """Every change makes a new set, one revision higher, in the same transaction.

    Args:
        database: that of the station.
        key: signs the sets.
        changed: called after a new set was committed, with its revision; in any thread.
    """

    def __init__(self, database: Database, key: PrivateKey, changed: Callable[[int], None]) -> None:
        self._database, self._key, self._changed = database, key, changed
        self._lock = threading.Lock()
        with database.read() as connection:
            row = connection.execute("SELECT revision, document FROM query_set").fetchone()
        self._current: tuple[int, bytes] = (row[0], row[1]) if row else (0, b"")
        self._unsure = False
        if not row or not self._signed_here():
            self._change(lambda connection: None)

    def _signed_here(self) -> bool:
        """Not so when the folder lost its key, and a new one was made: then no device takes the old set."""
        try:
            verify(json.loads(self._current[1]), self._key.public)
        except SyncError:
            return False
        return True

    def current(self) -> tuple[int, bytes]:
        """Revision and signed JSON of the newest set."""
        return self._current

    def add(self, query: dict[str, Any], by: str) -> dict[str, Any]:
        """Add a query that has every key of a set's query but `id`. Returns it with its id.

        Raises:
            ConfigError: there are too many.
            SyncError: a value that no set may hold; nothing was changed.
        """
        query = {**query, "id": str(uuid7())}

        def change(connection: Connection) -> None:
            (count,) = connection.execute("SELECT count(*) FROM queries").fetchone()
            if count >= MAX_QUERIES:
                raise ConfigError(
                    f"there are {count} queries, the most that a device takes; remove one first"
                )
            connection.execute(
                "INSERT INTO queries(id, added_s, added_by, expires_s, document) VALUES(?, ?, ?, ?, ?)",
                (query["id"], time.time(), by, query["expires_s"], json.dumps(query)),
            )
            told = {key: query[key] for key in ("text", "reason", "view", "expires_s")}
            record(connection, by, "query.add", query=query["id"], **told)

        self._change(change)
        return query

    def remove(self, id_: str, by: str) -> bool:
        """Remove a query; its hits stay. False if there is no such."""
        with self._database.read() as connection:
            row = connection.execute("SELECT 1 FROM queries WHERE id = ?", (id_,)).fetchone()
        if not row:
            return False

        def change(connection: Connection) -> None:
            if connection.execute("DELETE FROM queries WHERE id = ?", (id_,)).rowcount:
                close_query(connection, id_, time.time())
                record(connection, by, "query.remove", query=id_)

        self._change(change)
        return True

    def get(self, id_: str) -> dict[str, Any] | None:
        """A query that stands, with every key of a set's; None if there is no such."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT document FROM queries WHERE id = ? AND (expires_s IS NULL OR expires_s > ?)",
                (id_, time.time()),
            ).fetchone()
        return json.loads(row[0]) if row else None

    def change(self, id_: str, rates: dict[str, float | None], by: str) -> dict[str, Any] | None:
        """Give a query other rates of false alarms; the query as it is now, None if there is no such.

        Args:
            rates: alarms_per_hour and alarms_per_1000, at most one of them not None.
        """
        if self.get(id_) is None:
            return None
        changed: list[dict[str, Any]] = []

        def change(connection: Connection) -> None:
            row = connection.execute("SELECT document FROM queries WHERE id = ?", (id_,)).fetchone()
            if row:
                query = {**json.loads(row[0]), **rates}
                connection.execute("UPDATE queries SET document = ? WHERE id = ?", (json.dumps(query), id_))
                record(connection, by, "query.change", query=id_, **rates)
                changed.append(query)

        self._change(change)
        return changed[0] if changed else None

    def listed(self) -> list[dict[str, Any]]:
        """All that stand, oldest first, without their vectors, with `added_by` and `added_s`."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT document, added_by, added_s FROM queries WHERE expires_s IS NULL OR expires_s > ?"
                " ORDER BY added_s, id",
                (time.time(),),
            ).fetchall()
        listed = []
        for text, by, added_s in rows:
            query = json.loads(text)
            del query["vector"]
            listed.append({**query, "added_by": by, "added_s": added_s})
        return listed

    def renew(self) -> None:
        """Drop queries whose time is over, and issue the set anew once a day; to be called every few minutes."""
        now_s = time.time()
        self._look()
        with self._database.read() as connection:
            over = connection.execute("SELECT id FROM queries WHERE expires_s <= ?", (now_s,)).fetchall()
        issued_s = json.loads(self._current[1])["issued_s"]
        # In both directions: a set that was issued while the clock was years ahead holds for good, or never.
        if not over and abs(now_s - issued_s) < RENEW_S:
            return

        def change(connection: Connection) -> None:
            for (id_,) in over:
                connection.execute("DELETE FROM queries WHERE id = ?", (id_,))
                close_query(connection, id_, now_s)
                record(connection, "station", "query.expire", query=id_)

        self._change(change)

    def _look(self) -> None:
        """A change of which nobody knows whether it was committed: the connection was lost while it was."""
        with self._lock:
            if not self._unsure:
                return
            with self._database.read() as connection:
                revision, data = connection.execute("SELECT revision, document FROM query_set").fetchone()
            self._unsure = False
            if revision == self._current[0]:
                return
            self._current = revision, data
        self._changed(revision)

    def _change(self, change: Callable[[Connection], None]) -> None:
        with self._lock:
            self._unsure = True
            with self._database.write() as connection:
                change(connection)
                last = connection.execute("SELECT revision FROM query_set").fetchone()
                now_s = time.time()
                rows = connection.execute(
                    "SELECT document FROM queries WHERE expires_s IS NULL OR expires_s > ? ORDER BY added_s, id",
                    (now_s,),
                ).fetchall()
                revision = (last[0] if last else 0) + 1
                document = {
                    "revision": revision,
                    "issued_s": round(now_s, 3),
                    "expires_s": round(now_s + SET_S, 3),
                    "queries": [json.loads(row[0]) for row in rows],
                }
                data = json.dumps(sign(document, self._key), separators=(",", ":")).encode("ascii")
                connection.execute(
                    "INSERT INTO query_set(one, revision, document) VALUES(1, ?, ?) ON CONFLICT(one)"
                    " DO UPDATE SET revision = excluded.revision, document = excluded.document",
                    (revision, data),
                )
            self._current, self._unsure = (revision, data), False
        self._changed(revision)

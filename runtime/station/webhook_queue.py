"""What webhooks still have to be told, in the station's records, so that a kill at any moment loses nothing.

New hits and decisions are not written down twice as they come: each webhook remembers how far it has looked at hits
(by their place) and at the audit log, where every decision stands. What it finds becomes rows of its queue in the
transaction that moves the mark on. The rows hold ids; facts are read when they are sent, so that a hit that was deleted
is never told.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass
from typing import Any

from tagclip.runtime.station import page_records
from tagclip.runtime.station.database import Connection, Database

HIT, DECISION = "hit", "decision"
PART = 500  # rows of one look

# Of a hit; the query's text describes a person, and who decided is the station's own business: both stay home.
FACTS = (
    "id", "revision", "query_id", "track_id", "device", "camera", "view", "score", "p_value", "false_alarms_per_hour",
    "threshold", "start_s", "end_s", "best_s", "received_s", "place", "crops", "review", "reviewed_s",
)  # fmt: skip


@dataclass(frozen=True)
class Event:
    """What is to be told: `id` is the same each time it is tried; `facts` are the kind's own."""

    id: str
    kind: str
    hit_id: str
    facts: dict[str, Any]
    made_s: float
    tries: int


class WebhookQueue:
    """The queue of one webhook; any thread may call.

    Args:
        database: that of the station.
        url: which webhook; the records know it by its hash, as addresses may hold a secret.
    """

    def __init__(self, database: Database, url: str) -> None:
        self._database = database
        self._name = hashlib.sha256(url.encode()).hexdigest()
        with database.write() as connection:
            hits = connection.execute("SELECT coalesce(max(place), 0) FROM hits").fetchone()[0]
            rows = connection.execute("SELECT coalesce(max(row), 0) FROM audit").fetchone()[0]
            # From now on; one that was there before goes on where it was.
            connection.execute(
                "INSERT INTO webhooks(name, hit_place, audit_row, given_up) VALUES(?, ?, ?, 0) ON CONFLICT DO NOTHING",
                (self._name, hits, rows),
            )

    def fill(self) -> bool:
        """Put what is new into the queue; whether there is more of it than one look takes."""
        with self._database.read() as connection:
            hit_place, audit_row = self._marks(connection)
            hits = connection.execute(
                "SELECT place, id, received_s FROM hits WHERE place > ? ORDER BY place LIMIT ?",
                (hit_place, PART),
            ).fetchall()
            entries = connection.execute(
                "SELECT row, entry FROM audit WHERE row > ? ORDER BY row LIMIT ?", (audit_row, PART)
            ).fetchall()
        if not hits and not entries:
            return False
        found = [(_event_id(id_, "hit"), HIT, id_, "{}", received_s) for _, id_, received_s in hits]
        for row, text in entries:
            entry = json.loads(text)
            if entry["action"] == "hit.review":
                id_, review = entry["facts"]["hit"], entry["facts"]["review"]
                facts = json.dumps({"review": review})
                found.append((_event_id(id_, f"decision {row}"), DECISION, id_, facts, entry["time_s"]))
        with self._database.write() as connection:
            connection.executemany(
                "INSERT INTO webhook_queue(webhook, id, kind, hit_id, facts, made_s, tries, next_s)"
                " VALUES(?, ?, ?, ?, ?, ?, 0, 0) ON CONFLICT DO NOTHING",
                [(self._name, *row) for row in found],
            )
            connection.execute(
                "UPDATE webhooks SET hit_place = ?, audit_row = ? WHERE name = ?",
                (hits[-1][0] if hits else hit_place, entries[-1][0] if entries else audit_row, self._name),
            )
        return max(len(hits), len(entries)) == PART

    def due(self, now_s: float, most: int) -> list[Event]:
        """The oldest whose time has come."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT id, kind, hit_id, facts, made_s, tries FROM webhook_queue"
                " WHERE webhook = ? AND next_s <= ? ORDER BY made_s, id LIMIT ?",
                (self._name, now_s, most),
            ).fetchall()
        return [
            Event(id_, kind, hit_id, json.loads(facts), made_s, tries)
            for id_, kind, hit_id, facts, made_s, tries in rows
        ]

    def next_s(self) -> float | None:
        """When the next one's time comes, Unix time; None when the queue is empty."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT min(next_s) FROM webhook_queue WHERE webhook = ?", (self._name,)
            ).fetchone()
        return None if row[0] is None else float(row[0])

    def body(self, event: Event) -> bytes | None:
        """What is sent, JSON in ASCII; None when the hit is no longer here."""
        hit = page_records.hit(self._database, event.hit_id)
        if hit is None:
            return None
        told = {"type": f"tagclip.{event.kind}", "time_s": event.made_s, **event.facts}
        return json.dumps({**told, "hit": {name: hit[name] for name in FACTS}}).encode("ascii")

    def done(self, event: Event) -> None:
        """It was taken, or there is nothing to tell."""
        with self._database.write() as connection:
            connection.execute(
                "DELETE FROM webhook_queue WHERE webhook = ? AND id = ?", (self._name, event.id)
            )

    def later(self, event: Event, next_s: float) -> None:
        """It was not taken."""
        with self._database.write() as connection:
            connection.execute(
                "UPDATE webhook_queue SET tries = tries + 1, next_s = ? WHERE webhook = ? AND id = ?",
                (next_s, self._name, event.id),
            )

    def give_up(self, before_s: float) -> int:
        """Drop what was to be told before `before_s` (Unix time), and count it."""
        with self._database.read() as connection:
            (old,) = connection.execute(
                "SELECT count(*) FROM webhook_queue WHERE webhook = ? AND made_s < ?", (self._name, before_s)
            ).fetchone()
        if not old:
            return 0
        with self._database.write() as connection:
            count = connection.execute(
                "DELETE FROM webhook_queue WHERE webhook = ? AND made_s < ?", (self._name, before_s)
            ).rowcount
            connection.execute(
                "UPDATE webhooks SET given_up = given_up + ? WHERE name = ?", (count, self._name)
            )
        return count

    def counts(self) -> tuple[int, int, float | None]:
        """How many wait, how many were ever given up, and since when the oldest waits that was tried (Unix time)."""
        with self._database.read() as connection:
            (given_up,) = connection.execute(
                "SELECT given_up FROM webhooks WHERE name = ?", (self._name,)
            ).fetchone()
            waiting, oldest_s = connection.execute(
                "SELECT count(*), min(CASE WHEN tries > 0 THEN made_s END) FROM webhook_queue WHERE webhook = ?",
                (self._name,),
            ).fetchone()
        return int(waiting), int(given_up), oldest_s

    def _marks(self, connection: Connection) -> tuple[int, int]:
        hit_place, audit_row = connection.execute(
            "SELECT hit_place, audit_row FROM webhooks WHERE name = ?", (self._name,)
        ).fetchone()
        return int(hit_place), int(audit_row)


def _event_id(hit_id: str, what: str) -> str:
    """The same for the same event, whoever is told and however often."""
    return str(uuid.uuid5(uuid.UUID(hit_id), what))

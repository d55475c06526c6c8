"""What devices told the station, and the devices themselves.

All SQL of devices, messages, hits and pictures is here, of queries in queries.py and of users in users.py: the places
to change for another database.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import threading
import time
from dataclasses import dataclass
from typing import Any

from tagclip.runtime.errors import ConfigError, SyncError
from tagclip.runtime.hit import REVIEWS
from tagclip.runtime.picture_key import PictureKeys, opened, sealed
from tagclip.runtime.station.audit import record
from tagclip.runtime.station.database import Connection, Database
from tagclip.runtime.station.tracks import is_news, keep_track, owner_of, wanted_of
from tagclip.runtime.sync_fields import DEVICE_NAME
from tagclip.runtime.sync_messages import (
    HIT,
    STATUS,
    THUMBNAIL,
    TRACK,
    Answer,
    Batch,
    Message,
    id_of,
    message_of,
)

SEEN_EVERY_S = 5.0  # that devices polled is written no more often
MAX_QUARANTINE = 2000  # rows, the oldest go
_LONG = re.compile(
    r'"((?:[^"\\]|\\.){200})(?:[^"\\]|\\.)+"'
)  # text such as a picture's, of which the start is enough
MAX_RAW = 4096  # characters of a malformed message that are kept
CODE_MINUTES = 60.0


def digest(secret: str) -> bytes:
    """What is kept of a token or code. They are random, so that a fast hash will do."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


@dataclass(frozen=True)
class Filter:
    """Which hits: of one query, of one device, seen at or after `since_s` (Unix time), of one review."""

    query_id: str | None = None
    device: str | None = None
    since_s: float | None = None
    review: str | None = None


class Store:
    """Records of devices and what they sent; any thread may call.

    Args:
        database: that of the station.
        keys: of the pictures; None stores them as they are, and opens no others.
    """

    def __init__(self, database: Database, keys: PictureKeys | None = None) -> None:
        self._database, self._keys = database, keys
        self._seen_lock, self._seen_due_s = threading.Lock(), 0.0
        self._seen: dict[str, tuple[float, int]] = {}  # when and with which set, of those not written yet

    # ---- devices

    def make_code(self, device: str, made_by: str, minutes: float = CODE_MINUTES) -> tuple[str, float]:
        """A new one-time code for `device`, and until when it can be used (Unix time).

        Raises:
            ConfigError: no name for a device.
        """
        if not DEVICE_NAME.fullmatch(device):
            raise ConfigError(
                f"{device[:80]!r} cannot name a device; expected 1 to 63 letters, digits, dots, hyphens, underscores"
            )
        code = base64.b32encode(secrets.token_bytes(15)).decode("ascii").lower()
        expires_s = time.time() + minutes * 60
        with self._database.write() as connection:
            connection.execute(
                "DELETE FROM enrolments WHERE expires_s < ? OR device = ?", (time.time(), device)
            )
            connection.execute(
                "INSERT INTO enrolments(code, device, made_by, expires_s) VALUES(?, ?, ?, ?)",
                (digest(code), device, made_by, expires_s),
            )
            record(connection, made_by, "device.invite", device=device, expires_s=round(expires_s))
        return code, expires_s

    def enrol(self, code: str, device: str, version: str, encoder_id: str | None, address: str) -> str | None:
        """Use a code up: the device's token, or None if the code is wrong, used, too old or of another device.

        A device that was enrolled before gets a new token, and the old one ends.
        """
        now_s, token = time.time(), secrets.token_urlsafe(32)
        with self._database.write() as connection:
            used = connection.execute(
                "UPDATE enrolments SET used_s = ? WHERE code = ? AND device = ? AND used_s IS NULL AND expires_s > ?",
                (now_s, digest(code), device, now_s),
            ).rowcount
            if not used:
                record(connection, "", "device.enrol.refused", device=device, address=address)
                return None
            connection.execute(
                "INSERT INTO devices(name, token, enrolled_s, version, encoder_id) VALUES(?, ?, ?, ?, ?)"
                " ON CONFLICT(name) DO UPDATE SET token = excluded.token, enrolled_s = excluded.enrolled_s,"
                " version = excluded.version, encoder_id = excluded.encoder_id",
                (device, digest(token), now_s, version, encoder_id),
            )
            record(connection, device, "device.enrol", address=address)
        return token

    def device_of(self, token: str) -> str | None:
        """Whose token it is."""
        with self._database.read() as connection:
            row = connection.execute("SELECT name FROM devices WHERE token = ?", (digest(token),)).fetchone()
        return row[0] if row else None

    def secret_of(self, device: str) -> bytes | None:
        """What is kept of its token; see sync_seal.py."""
        with self._database.read() as connection:
            row = connection.execute("SELECT token FROM devices WHERE name = ?", (device,)).fetchone()
        return bytes(row[0]) if row else None

    def dismiss(self, device: str, by: str) -> bool:
        """End a device's token; what it sent stays. False if there is no such device."""
        with self._database.write() as connection:
            found = connection.execute("DELETE FROM devices WHERE name = ?", (device,)).rowcount
            connection.execute("DELETE FROM enrolments WHERE device = ?", (device,))
            if found:
                record(connection, by, "device.remove", device=device)
        return bool(found)

    def saw(self, device: str, revision: int) -> None:
        """A device asked for queries and has the set of `revision`.

        Written every SEEN_EVERY_S for all devices together: after a restart of the station a thousand ask at once, and
        a thousand commits would keep their hits waiting. A crash forgets who was seen since, nothing else.
        """
        with self._seen_lock:
            self._seen[device] = (time.time(), revision)
            if time.monotonic() < self._seen_due_s:
                return
            self._seen_due_s = time.monotonic() + SEEN_EVERY_S
            seen = dict(self._seen)
        with self._database.write() as connection:
            for name, (seen_s, known) in seen.items():
                connection.execute(
                    "UPDATE devices SET seen_s = ?, revision = ? WHERE name = ?", (seen_s, known, name)
                )
        with self._seen_lock:
            self._seen = {name: new for name, new in self._seen.items() if seen.get(name) != new}

    def devices(self) -> list[dict[str, Any]]:
        """All devices, by name; never their tokens."""
        with self._seen_lock:
            seen = dict(self._seen)
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT name, seen_s, revision, enrolled_s, version, encoder_id, status FROM devices ORDER BY name"
            ).fetchall()
        found = []
        for name, seen_s, revision, enrolled_s, version, encoder_id, status in rows:
            if name in seen:
                seen_s, revision = max(seen_s or 0.0, seen[name][0]), seen[name][1]
            found.append(
                {
                    "name": name,
                    "enrolled_s": enrolled_s,
                    "seen_s": seen_s,
                    "queries_revision": revision,
                    "version": version,
                    "encoder_id": encoder_id,
                    "status": json.loads(status) if status else None,
                }
            )
        return found

    # ---- messages

    def take(self, batch: Batch) -> Answer:
        """Keep a batch; when this returns, what it acknowledges survives a power cut, and none of it counts twice."""
        now_s = time.time()
        acks: list[str] = []
        rejected: dict[str, str] = {}
        checked: list[tuple[object, Message | str]] = []
        for row in batch.rows:
            try:
                message = message_of(row)
                if message.device != batch.device:
                    raise SyncError(f"message.device: expected {batch.device}, who sent it")
                if message.kind == STATUS:
                    raise SyncError("message.kind: a status is not kept; send it as the batch's status")
                checked.append((row, message))
            except SyncError as error:
                checked.append((row, str(error)))
            except RecursionError:  # quoting what was found
                checked.append((row, "message: nested too deep"))
        with self._database.write() as connection:
            for row, found in checked:
                reason = found if isinstance(found, str) else _keep(connection, found, now_s, self._keys)
                if reason is None and isinstance(found, Message):
                    acks.append(found.id)
                    continue
                reason = str(reason)[:1000]
                _quarantine(connection, batch.device, row, reason, now_s)
                if name := id_of(row):
                    rejected[name] = reason
            connection.execute(
                "UPDATE devices SET seen_s = ?, status = coalesce(?, status) WHERE name = ?",
                (now_s, json.dumps(batch.status) if batch.status else None, batch.device),
            )
            last = connection.execute("SELECT revision FROM query_set").fetchone()
            wanted = wanted_of(connection, batch.device)
        return Answer(tuple(dict.fromkeys(acks)), rejected, last[0] if last else 0, wanted)

    def quarantine(self, limit: int = 100) -> list[dict[str, Any]]:
        """Malformed messages, the newest first; `raw` is cut."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT device, received_s, reason, raw FROM quarantine ORDER BY received_s DESC LIMIT ?",
                (limit,),
            ).fetchall()
        return [dict(zip(("device", "received_s", "reason", "raw"), row, strict=True)) for row in rows]

    # ---- hits

    def hits(
        self, where: Filter, after: int | None, limit: int, by: str
    ) -> tuple[list[dict[str, Any]], int | None]:
        """Hits, those that came last first, and what to give as `after` for the next page (None: there is none).

        The search is in the audit log; further pages of it are not.
        """
        text, values = conditions(where)
        if after is not None:
            text, values = f"{text} AND place < ?", [*values, after]
        if after is None:
            asked = {key: value for key, value in vars(where).items() if value is not None}
            with self._database.write() as connection:
                record(connection, by, "hits.search", **asked)
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT {HIT_COLUMNS} FROM hits WHERE {text} ORDER BY place DESC LIMIT ?",
                (*values, limit + 1),
            ).fetchall()
        more = rows[limit - 1][0] if len(rows) > limit else None
        return [shown(row) for row in rows[:limit]], more

    def picture(self, hit_id: str, by: str) -> bytes | None:
        """JPEG of a hit; that it was looked at is in the audit log.

        Raises:
            KeyFileError, StoreError: it cannot be decrypted.
        """
        with self._database.write() as connection:
            row = connection.execute(
                "SELECT jpeg, pictures.device FROM pictures"
                " JOIN hits ON hits.id = hit_id AND hits.device = pictures.device WHERE hit_id = ?",
                (hit_id,),
            ).fetchone()
            if row:
                record(connection, by, "picture.view", hit=hit_id)
        if row is None:
            return None
        return opened(bytes(row[0]), owner_of(hit_id, row[1]), self._keys, f"hit {hit_id}")

    def review(self, hit_id: str, review: str, by: str) -> dict[str, Any] | None:
        """A person's decision of REVIEWS; the hit as it is now, None if there is no such."""
        if review not in REVIEWS:
            raise ConfigError(f"review: expected one of {', '.join(REVIEWS)}, found {review[:40]!r}")
        with self._database.write() as connection:
            connection.execute(
                "UPDATE hits SET review = ?, reviewed_by = ?, reviewed_s = ? WHERE id = ?",
                (review, by, time.time(), hit_id),
            )
            row = connection.execute(f"SELECT {HIT_COLUMNS} FROM hits WHERE id = ?", (hit_id,)).fetchone()
            if row:
                record(connection, by, "hit.review", hit=hit_id, revision=row[2], review=review)
        return shown(row) if row else None


def conditions(where: Filter) -> tuple[str, list[Any]]:
    """What SQL says after WHERE for `where`, of the table hits alone, and its values."""
    texts, values = ["1 = 1"], []
    for text, value in (
        ("hits.query_id = ?", where.query_id),
        ("hits.device = ?", where.device),
        ("best_s >= ?", where.since_s),
        ("review = ?", where.review),
    ):
        if value is not None:
            texts.append(text)
            values.append(value)
    return " AND ".join(texts), values


# As `shown` reads them.
HIT_COLUMNS = (
    "place, hits.device, revision, received_s, document, review, reviewed_by, reviewed_s,"
    " EXISTS(SELECT 1 FROM pictures WHERE hit_id = hits.id AND pictures.device = hits.device)"
)


def shown(row: tuple[Any, ...]) -> dict[str, Any]:
    """A hit as the API gives it, of a row of HIT_COLUMNS."""
    _, device, _, received_s, document, review, by, reviewed_s, picture = row
    return {
        **json.loads(document),
        "review": review,
        "reviewed_by": by,
        "reviewed_s": reviewed_s,
        "device": device,
        "received_s": received_s,
        "picture": bool(picture),
    }


def _keep(connection: Connection, message: Message, now_s: float, keys: PictureKeys | None) -> str | None:
    """Put a message in its table; why not, if it never can be."""
    if message.kind in (TRACK, THUMBNAIL):
        return keep_track(connection, message, now_s, keys)
    body = message.body
    hit_id = body["id"] if message.kind == HIT else body["hit_id"]
    owner = connection.execute("SELECT device FROM hits WHERE id = ?", (hit_id,)).fetchone()
    if owner and owner[0] != message.device:
        return f"message.body: hit {hit_id} is another device's"
    if not is_news(connection, message, hit_id, now_s):
        return None
    if message.kind == HIT:
        # A person's review stays: the device does not know it.
        connection.execute(
            "INSERT INTO hits(id, device, query_id, revision, best_s, received_s, document) VALUES(?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT(id) DO UPDATE SET query_id = excluded.query_id, revision = excluded.revision,"
            " best_s = excluded.best_s, document = excluded.document WHERE excluded.revision > hits.revision",
            (
                hit_id,
                message.device,
                body["query_id"],
                body["revision"],
                float(body["best_s"]),
                now_s,
                json.dumps(body),
            ),
        )
    else:
        picture = sealed(message.jpeg(), owner_of(hit_id, message.device), keys)
        connection.execute(
            "INSERT INTO pictures(hit_id, device, revision, received_s, jpeg) VALUES(?, ?, ?, ?, ?)"
            " ON CONFLICT(hit_id, device) DO UPDATE SET revision = excluded.revision, jpeg = excluded.jpeg"
            " WHERE excluded.revision > pictures.revision",
            (hit_id, message.device, body["revision"], now_s, picture),
        )
    return None


def _quarantine(connection: Connection, device: str, row: object, reason: str, now_s: float) -> None:
    try:
        raw = json.dumps(row, sort_keys=True)  # ASCII: whatever strange characters it holds
    except RecursionError:  # Python reads deeper than it writes
        raw = f'{{"id": {json.dumps(id_of(row))}}}'
    reason = reason.encode("ascii", "backslashreplace").decode()
    connection.execute(
        "INSERT INTO quarantine(digest, device, received_s, reason, raw) VALUES(?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (
            digest(device + "\n" + raw),
            device,
            now_s,
            reason,
            _LONG.sub(r'"\1..."', raw)[:MAX_RAW],
        ),
    )
    connection.execute(
        "DELETE FROM quarantine WHERE digest IN"
        " (SELECT digest FROM quarantine ORDER BY received_s DESC LIMIT -1 OFFSET ?)",
        (MAX_QUARANTINE,),
    )

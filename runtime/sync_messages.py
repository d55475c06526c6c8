"""What device and station say to each other: every field checked, by whoever reads it; docs/link.md has the forms.

What comes in is untrusted: `batch_of`, `message_of`, `answer_of` and `verify` take bytes or parsed JSON of anybody's
making and raise SyncError, with the field's path, or give something whose every value is of its type and in its range.
"""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass, field
from typing import Any

from tagclip.runtime.errors import HitError, SyncError, one_line
from tagclip.runtime.hit import Hit, hit_of
from tagclip.runtime.keys import PrivateKey, PublicKey
from tagclip.runtime.sync_fields import DEVICE_NAME as DEVICE_NAME
from tagclip.runtime.sync_fields import Row, parse, sync_errors
from tagclip.runtime.sync_signed import with_signature, without_signature
from tagclip.runtime.sync_track import MAX_VECTOR, ToldTrack, told_track

HIT, PICTURE, STATUS = "hit", "picture", "status"
TRACK, THUMBNAIL = "track", "thumbnail"
KINDS = (HIT, PICTURE, STATUS, TRACK, THUMBNAIL)
QUERY_VIEWS = ("auto", "aerial", "ground")

MAX_MESSAGES = 64  # in a batch
MAX_BATCH_BYTES = 1 << 20
MAX_ANSWER_BYTES = 64 << 10
MAX_JPEG_BYTES = 64 << 10
MAX_QUERIES = 1000
MAX_QUERIES_BYTES = 8 << 20
MAX_WANTED = 16  # thumbnails named in an answer
JPEG = b"\xff\xd8\xff"  # how every picture begins

PREFIX = b"tagclip query set 1\n"

_YEAR_10000_S = 253_402_300_799.0
_MANY = 1 << 53  # whole numbers up to here survive every JSON reader


@dataclass(frozen=True)
class Message:
    """One thing that a device tells.

    Attributes:
        id: UUIDv7, the same however often it is sent; another one for each revision of a hit.
        device: its name, of DEVICE_NAME.
        kind: of KINDS.
        made_s: Unix time, UTC, by the device's clock, which may be wrong.
        boot_id: UUIDv7, made when the device opened its outbox; with `seq` the order of what it told.
        seq: from 1, one more with every message of this boot.
        body: HIT: as Hit.to_json; PICTURE: hit_id, revision, jpeg (base64); STATUS: facts by name;
            TRACK: as ToldTrack.to_json; THUMBNAIL: track_id, and jpeg (base64), null when it is kept no longer.
    """

    id: str
    device: str
    kind: str
    made_s: float
    boot_id: str
    seq: int
    body: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """As `message_of` reads it."""
        return dict(vars(self))

    def hit(self) -> Hit:
        """Of a message of kind HIT."""
        return hit_of(self.body)

    def track(self) -> ToldTrack:
        """Of a message of kind TRACK."""
        return told_track(self.body)

    def jpeg(self) -> bytes:
        """Of a message of kind PICTURE, or of THUMBNAIL, where it is empty when it is kept no longer."""
        return base64.b64decode(self.body["jpeg"] or "")


@dataclass(frozen=True)
class Batch:
    """What is sent at once.

    Attributes:
        device: who sends it.
        rows: messages as they came, each for `message_of`: one that is malformed does not spoil the others.
        status: facts by name; the heartbeat.
    """

    device: str
    rows: list[Any]
    status: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What the station says to a batch, once what it acknowledges is on its disk.

    Attributes:
        acks: ids of messages that need never be sent again.
        rejected: reasons by id of messages that the station will never take.
        queries_revision: of the newest query set.
        wanted: ids of tracks whose thumbnail is asked for. Only of tracks that this device told: a device that tells
            none is of a tagclip that refuses an answer with this field, and the field is left out when it is empty.
    """

    acks: tuple[str, ...]
    rejected: dict[str, str]
    queries_revision: int
    wanted: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As `answer_of` reads it."""
        rejected = [{"id": id_, "reason": reason} for id_, reason in self.rejected.items()]
        row = {"acks": list(self.acks), "rejected": rejected, "queries_revision": self.queries_revision}
        return {**row, "wanted": list(self.wanted)} if self.wanted else row


@dataclass(frozen=True)
class Query:
    """A standing query as the station hands it out.

    Attributes:
        id, text: as hits say them.
        view: of QUERY_VIEWS.
        vector: of the text, for devices with the encoder `encoder_id`; None: the device encodes the text.
        alarms_per_hour, alarms_per_1000: false alarms allowed; at most one of them, None for the device's own.
        reason: why somebody is looked for.
        expires_s: Unix time; None: it stands until it is removed.
    """

    id: str
    text: str
    view: str
    vector: tuple[float, ...] | None
    encoder_id: str | None
    alarms_per_hour: float | None
    alarms_per_1000: float | None
    reason: str
    expires_s: float | None


@dataclass(frozen=True)
class QuerySet:
    """All standing queries of a device, signed by the station.

    Attributes:
        revision: from 1, one more with every change; a lower one is refused by whoever has a higher one.
        issued_s, expires_s: Unix time, UTC, by the station's clock.
    """

    revision: int
    issued_s: float
    expires_s: float
    queries: tuple[Query, ...]


def batch_of(data: bytes) -> Batch:
    """Read a batch; its messages are not looked at.

    Raises:
        SyncError: too large, no JSON, a field is absent, unknown or wrong.
    """
    with sync_errors():
        fields = Row(parse(data, "batch", MAX_BATCH_BYTES), "batch")
        device, rows = fields.device(), fields.items("messages")
        if len(rows) > MAX_MESSAGES:
            fields.refuse("messages", f"at most {MAX_MESSAGES} messages")
        status = fields.facts("status")
        fields.close()
    return Batch(device, rows, status)


def message_of(row: object) -> Message:
    """Check one message, every field of it.

    Raises:
        SyncError: a field is absent, unknown, of the wrong type or out of range; the message names it.
    """
    with sync_errors():
        fields = Row(row, "message")
        kind = fields.text("kind", choices=KINDS)
        message = Message(
            id=fields.uuid("id", 7),
            device=fields.device(),
            kind=kind,
            made_s=fields.number("made_s", low=0.0, high=_YEAR_10000_S),
            boot_id=fields.uuid("boot_id", 7),
            seq=fields.integer("seq", low=1, high=_MANY),
            body=fields.facts("body") if kind == STATUS else fields.free("body"),
        )
        fields.close()
        if kind in (PICTURE, THUMBNAIL):
            _check_picture(kind, Row(message.body, "message.body"))
        if kind == TRACK:
            told_track(message.body)
    if kind == HIT:
        try:
            hit_of(message.body)
        except HitError as error:
            raise SyncError(f"message.body: {error}") from error
    return message


def id_of(row: object) -> str | None:
    """The id of a malformed message, to reject it by; None where it has none."""
    value = row.get("id") if isinstance(row, dict) else None
    return value if isinstance(value, str) and 1 <= len(value) <= 64 and value.isprintable() else None


def answer_of(data: bytes) -> Answer:
    """Read what a station says to a batch.

    Raises:
        SyncError: too large, no JSON, a field is absent, unknown or wrong.
    """
    with sync_errors():
        fields = Row(parse(data, "answer", MAX_ANSWER_BYTES), "answer")
        acks, rejected = fields.items("acks"), fields.items("rejected")
        if len(acks) > MAX_MESSAGES or not all(id_of({"id": ack}) for ack in acks):
            fields.refuse("acks", f"at most {MAX_MESSAGES} ids")
        if len(rejected) > MAX_MESSAGES:
            fields.refuse("rejected", f"at most {MAX_MESSAGES} ids with reasons")
        reasons = {}
        for number, row in enumerate(rejected):
            one = Row(row, f"answer.rejected[{number}]")
            # Whatever the reason says: an answer that is refused for it would be asked for again and again.
            reasons[one.text("id", max_length=64)] = one_line(str(one.any("reason")))[:1000]
            one.close()
        revision = fields.integer("queries_revision", low=0, high=_MANY)
        wanted = fields.items("wanted") if "wanted" in fields.keys() else []
        if len(wanted) > MAX_WANTED:
            fields.refuse("wanted", f"at most {MAX_WANTED} ids")
        for number, name in enumerate(wanted):
            Row({f"{number}": name}, "answer.wanted").uuid(f"{number}")
        fields.close()
    return Answer(tuple(acks), reasons, revision, tuple(wanted))


def sign(document: dict[str, Any], key: PrivateKey) -> dict[str, Any]:
    """The signed form of a query set.

    Args:
        document: revision, issued_s, expires_s and queries; a query's vector as numbers or as `pack_vector` gives it.

    Raises:
        SyncError: a field is absent, unknown, of the wrong type or out of range.
    """
    packed = {key: value for key, value in document.items() if key != "signature"}
    queries = packed.get("queries")
    if isinstance(queries, list):
        packed["queries"] = [
            {**query, "vector": pack_vector(query["vector"])}
            if isinstance(query, dict) and isinstance(query.get("vector"), (list, tuple))
            else query
            for query in queries
        ]
    query_set_of(packed)
    return with_signature(packed, PREFIX, key)


def verify(document: object, key: PublicKey) -> QuerySet:
    """The query set of a signed document.

    Raises:
        SyncError: the owner of `key` did not sign it, or a field is absent, unknown, wrong or out of range.
        MissingExtraError: cryptography is not installed.
    """
    return query_set_of(without_signature(document, PREFIX, key, root="queries", what="query set"))


def query_set_of(document: object) -> QuerySet:
    """Check a query set without its signature.

    Raises:
        SyncError: a field is absent, unknown, of the wrong type or out of range.
    """
    with sync_errors():
        fields = Row(document, "queries")
        revision = fields.integer("revision", low=1, high=_MANY)
        issued_s, expires_s = (
            fields.number(name, low=0.0, high=_YEAR_10000_S) for name in ("issued_s", "expires_s")
        )
        rows = fields.items("queries")
        fields.close()
        if len(rows) > MAX_QUERIES:
            fields.refuse("queries", f"at most {MAX_QUERIES} queries")
        queries = tuple(_query(row, f"queries.queries[{number}]") for number, row in enumerate(rows))
        if len({query.id for query in queries}) != len(queries):
            raise SyncError("queries.queries: two of them have the same id")
    return QuerySet(revision, issued_s, expires_s, queries)


def pack_vector(vector: Any) -> str:
    """A vector as it travels: base64 of little-endian float16, a tenth of the size of numbers in JSON.

    Raises:
        SyncError: it holds something else than finite numbers of at most 65,504.
    """
    try:
        return base64.b64encode(struct.pack(f"<{len(vector)}e", *map(float, vector))).decode("ascii")
    except (TypeError, ValueError, OverflowError, struct.error) as error:
        raise SyncError(f"queries.vector: expected numbers of at most 65,504: {error}") from error


def _query(row: object, where: str) -> Query:
    fields = Row(row, where)

    def rate(key: str) -> float | None:
        return None if fields.null(key) else fields.number(key, low=1e-9, high=1e6)

    query = Query(
        id=fields.text("id"),
        text=fields.line("text", most=10_000),
        view=fields.text("view", choices=QUERY_VIEWS),
        vector=None if fields.null("vector") else _vector(fields, "vector"),
        encoder_id=None if fields.null("encoder_id") else fields.text("encoder_id"),
        alarms_per_hour=rate("alarms_per_hour"),
        alarms_per_1000=rate("alarms_per_1000"),
        reason=fields.line("reason", least=0, most=2000),
        expires_s=None
        if fields.null("expires_s")
        else fields.number("expires_s", low=0.0, high=_YEAR_10000_S),
    )
    fields.close()
    if (query.vector is None) != (query.encoder_id is None):
        fields.refuse("encoder_id", "the encoder of the vector, or null for both")
    if query.alarms_per_hour is not None and query.alarms_per_1000 is not None:
        fields.refuse("alarms_per_1000", "null, as alarms_per_hour is given")
    return query


def _vector(fields: Row, key: str) -> tuple[float, ...]:
    data = fields.base64(key, least=2, most=2 * MAX_VECTOR)
    numbers = struct.unpack(f"<{len(data) // 2}e", data) if len(data) % 2 == 0 else ()
    if not all(abs(number) <= 65_504 for number in numbers) or not any(numbers):
        fields.refuse(key, "finite numbers of 16 bits, not all zero")
    return numbers


def _check_picture(kind: str, fields: Row) -> None:
    if kind == PICTURE:
        fields.uuid("hit_id")
        fields.integer("revision", low=1, high=_MANY)
    else:
        fields.uuid("track_id")
    if kind == PICTURE or not fields.null("jpeg"):
        if not fields.base64("jpeg", least=4, most=MAX_JPEG_BYTES).startswith(JPEG):
            fields.refuse("jpeg", "a JPEG picture")
    fields.close()

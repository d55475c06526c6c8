"""What devices ask: enrol, hand in, and fetch the queries."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tagclip.runtime.station.limits import network
from tagclip.runtime.station.tracks import vector_of
from tagclip.runtime.station.web import ANYONE, DEVICE, Answer, Ask, Refusal, Route
from tagclip.runtime.sync_fields import Row
from tagclip.runtime.sync_messages import HIT, PICTURE, TRACK, batch_of, id_of, message_of

if TYPE_CHECKING:
    from tagclip.runtime.station.station import Station

MAX_WAIT_S = 30.0
_MANY = 1 << 53
_TAKES = {"accept-encoding": "gzip"}  # of bodies, RFC 7694


def enrol(ask: Ask) -> Answer:
    """A one-time code becomes a token."""
    fields = ask.fields()
    code, device = fields.text("code", max_length=64), fields.device()
    public = Row(fields.free("public"), "body.public")
    version = public.text("version", max_length=64)
    encoder_id = None if public.null("encoder_id") else public.text("encoder_id")
    public.close()
    fields.close()
    key = network(ask.address)
    if wait_s := ask.station.enrol_tries.take(key):
        raise Refusal(429, "too many wrong codes from this address; wait", wait_s=wait_s)
    token = ask.station.store.enrol(code, device, version, encoder_id, ask.address)
    if token is None:
        raise Refusal(
            403, f"no such code for {device}, or it was used, or is too old; ask an admin for another"
        )
    ask.station.enrol_tries.forgive(key)
    told = {"token": token, "station_public_key": ask.station.public_pem(), "device": device}
    return Answer(told | ({"mqtt": ask.station.broker} if ask.station.broker else {}))


def messages(ask: Ask) -> Answer:
    """A batch; what the answer acknowledges is on the disk."""
    return Answer(hand_in(ask.station, ask.device, ask.body), headers=_TAKES)


def hand_in(station: Station, device: str, body: bytes) -> dict[str, Any]:
    """Keep a batch that `device` sent, by whatever carrier; the answer to it.

    Raises:
        Refusal, SyncError: it is another device's, or breaks its form.
        sqlite3.Error: the records cannot be written; nothing was kept.
    """
    batch = batch_of(body)
    if batch.device != device:
        raise Refusal(403, f"batch.device: the token is that of {device}, found {batch.device}")
    answer = station.store.take(batch)
    told = [message_of(row) for row in batch.rows if id_of(row) in answer.acks and row["kind"] == TRACK]
    if told:  # each time: what the engine of vectors missed is sent again
        station.vectors.add([vector_of(message, time.time()) for message in told])
    station.news.tell(_hits(batch.rows, set(answer.acks)))
    return answer.to_json()


async def queries(ask: Ask) -> Answer:
    """The signed set, as soon as there is a newer one than the device has."""
    from starlette.concurrency import run_in_threadpool

    known = _number(ask, "revision", 0, _MANY)
    end_s = time.monotonic() + _number(ask, "wait_s", 0, MAX_WAIT_S)
    station = ask.station
    await run_in_threadpool(station.store.saw, ask.device, int(known))
    while True:
        event = station.bell.event()
        revision, document = station.queries.current()
        if revision > known:
            return Answer(data=document, headers=_TAKES)
        left_s = end_s - time.monotonic()
        if left_s <= 0 or station.bell.closing:
            return Answer(headers=_TAKES)
        try:
            await asyncio.wait_for(event.wait(), left_s)
        except asyncio.TimeoutError:
            return Answer(headers=_TAKES)


def _hits(rows: list[Any], acks: set[str]) -> Iterator[str]:
    """Ids of the hits that acknowledged messages are about, their pictures too."""
    for row in rows:
        if id_of(row) in acks and row["kind"] in (HIT, PICTURE):
            yield row["body"]["id" if row["kind"] == HIT else "hit_id"]


def _number(ask: Ask, name: str, low: float, high: float) -> float:
    text = ask.query.get(name, "0")
    try:
        value = float(text) if name == "wait_s" else int(text) if text.isascii() and text.isdigit() else -1
    except ValueError:
        value = -1
    if not low <= value <= high:
        raise Refusal(400, f"{name}: expected a number from {low:g} to {high:g}, found {text[:40]!r}")
    return value


ROUTES = (
    Route(
        "POST",
        "/api/v1/enrol",
        ANYONE,
        enrol,
        "A device's one-time code becomes its token.",
        json_only=False,
        body={
            "type": "object",
            "required": ["code", "device", "public"],
            "properties": {
                "code": {"type": "string"},
                "device": {"type": "string"},
                "public": {
                    "type": "object",
                    "required": ["version", "encoder_id"],
                    "properties": {"version": {"type": "string"}, "encoder_id": {"type": ["string", "null"]}},
                },
            },
        },
    ),
    Route(
        "POST",
        "/api/v1/device/messages",
        DEVICE,
        messages,
        "Hand in at most 64 messages and the device's state; what is acknowledged is on the station's disk.",
        json_only=False,
        body={
            "type": "object",
            "required": ["device", "messages", "status"],
            "properties": {
                "device": {"type": "string"},
                "messages": {"type": "array", "maxItems": 64, "items": {"type": "object"}},
                "status": {"type": "object"},
            },
        },
    ),
    Route(
        "GET",
        "/api/v1/device/queries",
        DEVICE,
        queries,
        "The signed set of standing queries, once its revision is greater than the device's; else 204.",
        query={"revision": "of the set that the device has", "wait_s": "how long to wait, at most 30"},
    ),
)

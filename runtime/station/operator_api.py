"""What operators and reviewers ask: queries, hits, pictures, decisions."""

from __future__ import annotations

import math
import time

from tagclip.runtime.errors import BackgroundError, KeyFileError, StoreError
from tagclip.runtime.hit import REVIEWS
from tagclip.runtime.query import check_query
from tagclip.runtime.station.retention import delete_hit
from tagclip.runtime.station.store import Filter
from tagclip.runtime.station.users import ADMIN, OPERATOR, REVIEWER
from tagclip.runtime.station.web import EVERY_ROLE, ONLY_ADMIN, Answer, Ask, Refusal, Route
from tagclip.runtime.sync_fields import Row
from tagclip.runtime.sync_messages import QUERY_VIEWS

DEFAULT_HOURS = 24.0
MAX_HOURS = 24.0 * 366
MAX_PAGE = 500
_MAY_SEARCH, _MAY_DECIDE = frozenset({OPERATOR, ADMIN}), frozenset({REVIEWER, ADMIN})


def list_queries(ask: Ask) -> Answer:
    """All that stand."""
    revision, _ = ask.station.queries.current()
    return Answer({"revision": revision, "queries": ask.station.queries.listed()})


def add_query(ask: Ask) -> Answer:
    """Encode it, sign the set, wake the devices."""
    fields = ask.fields()
    text = check_query(fields.text("text", max_length=2000))
    reason = fields.text("reason", max_length=2000)
    given = fields.keys()
    view = fields.text("view", choices=QUERY_VIEWS) if "view" in given else "auto"
    hours = _optional(fields, "hours", MAX_HOURS) if "hours" in given else DEFAULT_HOURS
    rates = _rates(fields)
    fields.close()
    try:
        vector = ask.station.encoder.vector(text)
    except BackgroundError as error:
        raise Refusal(400, str(error)) from error
    query = ask.station.queries.add(
        {
            "text": text,
            "view": view,
            "vector": vector,
            "encoder_id": ask.station.encoder.encoder_id,
            **rates,
            "reason": reason,
            "expires_s": None if hours is None else round(time.time() + hours * 3600, 3),
        },
        ask.by,
    )
    revision, _ = ask.station.queries.current()
    return Answer(
        {**{key: value for key, value in query.items() if key != "vector"}, "revision": revision}, 201
    )


def change_query(ask: Ask) -> Answer:
    """Another threshold; devices have it within a second."""
    fields = ask.fields()
    if not fields.keys():
        raise Refusal(400, "give alarms_per_hour or alarms_per_1000; null leaves it to the devices")
    rates = _rates(fields)
    fields.close()
    query = ask.station.queries.change(ask.path["id"], rates, ask.by)
    if query is None:
        raise Refusal(404, "there is no such query")
    return Answer(
        {
            **{key: value for key, value in query.items() if key != "vector"},
            "revision": ask.station.queries.current()[0],
        }
    )


def remove_query(ask: Ask) -> Answer:
    """Its hits stay."""
    if not ask.station.queries.remove(ask.path["id"], ask.by):
        raise Refusal(404, "there is no such query")
    return Answer({"revision": ask.station.queries.current()[0]})


def list_hits(ask: Ask) -> Answer:
    """A page of them, those that came last first."""
    given, where = ask.query, filter_of(ask)
    limit = whole(given.get("limit", "100"), "limit", MAX_PAGE)
    after = whole(given["after"], "after", 1 << 53) if "after" in given else None
    hits, more = ask.station.store.hits(where, after, limit, ask.by)
    return Answer({"hits": hits, "after": more})


def filter_of(ask: Ask) -> Filter:
    """What the names of HIT_FILTER in the URL say. Raises: Refusal."""
    given = ask.query
    review = given.get("review")
    if review is not None and review not in REVIEWS:
        raise Refusal(400, f"review: expected one of {', '.join(REVIEWS)}")
    return Filter(given.get("query"), given.get("device"), _since(given.get("since")), review)


def picture(ask: Ask) -> Answer:
    """The JPEG; that it was looked at is in the audit log."""
    try:
        jpeg = ask.station.store.picture(ask.path["id"], ask.by)
    except (KeyFileError, StoreError) as error:
        raise Refusal(409, str(error)) from error
    if jpeg is None:
        raise Refusal(404, "there is no such hit, or its picture has not come yet")
    return Answer(data=jpeg, kind="image/jpeg")


def review(ask: Ask) -> Answer:
    """A person's decision."""
    fields = ask.fields()
    decision = fields.text("review", choices=REVIEWS)
    fields.close()
    hit = ask.station.store.review(ask.path["id"], decision, ask.by)
    if hit is None:
        raise Refusal(404, "there is no such hit")
    ask.station.news.tell([ask.path["id"]])
    return Answer(hit)


def remove_hit(ask: Ask) -> Answer:
    """For somebody's right to be deleted; the audit log names the hit alone."""
    if not delete_hit(ask.station.database, ask.path["id"], ask.by):
        raise Refusal(404, "there is no such hit")
    ask.station.news.tell([ask.path["id"]])
    return Answer({})


def devices(ask: Ask) -> Answer:
    """All, with what they said of themselves last."""
    station = ask.station
    shown = station.bundles.shown(station.store.devices())
    return Answer({"revision": station.queries.current()[0], "devices": shown})


def _rates(fields: Row) -> dict[str, float | None]:
    """Of false alarms; at most one of them is given. Raises: Refusal, SyncError."""
    rates = {
        key: _optional(fields, key, 1e6) if key in fields.keys() else None
        for key in ("alarms_per_hour", "alarms_per_1000")
    }
    if None not in rates.values():
        raise Refusal(400, "give alarms_per_hour or alarms_per_1000, not both")
    return rates


def _optional(fields: Row, key: str, most: float) -> float | None:
    """A positive number, or None where null stands."""
    return None if fields.null(key) else fields.number(key, low=1e-6, high=most)


def _since(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < 1e12:
        raise Refusal(400, f"since: expected Unix time in seconds, found {text[:40]!r}")
    return value


def whole(text: str, name: str, most: int) -> int:
    """A number from 1 to `most` of the URL's query. Raises: Refusal."""
    if not (text.isascii() and text.isdigit() and len(text) <= 16 and 1 <= int(text) <= most):
        raise Refusal(400, f"{name}: expected a whole number from 1 to {most}, found {text[:40]!r}")
    return int(text)


HIT_FILTER = {
    "query": "id of a query",
    "device": "name of a device",
    "since": "Unix time; hits that were seen then or later",
    "review": "one of " + ", ".join(REVIEWS),
}
_POSITIVE = {"type": ["number", "null"], "exclusiveMinimum": 0}

ROUTES = (
    Route("GET", "/api/v1/queries", EVERY_ROLE, list_queries, "The standing queries."),
    Route(
        "POST",
        "/api/v1/queries",
        _MAY_SEARCH,
        add_query,
        "Add a standing query; every device in reach has it within a second.",
        body={
            "type": "object",
            "required": ["text", "reason"],
            "properties": {
                "text": {"type": "string", "maxLength": 2000},
                "reason": {"type": "string", "maxLength": 2000},
                "view": {"enum": list(QUERY_VIEWS)},
                "hours": _POSITIVE
                | {"description": "how long it stands; default 24, null: until it is removed"},
                "alarms_per_hour": _POSITIVE,
                "alarms_per_1000": _POSITIVE,
            },
        },
    ),
    Route(
        "PATCH",
        "/api/v1/queries/{id}",
        _MAY_SEARCH,
        change_query,
        "Change how many false alarms a standing query may raise; every device in reach has it within a second.",
        body={
            "type": "object",
            "minProperties": 1,
            "properties": {"alarms_per_hour": _POSITIVE, "alarms_per_1000": _POSITIVE},
        },
    ),
    Route(
        "DELETE", "/api/v1/queries/{id}", _MAY_SEARCH, remove_query, "Remove a standing query; its hits stay."
    ),
    Route(
        "GET",
        "/api/v1/hits",
        EVERY_ROLE,
        list_hits,
        "Hits, those that came last first.",
        query={
            **HIT_FILTER,
            "limit": f"at most {MAX_PAGE}, default 100",
            "after": "of the page before",
        },
    ),
    Route(
        "GET",
        "/api/v1/hits/{id}/picture",
        EVERY_ROLE,
        picture,
        "The picture of a hit, JPEG.",
        query={"revision": "makes the address another one when the hit changed; nothing else"},
    ),
    Route(
        "POST",
        "/api/v1/hits/{id}/review",
        _MAY_DECIDE,
        review,
        "A person's decision about a hit.",
        body={"type": "object", "required": ["review"], "properties": {"review": {"enum": list(REVIEWS)}}},
    ),
    Route(
        "DELETE",
        "/api/v1/hits/{id}",
        ONLY_ADMIN,
        remove_hit,
        "Delete a hit and its pictures for good; its newer revisions that still come are dropped.",
    ),
    Route(
        "GET", "/api/v1/devices", EVERY_ROLE, devices, "The devices, and what they said of themselves last."
    ),
)

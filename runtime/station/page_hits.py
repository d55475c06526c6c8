"""The list of hits, live: the page, more of its rows, and what changed since."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from tagclip.runtime.hit import REVIEWS, UNREVIEWED
from tagclip.runtime.station import page_records
from tagclip.runtime.station.page_shell import page, render
from tagclip.runtime.station.store import Filter
from tagclip.runtime.station.web import EVERY_ROLE, Answer, Ask, Refusal, Route

ROWS = 50  # at once
MAX_FRESH = 200  # changes; more, and the page looks at everything anew
MAX_WAIT_S = 25.0
ALL = "all"  # of every review


def hits(ask: Ask) -> Answer:
    """The page, with its first rows."""
    station, where = ask.station, filter_of(ask)
    number = station.news.number  # before the rows: what comes in between is told again, and shown once
    rows, after = station.store.hits(where, None, ROWS, ask.by)
    texts = page_records.queries_of_hits(station.database)
    texts |= {query["id"]: query["text"] for query in station.queries.listed()}
    devices = {row["name"] for row in station.store.devices()}
    return page(
        ask,
        "hits.html",
        here="hits",
        rows=rows,
        after=after,
        number=number,
        counts=page_records.counts(station.database, where),
        where=where,
        queries=sorted(texts.items(), key=lambda item: item[1].lower()),
        devices=sorted(devices | set(page_records.counts_by_device(station.database))),
        standing=len(station.queries.listed()),
    )


def rows(ask: Ask) -> Answer:
    """Rows of a filter, as HTML; the first of them, or those that follow."""
    station, where = ask.station, filter_of(ask)
    after = whole(ask, "after", 0) or None
    number = station.news.number
    found, more = station.store.hits(where, after, ROWS, ask.by)
    value: dict[str, Any] = {"rows": render(ask.user, "_rows.html", rows=found), "after": more}
    if after is None:
        value |= {"number": number, "counts": page_records.counts(station.database, where)}
    return Answer(value)


async def live(ask: Ask) -> Answer:
    """What changed after `number`, as soon as something does: rows as HTML, or that too much did."""
    from starlette.concurrency import run_in_threadpool

    where, known = filter_of(ask), whole(ask, "number", 0)
    end_s = time.monotonic() + min(whole(ask, "wait_s", 0), MAX_WAIT_S)
    news = ask.station.news
    while True:
        event = news.event()
        number, changed = news.number, news.since(known)
        if changed is None or len(changed) > MAX_FRESH:
            return Answer({"number": number, "stale": True})
        if changed:
            return Answer(await run_in_threadpool(_fresh, ask, where, number, changed))
        left_s = end_s - time.monotonic()
        if left_s <= 0 or news.closing:
            return Answer({"number": number, "hits": []})
        try:
            await asyncio.wait_for(event.wait(), left_s)
        except asyncio.TimeoutError:
            return Answer({"number": number, "hits": []})


def _fresh(ask: Ask, where: Filter, number: int, changed: list[str]) -> dict[str, Any]:
    found = page_records.hits_of(ask.station.database, changed, where)
    return {
        "number": number,
        "counts": page_records.counts(ask.station.database, where),
        "hits": [
            {
                "id": row["id"],
                "fits": row["fits"],
                "received_s": row["received_s"],
                "revision": row["revision"],
                "row": render(ask.user, "_rows.html", rows=[row]),
            }
            for row in found
        ],
    }


def filter_of(ask: Ask, otherwise: str = UNREVIEWED) -> Filter:
    """What the address says; hits of the review `otherwise` unless it says of which."""
    review = ask.query.get("review") or otherwise
    if review not in (*REVIEWS, ALL):
        raise Refusal(400, f"review: expected one of {', '.join((*REVIEWS, ALL))}")
    return Filter(
        ask.query.get("query") or None,
        ask.query.get("device") or None,
        None,
        None if review == ALL else review,
    )


def whole(ask: Ask, name: str, default: int) -> int:
    """A whole number of the address. Raises: Refusal: it is none."""
    text = ask.query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= 17):
        raise Refusal(400, f"{name}: expected a whole number, found {text[:40]!r}")
    return int(text)


FILTER = {"query": "id of a query", "device": "name of a device", "review": "of hits, or all"}

PAGES = (Route("GET", "/hits", EVERY_ROLE, hits, "The hits.", query=FILTER),)
PARTS = (
    Route(
        "GET", "/hits/rows", EVERY_ROLE, rows, "More hits.", query={**FILTER, "after": "of the page before"}
    ),
    Route(
        "GET",
        "/hits/live",
        EVERY_ROLE,
        live,
        "What changed.",
        query={**FILTER, "number": "of the last change that is known", "wait_s": "how long to wait"},
    ),
)

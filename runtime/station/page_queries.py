"""Who is looked for: the standing queries, with their thresholds, and a form for another one."""

from __future__ import annotations

import time

from tagclip.runtime.station import page_records
from tagclip.runtime.station.page_shell import page
from tagclip.runtime.station.web import EVERY_ROLE, Answer, Ask, Route


def queries(ask: Ask) -> Answer:
    """The page."""
    counts = page_records.counts_by_query(ask.station.database)
    listed = [
        query | {"hits": counts.get(query["id"], {})} for query in reversed(ask.station.queries.listed())
    ]
    return page(ask, "queries.html", here="queries", queries=listed, now_s=time.time())


PAGES = (Route("GET", "/queries", EVERY_ROLE, queries, "The standing queries."),)
PARTS: tuple[Route, ...] = ()

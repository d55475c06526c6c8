"""One hit: its picture, its facts, what was near, and the decision."""

from __future__ import annotations

from typing import Any

from tagclip.runtime.station import page_records
from tagclip.runtime.station.page_shell import HTML, page, render
from tagclip.runtime.station.web import EVERY_ROLE, Answer, Ask, Refusal, Route


def hit(ask: Ask) -> Answer:
    """A page of its own, to be looked at or sent to somebody."""
    return page(ask, "hit.html", here="hits", **_values(ask))


def pane(ask: Ask) -> Answer:
    """The same beside the list."""
    return Answer(data=render(ask.user, "_hit.html", **_values(ask)).encode(), kind=HTML)


def _values(ask: Ask) -> dict[str, Any]:
    database = ask.station.database
    found = page_records.hit(database, ask.path["id"])
    if found is None:
        raise Refusal(404, "there is no such hit; it may have been too old and was deleted")
    return {"hit": found, "near": page_records.neighbours(database, found)}


PAGES = (Route("GET", "/hits/{id}", EVERY_ROLE, hit, "One hit."),)
PARTS = (Route("GET", "/hits/{id}/pane", EVERY_ROLE, pane, "One hit, beside the list."),)

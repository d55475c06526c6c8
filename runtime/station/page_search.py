"""Search of everything that is stored, over all devices."""

from __future__ import annotations

from tagclip.runtime.station.page_shell import page
from tagclip.runtime.station.web import EVERY_ROLE, Answer, Ask, Route


def search(ask: Ask) -> Answer:
    """The page; its script asks the API."""
    return page(
        ask,
        "search.html",
        here="search",
        devices=[device["name"] for device in ask.station.store.devices()],
    )


PAGES = (
    Route(
        "GET",
        "/search",
        EVERY_ROLE,
        search,
        "Search.",
        query={"like": "id of a hit or a track"},
    ),
)
PARTS: tuple[Route, ...] = ()

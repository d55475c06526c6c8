"""The map: hits and tracks that have a place, on a plain grid or the user's own tiles."""

from __future__ import annotations

from tagclip.runtime.station import page_records
from tagclip.runtime.station.page_hits import ALL, FILTER, filter_of
from tagclip.runtime.station.page_shell import page
from tagclip.runtime.station.web import EVERY_ROLE, Answer, Ask, Refusal, Route

MOST = 5000  # hits on a map, and as many tracks


def map_page(ask: Ask) -> Answer:
    """The page; its script fetches the places."""
    station = ask.station
    return page(
        ask,
        "map.html",
        here="map",
        tiles=station.tiles,
        queries=sorted(
            page_records.queries_of_hits(station.database).items(), key=lambda item: item[1].lower()
        ),
        devices=sorted(page_records.counts_by_device(station.database)),
    )


def places(ask: Ask) -> Answer:
    """Hits and everybody else with a place, the newest first."""
    where = filter_of(ask, ALL)
    rows = page_records.places(ask.station.database, where, MOST + 1)
    people = page_records.people(ask.station.database, where.device, MOST)
    return Answer({"hits": rows[:MOST], "more": len(rows) > MOST, "people": people})


def tile(ask: Ask) -> Answer:
    """A tile of the user's map."""
    numbers = [ask.path[name] for name in ("zoom", "column", "row")]
    if not all(text.isascii() and text.isdigit() and len(text) < 9 for text in numbers):
        raise Refusal(404, "there is no such tile")
    found = ask.station.tiles and ask.station.tiles.tile(*map(int, numbers))
    if not found:
        raise Refusal(404, "there is no such tile")
    kind, data = found
    return Answer(data=data, kind=kind, headers={"cache-control": "private, max-age=86400"})


PAGES = (
    Route("GET", "/map", EVERY_ROLE, map_page, "The map.", query={"hit": "id of the hit in the middle"}),
)
PARTS = (
    Route("GET", "/map/places", EVERY_ROLE, places, "Hits with a place.", query=FILTER),
    Route("GET", "/map/tiles/{zoom}/{column}/{row}", EVERY_ROLE, tile, "A tile of the user's map."),
)

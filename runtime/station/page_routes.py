"""All routes of the pages, beside those of the API."""

from __future__ import annotations

from tagclip.runtime.station import (
    page_admin,
    page_fleet,
    page_hit,
    page_hits,
    page_login,
    page_map,
    page_queries,
    page_search,
    page_shell,
)
from tagclip.runtime.station.web import Route

# Pages answer a browser that goes there, parts the scripts of a page; who may is said as of the API's routes.
PARTS: tuple[Route, ...] = (
    *page_shell.ROUTES,
    *page_hits.PARTS,
    *page_hit.PARTS,
    *page_queries.PARTS,
    *page_search.PARTS,
    *page_map.PARTS,
    *page_fleet.PARTS,
)
PAGES: tuple[Route, ...] = (
    *page_login.PAGES,
    *page_hits.PAGES,
    *page_hit.PAGES,
    *page_queries.PAGES,
    *page_search.PAGES,
    *page_map.PAGES,
    *page_fleet.PAGES,
    *page_admin.PAGES,
)

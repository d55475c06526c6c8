"""All routes of the station as one ASGI application."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tagclip.runtime.station import (
    admin_api,
    bundles_api,
    device_api,
    export_api,
    operator_api,
    search_api,
)
from tagclip.runtime.station.page_routes import PAGES, PARTS
from tagclip.runtime.station.page_shell import page_refused, serve_page
from tagclip.runtime.station.web import Refusal, Route, refused, serve

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    from tagclip.runtime.station.station import Station

Serve = Callable[[Route, "Station", "Request"], Awaitable["Response"]]

# The API, which openapi.json describes.
ROUTES: tuple[Route, ...] = (
    *device_api.ROUTES,
    *operator_api.ROUTES,
    *export_api.ROUTES,
    *search_api.ROUTES,
    *admin_api.ROUTES,
    *bundles_api.ROUTES,
)


def make_app(station: Station) -> Starlette:
    """The application of `station`.

    Raises:
        ImportError: starlette is not installed.
    """
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.routing import Route as Served

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        station.bell.attach()
        station.news.attach()
        yield

    async def elsewhere(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        text = {404: "there is nothing here", 405: "not with this method"}.get(error.status_code, "refused")
        refuse = refused if request.url.path.startswith("/api/") else page_refused
        return refuse(Refusal(error.status_code, text))

    served: dict[str, dict[str, tuple[Route, Serve]]] = {}
    for routes, how in ((ROUTES, serve), (PARTS, serve), (PAGES, serve_page)):
        for route in routes:
            served.setdefault(route.path, {})[route.method] = route, how

    return Starlette(
        routes=[
            Served(path, functools.partial(_serve, by_method, station), methods=list(by_method))
            for path, by_method in served.items()
        ],
        exception_handlers={HTTPException: elsewhere},
        lifespan=lifespan,
    )


async def _serve(by_method: dict[str, tuple[Route, Serve]], station: Station, request: Request) -> Response:
    route, how = by_method["GET" if request.method == "HEAD" else request.method]
    return await how(route, station, request)

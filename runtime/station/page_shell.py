"""From a template to an answer: what all pages have in common, and the files that they load."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tagclip.runtime.station import page_text
from tagclip.runtime.station.users import ADMIN, OPERATOR, REVIEWER, User
from tagclip.runtime.station.web import (
    ANYONE,
    HEADERS,
    Answer,
    Ask,
    PasswordFirst,
    Refusal,
    Route,
    refused,
    serve,
)

if TYPE_CHECKING:
    from jinja2 import Environment
    from starlette.requests import Request
    from starlette.responses import Response

    from tagclip.runtime.station.station import Station

FOLDER = Path(__file__).parent / "page"
STATIC = FOLDER / "static"
KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
HTML = "text/html; charset=utf-8"

# Nothing inline, nothing from elsewhere: what a device or a user typed can never become a script.
PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
}


@functools.cache
def version() -> str:
    """Of all static files together; stands in their addresses, so that browsers keep them for good."""
    sums = hashlib.sha256()
    for path in sorted(STATIC.iterdir()):
        sums.update(path.read_bytes())
    return sums.hexdigest()[:12]


@functools.cache
def templates() -> Environment:
    """All templates; what they are given is escaped, and a name that is not given is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(page_text.FILTERS)
    made.globals["static"] = f"/static/{version()}"
    return made


def may(user: User | None) -> dict[str, bool]:
    """What controls a user is shown: nothing that the API would refuse."""
    role = user.role if user else ""
    return {
        "search": role in (OPERATOR, ADMIN),
        "decide": role in (REVIEWER, ADMIN),
        "administer": role == ADMIN,
    }


def render(user: User | None, template: str, **values: Any) -> str:
    """The text of a template of FOLDER, for `user`."""
    return templates().get_template(template).render(user=user, may=may(user), **values)


def page(ask: Ask, template: str, **values: Any) -> Answer:
    """A whole page."""
    return Answer(data=render(ask.user, template, **values).encode(), kind=HTML, headers=PAGE_HEADERS)


async def serve_page(route: Route, station: Station, request: Request) -> Response:
    """Answer with a page; where the API would refuse, with one that says why, or the one to log in on."""

    def refuse(refusal: Refusal) -> Response:
        if isinstance(refusal, PasswordFirst):
            return _go("/password")
        if refusal.status == 401:
            asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            return _go("/login" if asked == "/" else f"/login?next={quote(asked[:180], safe='/')}")
        return page_refused(refusal)

    return await serve(route, station, request, refuse)


def page_refused(refusal: Refusal) -> Response:
    """A page that says why not."""
    from starlette.responses import Response

    plain = refused(refusal)
    text = render(None, "refused.html", status=refusal.status, text=refusal.text)
    kept = {name: value for name, value in plain.headers.items() if not name.startswith("content-")}
    return Response(text, refusal.status, {**kept, **PAGE_HEADERS}, HTML)


def _go(where: str) -> Response:
    from starlette.responses import Response

    return Response(b"", 303, {**HEADERS, "location": where})


def static(ask: Ask) -> Answer:
    """A file of the pages; its address changes with it."""
    path = STATIC / ask.path["name"]
    if path.name not in _names():
        raise Refusal(404, "there is nothing here")
    kept = "public, max-age=31536000, immutable" if ask.path["version"] == version() else "no-store"
    return Answer(data=path.read_bytes(), kind=KINDS[path.suffix], headers={"cache-control": kept})


@functools.cache
def _names() -> frozenset[str]:
    return frozenset(path.name for path in STATIC.iterdir() if path.suffix in KINDS)


ROUTES = (Route("GET", "/static/{version}/{name}", ANYONE, static, "A file that pages load."),)

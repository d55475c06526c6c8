"""From HTTP to a function and back: who may ask, how much, and what an answer says."""

from __future__ import annotations

import asyncio
import hmac
import inspect
import json
import logging
import math
import re
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tagclip.runtime.errors import (
    BundleManifestError,
    ConfigError,
    MissingExtraError,
    QueryError,
    StoreError,
    SyncError,
)
from tagclip.runtime.station.store import digest
from tagclip.runtime.station.users import ADMIN, ROLES, BusyError, User
from tagclip.runtime.sync_fields import Row, gunzip, parse

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from tagclip.runtime.station.station import Station

MAX_BODY_BYTES = 1 << 20
BODY_S = 20.0  # for all of a body
COOKIE = "__Host-tagclip"  # a browser takes it only over TLS, for this host alone
CSRF = "x-csrf-token"

# Who may use a route, beside the roles of users.
ANYONE, DEVICE = "anyone", "device"
EVERY_ROLE = frozenset(ROLES)
ONLY_ADMIN = frozenset({ADMIN})

# The API has no pages: whatever an answer holds, a browser runs none of it, frames none of it and keeps none of it.
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}

log = logging.getLogger(__name__)


class Refusal(Exception):
    """An answer that is no success.

    Args:
        status: of HTTP.
        text: what was expected, found, and the way out; shown to whoever asked.
        wait_s: when to try again.
    """

    def __init__(self, status: int, text: str, *, wait_s: float = 0.0) -> None:
        super().__init__(text)
        self.status, self.text, self.wait_s = status, text, wait_s


class PasswordFirst(Refusal):
    """Of a user who has a password that somebody else made."""

    def __init__(self) -> None:
        super().__init__(403, "choose a password of your own first: POST /api/v1/password")


@dataclass(frozen=True)
class Answer:
    """A success: `value` as JSON (None: no content), or `data` of another kind."""

    value: Any = None
    status: int = 200
    data: bytes | None = None
    kind: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ask:
    """A request of somebody who may make it.

    Attributes:
        station: who is asked.
        address: where it came from.
        path, query: parts of the URL by name; only names of the route.
        body: all of it, at most MAX_BODY_BYTES.
        user, device: who asks, where the route is not for anyone.
        secret: the session or token of `user`.
    """

    station: Station
    address: str
    path: dict[str, str]
    query: dict[str, str]
    body: bytes
    user: User | None
    device: str
    secret: str

    @property
    def by(self) -> str:
        """Name of the user, for the audit log."""
        return self.user.name if self.user else ""

    def fields(self) -> Row:
        """The body as an object whose unknown keys `close` refuses. Raises: SyncError."""
        return Row(parse(self.body, "body", MAX_BODY_BYTES), "body")


@dataclass(frozen=True)
class Route:
    """One thing that can be asked.

    Attributes:
        method, path: "/api/v1/hits/{id}".
        who: ANYONE, DEVICE, or the roles that may.
        call: gives the answer, or raises Refusal or an error of the project; a plain one runs in a thread.
        summary: for the API's description.
        query: names that may follow the question mark, with what they mean.
        body: JSON schema of the body; None: none is read.
        json_only: the body has to be declared as JSON, which no form of another site can do.
        first_password: also for a user who has to choose a password first.
    """

    method: str
    path: str
    who: frozenset[str] | str
    call: Callable[[Ask], Answer] | Callable[[Ask], Awaitable[Answer]]
    summary: str
    query: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] | None = None
    json_only: bool = True
    first_password: bool = False


async def serve(
    route: Route, station: Station, request: Request, refuse: Callable[[Refusal], Response] | None = None
) -> Response:
    """Answer a request of `route`; whatever happens, it becomes an answer, that of `refuse` (JSON) where it is no."""
    refuse = refuse or refused
    try:
        return _response(await _answer(route, station, request))
    except Exception as error:
        return refuse(refusal_of(error, f"{route.method} {route.path}"))


def refusal_of(error: Exception, asked: str) -> Refusal:
    """What to answer, by whatever carrier, to somebody whose request `asked` ended with `error`."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, (SyncError, BundleManifestError, ConfigError, QueryError)):
        return Refusal(400, str(error))
    if isinstance(error, RecursionError):  # quoting what was found
        return Refusal(400, "the body is nested too deep")
    if isinstance(error, MissingExtraError):
        return Refusal(503, str(error), wait_s=60)
    if isinstance(error, BusyError):
        return Refusal(503, str(error), wait_s=2)
    if isinstance(error, (sqlite3.Error, StoreError)):  # disk full; who sent something keeps it
        log.error("the records cannot be used: %s", error)
        return Refusal(503, "the station cannot use its records now; try again later", wait_s=5)
    log.error("%s failed", asked, exc_info=error)
    return Refusal(500, "the station failed; its log says why")


def refused(refusal: Refusal) -> Response:
    """The answer that says why not."""
    from starlette.responses import Response

    # ASCII: what is quoted may hold half a character.
    body = json.dumps({"error": refusal.text[:2000]}).encode("ascii")
    headers = dict(HEADERS)
    if refusal.wait_s:
        headers["retry-after"] = str(math.ceil(refusal.wait_s))
    if refusal.status == 401:
        headers["www-authenticate"] = "Bearer"
    return Response(body, refusal.status, headers, "application/json")


def _response(answer: Answer) -> Response:
    from starlette.responses import Response

    headers = {**HEADERS, **answer.headers}
    if answer.data is None and answer.value is None:
        return Response(b"", 204, headers)
    data = json.dumps(answer.value).encode("ascii") if answer.data is None else answer.data
    return Response(data, answer.status, headers, answer.kind)


async def _answer(route: Route, station: Station, request: Request) -> Answer:
    from starlette.concurrency import run_in_threadpool

    try:
        user, device, secret = await run_in_threadpool(_who, route, station, request)
        query = _query(route, request)
    except Refusal:
        # Read to its end: closing with something unread would reset the connection, and take the answer with it.
        await _body(request)
        raise
    body = b""
    if route.body is not None:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        body = await _body(request)
        coding = request.headers.get("content-encoding", "").strip().lower()
        if coding == "gzip" and route.who == DEVICE:
            body = gunzip(body, MAX_BODY_BYTES)
        elif coding not in ("", "identity"):
            raise Refusal(415, "expected a body without Content-Encoding")
        if route.json_only and kind != "application/json":
            raise Refusal(415, "expected Content-Type: application/json")
    address = request.client.host if request.client else ""
    ask = Ask(station, address, dict(request.path_params), query, body, user, device, secret)
    if inspect.iscoroutinefunction(route.call):
        answer: Answer = await route.call(ask)
        return answer
    return await run_in_threadpool(route.call, ask)  # type: ignore[arg-type]  # the plain ones


async def _body(request: Request) -> bytes:
    from starlette.requests import ClientDisconnect

    async def read() -> bytes:
        data = bytearray()
        async for part in request.stream():
            data += part
            if len(data) > MAX_BODY_BYTES:
                raise Refusal(413, f"expected at most {MAX_BODY_BYTES:,} bytes; send less at once")
        return bytes(data)

    length = request.headers.get("content-length", "0")
    if not re.fullmatch(r"[0-9]{1,7}", length) or int(length) > MAX_BODY_BYTES:
        raise Refusal(413, f"expected at most {MAX_BODY_BYTES:,} bytes; send less at once")
    try:
        return await asyncio.wait_for(read(), BODY_S)
    except asyncio.TimeoutError as error:
        raise Refusal(408, f"the body did not come within {BODY_S:g} s") from error
    except ClientDisconnect as error:
        raise Refusal(400, "the connection ended within the body") from error


def _query(route: Route, request: Request) -> dict[str, str]:
    pairs = request.query_params.multi_items()
    query = dict(pairs)
    if len(query) != len(pairs):
        raise Refusal(400, "a name stands twice in the query of the URL")
    for name, value in query.items():
        if name not in route.query:
            raise Refusal(400, f"query of the URL: {name[:40]!r} is unknown; expected {sorted(route.query)}")
        if len(value) > 200 or not value.isprintable():
            raise Refusal(400, f"query of the URL: {name} expects at most 200 printable characters")
    return query


def _who(route: Route, station: Station, request: Request) -> tuple[User | None, str, str]:
    """The user or device that asks, and what proves it. Raises: Refusal: it may not."""
    if route.who == ANYONE:
        return None, "", ""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    token = token.strip() if scheme.lower() == "bearer" else ""
    if route.who == DEVICE:
        device = station.store.device_of(token) if token else None
        if device is None:
            raise Refusal(401, "expected the token of an enrolled device; enrol it again")
        return None, device, token
    cookie = "" if token else request.cookies.get(COOKIE, "")
    secret = token or cookie
    user = station.users.user_of(secret, cookie=not token) if secret else None
    if user is None:
        raise Refusal(401, "expected a session or a token; log in")
    # Before the role: a page of another site learns nothing of what the user may do.
    if cookie and request.method not in ("GET", "HEAD"):
        sent = digest(request.headers.get(CSRF, ""))
        if user.csrf is None or not hmac.compare_digest(user.csrf, sent):
            raise Refusal(403, f"expected the header {CSRF} with what the log-in answered as csrf")
    if user.must_change and not route.first_password:
        raise PasswordFirst()
    if user.role not in route.who:
        raise Refusal(403, f"a {user.role} may not do this; it needs {' or '.join(sorted(route.who))}")
    return user, "", secret

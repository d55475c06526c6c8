"""Tells programs of new hits and decisions: signed as https://www.standardwebhooks.com has it, until they take it."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import http.client
import ipaddress
import logging
import os
import random
import ssl
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tagclip.runtime.errors import ConfigError
from tagclip.runtime.files import open_unfollowed
from tagclip.runtime.station.audit import record
from tagclip.runtime.station.station import Station
from tagclip.runtime.station.webhook_queue import Event, WebhookQueue

ANSWER_S = 10.0  # for each step of a request
AT_ONCE = 20  # events of one look at the queue
FIRST_PAUSE_S, MOST_PAUSE_S = 5.0, 3600.0
LOOK_EVERY_S = 30.0  # beside being woken
SLOW_S = 600.0  # an event that waits for so long is trouble
SECRET_BYTES = (24, 64)  # as the specification has it
_FAULTY = (408, 425, 429)  # of 4xx, those that are not about what was sent

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Webhook:
    """Where to post: `path` with its query; `context` is None for plain HTTP on this machine."""

    url: str
    host: str
    port: int
    path: str
    context: ssl.SSLContext | None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"  # the path may hold a secret


def webhook_of(url: str) -> Webhook:
    """What a `--webhook` says. Raises: ConfigError."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise ConfigError(f"--webhook: {error}") from error
    bad = not url.isascii() or not url.isprintable() or " " in url
    if bad or not host or parts.scheme not in ("https", "http") or parts.fragment or "@" in parts.netloc:
        raise ConfigError(f"--webhook: expected https://HOST/PATH without a user, found {url[:40]!r}")
    if parts.scheme == "http" and not _is_here(host):
        raise ConfigError(f"--webhook: http is for this machine alone, expected https for {host}")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    context = ssl.create_default_context() if parts.scheme == "https" else None
    return Webhook(url, host, port or (443 if context else 80), path, context)


def read_secret(path: Path) -> bytes:
    """The key of the signatures.

    Args:
        path: a file whose first line is whsec_ and 24 to 64 bytes in base64.

    Raises:
        ConfigError: it cannot be read, is open to everybody, or holds something else.
    """
    make = f"make one: (umask 077; echo whsec_$(openssl rand -base64 32) > {path})"
    try:
        with os.fdopen(open_unfollowed(path), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            line = file.read(200).partition(b"\n")[0].strip()
    except OSError as error:
        raise ConfigError(f"--webhook-secret-file: {path}: {error.strerror or error}; {make}") from error
    if mode & 0o007:
        raise ConfigError(f"--webhook-secret-file: {path} is open to everybody; `chmod o= {path}`")
    try:
        secret = base64.b64decode(line.removeprefix(b"whsec_"), validate=True)
    except binascii.Error:
        secret = b""
    if not line.startswith(b"whsec_") or not SECRET_BYTES[0] <= len(secret) <= SECRET_BYTES[1]:
        raise ConfigError(
            f"--webhook-secret-file: {path}: expected whsec_ and 24 to 64 bytes in base64; {make}"
        )
    return secret


def signed(secret: bytes, id_: str, now_s: int, body: bytes) -> dict[str, str]:
    """The headers that prove a body: id, Unix time, and HMAC-SHA256 over both and the body."""
    told = hmac.new(secret, f"{id_}.{now_s}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": id_,
        "webhook-timestamp": str(now_s),
        "webhook-signature": "v1," + base64.b64encode(told).decode("ascii"),
    }


class WebhookFeed:
    """Posts to one webhook in a thread of its own while it is entered.

    Args:
        station: whose hits.
        webhook, secret: where to, and what signs.
        days: after which an event that nobody takes is given up.
    """

    def __init__(self, station: Station, webhook: Webhook, secret: bytes, days: float) -> None:
        self._station, self._webhook, self._secret, self._days = station, webhook, secret, days
        self._queue = WebhookQueue(station.database, webhook.url)
        self._stop, self._news = threading.Event(), threading.Event()
        self._failures, self._told = 0, ""  # in a row, of the other side, not of an event
        self._thread = threading.Thread(target=self._run, name="webhook", daemon=True)

    def __enter__(self) -> WebhookFeed:
        with self._station.database.write() as connection:
            record(connection, "console", "webhook.begin", target=str(self._webhook))
        self._station.news.others.append(self._news.set)
        self._station.webhooks.append(self.state)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._station.news.others.remove(self._news.set)
        self._station.webhooks.remove(self.state)
        self._stop.set()
        self._news.set()
        self._thread.join(ANSWER_S)

    def state(self) -> tuple[int, bool]:
        """For health: how many events were ever given up, and whether some wait for too long."""
        _, given_up, oldest_s = self._queue.counts()
        return given_up, oldest_s is not None and time.time() - oldest_s > SLOW_S

    def _run(self) -> None:
        while not self._stop.is_set():
            self._news.clear()
            try:
                wait_s = self._work()
            except Exception:  # of the records, say: the station goes on
                log.exception("webhook %s failed; tried again", self._webhook)
                wait_s = LOOK_EVERY_S
            if self._failures:
                self._stop.wait(wait_s)  # news change nothing
            else:
                self._news.wait(wait_s)

    def _work(self) -> float:
        """Tell what is due; how long there is nothing to do."""
        while self._queue.fill() and not self._stop.is_set():
            pass
        if count := self._queue.give_up(time.time() - self._days * 86400):
            log.error("webhook %s: %d events were given up after %g days", self._webhook, count, self._days)
        while not self._stop.is_set():
            events = self._queue.due(time.time(), AT_ONCE)
            for event in events:
                if self._stop.is_set():
                    break
                if (pause_s := self._tell(event)) is not None:
                    return pause_s
            if not events:
                break
        next_s = self._queue.next_s()
        return min(LOOK_EVERY_S, LOOK_EVERY_S if next_s is None else max(next_s - time.time(), 0.05))

    def _tell(self, event: Event) -> float | None:
        """None when others may follow at once: it was taken, or what is wrong is this event's alone; else the pause."""
        body = self._queue.body(event)
        if body is None:
            self._queue.done(event)
            return None
        try:
            status, asked_s = self._post(event, body)
            trouble = "" if 200 <= status < 300 else f"answered {status}"
        except (OSError, http.client.HTTPException) as error:
            status, asked_s, trouble = 0, 0.0, str(error) or type(error).__name__
        if not trouble:
            self._queue.done(event)
            if self._told:
                log.info("webhook %s takes events again", self._webhook)
            self._failures, self._told = 0, ""
            return None
        if trouble != self._told:
            log.warning("webhook %s: %s; tried again", self._webhook, trouble)
            self._told = trouble
        now_s = time.time()
        if 400 <= status < 500 and status not in _FAULTY:
            self._failures = 0
            self._queue.later(event, now_s + _pause_s(event.tries))
            return None
        pause_s = max(_pause_s(self._failures), min(asked_s, MOST_PAUSE_S))
        self._failures += 1
        self._queue.later(event, now_s + pause_s)
        return pause_s

    def _post(self, event: Event, body: bytes) -> tuple[int, float]:
        """Status, and how long the other side asks to be left alone. Raises: OSError, HTTPException."""
        to = self._webhook
        connection: http.client.HTTPConnection
        if to.context is None:
            connection = http.client.HTTPConnection(to.host, to.port, timeout=ANSWER_S)
        else:
            connection = http.client.HTTPSConnection(to.host, to.port, timeout=ANSWER_S, context=to.context)
        headers = {"content-type": "application/json", "user-agent": "tagclip"}
        with contextlib.closing(
            connection
        ):  # redirects and proxies of the environment: not followed, not used
            headers |= signed(self._secret, event.id, int(time.time()), body)
            connection.request("POST", to.path, body, headers)
            answer = connection.getresponse()
            after = answer.headers.get("retry-after", "")
            return answer.status, float(after) if after.isascii() and after.isdigit() else 0.0


def _pause_s(failures: int) -> float:
    return float(min(FIRST_PAUSE_S * 2 ** min(failures, 20), MOST_PAUSE_S) * random.uniform(0.75, 1.0))


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

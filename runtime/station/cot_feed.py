"""Hits as Cursor-on-Target events to a TAK endpoint, as they come and are decided about.

The feed keeps no queue: whenever it begins anew, it sends all that is to be on the map now. An event of one uid
replaces the one before, so that is no harm, and nothing is lost while the other side is away.
"""

from __future__ import annotations

import errno
import logging
import random
import select
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tagclip.runtime.errors import ConfigError, HitError
from tagclip.runtime.hit import CONFIRMED, REJECTED, UNREVIEWED, Hit
from tagclip.runtime.hit_maps import COT_STALE_S, cot, stale_s
from tagclip.runtime.station import page_records
from tagclip.runtime.station.audit import record
from tagclip.runtime.station.export_api import ALL_PLACES, hit_shown
from tagclip.runtime.station.station import Station
from tagclip.runtime.station.store import Filter
from tagclip.runtime.sync_https import split_address

CONNECT_S = 10.0
WRITE_S = 10.0  # for the other side to take what is sent
FIRST_PAUSE_S, MOST_PAUSE_S = 0.5, 30.0
AGAIN_S = 600.0  # UDP, where nobody says what was lost: all that is on the map is sent again so often
MOST = 2000  # newest hits that are sent when the feed begins anew
LONG_S = 86_400.0  # in view, from the best picture to the end, that nobody reaches
PART = 200  # of one look at the records
LOST_AFTER_MS = 30_000  # a TCP peer that confirms nothing for so long

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CotTarget:
    """Where events go: `kind` is udp, tcp or tls; `context` is that of tls."""

    kind: str
    host: str
    port: int
    context: ssl.SSLContext | None = None

    def __str__(self) -> str:
        return f"{self.kind}://{self.host}:{self.port}"


def cot_target(url: str, ca: Path | None, cert: Path | None, key: Path | None) -> CotTarget:
    """What `--cot` and its options say.

    Args:
        url: udp://, tcp:// or tls://HOST:PORT.
        ca: PEM, the one authority that is trusted; tls needs it.
        cert, key: PEM, the station's certificate for a server that wants one, and its key without a passphrase.

    Raises:
        ConfigError: one of them cannot be used.
    """
    parts = urlsplit(url)
    if (
        parts.scheme not in ("udp", "tcp", "tls")
        or parts.path not in ("", "/")
        or parts.query
        or parts.fragment
    ):
        raise ConfigError(f"--cot: expected udp://, tcp:// or tls://HOST:PORT, found {url[:80]!r}")
    try:
        host, port = split_address(parts.netloc)
    except ValueError as error:
        raise ConfigError(f"--cot: {error}") from error
    if parts.scheme != "tls":
        if ca or cert or key:
            raise ConfigError(f"--cot-ca, --cot-cert and --cot-key are for tls://, found {parts.scheme}://")
        return CotTarget(parts.scheme, host, port)
    if ca is None:
        raise ConfigError("--cot tls:// needs --cot-ca, the authority of the TAK server, PEM")
    if (cert is None) != (key is None):
        raise ConfigError("--cot-cert and --cot-key belong together; give both, or neither")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cafile=str(ca))
        if cert is not None and key is not None:
            context.load_cert_chain(cert, key, password=lambda: "")  # else it would ask on the terminal
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ConfigError(
            f"--cot: certificates cannot be used ({error}); PEM files, the key without a passphrase"
        ) from error
    return CotTarget("tls", host, port, context)


class CotFeed:
    """Sends in a thread of its own while it is entered; the station never waits for it.

    Args:
        station: whose hits.
        target: where to.
        unreviewed: hits that nobody decided about, too; rejected ones never.

    Attributes:
        sent: events, since the start. connections: that were made.
    """

    def __init__(self, station: Station, target: CotTarget, *, unreviewed: bool = False) -> None:
        self._station, self._target, self._unreviewed = station, target, unreviewed
        self.sent = self.connections = 0
        self._shown: dict[str, Hit] = {}  # what the other side has on its map
        self._number = 0  # of the last change that was looked at
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cot", daemon=True)

    def __enter__(self) -> CotFeed:
        with self._station.database.write() as connection:
            record(connection, "console", "cot.begin", target=str(self._target), unreviewed=self._unreviewed)
        self._ear, self._mouth = socket.socketpair()  # wakes `select`, beside the connection
        self._ear.setblocking(False)
        self._mouth.setblocking(False)
        self._station.news.others.append(self._wake)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._station.news.others.remove(self._wake)
        self._stop.set()
        self._wake()
        self._thread.join(CONNECT_S + WRITE_S)
        self._mouth.close()
        if not self._thread.is_alive():
            self._ear.close()

    def _wake(self) -> None:
        try:
            self._mouth.send(b"x")
        except BlockingIOError:
            pass  # it has been woken often enough

    def _run(self) -> None:
        pause_s, told = 0.0, ""
        while not self._stop.is_set():
            try:
                with self._connect() as connection:
                    self.connections += 1
                    log.info("hits go to %s", self._target)
                    begun_s = time.monotonic()
                    try:
                        self._feed(connection)
                    finally:
                        # One that ends at once is no better than one that cannot be made.
                        if time.monotonic() - begun_s > MOST_PAUSE_S:
                            pause_s, told = 0.0, ""
            except Exception as error:  # of the records, too: whatever it is, the station goes on
                if str(error) != told and not self._stop.is_set():
                    log.warning("hits do not reach %s: %s; tried again until they do", self._target, error)
                    told = str(error)
            pause_s = min(max(2 * pause_s, FIRST_PAUSE_S), MOST_PAUSE_S)
            self._stop.wait(pause_s * random.uniform(0.5, 1.0))

    def _connect(self) -> socket.socket:
        target = self._target
        if target.kind == "udp":
            family, kind, protocol, _, address = socket.getaddrinfo(
                target.host, target.port, type=socket.SOCK_DGRAM
            )[0]
            connection = socket.socket(family, kind, protocol)
            try:
                connection.connect(address)
            except BaseException:
                connection.close()
                raise
            return connection
        connection = socket.create_connection((target.host, target.port), CONNECT_S)
        try:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, LOST_AFTER_MS)
            if target.context is not None:
                connection = target.context.wrap_socket(connection, server_hostname=target.host)
        except BaseException:
            connection.close()
            raise
        return connection

    def _feed(self, connection: socket.socket) -> None:
        """Send until the connection ends or the station does. Raises: OSError, StoreError."""
        again_s = self._begin(connection)
        while not self._stop.is_set():
            wait_s = max(again_s - time.monotonic(), 0.0) if self._target.kind == "udp" else None
            ready, _, _ = select.select([connection, self._ear], [], [], wait_s)
            if self._ear in ready:
                self._ear.recv(4096)
                number = self._station.news.number  # before: what comes in between is looked at twice
                changed = self._station.news.since(self._number)
                if changed is None:
                    again_s = self._begin(connection)
                else:
                    self._changed(connection, changed)
                    self._number = number
            if connection in ready:
                _drain(connection)
            if self._target.kind == "udp" and time.monotonic() >= again_s:
                again_s = self._begin(connection)

    def _begin(self, connection: socket.socket) -> float:
        """Send all that is to be on the map, take back what was and is not; when to do it again (monotonic)."""
        # Before the rows: what comes in between is sent twice.
        self._number = self._station.news.number
        standing: list[Hit] = []
        since_s = time.time() - COT_STALE_S - LONG_S
        for review in (CONFIRMED, UNREVIEWED) if self._unreviewed else (CONFIRMED,):
            after: int | None = ALL_PLACES
            while after is not None and len(standing) < MOST:
                where = Filter(since_s=since_s, review=review)
                rows, after = self._station.store.hits(where, after, PART, "station")
                standing += [hit for row in rows if (hit := self._wanted(row))]
        ids = {str(hit.id) for hit in standing}
        gone = [hit for id_, hit in self._shown.items() if id_ not in ids]
        self._send(connection, gone, gone=True)
        self._send(connection, standing[::-1])  # the newest last, it lies on top
        return time.monotonic() + AGAIN_S

    def _changed(self, connection: socket.socket, ids: list[str]) -> None:
        for start in range(0, len(ids), PART):
            part = ids[start : start + PART]
            rows = {row["id"]: row for row in page_records.hits_of(self._station.database, part, Filter())}
            wanted = {id_: hit for id_, row in rows.items() if (hit := self._wanted(row))}
            # Undone, rejected, or deleted for good.
            gone = [self._shown[id_] for id_ in part if id_ in self._shown and id_ not in wanted]
            self._send(connection, gone, gone=True)
            self._send(connection, [hit for id_, hit in wanted.items() if self._shown.get(id_) != hit])

    def _wanted(self, row: dict[str, object]) -> Hit | None:
        review = row["review"]
        if row["place"] is None or review == REJECTED or (review != CONFIRMED and not self._unreviewed):
            return None
        try:
            hit = hit_shown(row)
        except HitError as error:  # of a station of before
            log.warning("a hit cannot be sent to %s: %s", self._target, error)
            return None
        return hit if stale_s(hit) > time.time() else None

    def _send(self, connection: socket.socket, hits: list[Hit], *, gone: bool = False) -> None:
        """Raises: OSError."""
        connection.settimeout(WRITE_S)
        for hit in hits:
            event = cot([hit], time.time(), gone=gone)
            if self._target.kind == "udp":
                _throw(connection, event)
            else:
                connection.sendall(event)
            self.sent += 1
            if gone:
                del self._shown[str(hit.id)]
            else:
                self._shown[str(hit.id)] = hit
        while len(self._shown) > 2 * MOST:  # the oldest are long stale
            del self._shown[next(iter(self._shown))]


def _throw(connection: socket.socket, event: bytes) -> None:
    """A datagram; whether anybody takes it is not known. Raises: OSError, there is no way there."""
    try:
        connection.send(event)
    except ConnectionRefusedError:
        pass  # it tells of the datagram before, which nobody took
    except OSError as error:
        if error.errno != errno.EMSGSIZE:
            raise
        log.warning("an event of %d bytes is too long for a datagram; use tcp:// for it", len(event))


def _drain(connection: socket.socket) -> None:
    """Drop what the other side says: a TAK server tells each client of all others. Raises: OSError, it ended."""
    connection.settimeout(0)
    try:
        for _ in range(64):
            if not connection.recv(65536) and connection.type == socket.SOCK_STREAM:
                raise ConnectionResetError("the other side ended the connection")
    except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError, ConnectionRefusedError):
        return

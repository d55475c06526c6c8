"""The station on the network: uvicorn in a thread, TLS, and the housekeeping beside it."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
import time
from asyncio import sslproto
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tagclip.runtime.errors import ConfigError
from tagclip.runtime.station.retention import crowded, forget
from tagclip.runtime.station.station import Station
from tagclip.runtime.station.tls import Identity
from tagclip.runtime.station.tracks import oldest_s
from tagclip.runtime.store_clock import SteadyClock

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 4096
MAX_HEADER_BYTES = 16 * 1024
TLS_BUFFER_BYTES = 32 * 1024
IDLE_S = 75  # a connection without a request; devices keep theirs
HEADERS_S = 15.0  # for a request's headers, from its first byte to its last
KEEP_EVERY_S = 60.0

log = logging.getLogger(__name__)


class Server:
    """Answers in a thread of its own while it is entered.

    Args:
        station: what answers.
        address: IP address and port; port 0 takes a free one.

    Raises:
        ConfigError: the address is in use, or not this machine's.
        ImportError: uvicorn or starlette is not installed.
    """

    def __init__(self, station: Station, address: tuple[str, int]) -> None:
        import uvicorn

        from tagclip.runtime.station.app import make_app

        self._station = station
        config = uvicorn.Config(
            make_app(station),
            http=_protocol(),
            ws="none",
            loop="asyncio",
            lifespan="on",
            log_config=None,
            log_level="warning",
            access_log=False,  # the audit log says who did what; addresses of pages say nothing more
            proxy_headers=False,  # else anybody on this machine could choose the address that tries are counted by
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS,
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
            timeout_keep_alive=IDLE_S,
            timeout_graceful_shutdown=5,
            ssl_certfile=station.identity.certificate,
            ssl_keyfile=station.identity.key,
        )
        self._socket = _listen(address)
        try:
            config.load()
        except BaseException:
            self._socket.close()
            raise
        self._config, self._server = config, uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="station", daemon=True)
        self.failed = False

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._port

    def __enter__(self) -> Server:
        self._port = int(self._socket.getsockname()[1])
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.01)
        if not self._server.started:
            raise ConfigError("the station's server did not start; its log says why")
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._station.bell.close()
        self._station.news.close()
        self._thread.join()
        self._socket.close()

    def alive(self) -> bool:
        """Whether it still answers."""
        return self._thread.is_alive() and not self.failed

    def reload(self, identity: Identity) -> None:
        """Show a renewed certificate to whoever connects from now on."""
        assert isinstance(self._config.ssl, ssl.SSLContext)
        self._config.ssl.load_cert_chain(identity.certificate, identity.key)

    def _run(self) -> None:
        # asyncio keeps 256 KiB for every TLS connection, 290 MB for a thousand devices, and has no option for it.
        sslproto.SSLProtocol.max_size = TLS_BUFFER_BYTES
        # In another thread than the main one uvicorn leaves signals alone: `Stop` takes them.
        try:
            asyncio.run(self._server.serve([self._socket]))
        except (Exception, SystemExit):
            self.failed = True
            log.exception("the station's server failed")


class Housekeeping:
    """What has to be done every minute: forgetting, queries whose time is over, the certificate.

    Args:
        station, server: that run.
        days, max_bytes, confirmed_days: see `forget`.
        identify: reads the certificate, made anew if it was time.
    """

    def __init__(
        self,
        station: Station,
        server: Server,
        days: float,
        max_bytes: int,
        confirmed_days: float,
        identify: Callable[[], Identity],
    ) -> None:
        self._station, self._server = station, server
        self._days, self._max_bytes, self._confirmed_days = days, max_bytes, confirmed_days
        self._identify = identify
        self._clock = SteadyClock()
        self._shown = _stamp(station.identity.certificate)

    def work(self) -> None:
        """Once. A failure is said, and the next time tries again."""
        for task in (self._forget, self._station.queries.renew, self._certificate):
            try:
                task()
            except Exception:
                log.exception("housekeeping failed; it is tried again")

    def _forget(self) -> None:
        database, station = self._station.database, self._station
        begun_s = time.time()
        count = forget(database, self._clock.now_s(), self._days, self._max_bytes, self._confirmed_days)
        oldest = oldest_s(database)
        station.vectors.remove_before(begun_s if oldest is None else oldest)
        if count:
            log.info("%d hits were deleted, as they were too old or took too much room", count)
        trouble = crowded(database, self._max_bytes)
        if trouble and not station.trouble:
            log.warning("%s", trouble)
        station.trouble = trouble

    def _certificate(self) -> None:
        identity = self._identify()
        stamp = _stamp(identity.certificate)
        if stamp != self._shown:
            self._server.reload(identity)
            self._shown = stamp
            log.info("the certificate is a new one")


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_ino


def _listen(address: tuple[str, int]) -> socket.socket:
    host, port = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol by its number: asyncio turns Nagle's algorithm off only where it stands, and an answer would wait
    # 40 ms for the other side's delayed acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {host} port {port}: {error.strerror or error}; give another --listen"
        ) from error
    listener.setblocking(False)
    return listener


def _protocol() -> type[H11Protocol]:
    """uvicorn's, but for connections that begin a request and never end it: those it would keep for ever."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Hasty(H11Protocol):
        _late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._expect()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._expect(False)  # headers are complete; the body has a limit of its own
            elif self._late is None:
                self._expect()

        def on_response_complete(self) -> None:
            self._expect(False)  # from here on the time of an idle connection counts
            super().on_response_complete()
            if (self.cycle is None or self.cycle.response_complete) and self.conn.trailing_data[0]:
                self._expect()  # but for one that sent half of its next request with this one

        def connection_lost(self, exc: Exception | None) -> None:
            self._expect(False)
            super().connection_lost(exc)
            self.transport.close()  # Python 3.10 takes it for forgotten otherwise

        def shutdown(self) -> None:
            # One without a request is dropped: its other side would not answer a farewell of TLS before it asks again.
            if self.cycle is None or self.cycle.response_complete:
                self.transport.abort()
            else:
                super().shutdown()

        def _expect(self, headers: bool = True) -> None:
            if self._late is not None:
                self._late.cancel()
            self._late = self.loop.call_later(HEADERS_S, self.transport.abort) if headers else None

    return Hasty

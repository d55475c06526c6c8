"""HTTPS to the station, by the standard library alone; no proxy, no redirect, one pinned certificate authority."""

from __future__ import annotations

import contextlib
import email.utils
import gzip
import http.client
import json
import socket
import ssl
import threading
import time
from typing import Any

from tagclip.runtime.bundle_order import MAX_ORDER_BYTES
from tagclip.runtime.errors import CredentialError, LinkError, RefusedError, one_line
from tagclip.runtime.sync_fields import parse
from tagclip.runtime.sync_messages import MAX_ANSWER_BYTES, MAX_QUERIES_BYTES, Answer, answer_of

CONNECT_S = 10.0
GZIP_LEVEL = 1  # what it is for is the third that base64 adds
LEAST_PACKED_BYTES = 512
FOR_GOOD = (400, 413, 415, 422)
_ENDED = (ConnectionError, http.client.BadStatusLine, ssl.SSLEOFError, ssl.SSLZeroReturnError)


def context_of(ca_pem: str | None) -> ssl.SSLContext:
    """TLS that trusts one certificate authority and no other; None trusts whoever answers, to fetch it from."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_pem is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(cadata=ca_pem)
    return context


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT` or `[IPV6]:PORT`. Raises: ValueError."""
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"an IPv6 address stands in brackets, found {address!r}")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"expected HOST:PORT, found {address!r}")
    if any(c.isspace() or not c.isprintable() or c in "/@?#" for c in host):
        raise ValueError(f"expected HOST:PORT, found {address!r}")
    return host, int(port)


class Channel:
    """One connection that is kept open, for one thread at a time.

    Args:
        address: HOST:PORT.
        headers: of every request.
    """

    def __init__(self, address: str, context: ssl.SSLContext, headers: dict[str, str]) -> None:
        self.address = address
        self._host, self._port = split_address(address)
        self._context, self._headers = context, headers
        self._connection: http.client.HTTPSConnection | None = None
        self._busy = self._closed = False
        self._lock = threading.Lock()

    def request(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str], timeout_s: float, most: int
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Status, headers and at most `most` bytes of the answer.

        Raises:
            LinkError: no answer, or a larger one.
        """
        whole = {**self._headers, **headers}
        self._busy = True
        try:
            connection, kept = self._open(timeout_s)
            try:
                connection.request(method, path, body, whole)
                response = connection.getresponse()
            except _ENDED:
                # The station ends connections that were idle; every request may be made twice.
                if not kept:
                    raise
                self.drop()
                connection, _ = self._open(timeout_s)
                connection.request(method, path, body, whole)
                response = connection.getresponse()
            data = response.read(most + 1)
            if len(data) > most:
                raise LinkError(f"station {self.address} answers with more than {most:,} bytes")
            if response.will_close:
                self.drop()
            return response.status, response.headers, data
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.drop()
            timed_out = isinstance(error, TimeoutError)
            raise LinkError(f"station {self.address}: {_reason(error)}", timed_out=timed_out) from error
        except BaseException:
            self.drop()
            raise
        finally:
            self._busy = False
            if self._closed:
                self.drop()

    def drop(self) -> None:
        """Forget the connection; the next request makes a new one."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def close(self) -> None:
        """End the request that is under way in another thread, and refuse later ones."""
        with self._lock:
            self._closed, connection = True, self._connection
        sock = connection.sock if connection is not None else None
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # wakes whoever reads from it; close alone does not
        if not self._busy:
            self.drop()

    def _open(self, timeout_s: float) -> tuple[http.client.HTTPSConnection, bool]:
        """An open connection, and whether it was one already."""
        with self._lock:
            kept = self._connection
        if kept is not None and kept.sock is not None:
            kept.sock.settimeout(timeout_s)
            return kept, True
        connection = http.client.HTTPSConnection(
            self._host, self._port, timeout=min(CONNECT_S, timeout_s), context=self._context
        )
        with self._lock:
            if self._closed:
                raise LinkError(f"station {self.address}: the link is closed")
            self._connection = connection
        connection.connect()
        if self._closed:  # while it had no socket yet that could be shut down
            raise LinkError(f"station {self.address}: the link is closed")
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.sock.settimeout(timeout_s)
        return connection, False


class HttpsCarrier:
    """A station behind HTTPS; a `Carrier`.

    Args:
        address: HOST:PORT.
        ca_pem: the one certificate authority that is trusted.
        token: of this device.

    Attributes:
        skew_s: see `Carrier`; to a second, as headers tell it.
        sent_bytes: of bodies, as they travelled.
    """

    def __init__(self, address: str, ca_pem: str, token: str) -> None:
        context = context_of(ca_pem)
        headers = {"Authorization": f"Bearer {token}", "User-Agent": "tagclip"}
        self._posts, self._gets = (Channel(address, context, headers) for _ in range(2))
        self._packs, self._never_packs = False, False
        self.skew_s: float | None = None
        self.sent_bytes = 0

    def exchange(self, batch: bytes, timeout_s: float) -> Answer:
        """Send a batch; see `Carrier`."""
        headers, body = {"Content-Type": "application/json"}, batch
        if self._packs and not self._never_packs and len(batch) >= LEAST_PACKED_BYTES:
            body, headers["Content-Encoding"] = gzip.compress(batch, GZIP_LEVEL), "gzip"
        self.sent_bytes += len(body)
        path = "/api/v1/device/messages"
        status, told, data = self._posts.request("POST", path, body, headers, timeout_s, MAX_ANSWER_BYTES)
        self._learn(told)
        if status == 415 and body is not batch:
            self._never_packs = True
            return self.exchange(batch, timeout_s)
        if status in FOR_GOOD:
            raise RefusedError(f"station {self._posts.address} answers {status}: {answer_detail(data)}")
        _check(self._posts.address, status, told, data)
        return answer_of(data)

    def queries(self, revision: int, wait_s: float) -> dict[str, Any] | None:
        """Wait for a newer query set; see `Carrier`."""
        path = f"/api/v1/device/queries?revision={revision}&wait_s={wait_s:g}"
        status, told, data = self._gets.request("GET", path, None, {}, wait_s + CONNECT_S, MAX_QUERIES_BYTES)
        self._learn(told)
        if status == 204:
            return None
        _check(self._posts.address, status, told, data)
        return parse(data, "queries", MAX_QUERIES_BYTES)

    def close(self) -> None:
        """End it; see `Carrier`."""
        self._posts.close()
        self._gets.close()

    def _learn(self, told: http.client.HTTPMessage) -> None:
        """What the station can unpack (RFC 7694), and what time it has."""
        self._packs = "gzip" in (told.get("Accept-Encoding") or "")
        try:
            self.skew_s = email.utils.parsedate_to_datetime(told.get("Date", "")).timestamp() - time.time()
        except (TypeError, ValueError, OverflowError):  # without a date, or with none that can be read
            pass


class HttpsBundles:
    """Bundles from a station behind HTTPS; a `BundleCarrier`.

    Args:
        address, ca_pem, token: as of HttpsCarrier.
    """

    def __init__(self, address: str, ca_pem: str, token: str) -> None:
        headers = {"Authorization": f"Bearer {token}", "User-Agent": "tagclip"}
        self._channel = Channel(address, context_of(ca_pem), headers)

    def order(self, revision: int) -> dict[str, Any] | None:
        """Ask for a newer order; see `BundleCarrier`."""
        path = f"/api/v1/device/bundle?revision={revision}"
        status, told, data = self._channel.request("GET", path, None, {}, CONNECT_S, MAX_ORDER_BYTES)
        if status == 204:
            return None
        _check(self._channel.address, status, told, data)
        return parse(data, "order", MAX_ORDER_BYTES)

    def part(self, digest: str, name: str, offset: int, most: int, timeout_s: float) -> bytes:
        """Fetch a part of a file; see `BundleCarrier`."""
        path = f"/api/v1/device/bundle/{digest}/{name}?offset={offset}&most={most}"
        status, told, data = self._channel.request("GET", path, None, {}, timeout_s, most)
        if status == 204:
            return b""
        _check(self._channel.address, status, told, data)
        return data

    def close(self) -> None:
        """End it; see `BundleCarrier`."""
        self._channel.close()


def _check(address: str, status: int, told: http.client.HTTPMessage, data: bytes) -> None:
    if status == 200:
        return
    if status in (401, 403):
        raise CredentialError(
            f"station {address} refuses this device ({status}: {answer_detail(data)}); enrol it anew"
        )
    if 300 <= status < 400:
        raise LinkError(f"station {address} sends to another place ({status}), which is not followed")
    asked = told.get("Retry-After", "")
    retry_s = float(asked) if asked.isascii() and asked.isdigit() and len(asked) < 6 else None
    raise LinkError(f"station {address} answers {status}: {answer_detail(data)}", retry_s=retry_s)


def answer_detail(data: bytes) -> str:
    """What an answer says of itself, for a log."""
    text = data[:2000].decode("utf-8", "replace")
    try:
        told = json.loads(text)
        text = str(told.get("detail", text)) if isinstance(told, dict) else text
    except (ValueError, RecursionError):
        pass
    return one_line(text)[:200] or "no reason given"


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not of the station that this device was enrolled with ({error.verify_message})"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return one_line(str(error)) or type(error).__name__

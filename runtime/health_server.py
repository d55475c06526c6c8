"""`/health` and `/metrics` over HTTP, for a monitor on this machine.

Whoever asks, and however badly, can take neither memory nor much time from the device: few connections at a time, of
which the oldest gives way; a short limit for all of one; few of them in a second; requests of a few kilobytes.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import socket
import threading
import time

from tagclip.runtime.errors import ConfigError
from tagclip.runtime.health import Health

DEFAULT_PORT = 9911
MAX_CONNECTIONS = 16
MAX_REQUEST_BYTES = 8192
DEADLINE_S = 5.0  # for a connection, from its first byte to its last
PACE_S = (
    0.02  # between two connections: at most 50 a second, the rest waits in the kernel or is refused by it
)
KEEP_S = 0.5  # an answer serves everybody who asks within this

log = logging.getLogger(__name__)


def parse_listen(text: str, *, exposed: bool = False) -> tuple[str, int]:
    """Address and port of `9911`, `127.0.0.1:9911` or `[::1]:9911`; without an address it is 127.0.0.1.

    Args:
        exposed: another address than this machine's own is meant so; nothing there asks for a password.

    Raises:
        ConfigError: no such address or port, or not `exposed`.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or ("127.0.0.1" if not colon else "")
    host = "127.0.0.1" if host == "localhost" else host
    try:
        address = ipaddress.ip_address(host)
        number = int(port)
        if not 0 <= number <= 65535:
            raise ValueError("no port")
    except ValueError as error:
        raise ConfigError(
            f"--listen {text}: expected a port, or an IP address and a port, such as {DEFAULT_PORT} or "
            f"127.0.0.1:{DEFAULT_PORT}"
        ) from error
    if not address.is_loopback and not exposed:
        raise ConfigError(
            f"--listen {text}: other machines could read it, and nobody is asked for a password; "
            f"listen on 127.0.0.1:{number}, or add --expose if that is meant"
        )
    return str(address), number


class HealthServer:
    """Answers in a thread of its own while it is entered.

    Args:
        health: what to tell.
        address: IP address and port, as `parse_listen` gives them; port 0 takes a free one.
    """

    def __init__(self, health: Health, address: tuple[str, int]) -> None:
        self._health, self._address = health, address
        self._connections: dict[asyncio.Task[None], None] = {}  # the oldest first
        self._answers: dict[str, tuple[float, bytes]] = {}

    def __enter__(self) -> HealthServer:
        """Raises: ConfigError: the address is in use, or not this machine's."""
        host, port = self._address
        self._socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(self._address)
            self._socket.listen(MAX_CONNECTIONS)
        except OSError as error:
            self._socket.close()
            raise ConfigError(
                f"cannot listen on {host} port {port}: {error.strerror or error}; give another --listen"
            ) from error
        self._socket.setblocking(False)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)
        self._thread.start()
        log.info("health and metrics on http://%s:%d", f"[{host}]" if ":" in host else host, self.port)
        return self

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._socket.getsockname()[1])

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        try:
            self._listen()
            self._loop.run_forever()
            self._loop.remove_reader(self._socket)
            for task in self._connections:
                task.cancel()
            if self._connections:
                self._loop.run_until_complete(asyncio.wait(list(self._connections)))
        finally:
            self._loop.close()

    def _listen(self) -> None:
        self._loop.add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        """Take one connection, or make room for it; then nothing for a moment."""
        self._loop.remove_reader(self._socket)
        self._loop.call_later(PACE_S, self._listen)
        if len(self._connections) >= MAX_CONNECTIONS:
            next(iter(self._connections)).cancel()
            return
        try:
            connection, _ = self._socket.accept()
        except OSError:  # the other side is gone already, or this process has no file descriptor left
            return
        connection.setblocking(False)
        task = self._loop.create_task(self._serve(connection))
        self._connections[task] = None

        def end(done: asyncio.Task[None]) -> None:
            self._connections.pop(done, None)
            connection.close()  # here, since a task that is cancelled early never begins

        task.add_done_callback(end)

    async def _serve(self, connection: socket.socket) -> None:
        try:
            await asyncio.wait_for(self._talk(connection), DEADLINE_S)
        except (asyncio.TimeoutError, OSError):  # slow, or gone: it would not read an answer either
            pass
        except Exception:  # ours; the next one asks again
            log.exception("a question to the health endpoint failed")

    async def _talk(self, connection: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request and b"\n\n" not in request:
            part = await self._loop.sock_recv(connection, 4096)
            if not part:
                return
            request += part
            if len(request) > MAX_REQUEST_BYTES:
                answer = _response("431 Request Header Fields Too Large", "text/plain", b"too long\n")
                break
        else:
            answer = self._answer(request)
        await self._loop.sock_sendall(connection, answer)
        connection.shutdown(socket.SHUT_WR)
        # Until the other side closes: closing with something unread would reset the connection, and take the answer.
        for _ in range(16):
            if not await self._loop.sock_recv(connection, 4096):
                break

    def _answer(self, request: bytes) -> bytes:
        words = request.partition(b"\n")[0].split()
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return _response("400 Bad Request", "text/plain", b"expected GET /health HTTP/1.1\n")
        method, path = words[0], words[1].partition(b"?")[0].decode("ascii", "replace")
        if method != b"GET":
            return _response("405 Method Not Allowed", "text/plain", b"expected GET\n", "Allow: GET\r\n")
        if path not in ("/health", "/metrics"):
            return _response("404 Not Found", "text/plain", b"there are /health and /metrics\n")
        made_s, answer = self._answers.get(path, (0.0, b""))
        now_s = time.monotonic()
        if not answer or now_s - made_s > KEEP_S:
            answer = self._metrics() if path == "/metrics" else self._state()
            self._answers[path] = now_s, answer
        return answer

    def _state(self) -> bytes:
        _, works = self._health.status()
        body = json.dumps(self._health.to_json(), indent=2).encode() + b"\n"
        return _response("200 OK" if works else "503 Service Unavailable", "application/json", body)

    def _metrics(self) -> bytes:
        from prometheus_client import CONTENT_TYPE_LATEST

        return _response("200 OK", CONTENT_TYPE_LATEST, self._health.metrics())


def _response(status: str, kind: str, body: bytes, more: str = "") -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}"
        "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body

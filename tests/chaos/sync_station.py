"""A station for tests of the device's side: real HTTPS with its own certificate authority, which misbehaves as told;
and a proxy that is the link in between."""

from __future__ import annotations

import datetime
import http.server
import ipaddress
import json
import select
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tagclip.runtime.errors import SyncError
from tagclip.runtime.keys import PrivateKey
from tagclip.runtime.sync_fields import gunzip
from tagclip.runtime.sync_messages import (
    HIT,
    MAX_BATCH_BYTES,
    Answer,
    batch_of,
    id_of,
    message_of,
    sign,
)

TOKEN = "t" * 32


class Authority:
    """A certificate authority, and the certificate of 127.0.0.1 that it gives."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
        from cryptography.x509.oid import NameOID

        now = datetime.datetime.now(datetime.timezone.utc)
        root, leaf = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test station")])

        def made(subject: str, key: Any, *, is_ca: bool) -> Any:
            start = (
                x509.CertificateBuilder()
                .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
                .issuer_name(issuer)
                .public_key(key.public_key())
                .serial_number(x509.random_serial_number())
                .not_valid_before(now - datetime.timedelta(days=1))
                .not_valid_after(now + datetime.timedelta(days=30))
                .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
                .add_extension(
                    x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), critical=False
                )
                .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            )
            if not is_ca:
                address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
                start = start.add_extension(x509.SubjectAlternativeName([address]), critical=False)
            return start.sign(root, hashes.SHA256())

        certificate = made("test station", root, is_ca=True)
        self.pem = certificate.public_bytes(Encoding.PEM).decode()
        self.fingerprint = certificate.fingerprint(hashes.SHA256()).hex()
        self.chain = folder / f"{name}.server.pem"
        key = leaf.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self.chain.write_bytes(made("127.0.0.1", leaf, is_ca=False).public_bytes(Encoding.PEM) + key)


class Server(http.server.ThreadingHTTPServer):
    """Connections that fail are what the tests are about."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        pass


class Station:
    """Stores what it is sent, in memory.

    Attributes:
        fault: is asked before each POST of messages, with its number from 1; its word, one of "", "500", "429",
            "302", "413", "drop" (before it is stored), "lost" (stored, the answer is not sent), "slow", "twice" (old
            acknowledgements again), "none" (not stored), "huge" and "garbage" (answers).
        refuse: whether a batch of these rows is refused whole (400), or None. bad: ids that are rejected for good.
        stored: messages by id, in the order in which they came. known: ids that came again.
        hits: newest revision by hit.
    """

    def __init__(self, authority: Authority, key: PrivateKey) -> None:
        self.authority, self.key = authority, key
        self.fault: Callable[[int], str] = lambda number: ""
        self.refuse: Callable[[list[Any]], bool] = lambda rows: False
        self.bad: set[int] = set()
        self.token, self.code, self.gzip, self.idle_s = TOKEN, "one-time-code", True, 30.0
        self.revision_offset = 0
        self.posts = self.gets = self.packed = self.enrols = 0
        self.stored: dict[str, Any] = {}
        self.known: list[str] = []
        self.hits: dict[str, int] = {}
        self.batches: list[tuple[int, int]] = []  # messages, bytes
        self.useful_bytes = 0.0  # of bodies as they travelled, as far as their messages were new
        self.statuses: list[dict[str, Any]] = []
        self.document: dict[str, Any] | None = None
        self.changed = threading.Condition()
        self._server = Server(("127.0.0.1", 0), self._handler())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority.chain)
        # The handshake is left to the thread of the connection.
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def publish(self, revision: int, queries: list[dict[str, Any]], **more: Any) -> None:
        """A query set, properly signed unless `document` is given."""
        now_s = time.time()
        document = {
            "revision": revision,
            "issued_s": now_s,
            "expires_s": now_s + 3600,
            "queries": queries,
            **more,
        }
        with self.changed:
            self.document = sign(document, self.key)
            self.changed.notify_all()

    def take(self, rows: list[Any]) -> Answer:
        acks, rejected = [], {}
        with self.changed:
            for row in rows:
                try:
                    message = message_of(row)
                    if message.kind == HIT and message.body["frame"] in self.bad:
                        raise SyncError("not this frame")
                except SyncError as error:
                    rejected[id_of(row) or ""] = str(error)
                    continue
                acks.append(message.id)
                if message.id in self.stored:
                    self.known.append(message.id)
                    continue
                self.stored[message.id] = message
                if message.kind == HIT:
                    hit = message.body["id"]
                    self.hits[hit] = max(self.hits.get(hit, 0), message.body["revision"])
            revision = self.document["revision"] if self.document else 0
            self.changed.notify_all()
        return Answer(tuple(acks), rejected, revision + self.revision_offset)

    def wait(self, done: Callable[[], bool], timeout_s: float) -> bool:
        with self.changed:
            return self.changed.wait_for(done, timeout_s)

    def _handler(station) -> type[http.server.BaseHTTPRequestHandler]:
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            @property
            def timeout(self) -> float:  # type: ignore[override]
                return station.idle_s

            def log_message(self, *_: object) -> None:
                pass

            def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
                self.send_response(status)
                if station.gzip:
                    self.send_header("Accept-Encoding", "gzip")
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                if status != 204:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def allowed(self) -> bool:
                if self.headers.get("Authorization") == f"Bearer {station.token}":
                    return True
                self.answer(401, b'{"detail": "unknown device"}')
                return False

            def do_GET(self) -> None:
                url = urllib.parse.urlsplit(self.path)
                if url.path == "/api/v1/ca.pem":
                    self.answer(200, station.authority.pem.encode())
                elif url.path == "/api/v1/device/queries" and self.allowed():
                    station.gets += 1
                    asked = dict(urllib.parse.parse_qsl(url.query))
                    revision = int(asked["revision"])
                    with station.changed:
                        station.changed.wait_for(
                            lambda: station.document and station.document["revision"] > revision,
                            min(float(asked["wait_s"]), 3.0),
                        )
                        document = station.document
                    if document and document["revision"] > revision:
                        self.answer(200, json.dumps(document).encode())
                    else:
                        self.answer(204)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/api/v1/enrol":
                    station.enrols += 1
                    asked = json.loads(body)
                    if asked["code"] != station.code:
                        return self.answer(403, b'{"detail": "wrong or used code"}')
                    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

                    pem = station.key._key.public_key().public_bytes(
                        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
                    )
                    told = {"token": TOKEN, "station_public_key": pem.decode(), "device": asked["device"]}
                    return self.answer(200, json.dumps(told).encode())
                if not self.allowed():
                    return None
                station.posts += 1
                fault = station.fault(station.posts)
                if fault == "drop":
                    self.close_connection = True
                    return None
                if fault in ("302", "413", "429", "500"):
                    return self.answer(
                        int(fault), b'{"detail": "as told"}', Retry_After="1", Location="https://127.0.0.1:1/"
                    )
                if fault == "huge":
                    return self.answer(200, b" " * 100_000)
                if fault == "garbage":
                    return self.answer(200, b'{"acks": 5}')
                travelled = len(body)
                if self.headers.get("Content-Encoding") == "gzip":
                    station.packed += 1
                    body = gunzip(body, MAX_BATCH_BYTES)
                batch = batch_of(body)
                station.batches.append((len(batch.rows), len(body)))
                if batch.status:
                    station.statuses.append(batch.status)
                if station.refuse(batch.rows):
                    return self.answer(400, b'{"detail": "cannot be read"}')
                if fault == "none":
                    return self.answer(200, json.dumps(Answer((), {}, 0).to_json()).encode())
                if fault == "slow":
                    time.sleep(0.5)
                before = len(station.stored)
                answer = station.take(batch.rows).to_json()
                station.useful_bytes += travelled * (len(station.stored) - before) / max(len(batch.rows), 1)
                if fault == "lost":
                    self.close_connection = True
                    return None
                if fault == "twice":
                    answer["acks"] = (answer["acks"] * 2 + list(station.stored)[:5])[:64]
                return self.answer(200, json.dumps(answer).encode())

        return Handler


class Link:
    """A TCP proxy to a port of this machine: bounded in rate, cut or silent when told.

    Attributes:
        up_bytes: that came from the device, since the start.
        rate: bytes per second, for each direction.
    """

    def __init__(self, port: int, rate: float = 1e9) -> None:
        self.rate, self.up_bytes = rate, 0
        self._target, self._open, self._silent = port, True, False
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._over = False
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def cut(self) -> None:
        """All connections are reset, new ones too."""
        self._open = False
        with self._lock:
            for sock in self._sockets:
                try:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def silence(self) -> None:
        """Nothing passes, nobody is told."""
        self._silent = True

    def mend(self) -> None:
        self._open, self._silent = True, False

    def close(self) -> None:
        self._over = True
        self.cut()
        self._listener.close()
        self._thread.join()

    def _accept(self) -> None:
        while not self._over:
            if not select.select([self._listener], [], [], 0.05)[0]:
                continue
            try:
                device, _ = self._listener.accept()
            except OSError:
                return
            if not self._open:
                device.close()
                continue
            station = socket.create_connection(("127.0.0.1", self._target))
            for one in (device, station):  # a link has no megabytes of buffers
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 10)
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._sockets |= {device, station}
            for pair in ((device, station, True), (station, device, False)):
                threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, up: bool) -> None:
        try:
            while not self._over:
                if self._silent or not select.select([source], [], [], 0.05)[0]:
                    if self._silent:
                        time.sleep(0.01)
                    continue
                data = source.recv(4096)
                if not data:
                    break
                if up:
                    self.up_bytes += len(data)
                time.sleep(len(data) / self.rate if self.rate < 1e8 else 0)
                target.sendall(data)
        except OSError:
            pass
        for one in (source, target):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        with self._lock:
            self._sockets -= {source, target}
        source.close()

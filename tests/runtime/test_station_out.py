"""What leaves the station: files of hits, events for TAK, webhooks, annotations; to real receivers on loopback."""

from __future__ import annotations

import base64
import contextlib
import csv
import hashlib
import hmac
import http.client
import http.server
import io
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

for _package in ("argon2", "cryptography", "jinja2", "onnxruntime", "starlette", "uvicorn"):
    pytest.importorskip(_package)

from beside import load

from tagclip.runtime.bundle import Bundle
from tagclip.runtime.errors import ConfigError, KeyFileError, OutputError, StoreError
from tagclip.runtime.picture_key import new_picture_key, read_picture_keys
from tagclip.runtime.station import export_api, webhooks
from tagclip.runtime.station.annotations import captions, split_of, write_annotations
from tagclip.runtime.station.cot_feed import CotFeed, cot_target
from tagclip.runtime.station.encrypt import seal_pictures
from tagclip.runtime.station.out import Out, ways_out
from tagclip.runtime.station.retention import delete_hit
from tagclip.runtime.station.tls import own_identity
from tagclip.runtime.station.webhook_queue import FACTS, WebhookQueue
from tagclip.runtime.station.webhooks import WebhookFeed, read_secret, signed, webhook_of

WAIT_S = 30.0  # that nothing needs
EXPORT = "/api/v1/export/hits"
SECRET = b"thirty-two bytes of a secret key"


worlds = load("page_world")


def until(true: Callable[[], Any], what: str = "") -> Any:
    end_s = time.monotonic() + WAIT_S
    while time.monotonic() < end_s:
        if value := true():
            return value
        time.sleep(0.01)
    raise AssertionError(f"it did not come: {what}")


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def served(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, int]]:
    """A station with hits of two devices, and its port."""
    world = worlds.World(tmp_path_factory.mktemp("out") / "data", tiny_bundle.path)
    world.enrol("d1")
    world.enrol("d2")
    query = world.query("a person in red")
    hits = [world.hit("d1", query, "a person in red") for _ in range(3)]
    hits += [
        world.hit("d2", query, text)
        for text in ('=HYPERLINK("http://x/","y")', "+1", "-2+3", "@SUM(A1)", "\t=1")
    ]
    hits += [world.hit("d2", query, 'umlaut ä, "quoted"\nand more', camera=" =cmd", place=None)]
    hits[0]["place"] = {"latitude_deg": -8.5, "longitude_deg": -70.25, "error_m": 12.0}
    for hit in hits:
        world.take(hit["camera"] and ("d1" if hit in hits[:3] else "d2"), hit)
    world.station.store.review(hits[0]["id"], "confirmed", "rita")
    world.station.store.review(hits[1]["id"], "rejected", "rita")
    world.hits = hits
    with world.served() as port:
        yield world, port
    world.station.close()


class Caller:
    def __init__(self, world: Any, port: int, name: str) -> None:
        login = world.station.users.login(name, worlds.PASSWORD, "test", token=True)
        self.headers = {"Authorization": f"Bearer {login.secret}"}
        self.connection = world.connect(port)

    def get(self, path: str) -> tuple[int, Any, bytes]:
        self.connection.request("GET", path, headers=self.headers)
        answer = self.connection.getresponse()
        return answer.status, answer.headers, answer.read()


@pytest.fixture
def call(served: tuple[Any, int]) -> Iterator[Callable[[str], Caller]]:
    made: list[Caller] = []

    def call(name: str) -> Caller:
        made.append(Caller(*served, name))
        return made[-1]

    yield call
    for caller in made:
        caller.connection.close()


def audit_of(world: Any, action: str) -> list[Any]:
    with world.station.database.read() as connection:
        rows = connection.execute("SELECT entry FROM audit ORDER BY row").fetchall()
    return [entry for (text,) in rows if (entry := json.loads(text))["action"] == action]


# ---- files


def test_a_file_holds_what_the_filter_says_in_every_format(
    served: tuple[Any, int], call: Callable[[str], Caller]
) -> None:
    world, _ = served
    caller = call("olga")
    listed = json.loads(caller.get("/api/v1/hits?limit=500")[2])["hits"]
    before = len(audit_of(world, "hits.export"))

    status, headers, data = caller.get(f"{EXPORT}?format=jsonl")
    assert status == 200 and [json.loads(line) for line in data.splitlines()] == listed
    assert re.fullmatch(r'attachment; filename="hits-\d{8}T\d{6}Z\.jsonl"', headers["content-disposition"])
    assert (headers["x-hits"], headers["x-without-place"]) == ("9", "0")

    _, headers, data = caller.get(f"{EXPORT}?format=geojson&device=d2")
    assert (headers["x-hits"], headers["x-without-place"]) == ("5", "1")
    placed = [hit for hit in listed if hit["device"] == "d2" and hit["place"]]
    assert [feature["id"] for feature in json.loads(data)["features"]] == [hit["id"] for hit in placed]

    _, _, data = caller.get(f"{EXPORT}?format=kml&review=confirmed")
    (mark,) = ElementTree.fromstring(data).iter("{http://www.opengis.net/kml/2.2}Placemark")
    assert mark.attrib["id"] == f"hit-{world.hits[0]['id']}"

    _, _, data = caller.get(f"{EXPORT}?format=cot&device=d1")
    events = [ElementTree.fromstring(line) for line in data.splitlines()]
    assert [event.attrib["uid"] for event in events] == [
        f"tagclip-{hit['id']}" for hit in listed if hit["device"] == "d1"
    ]
    since = max(hit["best_s"] for hit in listed)
    assert caller.get(f"{EXPORT}?format=jsonl&since={since}")[2].count(b"\n") == 1

    entries = audit_of(world, "hits.export")[before:]
    assert [entry["facts"]["format"] for entry in entries] == ["jsonl", "geojson", "kml", "cot", "jsonl"]
    assert entries[1]["who"] == "olga" and entries[1]["facts"] == {
        "format": "geojson",
        "count": 5,
        "device": "d2",
    }


def test_no_cell_of_the_table_is_a_formula_and_numbers_stay_numbers(call: Callable[[str], Caller]) -> None:
    data = call("rita").get(f"{EXPORT}?format=csv")[2]
    assert data.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    assert tuple(rows[0]) == export_api.NAMES and len(rows) == 9
    texts = {row["query"] for row in rows}
    assert {'\'=HYPERLINK("http://x/","y")', "'+1", "'-2+3", "'@SUM(A1)", "'\t=1"} < texts
    assert 'umlaut ä, "quoted"\nand more' in texts and "' =cmd" in {row["camera"] for row in rows}
    (south,) = (row for row in rows if row["review"] == "confirmed")
    assert (south["latitude_deg"], south["longitude_deg"], south["error_m"]) == ("-8.5", "-70.25", "12.0")
    assert south["reviewed_by"] == "rita" and south["reviewed"].endswith("Z")


@pytest.mark.parametrize("who", ["root", "olga", "rita"])
def test_every_role_may_export_and_finds_where_on_the_page(
    served: tuple[Any, int], call: Callable[[str], Caller], who: str
) -> None:
    caller = call(who)
    assert caller.get(f"{EXPORT}?format=csv")[0] == 200
    page = caller.get("/hits?review=all&device=d2")[2].decode()
    links = re.findall(rf'href="({EXPORT}[^"]+)" data-format="([a-z]+)"', page)
    assert [kind for _, kind in links] == list(export_api.FORMATS)
    assert all(path.replace("&amp;", "&") == f"{EXPORT}?format={kind}&device=d2" for path, kind in links)
    assert "review=unreviewed" in caller.get("/hits")[2].decode().partition('id="export"')[2]
    caller.headers = {}
    assert caller.get(f"{EXPORT}?format=csv")[0] == 401


def test_what_cannot_be_exported_is_said(
    call: Callable[[str], Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = call("root")
    for asked, said in (
        ("", "format: expected one of csv, geojson, kml, cot, jsonl"),
        ("?format=xls", "format: expected one of"),
        ("?format=csv&review=maybe", "review: expected one of"),
        ("?format=csv&since=yesterday", "since: expected Unix time"),
        ("?format=csv&limit=3", "'limit' is unknown"),
        ("?format=csv&format=kml", "stands twice"),
    ):
        status, _, data = caller.get(EXPORT + asked)
        assert status == 400 and said in json.loads(data)["error"], asked
    monkeypatch.setattr(export_api, "MOST", 8)
    monkeypatch.setattr(export_api, "PART", 4)
    status, _, data = caller.get(f"{EXPORT}?format=csv")
    assert status == 400 and "more than 8 hits" in json.loads(data)["error"]
    assert caller.get(f"{EXPORT}?format=csv&device=d2")[1]["x-hits"] == "6"  # of two looks
    with export_api._BUSY, export_api._BUSY:
        status, headers, _ = caller.get(f"{EXPORT}?format=csv")
        assert (status, headers["retry-after"]) == (503, "5")


# ---- Cursor-on-Target


@pytest.fixture
def world(tiny_bundle: Bundle, tmp_path: Path) -> Iterator[Any]:
    world = worlds.World(tmp_path / "data", tiny_bundle.path)
    world.enrol("d1")
    yield world
    world.station.close()


def told(world: Any, **changes: Any) -> str:
    """A hit that came as devices hand them in; its id."""
    from tagclip.runtime.station.device_api import hand_in

    hit = world.hit("d1", "q", "a person in red", **changes)
    answer = hand_in(world.station, "d1", json.dumps(world.batch("d1", hit)).encode())
    assert not answer["rejected"]
    return str(hit["id"])


def decide(world: Any, id_: str, review: str) -> None:
    """As operator_api.review does."""
    assert world.station.store.review(id_, review, "rita")
    world.station.news.tell([id_])


class Receiver:
    """A TAK endpoint of one port that keeps what came, over TCP or TLS."""

    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        self.events: list[ElementTree.Element] = []
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", port))
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, plain: socket.socket) -> None:
        with plain, contextlib.suppress(OSError):
            wrap = self._context.wrap_socket if self._context else None
            with wrap(plain, server_side=True) if wrap else plain as connection:
                self._open.append(connection)
                connection.sendall(b"<event/>" * 1000)  # as TAK servers tell of others
                with connection.makefile("rb") as lines:
                    for line in lines:
                        self.events.append(ElementTree.fromstring(line))

    def of(self, id_: str) -> list[ElementTree.Element]:
        return [event for event in self.events if event.attrib["uid"] == f"tagclip-{id_}"]

    def close(self) -> None:
        for connection in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def is_gone(event: ElementTree.Element) -> bool:
    return event.attrib["stale"] == event.attrib["time"]


def test_confirmed_hits_stand_on_the_map_of_a_server_that_goes_and_comes(world: Any) -> None:
    port = free_port()
    standing, unplaced = told(world), told(world, place=None)
    now_s = time.time()
    old = told(world, start_s=now_s - 90000, best_s=now_s - 89000, end_s=now_s - 88000)
    for id_ in (standing, unplaced, old):
        decide(world, id_, "confirmed")
    with CotFeed(world.station, cot_target(f"tcp://127.0.0.1:{port}", None, None, None)) as feed:
        later = told(world)
        decide(world, later, "confirmed")  # nobody is there: nothing waits, nothing is lost
        receiver = Receiver(port)
        try:
            until(lambda: receiver.of(standing) and receiver.of(later))
            decide(world, told(world), "rejected")
            undone, deleted = told(world), told(world)
            decide(world, undone, "confirmed")
            decide(world, deleted, "confirmed")
            until(lambda: receiver.of(undone) and receiver.of(deleted))
            decide(world, undone, "unreviewed")
            assert delete_hit(world.station.database, deleted, "root")
            world.station.news.tell([deleted])
            until(lambda: is_gone(receiver.of(undone)[-1]) and is_gone(receiver.of(deleted)[-1]))
            assert {event.attrib["uid"] for event in receiver.events} == {
                f"tagclip-{id_}" for id_ in (standing, later, undone, deleted)
            }
            (event,) = receiver.of(standing)
            assert event.attrib["type"] == "a-u-G" and not is_gone(event)
            place = event.find("point")
            assert place is not None and 46 < float(place.attrib["lat"]) < 47
        finally:
            receiver.close()
        decide(world, later, "rejected")  # while it is away
        receiver = Receiver(port)
        try:
            until(lambda: receiver.of(standing) and is_gone(receiver.of(later)[-1]))
            assert not receiver.of(undone)
        finally:
            receiver.close()
        assert feed.connections >= 2
    assert audit_of(world, "cot.begin")[0]["facts"] == {
        "target": f"tcp://127.0.0.1:{port}", "unreviewed": False,
    }  # fmt: skip


def test_events_over_udp_whether_or_not_anybody_hears(world: Any) -> None:
    port = free_port(socket.SOCK_DGRAM)
    first = told(world)
    with CotFeed(
        world.station, cot_target(f"udp://127.0.0.1:{port}", None, None, None), unreviewed=True
    ) as feed:
        until(lambda: feed.sent)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
            receiver.bind(("127.0.0.1", port))
            receiver.settimeout(WAIT_S)
            second = told(world)
            event = ElementTree.fromstring(receiver.recv(65536))
            assert event.attrib["uid"] == f"tagclip-{second}"
            decide(world, first, "rejected")
            event = ElementTree.fromstring(receiver.recv(65536))
            assert event.attrib["uid"] == f"tagclip-{first}" and is_gone(event)


def test_a_server_that_wants_a_certificate_gets_it_and_no_other_is_believed(
    world: Any, tmp_path: Path
) -> None:
    tak, other = (
        own_identity(tmp_path / "tak", ["127.0.0.1"]),
        own_identity(tmp_path / "other", ["127.0.0.1"]),
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tak.certificate, tak.key)
    context.load_verify_locations(world.station.identity.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    mine = world.station.identity  # the authority that this server makes certificates of its clients with
    hit = told(world)
    decide(world, hit, "confirmed")
    receiver = Receiver(0, context)
    port = receiver._listener.getsockname()[1]
    try:
        url = f"tls://127.0.0.1:{port}"
        for target in (
            cot_target(url, other.ca, mine.certificate, mine.key),
            cot_target(url, tak.ca, None, None),
        ):
            with CotFeed(world.station, target):
                time.sleep(0.3)
        assert not receiver.events
        client, key = client_certificate(mine, tmp_path)
        with CotFeed(world.station, cot_target(url, tak.ca, client, key)):
            until(lambda: receiver.of(hit))
    finally:
        receiver.close()


def client_certificate(authority: Any, folder: Path) -> tuple[Path, Path]:
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        load_pem_private_key,
    )

    ca = x509.load_pem_x509_certificate(authority.ca.read_bytes())
    ca_key = load_pem_private_key((authority.ca.parent / "ca.key").read_bytes(), None)
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tagclip")]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - datetime.timedelta(1))
        .not_valid_after(now + datetime.timedelta(1))
        .sign(ca_key, SHA256())  # type: ignore[arg-type]
    )
    (folder / "client.pem").write_bytes(made.public_bytes(Encoding.PEM))
    (folder / "client.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return folder / "client.pem", folder / "client.key"


# ---- webhooks


class Hook:
    """A receiver of webhooks on `port`; `answer` is (status, headers) of a body."""

    def __init__(
        self,
        port: int = 0,
        answer: Callable[[Any], tuple[int, dict[str, str]]] | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.posts: list[tuple[str, Any, bytes]] = []
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                hook.posts.append((self.path, self.headers, body))
                status, headers = answer(json.loads(body)) if answer else (204, {})
                self.send_response(status)
                for name, value in {"content-length": "0", **headers}.items():
                    self.send_header(name, value)
                self.end_headers()

            do_GET = do_POST

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        if context:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def told(self) -> list[tuple[str, str]]:
        """Type and hit of each, in the order in which they came."""
        bodies = [json.loads(body) for _, _, body in self.posts]
        return [(body["type"], body["hit"]["id"]) for body in bodies]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries again after 20 ms."""
    monkeypatch.setattr(webhooks, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(webhooks, "MOST_PAUSE_S", 0.1)


def feed_to(world: Any, port: int, days: float = 3.0) -> WebhookFeed:
    return WebhookFeed(world.station, webhook_of(f"http://127.0.0.1:{port}/hook?a=b"), SECRET, days)


def test_signatures_are_those_of_the_specification() -> None:
    # The vector of the reference implementation, github.com/standard-webhooks/standard-webhooks.
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signed(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert headers["webhook-timestamp"] == "1614265330"


@pytest.mark.usefixtures("hasty")
def test_hits_and_decisions_are_posted_signed_with_facts_alone(world: Any) -> None:
    told(world)  # before: never told
    hook = Hook()
    try:
        with feed_to(world, hook.port):
            hit = told(world, place=None)
            until(lambda: hook.posts)
            decide(world, hit, "confirmed")
            until(lambda: len(hook.posts) == 2)
            decide(world, hit, "unreviewed")
            until(lambda: len(hook.posts) == 3)
    finally:
        hook.close()
    kinds = ["tagclip.hit", "tagclip.decision", "tagclip.decision"]
    assert hook.told() == [(kind, hit) for kind in kinds]
    for path, headers, body in hook.posts:
        id_, at, signature = (headers[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
        expected = hmac.new(SECRET, f"{id_}.{at}.".encode() + body, hashlib.sha256).digest()
        assert signature == "v1," + base64.b64encode(expected).decode() and path == "/hook?a=b"
        assert abs(int(at) - time.time()) < 60 and headers["content-type"] == "application/json"
        assert set(json.loads(body)["hit"]) == set(FACTS)
        assert b"a person in red" not in body and b"rita" not in body and b"jpeg" not in body
    assert [json.loads(body).get("review") for _, _, body in hook.posts] == [None, "confirmed", "unreviewed"]
    assert len({headers["webhook-id"] for _, headers, _ in hook.posts}) == 3
    assert audit_of(world, "webhook.begin")[0]["facts"] == {"target": f"127.0.0.1:{hook.port}"}


@pytest.mark.usefixtures("hasty")
def test_a_receiver_that_goes_and_comes_gets_everything_once_it_takes_it(world: Any) -> None:
    port = free_port()
    with feed_to(world, port):
        hits = [told(world) for _ in range(3)]
        time.sleep(0.1)
        refusals = iter([500, 429, 302, 408])

        def answer(_: Any) -> tuple[int, dict[str, str]]:
            status = next(refusals, 204)
            return status, {"location": f"http://127.0.0.1:{port}/elsewhere"} if status == 302 else {}

        hook = Hook(port, answer)
        until(lambda: {id_ for _, id_ in hook.told()[4:]} == set(hits))
        hook.close()
        more = told(world)
        hook2 = Hook(port)
        until(lambda: ("tagclip.hit", more) in hook2.told())
        hook2.close()
    ids: dict[str, set[str]] = {}
    for path, headers, body in hook.posts:
        assert path == "/hook?a=b"  # no redirect was followed
        ids.setdefault(json.loads(body)["hit"]["id"], set()).add(headers["webhook-id"])
    assert all(len(known) == 1 for known in ids.values())  # the same each time
    assert len(hook.posts) == 7 and len(hook2.posts) == 1


@pytest.mark.usefixtures("hasty")
def test_a_receiver_whose_certificate_nobody_vouches_for_is_told_nothing(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = world.station.identity
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.certificate, identity.key)
    hook = Hook(context=context)
    url = f"https://127.0.0.1:{hook.port}/"
    try:
        with WebhookFeed(world.station, webhook_of(url), SECRET, 3.0) as feed:
            hit = told(world)
            until(lambda: feed._queue.counts()[2] is not None, "a try that failed")
        assert not hook.posts
        monkeypatch.setenv("SSL_CERT_FILE", str(identity.ca))
        with WebhookFeed(world.station, webhook_of(url), SECRET, 3.0):
            until(lambda: hook.told() == [("tagclip.hit", hit)])
    finally:
        hook.close()


@pytest.mark.usefixtures("hasty")
def test_an_event_that_is_refused_keeps_no_other_back_and_is_given_up(
    world: Any, caplog: pytest.LogCaptureFixture
) -> None:
    from tagclip.runtime.station.admin_api import health

    bad: list[str] = []
    hook = Hook(answer=lambda body: (400 if body["hit"]["id"] in bad else 200, {}))
    ask: Any = type("Asked", (), {"station": world.station})
    try:
        feed = feed_to(world, hook.port)
        with feed:
            assert health(ask).value == {"status": "ok", "webhooks_given_up": 0}
            hits = [str(uuid.uuid4()), told(world), told(world)]
            bad.append(hits[0])
            told(world, id=hits[0])
            good = told(world)
            until(lambda: ("tagclip.hit", good) in hook.told())
            until(lambda: hook.told().count(("tagclip.hit", hits[0])) > 2)
            with world.station.database.write() as connection:  # as if a week had passed
                connection.execute("UPDATE webhook_queue SET made_s = made_s - 7 * 86400")
            world.station.news.tell([good])
            until(lambda: health(ask).value["webhooks_given_up"] == 1)
            assert "1 events were given up after 3 days" in caplog.text
        with feed_to(world, hook.port):  # counted for good
            assert health(ask).value == {"status": "ok", "webhooks_given_up": 1}
        assert world.station.webhooks == [] and health(ask).value == {"status": "ok"}
    finally:
        hook.close()


def test_a_receiver_that_takes_nothing_is_told_by_health_and_a_deleted_hit_by_nobody(world: Any) -> None:
    from tagclip.runtime.station.admin_api import health

    queue = WebhookQueue(world.station.database, "https://example.org/")
    one, other = told(world), told(world)
    queue.fill()
    queue.fill()
    first, second = queue.due(time.time(), 10)
    assert [event.hit_id for event in (first, second)] == [one, other]
    assert queue.counts() == (2, 0, None)
    assert delete_hit(world.station.database, one, "root")
    assert queue.body(first) is None and queue.body(second) is not None
    queue.later(second, time.time() + 60)
    assert queue.due(time.time(), 10) == [first] and queue.next_s() == 0
    feed = WebhookFeed(world.station, webhook_of("https://example.org/"), SECRET, 3.0)
    assert feed.state() == (0, False)
    with world.station.database.write() as connection:
        connection.execute("UPDATE webhook_queue SET made_s = made_s - 3600")
    world.station.webhooks.append(feed.state)
    asked: Any = type("Asked", (), {"station": world.station})
    assert health(asked).value == {
        "status": "degraded",
        "reasons": {"webhooks": "one takes no events; the log says why"},
        "webhooks_given_up": 0,
    }


def test_a_killed_station_tells_everything_when_it_is_back(tiny_bundle: Bundle, tmp_path: Path) -> None:
    """Kills it as soon as it acknowledged; TAGCLIP_KILLS=20 for more than one."""
    data, hook_port, port = tmp_path / "data", free_port(), free_port()
    world = worlds.World(data, tiny_bundle.path)
    device = world.enrol("d1")
    rita = world.station.users.login("rita", worlds.PASSWORD, "test", token=True).secret
    ca = world.station.identity.ca
    world.station.close()
    secret = tmp_path / "secret"
    secret.write_text("whsec_" + base64.b64encode(SECRET).decode() + "\n")
    secret.chmod(0o600)
    command = [
        sys.executable, "-m", "tagclip.runtime", "station", "--data", data, "--listen", f"127.0.0.1:{port}",
        "--bundle", tiny_bundle.path, "--webhook", f"http://127.0.0.1:{hook_port}/", "--webhook-secret-file", secret,
    ]  # fmt: skip
    context = ssl.create_default_context(cafile=str(ca))
    expected: set[tuple[str, str]] = set()

    def start() -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert process.stdout and b"station on" in process.stdout.readline()
        return process

    def post(path: str, token: str, body: Any) -> None:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=context)
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        connection.request("POST", f"/api/v1/{path}", json.dumps(body), headers)
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        connection.close()

    def end(process: subprocess.Popen[bytes], how: int) -> None:
        process.send_signal(how)
        process.wait(WAIT_S)
        assert process.stdout
        process.stdout.close()

    for _ in range(int(os.environ.get("TAGCLIP_KILLS", "1"))):
        process = start()
        hit = world.hit("d1", "q", "red")
        post("device/messages", device, world.batch("d1", hit, pictures=False))
        post(f"hits/{hit['id']}/review", rita, {"review": "confirmed"})
        end(process, signal.SIGKILL)
        expected |= {("tagclip.hit", hit["id"]), ("tagclip.decision", hit["id"])}
    hook = Hook(hook_port)
    process = start()
    try:
        until(lambda: set(hook.told()) == expected)
    finally:
        hook.close()
        end(process, signal.SIGTERM)
    assert len({headers["webhook-id"] for _, headers, _ in hook.posts}) == len(expected)


# ---- options


def secret_in(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "secret"
    path.write_text(text)
    path.chmod(mode)
    return path


GOOD = "whsec_" + base64.b64encode(SECRET).decode()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cot", "http://tak:8087"], "expected udp://, tcp:// or tls://HOST:PORT"),
        (["--cot", "tcp://tak"], "expected HOST:PORT"),
        (["--cot", "tcp://tak:99999"], "expected HOST:PORT"),
        (["--cot", "tls://tak:8089"], "needs --cot-ca"),
        (["--cot", "tls://tak:8089", "--cot-ca", "absent.pem"], "certificates cannot be used"),
        (["--cot", "tls://tak:8089", "--cot-ca", "x", "--cot-key", "x"], "belong together"),
        (["--cot", "udp://tak:8089", "--cot-ca", "x"], "are for tls://"),
        (["--cot-all"], "belong to --cot"),
        (["--webhook", "https://example.org/"], "belong together"),
        (["--webhook-secret-file", "x"], "belong together"),
        (["--webhook", "http://example.org/", "--webhook-secret-file", "x"], "http is for this machine alone"),
        (["--webhook", "https://me:word@example.org/", "--webhook-secret-file", "x"], "without a user"),
        (["--webhook", "ftp://example.org/", "--webhook-secret-file", "x"], "expected https://HOST/PATH"),
        (["--webhook", "https://example.org:x/", "--webhook-secret-file", "x"], "--webhook"),
        (["--webhook", "https://example.org/", "--webhook-secret-file", "absent"], "make one: "),
    ],
)  # fmt: skip
def test_options_that_cannot_be_used_start_nothing(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path, arguments: list[str], said: str
) -> None:
    status, out, error = run("station", "--data", tmp_path / "data", *arguments)
    assert status == 1 and said in error and "Traceback" not in error
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ("plain words\n", 0o600, "expected whsec_"),
        ("whsec_" + base64.b64encode(bytes(23)).decode(), 0o600, "expected whsec_"),
        ("whsec_!!!", 0o600, "expected whsec_"),
        (GOOD, 0o604, "open to everybody"),
    ],
)
def test_a_secret_that_is_none_is_refused(tmp_path: Path, text: str, mode: int, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_secret(secret_in(tmp_path, text, mode))


def test_what_the_options_say_is_what_is_made(world: Any, tmp_path: Path) -> None:
    hook = "https://example.org/hook"
    secret = secret_in(tmp_path, GOOD + "\n")
    out = Out(cot="udp://127.0.0.1:6969", cot_all=True, webhooks=(hook, hook), webhook_secret_file=secret)
    made = ways_out(out)(world.station)
    assert [type(way) for way in made] == [WebhookFeed, CotFeed] and read_secret(secret) == SECRET
    assert ways_out(Out())(world.station) == []


# ---- annotations


def decided(world: Any, count: int) -> list[dict[str, Any]]:
    """Hits of `count` tracks with pictures, confirmed but for every fifth."""
    hits = []
    for number in range(count):
        track = str(uuid.uuid5(uuid.NAMESPACE_URL, f"track {number}"))
        query = ("a person in red", 'blue coat +"black bag" -hat')[number % 2]
        hits.append(world.hit("d1", "q", query, track_id=track, view=("aerial", "ground")[number % 2]))
    hits.append(world.hit("d1", "q2", "somebody tall", track_id=hits[0]["track_id"], view="aerial"))
    for hit in hits:
        world.take("d1", hit)
    for number, hit in enumerate(hits):
        world.station.store.review(hit["id"], "rejected" if number % 5 == 4 else "confirmed", "rita")
    return hits


def test_decided_hits_become_data_that_training_reads(
    world: Any, tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    hits = decided(world, 26)
    for changes in ({"view": "unknown"}, {}):  # neither view; without a picture
        hit = world.hit("d1", "q", "x", **changes)
        world.take("d1", hit, pictures=bool(changes))
        world.station.store.review(hit["id"], "confirmed", "rita")
    told(world)  # nobody decided about it
    out = tmp_path / "made"
    status, said, error = run("station", "annotations", "--data", world.station.data, "--out", out)
    assert status == 0, error
    assert "22 pictures of 21 tracks, 5 negatives" in said and said.count("left out: 1 decided hits") == 2
    assert out.stat().st_mode & 0o077 == 0
    rows = {split: json.loads((out / f"{split}_reid.json").read_text()) for split in ("train", "val", "test")}
    by_hit = {row["file_path"].removesuffix(".jpg"): (split, row) for split in rows for row in rows[split]}
    confirmed = [hit for number, hit in enumerate(hits) if number % 5 != 4]
    assert set(by_hit) == {hit["id"] for hit in confirmed}
    for hit in confirmed:
        split, row = by_hit[hit["id"]]
        assert split == split_of(hit["track_id"]) and row["cam_id"] == (0 if hit["view"] == "aerial" else 1)
        assert (out / "images" / row["file_path"]).read_bytes() in worlds.crops()
    first = [row for row in rows[split_of(hits[0]["track_id"])] if hits[0]["track_id"] in row["source"]]
    assert len(first) == 2 and len({row["id"] for row in first}) == 1
    assert all(row["captions"] == ["a person in red", "somebody tall"] for row in first)
    assert by_hit[hits[1]["id"]][1]["captions"] == ["blue coat", "black bag"]
    negatives = json.loads((out / "negatives.json").read_text())
    assert [row["file_path"] for row in negatives] == [
        f"{hit['id']}.jpg" for hit in hits if hit not in confirmed
    ]
    assert all((out / "negatives" / row["file_path"]).exists() for row in negatives)
    (entry,) = audit_of(world, "hits.annotations")
    assert entry["who"] == "console"
    assert entry["facts"] == {"positives": 22, "negatives": 5, "out": str(out)}

    before = sorted(path.name for path in out.rglob("*"))
    status, _, error = run("station", "annotations", "--data", world.station.data, "--out", out)
    assert status == 1 and "not empty" in error and sorted(path.name for path in out.rglob("*")) == before

    pytest.importorskip("torch")
    from tagclip.train.config import ModelConfig
    from tagclip.train.data import input_spec, load_images, load_split
    from tagclip.train.datasets.check import check_data

    samples = [sample for split in rows for sample in load_split(out, split)]
    images = load_images(samples, input_spec(ModelConfig()))
    assert len(samples) == len(images) == 22 and images.std() > 10
    problems = check_data(out).problems
    # The test's few pictures are those of many people; nothing else may be wrong.
    assert {problem.kind for problem in problems} <= {"duplicate file"}
    assert all("has the very bytes" in problem.message for problem in problems)


def test_encrypted_pictures_need_their_key_and_nothing_is_half_written(world: Any, tmp_path: Path) -> None:
    database, out = world.station.database, tmp_path / "made"
    with pytest.raises(StoreError, match="nobody confirmed"):
        write_annotations(database, None, out)
    decided(world, 4)
    paths = [tmp_path / name for name in ("key", "other")]
    for path in paths:
        new_picture_key(path)
    keys, other = (read_picture_keys([path]) for path in paths)
    assert keys
    seal_pictures(database, keys, lambda done, total: None)
    for wrong in (None, other):
        with pytest.raises(KeyFileError, match="--picture-key"):
            write_annotations(database, wrong, out)
        assert not out.exists() and not list(tmp_path.glob(".made*"))
    assert not audit_of(world, "hits.annotations")
    assert write_annotations(database, keys, out).positives == 4
    assert all(path.read_bytes() in worlds.crops() for path in (out / "images").iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_annotations(database, keys, tmp_path / "file")


def test_captions_are_what_a_query_says_that_somebody_is() -> None:
    assert captions("a man in red") == ["a man in red"]
    assert captions('red jacket +"blue jeans"*2 -backpack') == ["red jacket", "blue jeans"]
    assert captions("-hat") == ["-hat"]  # of a device of before
    assert captions(" ") == ["person"]

"""The station over real TLS: what devices and operators ask, and what stands after it was killed."""

from __future__ import annotations

import base64
import contextlib
import gzip
import http.client
import json
import os
import random
import re
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

for _package in ("argon2", "cryptography", "onnxruntime", "starlette", "uvicorn"):
    pytest.importorskip(_package)

from tagclip.runtime import cli
from tagclip.runtime.bundle import Bundle
from tagclip.runtime.encoder import TextEncoder
from tagclip.runtime.ids import uuid7
from tagclip.runtime.keys import read_public_key
from tagclip.runtime.query_cli import query as query_command
from tagclip.runtime.station.app import ROUTES
from tagclip.runtime.station.cli import station as station_command
from tagclip.runtime.station.server import Housekeeping, Server
from tagclip.runtime.station.station import Encoder, Station, say_address
from tagclip.runtime.station.tls import own_identity
from tagclip.runtime.sync_messages import verify

JPEG = b"\xff\xd8\xff\xe0" + bytes(500)
BOOT = str(uuid7())
PASSWORD = "correct horse battery"


def hit_body(**changes: Any) -> dict[str, Any]:
    return {
        "id": str(uuid7()),
        "revision": 1,
        "query_id": "q1",
        "query": "a person in red",
        "track_id": str(uuid7()),
        "camera": "gate",
        "view": "ground",
        "encoder_id": "toy",
        "score": 0.5,
        "p_value": 0.01,
        "false_alarms_per_hour": 0.2,
        "threshold": 0.4,
        "start_s": 1000.0,
        "end_s": 1002.0,
        "best_s": 1001.0,
        "frame": 7,
        "box_xywh_px": [1.0, 2.0, 30.0, 60.0],
        "frame_px": [640, 480],
        "place": None,
        "crops": 3,
        "review": "unreviewed",
    } | changes


def message(kind: str, body: dict[str, Any], device: str = "d1") -> dict[str, Any]:
    return {
        "id": str(uuid7()),
        "device": device,
        "kind": kind,
        "made_s": 1001.5,
        "boot_id": BOOT,
        "seq": 1,
        "body": body,
    }


def batch(*messages: Any, device: str = "d1", **status: Any) -> bytes:
    return json.dumps({"device": device, "messages": list(messages), "status": status}).encode()


class Caller:
    """Asks over one connection that is kept; `ask` gives (status, headers, body)."""

    def __init__(self, port: int, ca: Path, token: str = "") -> None:
        context = ssl.create_default_context(cafile=str(ca))
        self.connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=context)
        self.token = token

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, Any]:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        sent = {"Content-Type": "application/json"}
        if self.token:
            sent["Authorization"] = f"Bearer {self.token}"
        self.connection.request(method, path, data, {**sent, **headers})
        answer = self.connection.getresponse()
        content = answer.read()
        is_json = answer.headers.get("content-type") == "application/json"
        return answer.status, answer.headers, json.loads(content) if is_json else content

    def good(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        status, _, value = self.ask(method, path, body, **headers)
        assert status in (200, 201, 204), (status, value)
        return value


def token_of(station: Station, name: str, role: str) -> str:
    one_time = station.users.add(name, role, "test")
    station.users.set_password(name, one_time, PASSWORD)
    login = station.users.login(name, PASSWORD, "test", token=True)
    assert login
    return login.secret


@pytest.fixture(scope="module")
def station(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Station]:
    data: Path = tmp_path_factory.mktemp("station") / "data"
    made = Station(data, own_identity(data / "tls", ["127.0.0.1"]), Encoder(tiny_bundle.path))
    yield made
    made.close()


@pytest.fixture(scope="module")
def server(station: Station) -> Iterator[Server]:
    with Server(station, ("127.0.0.1", 0)) as server:
        say_address(station.data, f"127.0.0.1:{server.port}", station.identity.fingerprint())
        yield server


@pytest.fixture(scope="module")
def call(station: Station, server: Server) -> Iterator[Callable[[str], Caller]]:
    made: list[Caller] = []

    def call(token: str = "") -> Caller:
        made.append(Caller(server.port, station.identity.ca, token))
        return made[-1]

    yield call
    for caller in made:
        caller.connection.close()


@pytest.fixture(scope="module")
def admin(station: Station, call: Callable[[str], Caller]) -> Caller:
    return call(token_of(station, "root", "admin"))


@pytest.fixture(scope="module")
def device(admin: Caller, call: Callable[[str], Caller]) -> Caller:
    return call(enrol(admin, call(""), "d1")["token"])


def enrol(admin: Caller, nobody: Caller, name: str) -> Any:
    text = admin.good("POST", "/api/v1/enrolments", {"device": name})["enrolment"]
    kind, address, code, fingerprint = re.fullmatch(
        r"([a-z-]+):(.+):([a-z2-7]+):([0-9a-f]{64})", text
    ).groups()  # type: ignore[union-attr]
    assert kind == "tagclip-enrol" and address == f"127.0.0.1:{nobody.connection.port}"
    pem = nobody.good("GET", "/api/v1/ca.pem").decode()
    import hashlib

    assert hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest() == fingerprint
    body = {"code": code, "device": name, "public": {"version": "0.1", "encoder_id": None}}
    return nobody.good("POST", "/api/v1/enrol", body)


def test_from_enrolment_to_a_decision(
    admin: Caller, call: Callable[[str], Caller], tmp_path: Path, tiny_bundle: Bundle
) -> None:
    enrolled = enrol(admin, call(""), "cam-7")
    (tmp_path / "key.pem").write_text(enrolled["station_public_key"])
    key = read_public_key(tmp_path / "key.pem")
    added = admin.good(
        "POST", "/api/v1/queries", {"text": "a person in red", "reason": "missing", "hours": None}
    )
    device = call(enrolled["token"])
    document = device.good("GET", "/api/v1/device/queries?revision=0&wait_s=0")
    (query,) = [entry for entry in verify(document, key).queries if entry.id == added["id"]]
    expected = TextEncoder(tiny_bundle).embed(["a person in red"])[0]
    assert (
        query.vector == pytest.approx(expected.tolist(), abs=1e-3)
        and query.encoder_id == tiny_bundle.encoder_id
    )

    hit = hit_body(query_id=added["id"])
    sent = [
        message("hit", hit, "cam-7"),
        message(
            "picture", {"hit_id": hit["id"], "revision": 1, "jpeg": base64.b64encode(JPEG).decode()}, "cam-7"
        ),
    ]
    answer = device.good("POST", "/api/v1/device/messages", batch(*sent, device="cam-7", depth=0))
    assert answer == {
        "acks": [row["id"] for row in sent],
        "rejected": [],
        "queries_revision": added["revision"],
    }
    (found,) = admin.good("GET", f"/api/v1/hits?query={added['id']}")["hits"]
    assert {name: found[name] for name in hit} == hit and found["device"] == "cam-7" and found["picture"]
    status, headers, jpeg = admin.ask("GET", f"/api/v1/hits/{hit['id']}/picture")
    assert (status, headers["content-type"], jpeg) == (200, "image/jpeg", JPEG)
    reviewed = admin.good("POST", f"/api/v1/hits/{hit['id']}/review", {"review": "confirmed"})
    assert (reviewed["review"], reviewed["reviewed_by"]) == ("confirmed", "root")
    assert admin.good("GET", "/api/v1/hits?review=confirmed&device=cam-7&since=1000&limit=1")["hits"] == [
        reviewed
    ]
    (listed,) = [row for row in admin.good("GET", "/api/v1/devices")["devices"] if row["name"] == "cam-7"]
    assert listed["status"] == {"depth": 0} and listed["version"] == "0.1"
    actions = {(row["who"], row["action"]) for row in admin.good("GET", "/api/v1/audit?limit=1000")["rows"]}
    for action in ("query.add", "hits.search", "picture.view", "hit.review", "device.invite"):
        assert ("root", action) in actions
    assert ("cam-7", "device.enrol") in actions and ("root", "login") in actions


def test_the_devices_own_client_brings_everything_home(admin: Caller, tmp_path: Path) -> None:
    from tagclip.runtime.health import Health
    from tagclip.runtime.hit import hit_of
    from tagclip.runtime.sync_enrol import enrol as enrol_device
    from tagclip.runtime.sync_link import StationLink

    text = admin.good("POST", "/api/v1/enrolments", {"device": "air-1"})["enrolment"]
    enrol_device(text, "air-1", tmp_path / "link", "toy")
    bodies = [hit_body(query_id="own") for _ in range(100)]
    health = Health(camera="c", detector="d", provider="cpu", encoder_id="toy")
    with StationLink(tmp_path / "link", "toy", health) as link:
        added = admin.good("POST", "/api/v1/queries", {"text": "white shirt", "reason": "missing"})
        for body in bodies:
            link.tell(hit_of(body), JPEG)
            link.tell(hit_of(body | {"revision": 2}), JPEG + b"2")
        until_s = time.monotonic() + 20
        while (len(link.outbox) or link.client.revision < added["revision"]) and time.monotonic() < until_s:
            time.sleep(0.02)
        queries = link.new_queries()
    assert queries and added["id"] in {query.id for query in queries.queries}
    hits = admin.good("GET", "/api/v1/hits?device=air-1&limit=500")["hits"]
    assert {hit["id"] for hit in hits} == {body["id"] for body in bodies} and len(hits) == 100
    assert all(hit["revision"] == 2 and hit["picture"] for hit in hits)
    assert admin.ask("GET", f"/api/v1/hits/{bodies[0]['id']}/picture")[2] == JPEG + b"2"
    (listed,) = [row for row in admin.good("GET", "/api/v1/devices")["devices"] if row["name"] == "air-1"]
    assert listed["status"]["dropped_hits"] == 0


def test_a_query_wakes_a_device_that_waits(admin: Caller, device: Caller) -> None:
    revision = admin.good("GET", "/api/v1/queries")["revision"]
    got: list[tuple[float, Any]] = []

    def wait() -> None:
        document = device.good("GET", f"/api/v1/device/queries?revision={revision}&wait_s=20")
        got.append((time.monotonic(), document))

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.5)
    began_s = time.monotonic()
    added = admin.good("POST", "/api/v1/queries", {"text": "blue jacket", "reason": "missing"})
    thread.join(15)
    ((ended_s, document),) = got
    assert document["revision"] == added["revision"] == revision + 1
    assert ended_s - began_s < 5  # on a free machine 0.05 s; the bound is for busy ones, the wait is 20 s
    (listed,) = [row for row in admin.good("GET", "/api/v1/devices")["devices"] if row["name"] == "d1"]
    assert listed["queries_revision"] == revision


def test_a_device_that_is_up_to_date_waits_and_hears_nothing(admin: Caller, device: Caller) -> None:
    revision = admin.good("GET", "/api/v1/queries")["revision"]
    began_s = time.monotonic()
    status, _, body = device.ask("GET", f"/api/v1/device/queries?revision={revision}&wait_s=0.4")
    assert (status, body) == (204, b"") and time.monotonic() - began_s >= 0.4
    for query in (
        "revision=-1",
        "revision=1e3",
        "revision=x",
        "wait_s=31",
        "wait_s=nan",
        "wait_s=-1",
        "what=1",
    ):
        assert device.ask("GET", f"/api/v1/device/queries?{query}")[0] == 400


def test_duplicates_have_no_effect_and_malformed_messages_block_nothing(
    admin: Caller, device: Caller
) -> None:
    good, bad = message("hit", hit_body(query_id="dup")), message("hit", hit_body(threshold=None))
    for _ in range(2):
        answer = device.good("POST", "/api/v1/device/messages", batch(good, bad, good))
        assert answer["acks"] == [good["id"]]
        ((rejected,)) = [row for row in answer["rejected"] if row["id"] == bad["id"]]
        assert "threshold" in rejected["reason"]
    assert len(admin.good("GET", "/api/v1/hits?query=dup")["hits"]) == 1
    kept = admin.good("GET", "/api/v1/quarantine")["quarantine"]
    assert sum(bad["id"] in row["raw"] for row in kept) == 1


def test_batches_may_be_packed_but_not_to_hide_how_large_they_are(device: Caller) -> None:
    row = message("hit", hit_body())
    status, headers, value = device.ask("POST", "/api/v1/device/messages", batch(row))
    assert status == 200 and headers["accept-encoding"] == "gzip"
    packed = {"Content-Encoding": "gzip"}
    value = device.good("POST", "/api/v1/device/messages", gzip.compress(batch(row)), **packed)
    assert value["acks"] == [row["id"]]
    for body in (gzip.compress(b" " * 50_000_000), b"no gzip", gzip.compress(batch(row))[:-9]):
        assert device.ask("POST", "/api/v1/device/messages", body, **packed)[0] == 400
    assert device.ask("POST", "/api/v1/device/messages", b"x", **{"Content-Encoding": "br"})[0] == 415


def test_a_batch_has_limits(device: Caller) -> None:
    rows = [message("hit", hit_body()) for _ in range(65)]
    assert device.ask("POST", "/api/v1/device/messages", batch(*rows))[0] == 400
    assert len(device.good("POST", "/api/v1/device/messages", batch(*rows[:64]))["acks"]) == 64
    assert device.ask("POST", "/api/v1/device/messages", batch(device="d2"))[0] == 403


def test_queries_that_cannot_be(admin: Caller) -> None:
    good = {"text": "red jacket", "reason": "missing"}
    before = admin.good("GET", "/api/v1/queries")["revision"]
    for changes in (
        {"text": ""},
        {"text": "xyzzy"},  # the vocabulary knows no word
        {"text": "\u0000red"},
        {"reason": ""},
        {"view": "sideways"},
        {"hours": -1},
        {"hours": "1"},
        {"alarms_per_hour": 1, "alarms_per_1000": 1},
        {"colour": "red"},
        {"text": "-red"},
    ):
        status, _, value = admin.ask("POST", "/api/v1/queries", good | changes)
        assert status == 400 and value["error"], changes
    assert admin.ask("POST", "/api/v1/queries", {"text": "red"})[0] == 400
    assert admin.ask("DELETE", "/api/v1/queries/none")[0] == 404
    assert admin.good("GET", "/api/v1/queries")["revision"] == before


def test_pages_of_hits_and_wrong_filters(admin: Caller, device: Caller) -> None:
    device.good(
        "POST", "/api/v1/device/messages", batch(*[message("hit", hit_body(query_id="p")) for _ in range(5)])
    )
    seen, after = [], ""
    while True:
        page = admin.good("GET", f"/api/v1/hits?query=p&limit=2{after}")
        seen += [hit["id"] for hit in page["hits"]]
        if page["after"] is None:
            break
        after = f"&after={page['after']}"
    assert len(seen) == len(set(seen)) == 5
    for query in (
        "limit=0",
        "limit=501",
        "limit=x",
        "after=0",
        "since=x",
        "since=nan",
        "review=maybe",
        "q=1",
    ):
        assert admin.ask("GET", f"/api/v1/hits?{query}")[0] == 400, query
    assert admin.ask("GET", "/api/v1/hits?limit=1&limit=2")[0] == 400
    assert admin.ask("GET", f"/api/v1/hits/{seen[0]}/picture")[0] == 404
    assert admin.ask("POST", f"/api/v1/hits/{uuid7()}/review", {"review": "confirmed"})[0] == 404


def test_the_description_tells_every_route(admin: Caller) -> None:
    document = admin.good("GET", "/api/v1/openapi.json")
    told = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert told == {(route.method, route.path) for route in ROUTES} and document["openapi"] == "3.1.0"


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[Any, str, str]]:
    """Run a command as `tagclip` does: (status, stdout, stderr)."""

    def command(which: Any, *arguments: object) -> tuple[Any, str, str]:
        with pytest.raises(SystemExit) as exit_:
            cli.run(which, f"tagclip {which.name}", [str(argument) for argument in arguments])
        return exit_.value.code, *capsys.readouterr()

    return command


def test_queries_from_the_command_line(
    station: Station,
    server: Server,
    command: Callable[..., tuple[Any, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import io

    status, password, _ = command(
        station_command, "user", "add", "olga", "--role", "operator", "--data", station.data
    )
    assert status == 0
    url, token = f"https://127.0.0.1:{server.port}", tmp_path / "token.json"
    login = ("login", "--station", url, "--user", "olga", "--token-file", token)
    lines = f"{password.strip()}\n{PASSWORD}\n"
    for pin, error in (((), "certificate"), (("--fingerprint", "0" * 64), "in between")):
        monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
        status, _, text = command(query_command, *login, *pin)
        assert status == 1 and error in text and not token.exists()
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    status, out, err = command(query_command, *login, "--fingerprint", station.identity.fingerprint())
    assert status == 0 and "olga, operator" in out, err
    assert token.stat().st_mode & 0o077 == 0

    def query(*arguments: object) -> tuple[Any, str, str]:
        return command(query_command, arguments[0], "--token-file", token, *arguments[1:])

    status, out, _ = query("add", "a woman in a yellow jacket", "--reason", "lost on the way", "--json")
    added = json.loads(out)
    assert status == 0 and added["expires_s"] == pytest.approx(time.time() + 86400, abs=60)
    status, out, _ = query("list", "--station", url)
    assert status == 0 and added["id"] in out and "lost on the way" in out
    assert query("remove", added["id"])[0] == 0
    status, _, text = query("remove", added["id"])
    assert status == 1 and "no such query" in text
    assert added["id"] not in query("list")[1]
    status, _, text = query("add", "--reason", "r", "--", "-red")
    assert status == 1 and "says only what somebody is not" in text
    assert query("list", "--station", "https://127.0.0.1:1")[0] == 1
    assert query("add", "red")[0] == 2


def test_the_records_from_the_command_line(
    station: Station, server: Server, command: Callable[..., tuple[Any, str, str]], tmp_path: Path
) -> None:
    status, out, _ = command(station_command, "enrol", "d9", "--data", station.data)
    assert status == 0 and out.startswith(f"tagclip-enrol:127.0.0.1:{server.port}:")
    status, out, _ = command(station_command, "audit", "verify", "--data", station.data)
    assert status == 0
    known = out.split()[-1]
    assert command(station_command, "audit", "verify", "--known", known, "--data", station.data)[0] == 0
    status, _, text = command(station_command, "audit", "verify", "--known", "00", "--data", station.data)
    assert status == 1 and "somebody changed" in text
    assert command(station_command, "enrol", "a/b", "--data", station.data)[0] == 1
    status, _, text = command(station_command, "enrol", "d9", "--data", tmp_path)
    assert status == 1 and "holds no records" in text
    assert command(station_command, "user", "add", "x", "--role", "king", "--data", station.data)[0] == 2


def test_a_renewed_certificate_is_shown_and_an_end_does_not_wait_for_those_who_wait(
    tmp_path: Path, tiny_bundle: Bundle
) -> None:
    data = tmp_path / "data"
    station = Station(data, own_identity(data / "tls", ["127.0.0.1"]), Encoder(tiny_bundle.path))
    names = ["127.0.0.1"]
    code, _ = station.store.make_code("d1", "test")
    token = str(station.store.enrol(code, "d1", "1", None, "test"))
    old_id, old_s = str(uuid7()), time.time() - 40 * 86400
    got: list[Any] = []

    def shown(port: int) -> bytes:
        context = ssl.create_default_context(cafile=str(station.identity.ca))
        with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
                return connection.getpeercert(binary_form=True) or b""

    with Server(station, ("127.0.0.1", 0)) as server:
        keeper = Housekeeping(
            station, server, 30.0, 1 << 30, 365.0, lambda: own_identity(data / "tls", names)
        )
        before = shown(server.port)
        keeper.work()
        assert shown(server.port) == before
        names.append("station.example")  # as good as 30 days before the end: it is made anew
        with station.database.write() as connection:
            connection.execute(
                "INSERT INTO hits(id, device, query_id, revision, best_s, received_s, document)"
                " VALUES(?, 'd1', 'q', 1, 1, ?, '{}')",
                (old_id, old_s),
            )
        keeper.work()
        assert shown(server.port) != before
        with station.database.read() as connection:
            assert connection.execute("SELECT count(*) FROM hits").fetchone() == (0,)

        caller, idle = (
            Caller(server.port, station.identity.ca, token),
            Caller(server.port, station.identity.ca),
        )
        idle.good("GET", "/api/v1/health")
        waiter = threading.Thread(
            target=lambda: got.append(caller.ask("GET", "/api/v1/device/queries?revision=1&wait_s=25"))
        )
        waiter.start()
        time.sleep(0.5)
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 4
    waiter.join(10)
    assert got[0][0] == 204
    station.close()
    caller.connection.close()
    idle.connection.close()


# Imports once and forks for every start: 20 starts of a whole interpreter would be most of this file's time.
PHOENIX = """
import os, sys
import argon2, onnxruntime, starlette.applications, tokenizers, uvicorn
import uvicorn.lifespan.on, uvicorn.protocols.http.h11_impl
from tagclip.runtime.cli import run
from tagclip.runtime.station.cli import station
import tagclip.runtime.station.run
while True:
    pid = os.fork()
    if pid == 0:
        print("pid", os.getpid(), flush=True)
        try:
            run(station, "tagclip station", sys.argv[1:])
        except SystemExit as end:
            os._exit(end.code)  # a library's clean-up after a fork aborts
    _, status = os.waitpid(pid, 0)
    if status != 9:
        print("ended", status, flush=True)
        break
"""


@pytest.fixture
def phoenix(tiny_bundle: Bundle, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path, int]]:
    """A station that is started again whenever it is killed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = tmp_path / "data"
    arguments = ["--data", str(data), "--listen", f"127.0.0.1:{port}", "--bundle", str(tiny_bundle.path)]
    process = subprocess.Popen(
        [sys.executable, "-c", PHOENIX, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    try:
        yield process, data, port
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the parent and its child, both of this test
        process.wait()
        assert process.stdout
        process.stdout.close()


def line_of(process: subprocess.Popen[str], start: str) -> str:
    assert process.stdout
    for line in process.stdout:
        if line.startswith(start):
            return line
    raise AssertionError(f"the station ended before it said {start!r}")


def test_what_was_acknowledged_is_there_after_any_kill(
    phoenix: tuple[subprocess.Popen[str], Path, int],
) -> None:
    process, data, port = phoenix
    kills = int(os.environ.get("TAGCLIP_KILLS", "8"))
    randomly = random.Random(5)
    pid = int(line_of(process, "pid").split()[1])
    line_of(process, "station on")
    one_time = line_of(process, "first start").split("password ")[1].split()[0]
    ca = data / "tls" / "ca.pem"
    caller = Caller(port, ca)
    login = caller.ask("POST", "/api/v1/login", {"name": "admin", "password": one_time})
    headers = {"Cookie": login[1]["set-cookie"].partition(";")[0], "X-CSRF-Token": login[2]["csrf"]}
    caller.good("POST", "/api/v1/password", {"old": one_time, "new": PASSWORD}, **headers)
    given = {"name": "admin", "password": PASSWORD, "kind": "token"}
    caller.token = caller.good("POST", "/api/v1/login", given)["token"]
    nobody = Caller(port, ca)
    token = enrol(caller, nobody, "d1")["token"]
    nobody.connection.close()
    caller.connection.close()

    acked: set[str] = set()
    hits: set[str] = set()
    again = [0]
    over = threading.Event()
    problems: list[str] = []

    def send() -> None:
        caller = Caller(port, ca, token)
        while not over.is_set():
            rows = [message("hit", hit_body()) for _ in range(8)]
            waiting = {row["id"] for row in rows}
            hits.update(row["body"]["id"] for row in rows)
            while waiting:
                try:
                    status, _, value = caller.ask("POST", "/api/v1/device/messages", batch(*rows))
                except (OSError, http.client.HTTPException):
                    again[0] += 1
                    caller.connection.close()
                    time.sleep(0.02)
                    continue
                if status != 200 or value["rejected"]:
                    problems.append(f"{status} {value}")
                    return
                acked.update(value["acks"])
                waiting -= set(value["acks"])
        caller.connection.close()

    sender = threading.Thread(target=send)
    sender.start()
    for _ in range(kills):
        time.sleep(randomly.uniform(0.02, 0.25))
        before = len(acked)
        os.kill(pid, signal.SIGKILL)
        pid = int(line_of(process, "pid").split()[1])
        line_of(process, "station on")
        until_s = time.monotonic() + 20
        while len(acked) == before and not problems and time.monotonic() < until_s:
            time.sleep(0.01)
        assert len(acked) > before, problems
    over.set()
    sender.join(30)
    assert not problems and again[0] >= kills
    os.kill(pid, signal.SIGTERM)
    assert line_of(process, "ended") == "ended 0\n"  # in order, status 0
    with sqlite3.connect(data / "records.sqlite") as connection:
        kept = [row[0] for row in connection.execute("SELECT id FROM messages")]
        shown = [row[0] for row in connection.execute("SELECT id FROM hits")]
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    assert acked == set(kept) and len(kept) == len(acked)
    assert sorted(shown) == sorted(hits)
    print(f"{kills} kills, {len(acked)} acknowledged, {again[0]} tries that failed")


def test_a_station_that_cannot_start_says_why(
    command: Callable[..., tuple[Any, str, str]],
    station: Station,
    server: Server,
    tmp_path: Path,
    tiny_bundle: Bundle,
) -> None:
    def start(*arguments: object) -> tuple[Any, str]:
        status, _, text = command(station_command, "--log", "text", "--data", tmp_path / "d", *arguments)
        return status, text

    bundle = ("--bundle", tiny_bundle.path)
    status, text = start("--listen", f"127.0.0.1:{server.port}", *bundle)
    assert status == 1 and "cannot listen" in text
    assert "expected a port" in start("--listen", "nowhere", *bundle)[1]
    assert "belong together" in start("--cert", tmp_path / "x", *bundle)[1]
    status, text = start("--bundle", tmp_path / "none")
    assert status == 1 and "none" in text
    status, text = start("--name", "no name", *bundle)
    assert status == 1 and "host name" in text

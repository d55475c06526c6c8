"""Who may ask the station what; and that no request, however hostile, gets more than a refusal."""

from __future__ import annotations

import copy
import http.client
import json
import os
import random
import socket
import sqlite3
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

for _package in ("argon2", "cryptography", "onnxruntime", "starlette", "uvicorn"):
    pytest.importorskip(_package)

import argon2

from tagclip.runtime.bundle import Bundle
from tagclip.runtime.ids import uuid7
from tagclip.runtime.station import server as server_module
from tagclip.runtime.station.app import ROUTES
from tagclip.runtime.station.limits import Attempts
from tagclip.runtime.station.server import Server
from tagclip.runtime.station.station import Encoder, Station, say_address
from tagclip.runtime.station.store import digest
from tagclip.runtime.station.tls import own_identity

PASSWORD = "correct horse battery"
COOKIE = "__Host-tagclip"
V1 = "/api/v1"
HIT = str(uuid7())


class World:
    """A station that runs, with somebody of every kind."""

    def __init__(self, folder: Path, bundle: Path) -> None:
        self.station = Station(folder, own_identity(folder / "tls", ["127.0.0.1"]), Encoder(bundle))
        # argon2 all the same, but hundreds of times as fast as it is meant to be.
        self.station.users._hasher = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
        self.tokens: dict[str, str] = {}
        for name, role in (("root", "admin"), ("olga", "operator"), ("rita", "reviewer"), ("dora", "admin")):
            one_time = self.station.users.add(name, role, "test")
            self.station.users.set_password(name, one_time, PASSWORD)
            login = self.station.users.login(name, PASSWORD, "test", token=True)
            assert login
            self.tokens[name] = login.secret
        self.station.users.change("dora", "test", disabled=True)
        login = self.station.users.login("rita", PASSWORD, "test", token=True)
        assert login
        self.tokens["late"] = login.secret  # rita's, but ended
        with self.station.database.write() as connection:
            connection.execute("UPDATE sessions SET expires_s = 1 WHERE token = ?", (digest(login.secret),))
        for name in ("d1", "gone"):
            code, _ = self.station.store.make_code(name, "test")
            self.tokens[name] = str(self.station.store.enrol(code, name, "1", None, "test"))
        self.station.store.dismiss("gone", "test")
        self.tokens["garbage"] = "garbage"
        self.tokens["nobody"] = ""


class Caller:
    """Asks over one connection that is kept; `ask` gives (status, headers, body)."""

    def __init__(self, port: int, ca: Path) -> None:
        self.context = ssl.create_default_context(cafile=str(ca))
        self.connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=self.context)

    def ask(
        self, method: str, path: str, body: Any = None, token: str = "", **headers: str
    ) -> tuple[int, Any, Any]:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        sent = {"Content-Type": "application/json"}
        if token:
            sent["Authorization"] = f"Bearer {token}"
        self.connection.request(method, path, data, {**sent, **headers})
        answer = self.connection.getresponse()
        content = answer.read()
        is_json = answer.headers.get("content-type") == "application/json"
        return answer.status, answer.headers, json.loads(content) if content and is_json else content


@pytest.fixture(scope="module")
def world(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("station") / "data", tiny_bundle.path)
    yield world
    world.station.close()


@pytest.fixture(scope="module")
def server(world: World) -> Iterator[Server]:
    with Server(world.station, ("127.0.0.1", 0)) as server:
        say_address(world.station.data, f"127.0.0.1:{server.port}", world.station.identity.fingerprint())
        yield server


@pytest.fixture
def caller(world: World, server: Server) -> Iterator[Caller]:
    station = world.station
    station.enrol_tries, station.login_tries, station.name_tries = Attempts(5), Attempts(20), Attempts(10)
    caller = Caller(server.port, station.identity.ca)
    yield caller
    caller.connection.close()


ALL, NONE = {"root", "olga", "rita"}, set[str]()
# Written by hand, not made out of the code: (method, path, body) -> who may.
MAY: dict[tuple[str, str, str], set[str]] = {
    ("GET", "/health", ""): {"anyone"},
    ("GET", "/ca.pem", ""): {"anyone"},
    ("POST", "/enrol", '{"code": "x", "device": "d9", "public": {"version": "1", "encoder_id": null}}'): {
        "anyone"
    },
    ("POST", "/login", '{"name": "olga", "password": "wrong"}'): {"anyone"},
    ("POST", "/device/messages", '{"device": "d1", "messages": [], "status": {}}'): {"d1"},
    ("GET", "/device/queries", ""): {"d1"},
    ("GET", "/queries", ""): ALL,
    ("POST", "/queries", '{"text": "red", "reason": "test"}'): {"root", "olga"},
    ("PATCH", "/queries/{id}", '{"alarms_per_hour": 2}'): {"root", "olga"},
    ("DELETE", "/queries/{id}", ""): {"root", "olga"},
    ("GET", "/queries/{id}/candidates", ""): ALL,
    ("GET", "/search", ""): ALL,
    ("GET", "/tracks/{id}/picture", ""): ALL,
    ("GET", "/hits", ""): ALL,
    ("GET", "/hits/{id}/picture", ""): ALL,
    ("DELETE", "/hits/{id}", ""): {"root"},
    ("GET", "/export/hits", ""): ALL,
    ("POST", "/hits/{id}/review", '{"review": "rejected"}'): {"root", "rita"},
    ("GET", "/devices", ""): ALL,
    ("DELETE", "/devices/{name}", ""): {"root"},
    ("POST", "/enrolments", '{"device": "d8"}'): {"root"},
    ("GET", "/quarantine", ""): {"root"},
    ("GET", "/audit", ""): {"root"},
    ("GET", "/users", ""): {"root"},
    ("POST", "/users", '{"name": "new", "role": "reviewer"}'): {"root"},
    ("PATCH", "/users/{name}", '{"role": "operator"}'): {"root"},
    ("GET", "/bundles", ""): {"root"},
    ("POST", "/bundles", '{"digest": "d", "devices": null}'): {"root"},
    ("PUT", "/bundles/{digest}/{name}", '"some bytes"'): {"root"},
    ("DELETE", "/bundles/{digest}", ""): {"root"},
    ("GET", "/device/bundle", ""): {"d1"},
    ("GET", "/device/bundle/{digest}/{name}", ""): {"d1"},
    ("GET", "/me", ""): ALL,
    ("GET", "/openapi.json", ""): ALL,
    ("POST", "/password", '{"old": "wrong", "new": "another long one"}'): ALL,
    ("POST", "/logout", ""): ALL,
}


def state(world: World) -> str:
    """Everything that a request could have changed, but for the audit log and when somebody was seen."""
    tables = ("users", "queries", "query_set", "hits", "pictures", "quarantine", "enrolments", "messages")
    tables += ("tracks", "wanted_pictures")
    with world.station.database.read() as connection:
        rows = {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in tables}
        rows["devices"] = connection.execute("SELECT name, token FROM devices").fetchall()
        rows["sessions"] = connection.execute("SELECT token FROM sessions ORDER BY token").fetchall()
    return repr(rows)


def test_the_table_has_every_route() -> None:
    assert {(method, V1 + path) for method, path, _ in MAY} == {
        (route.method, route.path) for route in ROUTES
    }


@pytest.mark.parametrize("who", ["nobody", "garbage", "late", "gone", "dora", "d1", "rita", "olga"])
def test_nobody_may_do_more_than_the_table_says(world: World, caller: Caller, who: str) -> None:
    before = state(world)
    denied = 0
    for (method, path, body), may in MAY.items():
        if may & {who, "anyone"}:
            continue
        target = V1 + path.replace("{id}", HIT).replace("{name}", "d1")
        status, _, value = caller.ask(method, target, body.encode() or None, world.tokens[who])
        is_user = who in ("rita", "olga") and "device" not in path.split("/")
        assert status == (403 if is_user else 401), (method, path, value)
        assert set(value) == {"error"}
        denied += 1
    assert denied >= 5 and state(world) == before


@pytest.mark.parametrize("who", ["d1", "rita", "olga", "root"])
def test_everybody_may_do_what_the_table_says(world: World, caller: Caller, who: str) -> None:
    for (method, path, body), may in MAY.items():
        if who not in may or path in ("/logout", "/users"):
            continue
        target = V1 + path.replace("{id}", HIT).replace("{name}", "none")
        status, _, value = caller.ask(method, target, body.encode() or None, world.tokens[who])
        wrong_password = path == "/password" and status == 403 and "old password" in value["error"]
        assert status in (200, 201, 204, 400, 404) or wrong_password, (method, path, status, value)


def test_nobody_learns_from_what_is_open(world: World, caller: Caller) -> None:
    assert caller.ask("GET", f"{V1}/health")[2] == {"status": "ok"}
    wrong = caller.ask("POST", f"{V1}/login", {"name": "olga", "password": "wrong"})
    unknown = caller.ask("POST", f"{V1}/login", {"name": "nobody", "password": "wrong"})
    disabled = caller.ask("POST", f"{V1}/login", {"name": "dora", "password": PASSWORD})
    assert wrong[0] == unknown[0] == disabled[0] == 403 and wrong[2] == unknown[2] == disabled[2]
    for path in ("/", "/docs", "/api/v1", "/api/v2/hits", "/openapi.json", "/api/v1/hits/", "//api/v1/hits"):
        status, _, value = caller.ask("GET", path)
        assert status in (303, 307, 404) and b"root" not in json.dumps(str(value)).encode(), path
    assert caller.ask("PUT", f"{V1}/hits")[0] == 405


def log_in(caller: Caller, name: str) -> tuple[str, str, Any]:
    status, headers, value = caller.ask("POST", f"{V1}/login", {"name": name, "password": PASSWORD})
    assert status == 200, value
    return headers["set-cookie"].partition(";")[0], value["csrf"], headers["set-cookie"]


def test_a_page_of_another_site_can_change_nothing(world: World, caller: Caller) -> None:
    cookie, csrf, whole = log_in(caller, "olga")
    assert cookie.startswith(f"{COOKIE}=")
    assert {"Secure", "HttpOnly", "SameSite=Strict", "Path=/"} <= {part.strip() for part in whole.split(";")}
    _, others, _ = log_in(caller, "rita")
    body = {"text": "red", "reason": "test"}
    before = state(world)
    for headers in ({}, {"X-CSRF-Token": ""}, {"X-CSRF-Token": "wrong"}, {"X-CSRF-Token": others}):
        assert caller.ask("POST", f"{V1}/queries", body, Cookie=cookie, **headers)[0] == 403
        assert caller.ask("DELETE", f"{V1}/queries/{HIT}", Cookie=cookie, **headers)[0] == 403
        assert caller.ask("POST", f"{V1}/logout", Cookie=cookie, **headers)[0] == 403
    assert state(world) == before
    good = {"Cookie": cookie, "X-CSRF-Token": csrf}
    assert caller.ask("GET", f"{V1}/hits", Cookie=cookie)[0] == 200
    assert caller.ask("POST", f"{V1}/queries", body, **good)[0] == 201
    # What a form of another site can send, even where it got hold of the header.
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        form = {"Content-Type": kind}
        assert caller.ask("POST", f"{V1}/queries", body, **good, **form)[0] == 415
        given = {"name": "olga", "password": PASSWORD}
        assert caller.ask("POST", f"{V1}/login", given, **form)[0] == 415
    assert caller.ask("POST", f"{V1}/logout", **good)[0] == 200
    assert caller.ask("GET", f"{V1}/hits", Cookie=cookie)[0] == 401
    # A session is no token and a token no session.
    cookie, _, _ = log_in(caller, "olga")
    assert caller.ask("GET", f"{V1}/hits", token=cookie.partition("=")[2])[0] == 401
    assert caller.ask("GET", f"{V1}/hits", Cookie=f"{COOKIE}={world.tokens['olga']}")[0] == 401


def test_a_one_time_password_opens_nothing_but_its_change(world: World, caller: Caller) -> None:
    status, _, value = caller.ask(
        "POST", f"{V1}/users", {"name": "fred", "role": "admin"}, world.tokens["root"]
    )
    assert status == 201
    given = {"name": "fred", "password": value["one_time_password"]}
    assert caller.ask("POST", f"{V1}/login", given | {"kind": "token"})[0] == 403
    _, headers, login = caller.ask("POST", f"{V1}/login", given)
    assert login["must_change_password"] is True
    with_ = {"Cookie": headers["set-cookie"].partition(";")[0], "X-CSRF-Token": login["csrf"]}
    for method, path, body in MAY:
        target = V1 + path.replace("{id}", HIT).replace("{name}", "d1")
        if path in ("/health", "/ca.pem", "/enrol", "/login", "/me", "/password", "/logout"):
            continue
        assert caller.ask(method, target, body.encode() or None, **with_)[0] in (401, 403), path
    new = {"old": value["one_time_password"], "new": "fred's own password"}
    assert caller.ask("POST", f"{V1}/password", new | {"new": "short"}, **with_)[0] == 400
    assert caller.ask("POST", f"{V1}/password", new, **with_)[0] == 200
    assert caller.ask("GET", f"{V1}/me", **with_)[0] == 401  # all sessions ended
    _, headers, login = caller.ask("POST", f"{V1}/login", {"name": "fred", "password": "fred's own password"})
    assert login["must_change_password"] is False
    cookie = headers["set-cookie"].partition(";")[0]
    assert caller.ask("GET", f"{V1}/users", Cookie=cookie)[0] == 200
    # A change by an admin ends what the user had.
    assert caller.ask("PATCH", f"{V1}/users/fred", {"disabled": True}, world.tokens["root"])[0] == 200
    assert caller.ask("GET", f"{V1}/me", Cookie=cookie)[0] == 401


def test_logins_are_limited_by_name_and_by_address(world: World, caller: Caller) -> None:
    def log_in_as(name: str, password: str = "wrong", **headers: str) -> tuple[int, Any]:
        status, answer, _ = caller.ask("POST", f"{V1}/login", {"name": name, "password": password}, **headers)
        return status, answer

    assert [log_in_as("rita")[0] for _ in range(10)] == [403] * 10
    status, headers = log_in_as("rita", PASSWORD)
    assert status == 429 and 0 < int(headers["retry-after"]) <= 60
    assert log_in_as("olga", PASSWORD)[0] == 200  # others get in, and what was right does not count
    assert [log_in_as(f"x{n}")[0] for n in range(9)] == [403] * 9
    assert log_in_as("olga", PASSWORD)[0] == 429  # 20 of this address
    # Nobody chooses the address that is counted.
    assert (
        log_in_as("olga", PASSWORD, **{"X-Forwarded-For": "192.0.2.9", "Forwarded": "for=192.0.2.9"})[0]
        == 429
    )


def test_log_ins_at_once_take_neither_memory_nor_the_threads_of_devices(world: World, caller: Caller) -> None:
    turn = world.station.users._turn
    assert turn.acquire() and turn.acquire()  # two are being hashed, and go on for long
    try:
        status, headers, _ = caller.ask("POST", f"{V1}/login", {"name": "olga", "password": PASSWORD})
        assert status == 503 and int(headers["retry-after"]) > 0
        body = {"device": "d1", "messages": [], "status": {}}
        assert caller.ask("POST", f"{V1}/device/messages", body, world.tokens["d1"])[0] == 200
    finally:
        turn.release(2)
    assert caller.ask("POST", f"{V1}/login", {"name": "olga", "password": PASSWORD})[0] == 200


def test_codes_cannot_be_guessed(world: World, caller: Caller) -> None:
    _, _, value = caller.ask("POST", f"{V1}/enrolments", {"device": "d5"}, world.tokens["root"])
    code = value["enrolment"].split(":")[-2]
    body = {"code": "a" * 24, "device": "d5", "public": {"version": "1", "encoder_id": None}}
    assert [caller.ask("POST", f"{V1}/enrol", body)[0] for _ in range(5)] == [403] * 5
    status, headers, _ = caller.ask("POST", f"{V1}/enrol", body | {"code": code})
    assert status == 429 and int(headers["retry-after"]) > 0
    world.station.enrol_tries = Attempts(5)
    assert caller.ask("POST", f"{V1}/enrol", body | {"code": code, "device": "d1"})[0] == 403
    assert caller.ask("POST", f"{V1}/enrol", body | {"code": code})[0] == 200
    assert caller.ask("POST", f"{V1}/enrol", body | {"code": code})[0] == 403


def test_bodies_are_bounded_before_they_are_read(world: World, caller: Caller) -> None:
    token = world.tokens["d1"]
    most = 1 << 20
    assert caller.ask("POST", f"{V1}/device/messages", b" " * most, token)[0] == 400
    with pytest.raises((OSError, http.client.HTTPException)):
        # Refused by its length; the connection may end while the rest is still sent, that too is a refusal.
        assert caller.ask("POST", f"{V1}/device/messages", b" " * (most + 1), token)[0] == 413
        raise OSError
    caller.connection.close()

    def parts() -> Iterator[bytes]:
        for _ in range(most // 65536 + 4):
            yield b" " * 65536

    status = 413
    try:
        headers = {"Authorization": f"Bearer {token}"}
        caller.connection.request("POST", f"{V1}/device/messages", parts(), headers, encode_chunked=True)
        status = caller.connection.getresponse().status
    except (OSError, http.client.HTTPException):
        pass
    assert status == 413
    caller.connection.close()
    # Refused before the body, which is read to its end so that the answer arrives.
    assert caller.ask("POST", f"{V1}/device/messages", b" " * most, "wrong")[0] == 401


def test_what_is_nested_deep_is_refused(world: World, caller: Caller) -> None:
    # One by one where Python's own limit is near: there it still reads what it cannot quote in a message.
    for depth in (50, 400, *range(860, 1000), 20_000):
        deep = b"[" * depth + b"]" * depth
        assert caller.ask("POST", f"{V1}/login", b'{"name": ' + deep + b', "password": "x"}')[0] == 400, depth
        body = b'{"device": "d1", "messages": [{"id": "x", "kind": ' + deep + b'}], "status": {}}'
        status, _, value = caller.ask("POST", f"{V1}/device/messages", body, world.tokens["d1"])
        assert status == 400 or [row["id"] for row in value["rejected"]] == ["x"], depth


def test_no_answer_tells_how_the_station_is_built(
    world: World, caller: Caller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise ValueError("secret detail of /work/somewhere")

    monkeypatch.setattr(world.station.store, "devices", broken)
    status, headers, value = caller.ask("GET", f"{V1}/devices", token=world.tokens["root"])
    assert status == 500 and "secret" not in str(value) and "Traceback" not in str(value)
    assert "secret detail" in caplog.text  # the log has it

    def full(*_: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(world.station.store, "take", full)
    body = {"device": "d1", "messages": [], "status": {}}
    status, headers, value = caller.ask("POST", f"{V1}/device/messages", body, world.tokens["d1"])
    assert status == 503 and headers["retry-after"] and "disk" not in str(value)


def test_every_answer_has_the_headers_that_bind_browsers(world: World, caller: Caller) -> None:
    for path, token in (
        ("/health", ""),
        ("/hits", ""),
        ("/hits", "root"),
        ("/x", ""),
    ):
        _, headers, _ = caller.ask("GET", V1 + path, token=world.tokens.get(token, ""))
        assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store"
        assert "default-src 'none'" in headers["content-security-policy"] and headers["date"]
        assert "server" not in headers and "access-control-allow-origin" not in headers


def test_an_answer_does_not_wait_for_an_acknowledgement(caller: Caller) -> None:
    """Nagle's algorithm and a delayed acknowledgement would make 40 ms of every answer."""
    took_s = []
    for _ in range(40):
        began_s = time.monotonic()
        caller.ask("GET", f"{V1}/health")
        took_s.append(time.monotonic() - began_s)
    assert sorted(took_s)[20] < 0.03


def test_what_people_do_is_in_the_log(world: World, caller: Caller) -> None:
    root = world.tokens["root"]
    last = max(row["row"] for row in caller.ask("GET", f"{V1}/audit?limit=1000", token=root)[2]["rows"])
    caller.ask("POST", f"{V1}/login", {"name": "rita", "password": "wrong"})
    log_in(caller, "rita")
    caller.ask("GET", f"{V1}/hits?device=d1", token=world.tokens["rita"])
    _, _, query = caller.ask("POST", f"{V1}/queries", {"text": "blue", "reason": "why"}, world.tokens["olga"])
    caller.ask("DELETE", f"{V1}/queries/{query['id']}", token=world.tokens["olga"])
    rows = caller.ask("GET", f"{V1}/audit?after={last}", token=root)[2]["rows"]
    told = [(row["who"], row["action"]) for row in rows]
    assert told == [
        ("", "login.refused"),
        ("rita", "login"),
        ("rita", "hits.search"),
        ("olga", "query.add"),
        ("olga", "query.remove"),
    ]
    assert rows[2]["facts"] == {"device": "d1"} and rows[3]["facts"]["reason"] == "why"
    assert PASSWORD not in json.dumps(rows) and "wrong" not in json.dumps(rows)


def test_connections_that_say_nothing_are_ended(
    world: World, server: Server, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "HEADERS_S", 0.4)

    def connect() -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        return caller.context.wrap_socket(plain, server_hostname="127.0.0.1")

    for sent in (b"", b"GET /api/v1/hea", b"GET /api/v1/health HTTP/1.1\r\nHost: x\r\n\r\nGET /api/v1/"):
        with connect() as connection:
            connection.sendall(sent)
            began_s = time.monotonic()
            with _ignored():
                while connection.recv(4096):
                    pass
            assert time.monotonic() - began_s < 5, sent
    with connect() as connection:  # garbage gets a refusal
        connection.sendall(b"\x00\xff garbage \r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 400")
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as plain:  # and without TLS nothing
        plain.sendall(b"GET /api/v1/health HTTP/1.1\r\nHost: x\r\n\r\n")
        with _ignored():
            assert b"HTTP/1.1 200" not in plain.recv(4096)
    assert caller.ask("GET", f"{V1}/health")[0] == 200


class _ignored:
    """A connection may end in either way."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is not None and issubclass(kind, OSError)


EVIL: list[Any] = [
    None,
    True,
    0,
    -1,
    1e308,
    2**63,
    2**4000,
    "",
    "a" * 3000,
    "\x00",
    "\ud800",
    "'; DROP TABLE hits; --",
    "../../etc/passwd",
    "\u202e",
    "{}",
    [],
    {},
    [[]],
    {"a": {}},
    ["x"] * 100,
]


def mutated(value: Any, randomly: random.Random) -> Any:
    """The value with something in it replaced, removed or added."""
    value = copy.deepcopy(value)
    spot, parents = value, []
    while isinstance(spot, (dict, list)) and spot and randomly.random() < 0.8:
        key = randomly.choice(list(spot) if isinstance(spot, dict) else list(range(len(spot))))
        parents.append((spot, key))
        spot = spot[key]
    if not parents:
        return randomly.choice(EVIL)
    parent, key = parents[-1]
    choice = randomly.random()
    if choice < 0.6:
        parent[key] = randomly.choice(EVIL)
    elif choice < 0.8:
        del parent[key]
    elif isinstance(parent, dict):
        parent[str(randomly.choice(["x", "", "id", "\ud800", "__class__"]))] = randomly.choice(EVIL)
    else:
        parent.append(randomly.choice(EVIL))
    return value


def as_bytes(value: Any, randomly: random.Random) -> bytes:
    data = bytearray(json.dumps(value).encode())
    choice = randomly.random()
    if choice < 0.1:
        for _ in range(randomly.randint(1, 4)):
            data[randomly.randrange(len(data))] = randomly.randrange(256)
    elif choice < 0.15:
        del data[randomly.randrange(len(data)) :]
    elif choice < 0.2:
        return b"[" * 50_000
    elif choice < 0.22:
        return b'{"a":' * 20_000
    elif choice < 0.24:
        return b'{"device": NaN, "device": 1e999}'
    return bytes(data)


def seeds() -> list[tuple[str, str, Any]]:
    hit = {"id": str(uuid7()), "revision": 1, "query_id": "q", "query": "red", "track_id": str(uuid7())}
    hit |= {
        "camera": "c",
        "view": "ground",
        "encoder_id": "e",
        "score": 0.5,
        "p_value": 0.1,
        "threshold": 0.4,
    }
    hit |= {
        "false_alarms_per_hour": None,
        "start_s": 1.0,
        "end_s": 2.0,
        "best_s": 1.5,
        "frame": 0,
        "crops": 1,
    }
    hit |= {"box_xywh_px": [1, 2, 3, 4], "frame_px": [640, 480], "place": None, "review": "unreviewed"}
    row = {
        "id": str(uuid7()),
        "device": "d1",
        "kind": "hit",
        "made_s": 1.0,
        "boot_id": str(uuid7()),
        "seq": 1,
    }
    picture = row | {"id": str(uuid7()), "kind": "picture"}
    picture |= {"body": {"hit_id": hit["id"], "revision": 1, "jpeg": "/9j/4AAA"}}
    batch = {"device": "d1", "messages": [row | {"body": hit}, picture], "status": {"depth": 1}}
    made = [(method, V1 + path, json.loads(body) if body else None) for method, path, body in MAY]
    return [*made, *[("POST", f"{V1}/device/messages", batch)] * 8]


def path_of(path: str, randomly: random.Random) -> str:
    names = [HIT, "d1", "%00", "%ff%fe", "..%2f..", "a" * 200, "'%20OR%201=1", "%F0%9F%98%80", "0"]
    path = path.replace("{id}", randomly.choice(names)).replace("{name}", randomly.choice(names))
    if randomly.random() < 0.3:
        names = ["revision", "wait_s", "limit", "after", "since", "query", "device", "review", "x", "%00"]
        values = ["0", "-1", "1e400", "nan", "9" * 40, "%00", "%ff", "", "'", "1", "%d9%a1", "inf"]
        pairs = [f"{randomly.choice(names)}={randomly.choice(values)}" for _ in range(randomly.randint(1, 3))]
        path += "?" + "&".join(pairs)
    return path


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_thousands_of_malformed_requests_get_refusals(world: World, caller: Caller, server: Server) -> None:
    """The seed is fixed; TAGCLIP_REQUESTS and TAGCLIP_SEED ask for more and others."""
    count = int(os.environ.get("TAGCLIP_REQUESTS", "2000"))
    randomly = random.Random(int(os.environ.get("TAGCLIP_SEED", "11")))
    one_time = world.station.users.add("mallory", "admin", "test")
    world.station.users.set_password("mallory", one_time, PASSWORD)

    def again() -> list[str]:
        """Tokens for who asks next; mallory may have logged out, have disabled herself or have removed d1."""
        if world.station.store.device_of(world.tokens["d1"]) is None:
            code, _ = world.station.store.make_code("d1", "test")
            world.tokens["d1"] = str(world.station.store.enrol(code, "d1", "1", None, "test"))
        world.station.users.change("mallory", "test", role="admin", disabled=False)
        login = world.station.users.login("mallory", PASSWORD, "test", token=True)
        assert login
        return ["", "garbage", *[world.tokens["d1"]] * 3, *[login.secret] * 4]

    known = seeds()
    statuses: dict[int, int] = {}
    size_bytes = files = 0
    for number in range(count):
        if number % 10 == 0:
            tokens = again()
        if number == count // 4:  # caches are warm
            size_bytes, files = resident_bytes(), len(os.listdir("/proc/self/fd"))
        method, path, body = randomly.choice(known)
        if randomly.random() < 0.05:
            method = randomly.choice(["PUT", "TRACE", "OPTIONS", "HEAD", "DELETE", "PATCH", "XYZ"])
        # Mostly somebody who may, or hardly anything would be read.
        right = world.tokens["d1"] if "/device/" in path else tokens[-1]
        token = right if randomly.random() < 0.85 else randomly.choice(tokens)
        data = None if body is None else as_bytes(mutated(body, randomly), randomly)
        headers = {}
        if randomly.random() < 0.1:
            names = [
                "Cookie",
                "Content-Type",
                "Content-Encoding",
                "X-CSRF-Token",
                "Authorization",
                "Expect",
                "Upgrade",
            ]
            value = randomly.choice(
                ["", "\xff\xfe", "gzip", "a" * 5000, "Bearer", "Basic Og==", f"{COOKIE}=x", "br"]
            )
            headers[randomly.choice(names)] = value
        try:
            status, _, _ = caller.ask(method, path_of(path, randomly), data, token, **headers)
        except (http.client.RemoteDisconnected, ConnectionError, ssl.SSLError):
            caller.connection.close()  # what is no HTTP is refused by ending the connection
            status = 0
        assert status < 500, (number, method, path, data)
        if path in (f"{V1}/logout", f"{V1}/devices/{{name}}"):
            tokens = again()
        statuses[status] = statuses.get(status, 0) + 1
    told = f"{size_bytes / 1e6:.1f} MB and {files} files when warm, now {resident_bytes() / 1e6:.1f} MB"
    print(statuses, told, len(os.listdir("/proc/self/fd")))
    assert (
        sum(statuses.values()) == count
        and statuses.get(400, 0) > count / 4
        and statuses.get(0, 0) < count / 20
    )
    assert resident_bytes() - size_bytes < 30e6 and len(os.listdir("/proc/self/fd")) <= files + 4
    assert server.alive() and caller.ask("GET", f"{V1}/hits", token=world.tokens["root"])[0] == 200
    from tagclip.runtime.station.audit import verify_audit

    assert verify_audit(world.station.database).broken is None

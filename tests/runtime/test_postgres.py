"""Records in PostgreSQL: the same as in SQLite, durable through the server's death, refused where they would not be.

With a real server (postgres_server.py). TAGCLIP_KILLS says how often it is killed; all tests of test_station_store.py
run on it, too, with TAGCLIP_ENGINES=all.
"""

from __future__ import annotations

import ast
import importlib
import itertools
import json
import os
import secrets
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

pytest.importorskip("argon2")
pytest.importorskip("cryptography")
pytest.importorskip("pg8000")

from tagclip.runtime.bundle import Bundle
from tagclip.runtime.errors import ConfigError, StoreError, SyncError
from tagclip.runtime.keys import PrivateKey
from tagclip.runtime.station import cli, page_records
from tagclip.runtime.station.audit import audit_page, verify_audit
from tagclip.runtime.station.database import Database
from tagclip.runtime.station.postgres import PostgresDatabase
from tagclip.runtime.station.postgres_address import parse_address
from tagclip.runtime.station.queries import Queries
from tagclip.runtime.station.records import DATABASE, choose_database
from tagclip.runtime.station.retention import forget
from tagclip.runtime.station.server import Server
from tagclip.runtime.station.station import Encoder, Station, open_records, signing_key
from tagclip.runtime.station.store import Filter, Store
from tagclip.runtime.station.tls import own_identity
from tagclip.runtime.station.users import Users
from tagclip.runtime.sync_https import HttpsCarrier
from tagclip.runtime.sync_messages import HIT, Batch

ROOT = Path(__file__).parents[2] / "runtime" / "station"
JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256))


def uuid_of(number: int) -> str:
    """A UUID of version 7."""
    return f"01900000-0000-7000-8000-{number:012x}"


def hit(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": uuid_of(number), "revision": 1, "query_id": f"q{number % 2}", "query": "a person in gr\u00fcn",
        "track_id": uuid_of(1000 + number), "camera": "gate", "view": "ground", "encoder_id": "toy", "score": 0.1,
        "p_value": 0.01, "false_alarms_per_hour": 0.2, "threshold": 0.4, "start_s": 1000.0, "end_s": 1002.0,
        "best_s": 1001.3 + number, "frame": 7, "box_xywh_px": [1.0, 2.0, 30.0, 60.0], "frame_px": [640, 480],
        "place": {"latitude_deg": 50.1 + number % 20, "longitude_deg": 8.7, "error_m": 3.5} if number % 2 else None,
        "crops": 3, "review": "unreviewed",
    } | changes  # fmt: skip


def message(kind: str, number: int, body: dict[str, Any], device: str = "d1") -> dict[str, Any]:
    return {
        "id": uuid_of(2000 + number), "device": device, "kind": kind, "made_s": 1001.5, "boot_id": uuid_of(9),
        "seq": number, "body": body,
    }  # fmt: skip


@pytest.fixture
def database(postgres: Any) -> Iterator[Database]:
    postgres.empty()
    database = PostgresDatabase(parse_address(postgres.url))
    yield database
    database.close()


def live(database: Database, key: PrivateKey) -> list[Any]:
    """A bit of everything that a station does to its records; what it answered."""
    import base64

    store, users = Store(database), Users(database)
    told: list[Any] = []
    for device in ("d1", "d2"):
        code, _ = store.make_code(device, "ann")
        assert store.enrol("wrong", device, "1", None, "::1") is None
        token = store.enrol(code, device, "1", "toy", "::1")
        told += [token, store.device_of(token or ""), store.device_of("no\0body")]
    store.saw("d1", 7)
    picture = {"hit_id": uuid_of(1), "revision": 1, "jpeg": base64.b64encode(JPEG).decode()}
    rows: list[Any] = [message("hit", number, hit(number)) for number in range(1, 7)]
    rows += [message("picture", 10, picture), message("hit", 11, hit(1, revision=3, score=0.5))]
    rows += [message("hit", 12, hit(1, revision=2)), rows[0], {"id": "no", "kind": "\0\ud800"}, "nothing", 7]
    told.append(store.take(Batch("d1", rows, {"depth": 3})))
    told.append(store.take(Batch("d2", [message("hit", 13, hit(2, revision=9), "d2")], {})))
    told += [
        store.quarantine(),
        store.devices(),
        store.picture(uuid_of(1), "ann"),
        store.picture("\0", "ann"),
    ]
    told += [store.review(uuid_of(2), "confirmed", "ann"), store.review("\0", "confirmed", "ann")]
    for where in (
        Filter(),
        Filter("q1", "d1", 1003.0, "unreviewed"),
        Filter(review="confirmed"),
        Filter("\0"),
    ):
        told += [store.hits(where, None, 3, "ann"), page_records.counts(database, where)]
        told += [store.hits(where, 5, 2, "ann"), page_records.places(database, where, 10)]
    told += [page_records.counts_by_query(database), page_records.counts_by_device(database)]
    told += [page_records.queries_of_hits(database), page_records.neighbours(database, hit(3, device="d1"))]
    told += [page_records.hits_of(database, [uuid_of(1), uuid_of(4), "no"], Filter("q1"))]
    told += [page_records.audit(database, 9, 3)]

    query = {"text": "red", "view": "auto", "vector": [0.6, 0.8], "encoder_id": "toy", "reason": "lost"}
    query |= {"alarms_per_hour": None, "alarms_per_1000": None, "expires_s": None}
    rung: list[int] = []
    queries = Queries(database, key, rung.append)
    ids = [queries.add(query | {"expires_s": ends}, "ann")["id"] for ends in (None, 5e9, time.time() + 1)]
    told += [queries.remove(ids[0], "ann"), queries.remove("\0", "ann"), len(queries.listed())]
    queries.renew()
    told += [rung, queries.current(), Queries(database, key, rung.append).current() == queries.current()]

    one = users.add("ann", "admin", "test"), users.add("bob", "reviewer", "test")
    with pytest.raises(ConfigError, match="already"):
        users.add("bob", "operator", "test")
    with pytest.raises(ConfigError, match="last admin"):
        users.change("ann", "test", disabled=True)
    told += [users.set_password("bob", one[1], "a long password"), users.login("ann", "wrong", "::1")]
    login = users.login("bob", "a long password", "::1")
    assert login and login.csrf and users.login("nobody", "x", "::1") is None
    token = users.login("bob", "a long password", "::1", token=True)
    told += [users.user_of(login.secret, cookie=True), users.user_of(login.secret, cookie=False)]
    assert token and users.user_of(token.secret, cookie=False)
    told += [
        users.change("bob", "ann", role="operator", disabled=True),
        users.change("bob", "ann", disabled=False),
    ]
    told += [
        len(users.change("bob", "ann", reset=True) or ""),
        users.users(),
        users.user_of(token.secret, cookie=False),
    ]
    for keep in (MAX_AGE_DAYS, 0.0):
        told += [
            forget(database, time.time() + 3600, keep, 1 << 40),
            forget(database, time.time(), 1000.0, 2500),
        ]
    told += [audit_page(database, 3, 5), verify_audit(database)]
    return told


MAX_AGE_DAYS = 30.0


def tables(database: Database) -> dict[str, list[Any]]:
    with sqlite3.connect(":memory:") as names:
        from tagclip.runtime.station.database import FORMS

        for statement in itertools.chain(*FORMS):
            names.execute(statement)
        found = names.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
        )
    with database.read() as connection:
        return {
            name: connection.execute(f"SELECT * FROM {name} ORDER BY 1, 2").fetchall()
            if name not in ("query_set", "picture_keys", "pictures")
            else connection.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall()
            for (name,) in found
        }


def test_both_engines_keep_and_answer_the_same(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = signing_key(tmp_path)
    found = []
    for engine in (database, Database(tmp_path / "records.sqlite")):
        # The same clock, secrets and ids, so that everything is comparable, to the last hash of the audit log.
        clock, word, name = itertools.count(), itertools.count(), itertools.count(500)
        with monkeypatch.context() as patch:
            me = threading.get_ident()
            # Each look is an eighth of a second later; threads that another test left have the real time.
            patch.setattr(
                time,
                "time",
                lambda clock=clock, me=me, real=time.time: (
                    1_800_000_000.1 + next(clock) / 8 if threading.get_ident() == me else real()
                ),
            )
            patch.setattr(secrets, "token_urlsafe", lambda size=32, word=word: f"secret-number-{next(word)}")
            patch.setattr(
                secrets, "token_bytes", lambda size=32, word=word: bytes([next(word)]) * (size or 32)
            )
            patch.setattr("tagclip.runtime.station.queries.uuid7", lambda name=name: uuid_of(next(name)))
            told = live(engine, key)
        kept = tables(engine)
        kept["users"] = [(row[0], *row[2:]) for row in kept["users"]]  # hashes of passwords have salt
        # The one thing that may differ: PostgreSQL keeps no NUL, which a reason may quote.
        found.append((json.loads(json.dumps(told, default=repr).replace("\\u0000", "\\ufffd")), kept))
    engine.close()
    (told, kept), (expected, expected_kept) = found
    assert told == expected
    assert kept.keys() == expected_kept.keys() and len(kept) > 10
    for table, rows in expected_kept.items():
        clean = [tuple(v.replace("\0", "\ufffd") if isinstance(v, str) else v for v in row) for row in rows]
        assert kept[table] == clean, table


def statements() -> Iterator[tuple[str, str]]:
    """Every statement that the station's modules hold, with where it stands; but for those made of parts by name."""
    names = {"text": "1 = 1", "marks": "?", "columns": "id"}

    def said(node: ast.expr, module: Any) -> str:
        if isinstance(node, ast.Constant):
            return str(node.value)
        if isinstance(node, ast.JoinedStr):
            return "".join(said(part, module) for part in node.values)
        name = (
            node.value.id if isinstance(node, ast.FormattedValue) and isinstance(node.value, ast.Name) else ""
        )
        return names.get(name) or str(getattr(module, name, None) or "\0")

    for path in sorted(ROOT.glob("*.py")):
        if path.stem in ("postgres", "database", "page_tiles"):
            continue
        module = importlib.import_module(f"tagclip.runtime.station.{path.stem}")
        tree = ast.parse(path.read_text())
        parts = {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in ast.walk(tree):
            if isinstance(node, (ast.Constant, ast.JoinedStr)) and node not in parts:
                text = said(node, module)
                if (
                    text.startswith(("SELECT ", "INSERT INTO ", "UPDATE ", "DELETE FROM "))
                    and "\0" not in text
                ):
                    yield f"{path.name}:{node.lineno}", text


def test_postgres_takes_every_statement_of_the_station(database: Database) -> None:
    seen, bad = 0, []
    with database.write() as connection:
        for where, statement in statements():
            seen += 1
            try:
                connection._prepare(statement)  # type: ignore[attr-defined]  # parsed and typed, not executed
            except Exception as error:
                bad.append(f"{where}: {error} in {statement}")
                connection.execute("ROLLBACK")
                connection.execute("BEGIN IMMEDIATE")
    assert seen > 60 and not bad, "\n".join(bad)


@pytest.mark.parametrize("setting", ["synchronous_commit", "fsync", "full_page_writes"])
def test_a_server_that_forgets_is_refused(postgres: Any, setting: str) -> None:
    postgres.sql(f"ALTER SYSTEM SET {setting} = off")
    postgres.sql("SELECT pg_reload_conf()")
    try:
        end_s = time.monotonic() + 60  # a reload takes a moment
        while postgres.sql(f"SHOW {setting}") != "off" and time.monotonic() < end_s:
            time.sleep(0.02)
        with pytest.raises(StoreError, match=f"{setting} = off"):
            PostgresDatabase(parse_address(postgres.url))
    finally:
        postgres.sql(f"ALTER SYSTEM RESET {setting}")
        postgres.sql("SELECT pg_reload_conf()")
        while postgres.sql(f"SHOW {setting}") != "on":
            time.sleep(0.02)


def test_two_stations_cannot_have_one_database_but_its_console_may(database: Database, postgres: Any) -> None:
    address = parse_address(postgres.url)
    station = PostgresDatabase(address, alone=True)
    with pytest.raises(StoreError, match="another station works on"):
        PostgresDatabase(address, alone=True)
    Store(database).make_code("d1", "console")
    # A station whose connection ended has to be the only one again before it writes.
    postgres.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7220102"
    )
    other = PostgresDatabase(address, alone=True)
    with pytest.raises(StoreError, match="another station works on"):
        Store(station).make_code("d2", "late")
    other.close()
    time.sleep(1.1)
    Store(station).make_code("d2", "in time")
    station.close()
    assert verify_audit(database).rows == 2


def test_writers_of_two_processes_take_turns(database: Database, postgres: Any) -> None:
    others = [PostgresDatabase(parse_address(postgres.url)) for _ in range(2)]

    def work(one: Database) -> None:
        for number in range(20):
            Store(one).make_code(f"d{number}", "ann")

    threads = [threading.Thread(target=work, args=(one,)) for one in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in others:
        one.close()
    verdict = verify_audit(database)
    assert (verdict.rows, verdict.broken) == (
        40,
        None,
    )  # a chain whose rows were made at once would be broken


def test_a_set_is_told_though_nobody_said_that_it_was_kept(
    database: PostgresDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rung: list[int] = []
    queries = Queries(database, signing_key(tmp_path), rung.append)
    execute = database._writer.execute

    def lost(statement: str, *values: Any) -> Any:
        rows = execute(statement, *values)
        if statement == "COMMIT":
            raise StoreError("the connection was lost while it was committed")
        return rows

    query = {"text": "red", "view": "auto", "vector": None, "encoder_id": None, "reason": "lost child"}
    query |= {"alarms_per_hour": None, "alarms_per_1000": None, "expires_s": None}
    with monkeypatch.context() as patch:
        patch.setattr(database._writer, "execute", lost)
        with pytest.raises(StoreError):
            queries.add(query, "ann")
    assert queries.current()[0] == 1
    queries.renew()
    revision, document = queries.current()
    assert revision == 2 and len(json.loads(document)["queries"]) == 1 and rung == [1, 2]


def test_nothing_acknowledged_is_lost_when_the_server_is_killed(
    postgres: Any, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    kills = int(os.environ.get("TAGCLIP_KILLS", "2"))
    postgres.empty()
    data = tmp_path / "data"
    data.mkdir()
    choose_database(data, postgres.url)
    station = Station(data, own_identity(data / "tls", ["127.0.0.1"]), Encoder(tiny_bundle.path))
    code, _ = station.store.make_code("d1", "test")
    token = str(station.store.enrol(code, "d1", "1", None, "::1"))
    acked: dict[str, int] = {}
    refused: list[str] = []
    stop = threading.Event()
    with Server(station, ("127.0.0.1", 0)) as server:
        carrier = HttpsCarrier(f"127.0.0.1:{server.port}", station.identity.ca.read_text(), token)

        def send() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                row = message(HIT, number, hit(number))
                body = json.dumps({"device": "d1", "messages": [row], "status": {}}).encode()
                while row["id"] not in acked and not stop.is_set():
                    try:
                        answer = carrier.exchange(body, 30.0)
                        assert not answer.rejected
                        acked.update(dict.fromkeys(answer.acks, number))
                    except SyncError as error:
                        refused.append(f"{error} {getattr(error, 'wait_s', '')}")
                        time.sleep(0.05)

        sender = threading.Thread(target=send)
        sender.start()
        for _ in range(kills):
            before, failed = len(acked), len(refused)
            _until(lambda before=before: len(acked) > before + 5)
            postgres.kill()
            _until(lambda failed=failed: len(refused) > failed)
            postgres.start()
        before = len(acked)
        _until(lambda: len(acked) > before + 5)
        stop.set()
        sender.join()
        carrier.close()
    kept = {body["id"] for body in station.store.hits(Filter(), None, 100_000, "test")[0]}
    station.close()
    assert {hit(number)["id"] for number in acked.values()} <= kept
    assert len(kept) == int(postgres.sql("SELECT count(*) FROM hits")) <= len(acked) + 1
    assert any("503" in text for text in refused), refused[:5]
    print(f"{kills} kills, {len(acked)} acknowledged, {len(refused)} tries that failed")


def _until(true: Any) -> None:
    end_s = time.monotonic() + 120
    while not true():
        assert time.monotonic() < end_s
        time.sleep(0.01)


def test_the_folder_remembers_its_database(postgres: Any, tmp_path: Path) -> None:
    postgres.empty()
    data = tmp_path / "data"
    data.mkdir()
    choose_database(data, postgres.url)
    choose_database(data, postgres.url)
    with pytest.raises(ConfigError, match="are in postgresql://"):
        choose_database(data, postgres.url_of("other"))
    added = CliRunner().invoke(cli.station, ["user", "add", "ann", "--role", "admin", "--data", str(data)])
    assert added.exit_code == 0 and postgres.sql("SELECT name, role FROM users") == "ann|admin"
    checked = CliRunner().invoke(cli.station, ["audit", "verify", "--data", str(data)])
    assert checked.output.startswith("1 rows")
    assert not list(data.glob("records*"))
    file = tmp_path / "file"
    open_records(file).close()
    with pytest.raises(ConfigError, match="has its records in records.sqlite already"):
        choose_database(file, postgres.url)
    assert not (file / DATABASE).exists()


def test_records_of_a_newer_tagclip_are_refused(database: Database, postgres: Any) -> None:
    postgres.sql("UPDATE form SET number = 99")
    with pytest.raises(StoreError, match="newer tagclip .form 99"):
        PostgresDatabase(parse_address(postgres.url))


def test_passwords_come_from_a_file_or_the_environment(
    postgres: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres.empty()
    postgres.sql("DROP ROLE IF EXISTS secret; CREATE ROLE secret LOGIN SUPERUSER PASSWORD 'a:b\\c'")
    address = parse_address(postgres.url.replace("tagclip@", "secret@"))
    file = tmp_path / "pgpass"
    monkeypatch.setenv("PGPASSFILE", str(file))
    with pytest.raises(StoreError, match="there is no"):
        PostgresDatabase(address)
    file.write_text(f"# ours\nelsewhere:*:*:*:x\n{postgres.folder}:5432:*:secret:a\\:b\\\\c\n*:*:*:*:later\n")
    file.chmod(0o644)
    with pytest.raises(StoreError, match="others can read"):
        PostgresDatabase(address)
    file.chmod(0o600)
    PostgresDatabase(address).close()
    monkeypatch.setenv("PGPASSWORD", "wrong")
    with pytest.raises(StoreError, match="password authentication failed"):
        PostgresDatabase(address)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql://ann:secret@host/db", "PGPASSFILE"),
        ("postgresql://ann:@host/db", "PGPASSFILE"),
        ("mysql://ann@host/db", "expected postgresql://"),
        ("postgresql://ann@host", "expected postgresql://"),
        ("postgresql://ann@host:port/db", "expected postgresql://"),
        ("postgresql://ann@host/db?sslmode=prefer", "expected verify-full or disable"),
        ("postgresql://ann@host/db?password=secret", "unknown option 'password'"),
        ("postgresql://ann@host/db?host=/run", "a host stands twice"),
    ],
)
def test_urls_that_say_too_much_or_too_little(url: str, told: str) -> None:
    with pytest.raises(ConfigError, match="--database: .*" + told) as refused:
        parse_address(url)
    assert "secret@" not in str(refused.value)


def test_a_link_over_the_network_is_encrypted_and_checked(postgres: Any, tmp_path: Path) -> None:
    """Unless somebody says otherwise, aloud."""
    ours, other = (own_identity(tmp_path / name, ["127.0.0.1"]) for name in ("ours", "other"))
    for name, path in (("server.crt", ours.certificate), ("server.key", ours.key)):
        copy = postgres.data / name
        copy.write_bytes(path.read_bytes())
        os.chown(copy, postgres.data.stat().st_uid, -1)
        copy.chmod(0o600)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"postgresql://tagclip@127.0.0.1:{port}/postgres"
    postgres.empty()
    postgres.stop()
    postgres.start("listen_addresses=127.0.0.1", f"port={port}", "ssl=on")
    try:
        PostgresDatabase(parse_address(f"{url}?sslrootcert={ours.ca}")).close()
        for wrong in (f"{url}?sslrootcert={other.ca}", url):
            with pytest.raises(StoreError, match="certificate verify failed"):
                PostgresDatabase(parse_address(wrong))
        with pytest.raises(StoreError, match="no encryption|pg_hba"):
            PostgresDatabase(parse_address(f"{url}?sslmode=disable"))
    finally:
        postgres.stop()
        postgres.start()

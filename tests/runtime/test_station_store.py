"""The station's records: what is acknowledged is kept, once; what is old goes; what is changed shows."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("argon2")
pytest.importorskip("cryptography")

from tagclip.runtime.errors import ConfigError, KeyFileError, StoreError
from tagclip.runtime.ids import uuid7
from tagclip.runtime.keys import PrivateKey
from tagclip.runtime.station import tls
from tagclip.runtime.station.audit import audit_page, record, verify_audit
from tagclip.runtime.station.bell import Bell
from tagclip.runtime.station.database import FORMS, Database
from tagclip.runtime.station.limits import MAX_KEYS, Attempts, network
from tagclip.runtime.station.postgres import PostgresDatabase
from tagclip.runtime.station.postgres_address import parse_address
from tagclip.runtime.station.queries import Queries
from tagclip.runtime.station.retention import forget
from tagclip.runtime.station.station import hold, signing_key
from tagclip.runtime.station.store import MAX_QUARANTINE, Filter, Store
from tagclip.runtime.station.users import Users
from tagclip.runtime.sync_messages import Batch, verify

JPEG = b"\xff\xd8\xff\xe0" + bytes(2000)
ANY = Filter()


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


def message(device: str, kind: str, body: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "id": str(uuid7()),
        "device": device,
        "kind": kind,
        "made_s": 1001.5,
        "boot_id": BOOT,
        "seq": 1,
        "body": body,
    } | changes


BOOT = str(uuid7())


def picture_body(hit_id: str, revision: int = 1, jpeg: bytes = JPEG) -> dict[str, Any]:
    return {"hit_id": hit_id, "revision": revision, "jpeg": base64.b64encode(jpeg).decode()}


# test_postgres.py lets both engines do the same; here PostgreSQL takes a minute.
ENGINES = ["sqlite", "postgres"] if os.environ.get("TAGCLIP_ENGINES") == "all" else ["sqlite"]


@pytest.fixture(params=ENGINES)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if request.param == "sqlite":
        database = Database(tmp_path / "records.sqlite")
    else:
        server = request.getfixturevalue("postgres")
        server.empty()
        database = PostgresDatabase(parse_address(server.url), alone=True)
    yield database
    database.close()


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "records.sqlite")
    yield database
    database.close()


@pytest.fixture
def store(database: Database) -> Store:
    return Store(database)


def take(store: Store, *rows: Any, device: str = "d1", status: dict[str, Any] | None = None) -> Any:
    return store.take(Batch(device, list(rows), status or {}))


def shown(store: Store, where: Filter = ANY) -> list[dict[str, Any]]:
    return store.hits(where, None, 500, "tester")[0]


def test_settings_are_those_that_survive_a_power_cut(sqlite: Database) -> None:
    with sqlite.write() as connection:
        values = [
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")
        ]
    assert values == ["wal", 2]  # 2 is FULL
    assert (sqlite.path.stat().st_mode & 0o077) == 0


def test_a_message_counts_once_however_often_it_comes(store: Store) -> None:
    row = message("d1", "hit", hit_body())
    for _ in range(3):
        answer = take(store, row, row)
        assert answer.acks == (row["id"],) and not answer.rejected
    assert len(shown(store)) == 1


def test_the_newest_revision_wins_in_whatever_order(store: Store) -> None:
    body = hit_body()
    rows = [message("d1", "hit", body | {"revision": n, "score": n / 10}) for n in (2, 3, 1)]
    assert len(take(store, *rows).acks) == 3
    (hit,) = shown(store)
    assert (hit["revision"], hit["score"]) == (3, 0.3)


def test_a_review_survives_a_newer_revision(store: Store) -> None:
    body = hit_body()
    take(store, message("d1", "hit", body))
    store.review(body["id"], "confirmed", "ann")
    take(store, message("d1", "hit", body | {"revision": 2}))
    (hit,) = shown(store)
    assert (hit["revision"], hit["review"], hit["reviewed_by"]) == (2, "confirmed", "ann")
    with pytest.raises(ConfigError, match="review"):
        store.review(body["id"], "perhaps", "ann")


def test_a_picture_may_come_before_its_hit(store: Store) -> None:
    body = hit_body()
    take(store, message("d1", "picture", picture_body(body["id"], 2, JPEG + b"2")))
    take(store, message("d1", "picture", picture_body(body["id"], 1, JPEG + b"1")))
    assert store.picture(body["id"], "ann") is None  # whose hit it is is not known yet
    take(store, message("d1", "hit", body))
    assert store.picture(body["id"], "ann") == JPEG + b"2"
    assert shown(store)[0]["picture"] is True


def test_one_device_cannot_touch_what_another_sent(store: Store) -> None:
    body = hit_body()
    first = message("d1", "hit", body)
    take(store, first, message("d1", "picture", picture_body(body["id"])))
    answer = take(
        store,
        message("d2", "hit", body | {"revision": 9}),
        message("d2", "picture", picture_body(body["id"], 9, JPEG + b"x")),
        message("d1", "hit", hit_body()),
        device="d2",
    )
    assert not answer.acks and len(answer.rejected) == 3
    (hit,) = shown(store)
    assert (hit["device"], hit["revision"]) == ("d1", 1)
    assert store.picture(body["id"], "ann") == JPEG
    # The same message id of another device is another message, or a device could have others' hits swallowed.
    mine = message("d2", "hit", hit_body(), id=first["id"])
    assert take(store, mine, device="d2").acks == (first["id"],)
    assert len(shown(store)) == 2


def test_what_is_malformed_is_refused_with_its_reason_and_blocks_nothing(store: Store) -> None:
    good = message("d1", "hit", hit_body())
    bad = message("d1", "hit", hit_body(score="high"))
    deep: Any = 0
    for _ in range(5000):
        deep = [deep]
    answer = take(
        store, bad, "no message", {"id": 7}, {"id": "x", "kind": deep}, good, {"id": "y", "kind": "\ud800"}
    )
    assert answer.acks == (good["id"],)
    assert "score" in answer.rejected[bad["id"]] and set(answer.rejected) == {bad["id"], "x", "y"}
    take(store, bad)
    kept = store.quarantine()
    assert len(kept) == 5  # the same again takes no more room
    assert any("score" in row["reason"] and row["device"] == "d1" for row in kept)


def test_quarantine_is_bounded(store: Store) -> None:
    for start in range(0, MAX_QUARANTINE + 128, 64):
        take(store, *[{"id": str(start + n)} for n in range(64)])
    assert len(store.quarantine(10 * MAX_QUARANTINE)) == MAX_QUARANTINE


def test_filters_and_pages(store: Store) -> None:
    for n in range(10):
        body = hit_body(query_id=f"q{n % 2}", best_s=1001.0 + n % 5, start_s=1000.0, end_s=1010.0)
        take(store, message(f"d{n % 2}", "hit", body), device=f"d{n % 2}")
    assert len(shown(store, Filter(query_id="q1"))) == len(shown(store, Filter(device="d1"))) == 5
    assert all(hit["best_s"] >= 1004 for hit in shown(store, Filter(since_s=1004.0)))
    assert len(shown(store, Filter(since_s=1004.0))) == 4
    assert shown(store, Filter(review="confirmed")) == []
    ids, after = [], None
    while True:
        page, after = store.hits(ANY, after, 3, "ann")
        ids += [hit["id"] for hit in page]
        if after is None:
            break
    assert ids == [hit["id"] for hit in shown(store)] and len(set(ids)) == 10


def test_a_code_works_once_in_its_time_for_its_device(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _ = store.make_code("d1", "ann")
    assert store.enrol(code, "d2", "1", None, "::1") is None
    assert store.enrol("wrong", "d1", "1", None, "::1") is None
    token = store.enrol(code, "d1", "1", "toy", "::1")
    assert token and store.device_of(token) == "d1"
    assert store.enrol(code, "d1", "1", None, "::1") is None
    late, expires_s = store.make_code("d1", "ann", minutes=5)
    monkeypatch.setattr(time, "time", lambda: expires_s + 1)
    assert store.enrol(late, "d1", "1", None, "::1") is None
    monkeypatch.undo()
    again, _ = store.make_code("d1", "ann")
    newer = store.enrol(again, "d1", "1", None, "::1")
    assert newer and store.device_of(token) is None and store.device_of(newer) == "d1"
    assert store.dismiss("d1", "ann") and store.device_of(newer) is None and not store.dismiss("d1", "ann")
    with pytest.raises(ConfigError, match="name a device"):
        store.make_code("no/slash", "ann")


def test_tokens_and_codes_are_nowhere_in_the_file(sqlite: Database, tmp_path: Path) -> None:
    store = Store(sqlite)
    code, _ = store.make_code("d1", "ann")
    token = store.enrol(code, "d1", "1", None, "::1")
    password = Users(sqlite).add("ann", "admin", "test")
    sqlite.close()
    data = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert token and not any(secret.encode() in data for secret in (code, token, password))


def test_an_empty_status_does_not_erase_the_last(store: Store) -> None:
    code, _ = store.make_code("d1", "ann")
    store.enrol(code, "d1", "1", None, "::1")
    take(store, status={"depth": 3})
    take(store)
    (device,) = store.devices()
    assert device["status"] == {"depth": 3} and device["seen_s"] and "token" not in device


def test_who_polls_is_known_at_once_and_written_together(store: Store, database: Database) -> None:
    def written() -> dict[str, tuple[float | None, int]]:
        with database.read() as connection:
            rows = connection.execute("SELECT name, seen_s, revision FROM devices").fetchall()
        return {name: (seen_s, revision) for name, seen_s, revision in rows}

    for name in ("d1", "d2", "d3"):
        code, _ = store.make_code(name, "ann")
        store.enrol(code, name, "1", None, "::1")
    store.saw("d1", 3)  # the first is written at once
    before_s = time.time()
    store.saw("d2", 4)
    store.saw("d1", 5)
    assert written()["d1"][1] == 3 and written()["d2"] == (None, 0)
    known = {device["name"]: device for device in store.devices()}
    assert [known[name]["queries_revision"] for name in ("d1", "d2", "d3")] == [5, 4, 0]
    assert known["d2"]["seen_s"] >= before_s and known["d3"]["seen_s"] is None
    store._seen_due_s = 0.0  # as if SEEN_EVERY_S had gone by
    store.saw("d3", 6)
    assert {name: revision for name, (_, revision) in written().items()} == {"d1": 5, "d2": 4, "d3": 6}


def test_a_new_key_signs_the_set_anew(database: Database, tmp_path: Path) -> None:
    first = Queries(database, signing_key(tmp_path), lambda revision: None)
    assert Queries(database, signing_key(tmp_path), lambda revision: None).current() == first.current()
    other = tmp_path / "other"
    other.mkdir()
    key = signing_key(other)
    revision, document = Queries(database, key, lambda revision: None).current()
    assert revision == first.current()[0] + 1
    assert verify(json.loads(document), key.public).revision == revision


def test_queries_make_signed_sets_with_rising_revisions(database: Database, tmp_path: Path) -> None:
    key, rung = signing_key(tmp_path), []
    queries = Queries(database, key, rung.append)
    assert queries.current()[0] == 1
    query = {"text": "red", "view": "auto", "vector": [0.6, 0.8], "encoder_id": "toy", "reason": "lost child"}
    query |= {"alarms_per_hour": None, "alarms_per_1000": None, "expires_s": None}
    one = queries.add(query, "ann")
    other = queries.add(query | {"expires_s": time.time() + 1000}, "ann")
    revision, document = queries.current()
    read = verify(json.loads(document), key.public)
    assert revision == read.revision == 3 and [entry.id for entry in read.queries] == [one["id"], other["id"]]
    assert read.queries[0].vector == pytest.approx((0.6, 0.8), abs=1e-3)
    assert queries.remove(one["id"], "ann") and not queries.remove(one["id"], "ann")
    assert rung == [1, 2, 3, 4]
    # Another process that opens the records goes on where this one was.
    assert Queries(database, key, rung.append).current() == queries.current()


def test_a_query_whose_time_is_over_leaves_the_set(database: Database, tmp_path: Path) -> None:
    queries = Queries(database, signing_key(tmp_path), lambda revision: None)
    query = {"text": "red", "view": "auto", "vector": None, "encoder_id": None, "reason": "r"}
    query |= {"alarms_per_hour": None, "alarms_per_1000": None, "expires_s": time.time() + 0.2}
    queries.add(query, "ann")
    queries.renew()
    assert queries.current()[0] == 2
    time.sleep(0.25)
    assert queries.listed() == []
    queries.renew()
    revision, document = queries.current()
    assert revision == 3 and json.loads(document)["queries"] == []
    queries.renew()
    assert queries.current()[0] == 3


def test_a_set_is_issued_anew_long_before_it_ends(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = Queries(database, signing_key(tmp_path), lambda revision: None)
    later_s = time.time() + 2 * 86400
    monkeypatch.setattr(time, "time", lambda: later_s)
    queries.renew()
    revision, document = queries.current()
    assert revision == 2 and json.loads(document)["expires_s"] > later_s + 20 * 86400


def fill(store: Store, count: int) -> list[str]:
    bodies = [hit_body() for _ in range(count)]
    for body in bodies:
        take(store, message("d1", "hit", body), message("d1", "picture", picture_body(body["id"])))
    return [body["id"] for body in bodies]


def test_what_is_too_old_goes_and_the_log_says_so(store: Store, database: Database) -> None:
    ids = fill(store, 5)
    now_s = time.time()
    with database.write() as connection:
        connection.execute("UPDATE hits SET received_s = ? WHERE id IN (?, ?)", (now_s - 3 * 86400, *ids[:2]))
    assert forget(database, now_s, 2.0, 1 << 40) == 2
    assert [hit["id"] for hit in shown(store)] == ids[:1:-1]
    assert store.picture(ids[0], "ann") is None and store.picture(ids[4], "ann") == JPEG
    (entry,) = [row for row in audit_page(database, 0, 1000) if row["action"] == "hits.delete"]
    assert entry["facts"]["count"] == 2 and entry["facts"]["first"] in ids[:2]


def test_what_takes_too_much_room_goes_the_oldest_first(store: Store, database: Database) -> None:
    ids = fill(store, 120)
    each = len(JPEG) + len(json.dumps(hit_body()))
    forget(database, time.time(), 1000.0, 60 * each)
    left = [hit["id"] for hit in shown(store)]
    assert left == ids[: 119 - len(left) : -1] and 10 <= len(left) <= 60
    forget(database, time.time(), 1000.0, 0)
    assert shown(store) == []
    take(store, message("d1", "picture", picture_body(str(uuid7()))))  # of a hit that never comes
    forget(database, time.time(), 1000.0, 0)
    with database.read() as connection:
        assert connection.execute("SELECT count(*) FROM pictures").fetchone() == (0,)


def test_what_was_forgotten_does_not_come_back(store: Store, database: Database) -> None:
    row = message("d1", "hit", hit_body())
    take(store, row)
    forget(database, time.time(), 1000.0, 0)
    assert take(store, row).acks == (row["id"],) and shown(store) == []


def chain(database: Database, rows: int = 12) -> None:
    with database.write() as connection:
        for number in range(rows):
            record(connection, "ann", "test", number=number, text="gr\u00fcn")


def test_the_audit_chain_is_what_its_form_says(database: Database) -> None:
    chain(database, 2)
    before = bytes(32)
    with database.read() as connection:
        rows = connection.execute("SELECT hash, entry FROM audit ORDER BY row").fetchall()
    for found, text in rows:
        # docs/link.md: SHA-256 of the hash before and of the entry, sorted keys, two spaces, ASCII, a line feed.
        form = json.dumps(json.loads(text), sort_keys=True, indent=2) + "\n"
        before = hashlib.sha256(before + form.encode("ascii")).digest()
        assert found == before
    assert verify_audit(database).last == before.hex()


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ("UPDATE audit SET entry = replace(entry, 'ann', 'bob') WHERE row = 5", 5),
        ("UPDATE audit SET entry = replace(entry, '4', '5') WHERE row = 5", 5),
        ("UPDATE audit SET hash = (SELECT hash FROM audit WHERE row = 2) WHERE row = 7", 7),
        ("UPDATE audit SET entry = 'no json' WHERE row = 7", 7),
        ("UPDATE audit SET entry = x'00' WHERE row = 7", 7),
        ("DELETE FROM audit WHERE row = 4", 4),
        ("DELETE FROM audit WHERE row = 1", 1),
        ("UPDATE audit SET row = row + 100 WHERE row = 12", 12),
        ("UPDATE audit SET entry = (SELECT entry FROM audit WHERE row = 2) WHERE row = 3", 3),
    ],
)
def test_a_changed_row_of_the_audit_log_is_named(database: Database, change: str, broken: int) -> None:
    chain(database)
    assert verify_audit(database).broken is None
    with database.write() as connection:
        assert connection.execute(change).rowcount == 1
    assert verify_audit(database).broken == broken


def test_an_audit_log_that_was_cut_off_lacks_the_hash_that_was_kept(database: Database) -> None:
    chain(database)
    known = verify_audit(database).last
    chain(database, 1500)
    assert verify_audit(database, known=known).broken is None
    with database.write() as connection:
        connection.execute("DELETE FROM audit WHERE row >= 12")
    assert verify_audit(database).broken is None
    assert verify_audit(database, known=known).broken == 1


def test_passwords_and_sessions(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    users = Users(database)
    password = users.add("ann", "operator", "test")
    with database.read() as connection:
        (hashed,) = connection.execute("SELECT password FROM users").fetchone()
    assert hashed.startswith("$argon2id$")
    assert users.login("ann", "wrong", "::1") is None and users.login("bob", password, "::1") is None
    assert users.login("ann", password, "::1", token=True) is None  # before it was changed
    login = users.login("ann", password, "::1")
    assert login and login.user.must_change
    with pytest.raises(ConfigError, match="password"):
        users.set_password("ann", password, "short")
    assert not users.set_password("ann", "wrong", "long enough password")
    assert users.set_password("ann", password, "long enough password")
    assert users.user_of(login.secret, cookie=True) is None  # sessions ended
    login = users.login("ann", "long enough password", "::1")
    assert (
        login
        and users.user_of(login.secret, cookie=True)
        and users.user_of(login.secret, cookie=False) is None
    )
    monkeypatch.setattr(time, "time", lambda: login.expires_s + 1)
    assert users.user_of(login.secret, cookie=True) is None
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="admin"):
        users.change("ann", "test", disabled=True)  # nobody could undo it
    users.add("root", "admin", "test")
    users.change("ann", "test", disabled=True)
    assert users.login("ann", "long enough password", "::1") is None
    assert users.user_of(login.secret, cookie=True) is None
    with pytest.raises(ConfigError, match="last admin"):
        users.change("root", "test", role="operator")
    actions = [row["action"] for row in audit_page(database, 0, 1000)]
    assert (
        actions.count("login.refused") == 4 and actions.count("login") == 2 and "password.change" in actions
    )


def test_tries_are_counted_and_forgotten() -> None:
    now = [0.0]
    tries = Attempts(3, 60.0, lambda: now[0])
    assert [tries.take("a") for _ in range(3)] == [0, 0, 0]
    now[0] = 20.0
    assert tries.take("a") == pytest.approx(40.0) and tries.take("b") == 0
    now[0] = 60.0
    assert tries.take("a") == 0
    tries.forgive("a")
    for number in range(2 * MAX_KEYS):
        tries.take(str(number))
    assert len(tries._tries) == MAX_KEYS
    assert network("2001:db8:1:2:3:4:5:6") == network("2001:db8:1:2::1") != network("2001:db8:1:3::1")
    assert network("::ffff:192.0.2.1") == network("192.0.2.1") != network("192.0.2.2")


def test_records_of_a_newer_tagclip_and_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "records.sqlite"
    Database(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="newer"):
        Database(path)
    other = tmp_path / "other.sqlite"
    other.write_bytes(b"x" * 5000)
    with pytest.raises(StoreError, match="cannot be opened"):
        Database(other)


def test_records_of_form_1_become_the_newest(tmp_path: Path) -> None:
    path, new = tmp_path / "old.sqlite", tmp_path / "new.sqlite"
    with sqlite3.connect(path) as connection:
        connection.executescript((Path(__file__).parent / "station_form1.sql").read_text())
    Database(new).close()
    database = Database(path)
    assert [device["name"] for device in Store(database).devices()] == ["d1"]
    assert [user["name"] for user in Users(database).users()] == ["ann"]
    database.close()
    Database(path).close()  # nothing is left to do, and nothing is done
    assert _schema(path) == _schema(new)


def test_a_form_that_fails_halfway_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "records.sqlite"
    Database(path).close()
    before = _schema(path)
    more = ("CREATE TABLE first(a INTEGER)", "CREATE TABLE hits(a INTEGER)")
    monkeypatch.setattr("tagclip.runtime.station.database.FORMS", (*FORMS, more))
    monkeypatch.setattr("tagclip.runtime.station.database.VERSION", len(FORMS) + 1)
    with pytest.raises(StoreError, match="already exists"):
        Database(path)
    assert _schema(path) == before


def _schema(path: Path) -> tuple[int, list[tuple[str, str]]]:
    connection = sqlite3.connect(path)
    (form,) = connection.execute("PRAGMA user_version").fetchone()
    rows = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"
    ).fetchall()
    connection.close()
    return form, [(name, " ".join(sql.split()).replace("( ", "(")) for name, sql in rows]


def test_a_failed_transaction_leaves_nothing(store: Store, database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.write() as connection:
        record(connection, "ann", "never")
        raise ZeroDivisionError
    assert verify_audit(database).rows == 0
    take(store, message("d1", "hit", hit_body()))  # and the lock is free again
    assert len(shown(store)) == 1


def test_two_stations_cannot_have_one_folder(tmp_path: Path) -> None:
    import os

    lock = hold(tmp_path)
    with pytest.raises(ConfigError, match="another station"):
        hold(tmp_path)
    os.close(lock)
    os.close(hold(tmp_path))


def test_a_certificate_is_renewed_and_its_authority_stays(tmp_path: Path) -> None:
    import datetime
    import ssl

    from cryptography import x509

    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
    identity = tls.own_identity(tmp_path, ["station.example", "192.0.2.7"], now)
    first, ca = identity.certificate.read_bytes(), identity.ca.read_bytes()
    assert all((path.stat().st_mode & 0o077) == 0 for path in (identity.key, tmp_path / "ca.key"))
    names = x509.load_pem_x509_certificate(first).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert {str(name.value) for name in names.value} == {"station.example", "192.0.2.7", "localhost"}
    der = ssl.PEM_cert_to_DER_cert(ca.decode())
    assert identity.fingerprint() == hashlib.sha256(der).hexdigest()

    def again(days: float, *hosts: str) -> bytes:
        when = now + datetime.timedelta(days=days)
        return tls.own_identity(tmp_path, list(hosts), when).certificate.read_bytes()

    same = ("station.example", "192.0.2.7")
    assert again(330, *same) == first
    second = again(336, *same)
    assert second != first and again(336, *same) == second
    assert again(336, "other.example") != second
    assert identity.ca.read_bytes() == ca
    identity.key.write_bytes(b"damaged")
    assert again(340, *same)
    (tmp_path / "ca.key").unlink()
    with pytest.raises(KeyFileError, match="enrol every device again"):
        again(340, *same)
    with pytest.raises(ConfigError, match="host name"):
        tls.own_identity(tmp_path / "new", ["no name"])


def test_given_certificates_have_to_fit_their_key(tmp_path: Path) -> None:
    one, other = (tls.own_identity(tmp_path / name, ["localhost"]) for name in ("one", "other"))
    given = tls.given_identity(one.certificate, one.key, tmp_path / "given")
    assert given.certificate == one.certificate and len(given.fingerprint()) == 64
    with pytest.raises(KeyFileError, match="cannot be used"):
        tls.given_identity(one.certificate, other.key, tmp_path / "given")


def test_the_bell_is_heard_by_whoever_looked_before_it_rang() -> None:
    import asyncio

    async def listen() -> bool:
        bell = Bell()
        bell.ring()  # before anybody is there
        bell.attach()
        event = bell.event()
        await asyncio.to_thread(bell.ring)
        await asyncio.wait_for(event.wait(), 5)
        return bell.event() is not event

    assert asyncio.run(listen())


def test_the_signing_key_is_made_once(tmp_path: Path) -> None:
    key = signing_key(tmp_path)
    assert isinstance(key, PrivateKey) and signing_key(tmp_path).public == key.public
    assert ((tmp_path / "signing.key").stat().st_mode & 0o077) == 0

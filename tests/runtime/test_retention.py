"""What the station forgets, and what it must not: confirmed hits, closed cases, somebody's right to be deleted."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("argon2")
pytest.importorskip("cryptography")

from beside import load

from tagclip.runtime.ids import uuid7
from tagclip.runtime.station.audit import audit_page, verify_audit
from tagclip.runtime.station.database import Database
from tagclip.runtime.station.queries import Queries
from tagclip.runtime.station.retention import crowded, delete_hit, forget
from tagclip.runtime.station.station import signing_key
from tagclip.runtime.station.store import Filter, Store
from tagclip.runtime.sync_messages import Batch

DAY_S = 86400.0
ROOM = 1 << 40


STATION = load("test_station_store")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "records.sqlite")
    yield database
    database.close()


@pytest.fixture
def store(database: Database) -> Store:
    return Store(database)


@pytest.fixture
def queries(database: Database, tmp_path: Path) -> Queries:
    return Queries(database, signing_key(tmp_path), lambda revision: None)


def told(store: Store, count: int, query_id: str = "q1", device: str = "d1") -> list[str]:
    """Hits with pictures, told to the station; their ids."""
    bodies = [STATION.hit_body(query_id=query_id) for _ in range(count)]
    rows = [STATION.message(device, "hit", body) for body in bodies]
    rows += [STATION.message(device, "picture", STATION.picture_body(body["id"])) for body in bodies]
    assert len(store.take(Batch(device, rows, {})).acks) == 2 * count
    return [body["id"] for body in bodies]


def left(store: Store) -> list[str]:
    return [hit["id"] for hit in store.hits(Filter(), None, 500, "tester")[0]][::-1]


def aged(database: Database, days: float, decided_days: float | None = None) -> float:
    """Everything came so many days ago, and was decided; now."""
    now_s = time.time()
    with database.write() as connection:
        for table in ("hits", "pictures"):
            connection.execute(f"UPDATE {table} SET received_s = ?", (now_s - days * DAY_S,))
        if decided_days is not None:
            connection.execute(
                "UPDATE hits SET reviewed_s = ? WHERE reviewed_s IS NOT NULL", (now_s - decided_days * DAY_S,)
            )
    return now_s


def standing(queries: Queries, expires_s: float | None = None) -> str:
    query = {
        "text": "a person in red",
        "reason": "case 17",
        "view": "auto",
        "vector": None,
        "encoder_id": None,
        "alarms_per_hour": None,
        "alarms_per_1000": None,
        "expires_s": expires_s,
    }
    return str(queries.add(query, "ann")["id"])


def test_a_confirmed_hit_stays_with_its_picture_for_days_of_its_own(store: Store, database: Database) -> None:
    confirmed, rejected, unreviewed = told(store, 3)
    store.review(confirmed, "confirmed", "ray")
    store.review(rejected, "rejected", "ray")
    now_s = aged(database, 40, decided_days=39)
    assert forget(database, now_s, 30, ROOM, 100) == 2
    assert left(store) == [confirmed] and store.picture(confirmed, "ann") == STATION.JPEG
    assert forget(database, now_s + 60 * DAY_S, 30, ROOM, 100) == 0  # 99 days after the decision
    assert forget(database, now_s + 62 * DAY_S, 30, ROOM, 100) == 1
    assert left(store) == [] and store.picture(confirmed, "ann") is None and unreviewed


def test_days_of_confirmed_hits_never_shorten_those_of_all(store: Store, database: Database) -> None:
    (confirmed,) = told(store, 1)
    store.review(confirmed, "confirmed", "ray")
    assert forget(database, aged(database, 20, decided_days=20), 30, ROOM, 1) == 0
    assert left(store) == [confirmed]


def test_a_decision_that_is_taken_back_no_longer_keeps(store: Store, database: Database) -> None:
    (hit,) = told(store, 1)
    store.review(hit, "confirmed", "ray")
    store.review(hit, "unreviewed", "ray")
    assert forget(database, aged(database, 40), 30, ROOM, 365) == 1


@pytest.mark.parametrize("how", ["removed", "expired"])
def test_a_confirmed_hit_stays_while_its_query_stands_and_then_for_its_days(
    store: Store, database: Database, queries: Queries, how: str
) -> None:
    query = standing(queries, None if how == "removed" else time.time() + 0.2)
    confirmed, other = told(store, 2, query)
    store.review(confirmed, "confirmed", "ray")
    now_s = aged(database, 800, decided_days=790)
    assert forget(database, now_s, 30, ROOM, 100) == 1 and left(store) == [confirmed]
    if how == "removed":
        assert queries.remove(query, "ann")
    else:
        time.sleep(0.25)
        queries.renew()
    assert (
        forget(database, now_s + 99 * DAY_S, 30, ROOM, 100) == 0
    )  # a case closed now: its hits stay a while
    assert forget(database, now_s + 101 * DAY_S, 30, ROOM, 100) == 1
    with database.read() as connection:
        assert connection.execute("SELECT count(*) FROM closed_queries").fetchone() == (0,)
    assert other


def test_for_room_confirmed_hits_go_last_and_it_is_said(
    store: Store, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    ids = told(store, 100)
    confirmed = ids[:20]  # the oldest
    for hit in confirmed:
        store.review(hit, "confirmed", "ray")
    store.take(Batch("d1", [STATION.message("d1", "picture", STATION.picture_body(str(uuid7())))], {}))
    store.take(Batch("d1", ["nonsense"], {}))
    each = len(STATION.JPEG) + len(json.dumps(STATION.hit_body()))
    assert crowded(database, 100 * each) == ""
    forget(database, time.time(), 1000, 60 * each)
    assert set(confirmed) < set(left(store)) and len(left(store)) <= 60
    forget(database, time.time(), 1000, 21 * each)
    assert left(store) == confirmed
    assert "confirmed hits take" in crowded(database, 21 * each) and not caplog.records
    told(store, 5)
    forget(database, time.time(), 1000, 15 * each)  # less than the confirmed ones alone
    assert set(left(store)) < set(confirmed) and store.quarantine() == []
    assert any("confirmed hits were deleted" in record.message for record in caplog.records)
    reasons = [
        row["facts"]["reason"] for row in audit_page(database, 0, 1000) if row["action"] == "hits.delete"
    ]
    assert reasons[-1].endswith("confirmed ones alone") and not reasons[0].endswith("alone")


def test_one_device_cannot_push_out_what_others_told(store: Store, database: Database) -> None:
    """Neither with hits nor with pictures of hits that never come, its own or those of another device."""
    others = told(store, 10, device="d2")  # the oldest
    flood = told(store, 60)
    each = len(STATION.JPEG) + len(json.dumps(STATION.hit_body()))
    assert (
        forget(database, time.time(), 1000, 40 * each) == len(flood) - len(set(left(store)) & set(flood)) > 0
    )
    assert set(others) < set(left(store))
    loose = [STATION.picture_body(str(uuid7())) for _ in range(200)]
    loose += [STATION.picture_body(hit) for hit in others]
    store.take(Batch("d3", [STATION.message("d3", "picture", body) for body in loose], {}))
    before = left(store)
    assert forget(database, time.time(), 1000, 41 * each) == 0 and left(store) == before
    assert store.picture(others[0], "ann") == STATION.JPEG


def test_a_hit_is_deleted_for_good_whatever_still_comes_of_it(store: Store, database: Database) -> None:
    gone, kept = told(store, 2)
    body = STATION.hit_body(id=gone)
    bad = STATION.message("d1", "picture", {**STATION.picture_body(gone), "more": 1})
    assert store.take(Batch("d1", [bad], {})).rejected and len(store.quarantine()) == 1
    assert delete_hit(database, gone, "root") and not delete_hit(database, gone, "root")
    assert not delete_hit(database, "%", "root")
    newer = STATION.message("d1", "hit", {**body, "revision": 2})
    picture = STATION.message("d1", "picture", STATION.picture_body(gone, 2))
    answer = store.take(Batch("d1", [newer, picture], {}))
    assert set(answer.acks) == {newer["id"], picture["id"]}  # else the device would send them for ever
    assert left(store) == [kept] and store.picture(gone, "ann") is None and store.quarantine() == []
    with database.read() as connection:
        assert connection.execute("SELECT count(*) FROM pictures").fetchone() == (1,)
    (entry,) = [row for row in audit_page(database, 0, 1000) if row["action"] == "hit.delete"]
    assert (entry["who"], entry["facts"]) == ("root", {"hit": gone})
    assert verify_audit(database).broken is None
    forget(database, time.time() + 91 * DAY_S, 1000, ROOM)
    with database.read() as connection:
        assert connection.execute("SELECT count(*) FROM deleted_hits").fetchone() == (0,)


def test_what_was_deleted_is_nowhere_in_the_files(store: Store, database: Database) -> None:
    mark = "the one with the unmistakable umbrella"
    body = STATION.hit_body(query=mark)
    jpeg = b"\xff\xd8\xff\xe0" + b"unmistakable face " * 900
    rows = [
        STATION.message("d1", "hit", body),
        STATION.message("d1", "picture", STATION.picture_body(body["id"], jpeg=jpeg)),
    ]
    store.take(Batch("d1", rows, {}))

    def files() -> bytes:
        return b"".join(path.read_bytes() for path in database.path.parent.glob("records.sqlite*"))

    assert mark.encode() in files() and b"unmistakable face" in files()
    delete_hit(database, body["id"], "root")
    assert b"unmistakable" not in files()

"""The device's side of the link against a real HTTPS station that misbehaves, over links that die."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cryptography")
from chaos.hits import ENCODER, hit, jpeg
from chaos.side import Side, until
from chaos.sync_station import Link

from tagclip.runtime import sync_client
from tagclip.runtime.errors import LinkError
from tagclip.runtime.health import Health
from tagclip.runtime.keys import PublicKey
from tagclip.runtime.outbox import Outbox
from tagclip.runtime.sync_client import SyncClient
from tagclip.runtime.sync_messages import HIT, MAX_BATCH_BYTES, Answer, QuerySet


def all_arrived(station: Any, count: int) -> None:
    """Each hit once, as it was, with its picture."""
    found = [m.hit() for m in station.stored.values() if m.kind == HIT]
    pictures = {m.body["hit_id"]: m.jpeg() for m in station.stored.values() if m.kind != HIT}
    assert sorted(each.frame for each in found) == list(range(count)) and len(station.stored) == 2 * count
    for each in found:
        assert each == hit(each.frame) and pictures[str(each.id)] == jpeg(each.frame)


def test_hits_come_home_at_once_in_their_order(side: Side, station: Any) -> None:
    side.put(range(40))
    client = side.client()
    assert client.drain(10)
    all_arrived(station, 40)
    kinds = [m.kind for m in station.stored.values()]
    chances = [m.body["p_value"] for m in station.stored.values() if m.kind == HIT]
    assert kinds == [HIT] * 40 + ["picture"] * 40 and chances == sorted(chances)
    assert station.known == [] and client.counts.failures == client.counts.resent == 0
    assert client.counts.acked == client.counts.messages == 80 and station.packed > 0
    times = []
    for number in range(40, 60):
        begun_s = time.monotonic()
        side.put(range(number, number + 1))
        assert station.wait(lambda number=number: len(station.hits) == number + 1, 5)
        times.append(time.monotonic() - begun_s)
    assert sorted(times)[18] < 1.0


def test_an_unreliable_station_loses_nothing_and_doubles_nothing(side: Side, station: Any) -> None:
    rng = random.Random(4)
    told = {n: rng.choice(["", "", "twice", "drop", "lost", "500", "slow", "garbage"]) for n in range(1, 12)}
    told |= {4: "lost", 6: "429", 8: "302", 9: "huge"}
    station.fault = lambda number: told.get(number, "twice")
    side.put(range(150))
    client = side.client()
    assert client.drain(30)
    all_arrived(station, 150)
    assert set(station.hits.values()) == {1}
    assert station.known and set(station.known) <= set(station.stored)  # some came twice, without effect
    assert client.counts.failures >= 5 and client.counts.acked == 300
    assert not side.health.reasons()


def test_the_same_hits_after_a_restart_of_either_side(side: Side, station: Any) -> None:
    side.put(range(100))
    for _ in range(3):
        client = side.client()
        until(lambda: bool(station.stored), 5)
        client.close()
    assert side.client().drain(10)
    all_arrived(station, 100)


def test_a_link_that_dies_costs_little(side: Side, station: Any) -> None:
    """2 Mbit/s, cut and silent in turns; TAGCLIP_LINK_S=10 is the full one, whose overhead is to be below 5 %.

    All that crosses the link counts: handshakes, headers, what is sent again. A cut costs half a batch, on average.
    """
    up_s = float(os.environ.get("TAGCLIP_LINK_S", "1.5"))
    hits = int(120 * up_s)
    link = Link(station.port, 250_000)
    side.put(range(hits))
    over = threading.Event()
    cuts = 0

    def live_and_die() -> None:
        nonlocal cuts
        while not over.wait(up_s):
            (link.silence if cuts % 2 else link.cut)()
            cuts += 1
            over.wait(up_s if up_s >= 10 else 0.7)
            link.mend()

    thread = threading.Thread(target=live_and_die)
    thread.start()
    begun_s = time.monotonic()
    try:
        client = side.client(link.port)
        assert client.drain(30 + 20 * up_s)
    finally:
        took_s = time.monotonic() - begun_s
        over.set()
        thread.join()
        link.close()
    all_arrived(station, hits)
    overhead = link.up_bytes / station.useful_bytes - 1
    print(
        f"{cuts} cuts, {link.up_bytes:,} bytes, {overhead:.2%} over, {client.counts.resent} resent, {took_s:.1f} s"
    )
    assert cuts >= 1 and overhead <= 0.05 * max(1.0, 10 / up_s)


def test_it_resumes_when_the_link_does(side: Side, station: Any) -> None:
    link = Link(station.port)
    client = side.client(link.port)
    side.put(range(5))
    assert client.drain(10)
    link.cut()
    side.put(range(5, 10))
    assert until(lambda: "link" in side.health.reasons())
    time.sleep(1.0)
    assert len(side.outbox) == 10
    link.mend()
    assert client.drain(5)
    all_arrived(station, 10)
    assert until(lambda: not side.health.reasons())
    link.close()


class Carrier:
    """A way that is down until it is told to be up; its queries fail once when told."""

    skew_s = None

    def __init__(self) -> None:
        self.up, self.tried, self.took_s = False, 0, 0.0
        self.fail, self.over = threading.Event(), threading.Event()

    def exchange(self, batch: bytes, timeout_s: float) -> Answer:
        self.tried += 1
        if not self.up:
            raise LinkError("down")
        self.took_s = time.monotonic()
        return Answer(tuple(row["id"] for row in json.loads(batch)["messages"]), {}, 0)

    def queries(self, revision: int, wait_s: float) -> dict[str, Any] | None:
        self.fail.wait(wait_s)
        if not self.up:
            self.up = True
            raise LinkError("was down")
        self.over.wait(0.1)
        return None

    def close(self) -> None:
        self.fail.set()
        self.over.set()


def test_what_works_for_one_thread_wakes_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sender has failed so often that it would sleep for 1.6 s at least."""
    monkeypatch.setattr(sync_client, "FIRST_PAUSE_S", 0.05)
    health = Health(camera="c", detector="d", provider="cpu", encoder_id=ENCODER)
    carrier = Carrier()
    with Outbox(tmp_path / "o.db", "drone-1") as outbox:
        outbox.put(hit(1), jpeg(1))
        kept: list[QuerySet] = []
        client = SyncClient(
            *(outbox, carrier, PublicKey(bytes(32)), tmp_path / "queries.json"),
            encoder_id=ENCODER,
            on_queries=kept.append,
            health=health,
        )
        with client:
            assert until(lambda: carrier.tried == 7)
            begun_s = time.monotonic()
            carrier.fail.set()
            assert client.drain(10) and carrier.took_s - begun_s < 1.5


def test_a_station_that_acknowledges_nothing_is_not_asked_without_end(side: Side, station: Any) -> None:
    station.fault = lambda number: "none" if number <= 2 else ""
    side.put(range(2))
    client = side.client()
    assert until(lambda: "acknowledges none" in side.health.reasons().get("link", ""))
    assert client.drain(10) and client.counts.failures == 2
    all_arrived(station, 2)


def test_a_poisoned_message_does_not_block_the_others(side: Side, station: Any) -> None:
    station.bad = {3}  # rejected by id
    station.refuse = lambda rows: any(row["kind"] == HIT and row["body"]["frame"] == 7 for row in rows)
    side.put(range(20))
    client = side.client()
    assert client.drain(20)
    frames = sorted(m.body["frame"] for m in station.stored.values() if m.kind == HIT)
    assert frames == [n for n in range(20) if n not in (3, 7)]
    assert client.counts.rejected == 2 == side.outbox.facts()["rejected"]


def test_idle_connections_that_the_station_ends_are_no_failure(side: Side, station: Any) -> None:
    station.idle_s = 0.3
    client = side.client()
    for number in range(3):
        side.put(range(number, number + 1))
        assert client.drain(5)
        time.sleep(0.5)
    assert client.counts.failures == 0 and len(station.hits) == 3
    station.idle_s = 30.0
    side.put(range(3, 4))
    assert client.drain(5)
    before = station.posts
    station.fault = lambda number: (
        "drop" if number == before + 1 else ""
    )  # just when the next one is on its way
    side.put(range(4, 5))
    assert client.drain(5)
    assert client.counts.failures == 0 and station.posts > before + 1 and len(station.hits) == 5


def test_a_station_that_does_not_know_the_device_keeps_the_hits_waiting(side: Side, station: Any) -> None:
    station.token = "another"
    side.put(range(2))
    side.client()
    assert until(lambda: "enrol it anew" in side.health.reasons().get("link", ""))
    time.sleep(0.5)
    assert len(side.outbox) == 4 and not station.stored


def test_the_end_is_bounded_whatever_the_link_does(side: Side, station: Any) -> None:
    link = Link(station.port)
    client = side.client(link.port)
    side.put(range(1))
    assert client.drain(5)
    link.silence()
    side.put(range(1, 3))
    time.sleep(0.3)
    begun_s = time.monotonic()
    client.close()
    assert time.monotonic() - begun_s < 5.5 and not any(thread.is_alive() for thread in client._threads)
    link.close()


def test_the_heartbeat_tells_how_it_is(side: Side, station: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync_client, "HEARTBEAT_S", 0.2)
    side.client()
    assert until(lambda: len(station.statuses) >= 3)
    told = station.statuses[-1]
    assert (told["depth"], told["queries_revision"], told["encoder_id"], told["free_bytes"]) == (
        0,
        0,
        ENCODER,
        7,
    )
    assert abs(told["now_s"] - time.time()) < 5 and told["oldest_s"] is None and told["dropped_hits"] == 0


def test_proxies_of_the_environment_are_not_used(
    side: Side, station: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    side.put(range(1))
    assert side.client().drain(5)


def test_a_station_that_unpacks_nothing_is_sent_nothing_packed(side: Side, station: Any) -> None:
    station.gzip = False
    side.put(range(30))
    assert side.client().drain(10)
    assert station.packed == 0 and max(size for _, size in station.batches) < MAX_BATCH_BYTES

"""What anybody may send to the station over a broker: it neither ends it nor makes it grow."""

from __future__ import annotations

import gzip
import logging
import os
import random
from pathlib import Path
from typing import Any

import pytest

for package in ("paho.mqtt", "argon2", "starlette", "cryptography"):
    pytest.importorskip(package)

from beside import load

from tagclip.runtime.station import mqtt
from tagclip.runtime.station.mqtt import MAX_HEARD_BYTES, MqttSide
from tagclip.runtime.station.mqtt_access import BrokerAccess
from tagclip.runtime.station.station import Station
from tagclip.runtime.station.tls import own_identity
from tagclip.runtime.sync_messages import MAX_BATCH_BYTES
from tagclip.runtime.sync_mqtt_wire import ANSWER, BATCH, QUERIES, Heard, place_of, topic_of
from tagclip.runtime.sync_seal import SEALED, UP, Seal, secret_of

HOSTILE = int(os.environ.get("TAGCLIP_HOSTILE", "500"))


grounds = load("mqtt_ground")
needs_broker = grounds.needs_broker


def hostile(rng: random.Random, seal: Seal, topic: str) -> tuple[bytes, bytes]:
    """Data and correlation of a message that somebody made: noise, mutations, and what opens but is wrong inside."""
    correlation = rng.randbytes(rng.choice((1, 8, 16, 64)))
    place = place_of(topic, correlation)
    bodies: list[bytes] = [
        rng.randbytes(rng.randrange(200)),
        b"[" * rng.randrange(1, 5000),
        b'{"device": "north", "messages": [' + b"[" * 900 + b"]" * 900 + b'], "status": {}}',
        grounds.batch(
            "north", *[rng.choice([None, 1, "x", {}, {"id": "y" * 99}, {"kind": "hit"}])] * rng.randrange(70)
        ),
        grounds.batch("south"),
        grounds.batch()[: rng.randrange(40)],
        b'{"revision": -1, "wait_s": 1e999}',
        b'{"revision": 1, "wait_s": "' + b"\xff" * rng.randrange(30) + b'"}',
        b'{"revision": 99999999999999999999, "wait_s": NaN, "revision": 1}',
        b'{"device": "north", "messages": [{"id": "\\ud800", "kind": "\\udfff"}], "status": {"a": "\\ud800"}}',
    ]
    body = rng.choice(bodies)
    if rng.random() < 0.15:
        body = gzip.compress(rng.choice((bytes(3 * MAX_BATCH_BYTES), body)), 1)
        sealed = seal.close(
            UP, place, {}, body[: rng.choice((len(body), max(len(body) - 5, 0)))], packed=True
        )
    else:
        sealed = seal.close(UP, place, rng.choice(({}, {"packed": 7}, {"x": "y" * 2000})), body)
    mutated = bytearray(sealed)
    for _ in range(rng.randrange(4)):
        mutated[rng.randrange(len(mutated))] = rng.randrange(256)
    return rng.choice(
        [
            (sealed, correlation),
            (sealed, correlation),
            (bytes(mutated), correlation),
            (sealed[: rng.randrange(len(sealed) + 1)], correlation),
            (rng.randbytes(rng.randrange(300)), correlation),
            (SEALED * rng.randrange(40), correlation),
            (b"", correlation),
            (sealed, b""),
            (sealed, rng.randbytes(65)),
        ]
    )


@needs_broker
def test_hostile_messages_neither_end_the_station_nor_make_it_grow(
    ground: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """TAGCLIP_HOSTILE=20000 sends so many."""
    side = ground.serve()
    rng, seal = random.Random(7), Seal(secret_of(ground.tokens["north"]))
    carrier = ground.carrier("south")
    eve = ground.wire("north")
    assert carrier.exchange(grounds.batch("south"), 20).queries_revision == 1
    memory: list[int] = []
    with caplog.at_level(logging.ERROR):
        for number in range(HOSTILE):
            topic = topic_of("north", rng.choice((BATCH, QUERIES)))
            data, correlation = hostile(rng, seal, topic)
            odd = rng.choice(("", "$SYS/x", "a/\U0001f600"))
            answer_to = topic_of("north", ANSWER) if rng.random() < 0.9 else odd
            eve.publish(topic, data, correlation=correlation, answer_to=answer_to).wait_for_publish(10)
            if number % (HOSTILE // 10) == HOSTILE // 10 - 1:
                assert carrier.exchange(grounds.batch("south"), 20).queries_revision == 1
                memory.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096)
                print(f"{number + 1} messages, {memory[-1] / 1e6:.1f} MB, {side.answered} answered,"
                      f" {side.refused} refused, {side.passed_over} passed over")  # fmt: skip
    assert side.refused > HOSTILE / 20 and side.passed_over > HOSTILE / 40
    assert side.answered > HOSTILE / 20
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert memory[-1] - memory[4] < 16 << 20 and len(side._waiting) <= 1 and not side._inbox
    assert ground.home() == [] and len(ground.station.store.quarantine(10_000)) <= 2000


def test_what_waits_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a broker: what the wire's thread is given while the station is busy."""
    data = tmp_path / "station"
    station = Station(data, own_identity(data / "tls", ["127.0.0.1"]), grounds.NoText())  # type: ignore[arg-type]
    side = MqttSide(station, BrokerAccess("127.0.0.1:1", "u", "p", station.identity.ca.read_text()))
    large = bytes(MAX_BATCH_BYTES)
    for number in range(100):
        side._heard(Heard(topic_of(f"d{number}", BATCH), large, b"c", topic_of(f"d{number}", ANSWER)))
    assert side.passed_over == 100 - MAX_HEARD_BYTES // MAX_BATCH_BYTES + 1
    side._inbox.clear()
    side._inbox_bytes = 0
    monkeypatch.setattr(mqtt, "MAX_HEARD_BYTES", 1 << 20)
    for number in range(5000):
        device = f"d{number}"
        side._heard(Heard(topic_of(device, BATCH), b"", b"c", topic_of(device, ANSWER)))
    assert len(side._inbox) < 2500 and side._inbox_bytes <= 1 << 20
    side._wire.close()
    station.close()

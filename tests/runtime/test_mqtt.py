"""The link over MQTT: a mosquitto as docs/link.md sets it up, the real station and the real device's side."""

from __future__ import annotations

import logging
import random
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

for package in ("paho.mqtt", "argon2", "starlette", "cryptography"):
    pytest.importorskip(package)

from beside import load

from tagclip.runtime.cli import root
from tagclip.runtime.errors import CredentialError, LinkError, RefusedError
from tagclip.runtime.health import Health
from tagclip.runtime.outbox import Outbox
from tagclip.runtime.station.mqtt import MqttSide
from tagclip.runtime.station.mqtt_access import BrokerAccess
from tagclip.runtime.station.station import open_records
from tagclip.runtime.station.store import Filter, Store
from tagclip.runtime.station.tls import own_identity
from tagclip.runtime.sync_link import StationLink
from tagclip.runtime.sync_messages import MAX_BATCH_BYTES, QuerySet
from tagclip.runtime.sync_mqtt import MqttCarrier
from tagclip.runtime.sync_mqtt_wire import ANSWER, BATCH, HELLO, QUERIES, Heard, place_of, topic_of
from tagclip.runtime.sync_seal import DOWN, UP, Seal, secret_of

writer, grounds = load("outbox_writer"), load("mqtt_ground")
needs_broker = grounds.needs_broker


@needs_broker
def test_a_query_goes_up_a_hit_comes_home_through_everything_that_ends(ground: Any, tmp_path: Path) -> None:
    """Station away and back, broker killed and back, a wall clock that is off: nothing lost, nothing twice."""
    sets: list[QuerySet] = []
    outbox = Outbox(tmp_path / "outbox.db", "north")
    ground.serve()
    client = ground.client(outbox, sets)

    def tell(numbers: range) -> None:
        for number in numbers:
            outbox.put(writer.hit(number), writer.jpeg(number))

    try:
        tell(range(20))
        assert grounds.until(lambda: not len(outbox)) and len(ground.home()) == 20
        ground.add("a woman in red")
        assert grounds.until(lambda: bool(sets) and [q.text for q in sets[-1].queries] == ["a woman in red"])
        ground.leave()
        tell(range(20, 40))
        time.sleep(0.3)
        assert len(ground.home()) == 20
        ground.serve()
        assert grounds.until(lambda: not len(outbox), 60) and len(ground.home()) == 40
        ground.broker.kill()
        tell(range(40, 60))
        ground.add("a man in blue")
        time.sleep(0.3)
        ground.broker.start()
        assert grounds.until(lambda: not len(outbox), 90)
        assert grounds.until(lambda: len(sets[-1].queries) == 2, 90)
    finally:
        client.close()
        outbox.close()
    home = ground.home()
    assert sorted(hit["frame"] for hit in home) == list(range(60)) and all(hit["picture"] for hit in home)
    assert ground.station.store.picture(str(writer.hit(41).id), "test") == writer.jpeg(41)
    assert client.counts.rejected == 0 and ground.station.store.quarantine() == []


@needs_broker
def test_the_answer_tells_the_time_and_the_end_is_quick(ground: Any) -> None:
    ground.serve()
    carrier = ground.carrier()
    answer = carrier.exchange(grounds.batch(), 20)
    assert answer.acks == () and answer.queries_revision == 1
    assert carrier.skew_s is not None and abs(carrier.skew_s) < 5
    document = carrier.queries(0, 0)
    assert document is not None and document["revision"] == 1 and carrier.queries(1, 0.1) is None
    (north, _) = ground.station.store.devices()
    assert north["status"] == {"now_s": 1.5} and north["queries_revision"] == 1
    failed: list[Exception] = []

    def wait() -> None:
        try:
            carrier.queries(1, 25)
        except LinkError as error:
            failed.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert grounds.until(lambda: bool(ground.side and ground.side._waiting))
    begun_s = time.monotonic()
    carrier.close()
    waiting.join(10)
    assert failed and time.monotonic() - begun_s < 10
    with pytest.raises(LinkError, match="closed"):
        carrier.exchange(grounds.batch(), 5)


@needs_broker
# paho leaves a socket whose handshake failed to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_wrong_passwords_tokens_and_authorities_are_refused(ground: Any, tmp_path: Path) -> None:
    ground.serve()
    with pytest.raises(CredentialError, match="refuses the user north"):
        ground.carrier(token="another token, 32 characters long").exchange(grounds.batch(), 10)
    other = own_identity(tmp_path / "other", ["127.0.0.1"]).ca.read_text()
    stranger = MqttCarrier(ground.broker.address, other, "north", ground.tokens["north"])
    with pytest.raises(LinkError, match="certificate"):
        stranger.exchange(grounds.batch(), 10)
    stranger.close()
    # One that is at the broker with its password still, but was dismissed at the station.
    carrier = ground.carrier("south")
    assert carrier.exchange(grounds.batch("south"), 20).queries_revision == 1
    ground.station.store.dismiss("south", "test")
    with pytest.raises(CredentialError, match="not enrolled"):
        carrier.exchange(grounds.batch("south"), 20)
    with pytest.raises(CredentialError, match="the token is that of north"):
        ground.carrier().exchange(grounds.batch("south"), 20)


@needs_broker
def test_the_brokers_rules_keep_devices_apart(ground: Any) -> None:
    """In the configuration that docs/link.md tells."""
    side = ground.serve()
    heard: list[Heard] = []
    eve = ground.wire("south", "#", "tagclip/1/north/answer", "tagclip/1/+/batch", heard=heard.append)
    north = ground.carrier()
    assert north.exchange(grounds.batch(), 20).queries_revision == 1
    for topic in (topic_of("north", BATCH), topic_of("north", ANSWER), HELLO, "tagclip/1/north/queries"):
        eve.publish(topic, b"hers", correlation=b"c", answer_to=topic_of("north", ANSWER))
    assert grounds.until(lambda: side.answered == 1)
    assert north.exchange(grounds.batch(), 20).queries_revision == 1  # behind hers in the broker's queue
    assert side.passed_over == side.refused == 0 and {message.topic for message in heard} <= {HELLO}


@needs_broker
@pytest.mark.parametrize("ground", [grounds.EVERYBODY], indirect=True, ids=["no rules"])
def test_the_station_keeps_devices_apart_where_the_broker_does_not(ground: Any) -> None:
    side = ground.serve()
    heard: list[Heard] = []
    eve = ground.wire("south", "#", heard=heard.append)
    north = ground.carrier()
    assert north.exchange(grounds.batch(), 20).queries_revision == 1
    assert grounds.until(
        lambda: {topic_of("north", BATCH), topic_of("north", ANSWER)} <= {m.topic for m in heard}
    )
    (asked,) = [m for m in heard if m.topic == topic_of("north", BATCH)]
    (told,) = [m for m in heard if m.topic == topic_of("north", ANSWER)]
    assert b"now_s" not in asked.data + told.data and b"queries_revision" not in told.data
    hers = Seal(secret_of(ground.tokens["south"]))
    place = place_of(asked.topic, b"mine")
    for data, correlation in (
        (hers.close(UP, place, {}, grounds.batch("north")), b"mine"),  # as the other, with her own token
        (asked.data, b"mine"),  # the other's, under another correlation
        (asked.data[:-1] + bytes([asked.data[-1] ^ 1]), asked.correlation),
        (told.data, told.correlation),  # turned round
    ):
        refused = side.refused
        eve.publish(asked.topic, data, correlation=correlation, answer_to=asked.answer_to)
        assert grounds.until(lambda refused=refused: side.refused == refused + 1), correlation
    # As herself, and the answer to the other; and hers, moved to the other's topic.
    eve.publish(
        topic_of("south", BATCH), hers.close(UP, place_of(topic_of("south", BATCH), b"x"), {}, grounds.batch("south")),
        correlation=b"x", answer_to=topic_of("north", ANSWER),
    )  # fmt: skip
    assert grounds.until(lambda: side.passed_over == 1)
    # Forged answers end nothing, an old one neither.
    done: list[Any] = []
    waiting = threading.Thread(target=lambda: done.append(north.queries(1, 3)))
    waiting.start()
    assert grounds.until(lambda: any(m.topic == topic_of("north", QUERIES) for m in heard))
    (question,) = [m for m in heard if m.topic == topic_of("north", QUERIES)]
    forged = hers.close(
        DOWN, place_of(told.topic, question.correlation), {"status": 204, "now_s": 1, "wait_s": 0}, b""
    )
    for data in (forged, told.data, question.data, b"", b"\x01"):
        eve.publish(told.topic, data, correlation=question.correlation)
    ground.add("a man")
    waiting.join(20)
    assert done and done[0]["revision"] == 2
    # The same batch again has no effect, but that it is answered.
    answered = side.answered
    eve.publish(asked.topic, asked.data, correlation=asked.correlation, answer_to=asked.answer_to)
    assert grounds.until(lambda: side.answered == answered + 1) and ground.home() == []


@needs_broker
def test_what_is_too_large_does_not_block_the_rest(ground: Any) -> None:
    ground.serve()
    carrier = ground.carrier()
    with pytest.raises(RefusedError, match="more|at most"):
        carrier.exchange(
            grounds.batch()[:-1] + b" " * MAX_BATCH_BYTES + b"}", 20
        )  # packs well: the station refuses it
    noise = random.Random(1).randbytes(10 << 20)
    with pytest.raises(RefusedError, match="max_packet_size"):
        carrier.exchange(b"[" + noise + b"]", 20)
    assert carrier.exchange(grounds.batch(), 20).queries_revision == 1
    # Between what the station and what the broker takes: the broker does not hand it on, nobody answers.
    with pytest.raises(LinkError, match="no answer in time"):
        carrier.exchange(noise[: 3 * MAX_BATCH_BYTES], 1.0)
    assert carrier.exchange(grounds.batch(), 20).queries_revision == 1


@needs_broker
def test_a_broker_that_is_away_or_refuses_is_told_once_and_waited_for(
    ground: Any, caplog: pytest.LogCaptureFixture
) -> None:
    ground.broker.kill()
    carrier = ground.carrier()
    with pytest.raises(LinkError, match="refused"):
        carrier.exchange(grounds.batch(), 5)
    with caplog.at_level(logging.INFO), MqttSide(ground.station, ground.access):
        assert grounds.until(lambda: "tried again until it is there" in caplog.text)
        ground.broker.start()
        assert carrier.exchange(grounds.batch(), 30).queries_revision == 1
    assert caplog.text.count("are served") == 1
    wrong = BrokerAccess(ground.broker.address, grounds.STATION, "not that", ground.ca_pem)
    with MqttSide(ground.station, wrong):
        assert grounds.until(lambda: "refuses the user ~station" in caplog.text)


@needs_broker
def test_the_command_line_from_enrolment_to_a_hit_at_home(tmp_path: Path) -> None:
    """`tagclip station --mqtt`, `tagclip enrol`, `tagclip station mqtt-users`; the device's side is StationLink."""
    data, folder = tmp_path / "ground", tmp_path / "link"
    identity = own_identity(data / "tls", ["127.0.0.1", socket.gethostname()])
    broker = grounds.Broker(tmp_path / "broker", identity.certificate, identity.key)
    (tmp_path / "password").write_text(grounds.PASSWORD)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        sys.executable,
        "-m",
        "tagclip.runtime",
        "station",
        "--data",
        data,
        "--listen",
        listen,
        "--name",
        "127.0.0.1",
    ]
    command += ["--mqtt", f"mqtts://{broker.address}", "--mqtt-password-file", tmp_path / "password"]

    def said(*arguments: object) -> str:
        done = CliRunner().invoke(root, list(map(str, arguments)))
        assert done.exit_code == 0, done.output
        return done.output

    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        assert grounds.until(lambda: "station on https" in log.read_text(), 90), log.read_text()
        code = said("station", "enrol", "north", "--data", data).strip()
        said("enrol", code, "--device", "north", "--folder", folder)
        broker.users(said("station", "mqtt-users", "--data", data).splitlines())
        broker.start()
        health = Health(camera="c", detector="d", provider="cpu", encoder_id="e" * 64)
        with StationLink(folder, "e" * 64, health) as link:
            assert isinstance(link.client._carrier, MqttCarrier)
            link.tell(writer.hit(1), writer.jpeg(1))
            assert grounds.until(lambda: not len(link.outbox), 60), (log.read_text(), health.reasons())
            assert grounds.until(lambda: link.client.revision == 1)
    finally:
        process.terminate()
        process.wait(30)
        broker.kill()
    assert process.returncode == 0 and "Traceback" not in log.read_text()
    records = open_records(data)
    assert [hit["frame"] for hit in Store(records).hits(Filter(), None, 10, "test")[0]] == [1]
    records.close()

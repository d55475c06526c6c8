"""The link over MQTT: a mosquitto as docs/link.md sets it up, the real station and the real device's side."""

from __future__ import annotations

import gzip
import importlib.util
import json
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

for package in ("paho.mqtt", "argon2", "starlette", "cryptography"):
    pytest.importorskip(package)

from tagclip.runtime.errors import ConfigError, CredentialError, LinkError, RefusedError, SyncError
from tagclip.runtime.health import Health
from tagclip.runtime.outbox import Outbox
from tagclip.runtime.station import mqtt
from tagclip.runtime.station.mqtt import MAX_HEARD_BYTES, MqttSide
from tagclip.runtime.station.mqtt_access import BrokerAccess, access_of, passwords
from tagclip.runtime.station.station import Station
from tagclip.runtime.station.store import Filter
from tagclip.runtime.station.tls import own_identity
from tagclip.runtime.sync_client import SyncClient
from tagclip.runtime.sync_messages import MAX_BATCH_BYTES, QuerySet
from tagclip.runtime.sync_mqtt import MqttCarrier
from tagclip.runtime.sync_mqtt_wire import ANSWER, BATCH, HELLO, QUERIES, Heard, Wire, place_of, topic_of
from tagclip.runtime.sync_seal import DOWN, OVERHEAD_BYTES, SEALED, UP, Seal, secret_of

ENCODER = "e" * 64
HOSTILE = int(os.environ.get("TAGCLIP_HOSTILE", "500"))
EVERYBODY = "pattern readwrite #\n"  # a broker that keeps nobody apart


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


writer, brokers = load("outbox_writer"), load("mqtt_broker")
needs_broker = pytest.mark.skipif(
    brokers.BINARY is None or brokers.PASSWD is None,
    reason="mosquitto is not installed (apt install mosquitto)",
)


class NoText:
    """Stands where the text encoder does: these tests have no bundle."""

    encoder_id = ENCODER


def until(done: Callable[[], bool], timeout_s: float = 20.0) -> bool:
    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        if done():
            return True
        time.sleep(0.01)
    return done()


class Ground:
    """A station and a broker; devices of it."""

    def __init__(self, folder: Path, acl: str | None = None) -> None:
        data = folder / "station"
        self.station = Station(data, own_identity(data / "tls", ["127.0.0.1"]), NoText())  # type: ignore[arg-type]
        identity = self.station.identity
        self.broker = brokers.Broker(folder / "broker", identity.certificate, identity.key, acl)
        self.ca_pem = identity.ca.read_text()
        self.folder, self.tokens = folder, {}
        for name in ("north", "south"):
            code, _ = self.station.store.make_code(name, "test")
            token = self.station.store.enrol(code, name, "1", None, "test")
            assert token is not None
            self.tokens[name] = token
        self.broker.users(list(passwords(self.station.store)))
        self.broker.start()
        self.side: MqttSide | None = None
        self.open: list[Any] = []

    @property
    def access(self) -> BrokerAccess:
        return BrokerAccess(self.broker.address, brokers.STATION, brokers.PASSWORD, self.ca_pem)

    def serve(self) -> MqttSide:
        self.side = MqttSide(self.station, self.access)
        return self.side.__enter__()

    def leave(self) -> None:
        if self.side is not None:
            self.side.__exit__()
            self.side = None

    def carrier(self, device: str = "north", token: str | None = None) -> MqttCarrier:
        carrier = MqttCarrier(self.broker.address, self.ca_pem, device, token or self.tokens[device])
        self.open.append(carrier)
        return carrier

    def client(self, outbox: Outbox, sets: list[QuerySet]) -> SyncClient:
        health = Health(camera="c", detector="d", provider="cpu", encoder_id=ENCODER)
        client = SyncClient(
            outbox,
            self.carrier(),
            self.station.key.public,
            self.folder / "queries.json",
            encoder_id=ENCODER,
            on_queries=sets.append,
            health=health,
        )
        self.open.append(client)
        client.start()
        return client

    def wire(self, user: str, *topics: str, heard: Callable[[Heard], None] = lambda message: None) -> Wire:
        """Anybody's connection, as `user`."""
        password = Seal(secret_of(self.tokens[user])).password
        wire = Wire(
            self.broker.address, self.ca_pem, user, password, f"wire-{user}", topics or (HELLO,), heard,
            lambda begun: None, most_bytes=1 << 24,
        )  # fmt: skip
        self.open.append(wire)
        wire.connect(10)
        return wire

    def add(self, text: str) -> None:
        rest = dict.fromkeys(("vector", "encoder_id", "expires_s", "alarms_per_hour", "alarms_per_1000"))
        self.station.queries.add({"text": text, "view": "auto", "reason": "test", **rest}, "test")

    def home(self) -> list[dict[str, Any]]:
        return self.station.store.hits(Filter(), None, 10_000, "test")[0]

    def close(self) -> None:
        for each in self.open:
            each.close()
        self.leave()
        self.station.close()
        self.broker.kill()


@pytest.fixture
def ground(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Ground]:
    opened = Ground(tmp_path, getattr(request, "param", None))
    yield opened
    opened.close()


def batch(device: str = "north", *rows: Any) -> bytes:
    return json.dumps({"device": device, "messages": list(rows), "status": {"now_s": 1.5}}).encode()


@needs_broker
def test_a_query_goes_up_a_hit_comes_home_through_everything_that_ends(
    ground: Ground, tmp_path: Path
) -> None:
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
        assert until(lambda: not len(outbox)) and len(ground.home()) == 20
        ground.add("a woman in red")
        assert until(lambda: bool(sets) and [q.text for q in sets[-1].queries] == ["a woman in red"])
        ground.leave()
        tell(range(20, 40))
        time.sleep(0.3)
        assert len(ground.home()) == 20
        ground.serve()
        assert until(lambda: not len(outbox), 60) and len(ground.home()) == 40
        ground.broker.kill()
        tell(range(40, 60))
        ground.add("a man in blue")
        time.sleep(0.3)
        ground.broker.start()
        assert until(lambda: not len(outbox), 90)
        assert until(lambda: len(sets[-1].queries) == 2, 90)
    finally:
        client.close()
        outbox.close()
    home = ground.home()
    assert sorted(hit["frame"] for hit in home) == list(range(60)) and all(hit["picture"] for hit in home)
    assert ground.station.store.picture(str(writer.hit(41).id), "test") == writer.jpeg(41)
    assert client.counts.rejected == 0 and ground.station.store.quarantine() == []


@needs_broker
def test_the_answer_tells_the_time_and_the_end_is_quick(ground: Ground) -> None:
    ground.serve()
    carrier = ground.carrier()
    answer = carrier.exchange(batch(), 20)
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
    assert until(lambda: bool(ground.side and ground.side._waiting))
    begun_s = time.monotonic()
    carrier.close()
    waiting.join(10)
    assert failed and time.monotonic() - begun_s < 10
    with pytest.raises(LinkError, match="closed"):
        carrier.exchange(batch(), 5)


@needs_broker
# paho leaves a socket whose handshake failed to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_wrong_passwords_tokens_and_authorities_are_refused(ground: Ground, tmp_path: Path) -> None:
    ground.serve()
    with pytest.raises(CredentialError, match="refuses the user north"):
        ground.carrier(token="another token, 32 characters long").exchange(batch(), 10)
    other = own_identity(tmp_path / "other", ["127.0.0.1"]).ca.read_text()
    stranger = MqttCarrier(ground.broker.address, other, "north", ground.tokens["north"])
    with pytest.raises(LinkError, match="certificate"):
        stranger.exchange(batch(), 10)
    stranger.close()
    # One that is at the broker with its password still, but was dismissed at the station.
    carrier = ground.carrier("south")
    assert carrier.exchange(batch("south"), 20).queries_revision == 1
    ground.station.store.dismiss("south", "test")
    with pytest.raises(CredentialError, match="not enrolled"):
        carrier.exchange(batch("south"), 20)
    with pytest.raises(CredentialError, match="the token is that of north"):
        ground.carrier().exchange(batch("south"), 20)


@needs_broker
def test_the_brokers_rules_keep_devices_apart(ground: Ground) -> None:
    """In the configuration that docs/link.md tells."""
    side = ground.serve()
    heard: list[Heard] = []
    eve = ground.wire("south", "#", "tagclip/1/north/answer", "tagclip/1/+/batch", heard=heard.append)
    north = ground.carrier()
    assert north.exchange(batch(), 20).queries_revision == 1
    for topic in (topic_of("north", BATCH), topic_of("north", ANSWER), HELLO, "tagclip/1/north/queries"):
        eve.publish(topic, b"hers", correlation=b"c", answer_to=topic_of("north", ANSWER))
    assert until(lambda: side.answered == 1)
    assert north.exchange(batch(), 20).queries_revision == 1  # behind hers in the broker's queue
    assert side.passed_over == side.refused == 0 and {message.topic for message in heard} <= {HELLO}


@needs_broker
@pytest.mark.parametrize("ground", [EVERYBODY], indirect=True, ids=["no rules"])
def test_the_station_keeps_devices_apart_where_the_broker_does_not(ground: Ground) -> None:
    side = ground.serve()
    heard: list[Heard] = []
    eve = ground.wire("south", "#", heard=heard.append)
    north = ground.carrier()
    assert north.exchange(batch(), 20).queries_revision == 1
    (asked,) = [m for m in heard if m.topic == topic_of("north", BATCH)]
    (told,) = [m for m in heard if m.topic == topic_of("north", ANSWER)]
    assert b"now_s" not in asked.data + told.data and b"queries_revision" not in told.data
    hers = Seal(secret_of(ground.tokens["south"]))
    place = place_of(asked.topic, b"mine")
    for data, correlation in (
        (hers.close(UP, place, {}, batch("north")), b"mine"),  # as the other, with her own token
        (asked.data, b"mine"),  # the other's, under another correlation
        (asked.data[:-1] + bytes([asked.data[-1] ^ 1]), asked.correlation),
        (told.data, told.correlation),  # turned round
    ):
        refused = side.refused
        eve.publish(asked.topic, data, correlation=correlation, answer_to=asked.answer_to)
        assert until(lambda refused=refused: side.refused == refused + 1), correlation
    # As herself, and the answer to the other; and hers, moved to the other's topic.
    eve.publish(
        topic_of("south", BATCH), hers.close(UP, place_of(topic_of("south", BATCH), b"x"), {}, batch("south")),
        correlation=b"x", answer_to=topic_of("north", ANSWER),
    )  # fmt: skip
    assert until(lambda: side.passed_over == 1)
    # Forged answers end nothing, an old one neither.
    done: list[Any] = []
    waiting = threading.Thread(target=lambda: done.append(north.queries(1, 3)))
    waiting.start()
    assert until(lambda: any(m.topic == topic_of("north", QUERIES) for m in heard))
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
    assert until(lambda: side.answered == answered + 1) and ground.home() == []


@needs_broker
def test_what_is_too_large_does_not_block_the_rest(ground: Ground) -> None:
    ground.serve()
    carrier = ground.carrier()
    with pytest.raises(RefusedError, match="more|at most"):
        carrier.exchange(
            batch()[:-1] + b" " * MAX_BATCH_BYTES + b"}", 20
        )  # packs well: the station refuses it
    noise = random.Random(1).randbytes(10 << 20).hex().encode()
    with pytest.raises(RefusedError, match="max_packet_size"):
        carrier.exchange(b"[" + noise + b"]", 20)
    assert carrier.exchange(batch(), 20).queries_revision == 1
    # Between what the station and what the broker takes: the broker does not hand it on, nobody answers.
    with pytest.raises(LinkError, match="no answer in time"):
        carrier.exchange(noise[: 3 * MAX_BATCH_BYTES], 1.0)
    assert carrier.exchange(batch(), 20).queries_revision == 1


@needs_broker
def test_a_broker_that_is_away_or_refuses_is_told_once_and_waited_for(
    ground: Ground, caplog: pytest.LogCaptureFixture
) -> None:
    ground.broker.kill()
    carrier = ground.carrier()
    with pytest.raises(LinkError, match="refused"):
        carrier.exchange(batch(), 5)
    with caplog.at_level(logging.INFO), MqttSide(ground.station, ground.access):
        assert until(lambda: "tried again until it is there" in caplog.text)
        ground.broker.start()
        assert carrier.exchange(batch(), 30).queries_revision == 1
    assert caplog.text.count("are served") == 1
    wrong = BrokerAccess(ground.broker.address, brokers.STATION, "not that", ground.ca_pem)
    with MqttSide(ground.station, wrong):
        assert until(lambda: "refuses the user ~station" in caplog.text)


def hostile(rng: random.Random, seal: Seal, topic: str) -> tuple[bytes, bytes]:
    """Data and correlation of a message that somebody made: noise, mutations, and what opens but is wrong inside."""
    correlation = rng.randbytes(rng.choice((1, 8, 16, 64)))
    place = place_of(topic, correlation)
    bodies: list[bytes] = [
        rng.randbytes(rng.randrange(200)),
        b"[" * rng.randrange(1, 5000),
        b'{"device": "north", "messages": [' + b"[" * 900 + b"]" * 900 + b'], "status": {}}',
        batch(
            "north", *[rng.choice([None, 1, "x", {}, {"id": "y" * 99}, {"kind": "hit"}])] * rng.randrange(70)
        ),
        batch("south"),
        batch()[: rng.randrange(40)],
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
    ground: Ground, caplog: pytest.LogCaptureFixture
) -> None:
    """TAGCLIP_HOSTILE=20000 sends so many."""
    side = ground.serve()
    rng, seal = random.Random(7), Seal(secret_of(ground.tokens["north"]))
    carrier = ground.carrier("south")
    eve = ground.wire("north")
    assert carrier.exchange(batch("south"), 20).queries_revision == 1
    memory: list[int] = []
    with caplog.at_level(logging.ERROR):
        for number in range(HOSTILE):
            topic = topic_of("north", rng.choice((BATCH, QUERIES)))
            data, correlation = hostile(rng, seal, topic)
            answer_to = rng.choice(
                (topic_of("north", ANSWER), topic_of("north", ANSWER), "", "$SYS/x", "a/\U0001f600")
            )
            eve.publish(topic, data, correlation=correlation, answer_to=answer_to).wait_for_publish(10)
            if number % (HOSTILE // 10) == HOSTILE // 10 - 1:
                assert carrier.exchange(batch("south"), 20).queries_revision == 1
                memory.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096)
                print(f"{number + 1} messages, {memory[-1] / 1e6:.1f} MB, {side.answered} answered,"
                      f" {side.refused} refused, {side.passed_over} passed over")  # fmt: skip
    assert side.refused > HOSTILE / 20 and side.passed_over > HOSTILE / 20
    assert side.answered > HOSTILE / 20
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert memory[-1] - memory[4] < 16 << 20 and len(side._waiting) <= 1 and not side._inbox
    assert ground.home() == [] and len(ground.station.store.quarantine(10_000)) <= 2000


def test_what_waits_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a broker: what the wire's thread is given while the station is busy."""
    data = tmp_path / "station"
    station = Station(data, own_identity(data / "tls", ["127.0.0.1"]), NoText())  # type: ignore[arg-type]
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


def test_a_seal_opens_for_its_way_its_place_and_its_token_alone() -> None:
    """Against AESGCM, HMAC and gzip of other makers than the module itself: the form of docs/link.md."""
    import hashlib
    import hmac

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    token = "t" * 43
    secret = hashlib.sha256(token.encode()).digest()
    key = hmac.new(secret, b"tagclip mqtt 1 up", hashlib.sha256).digest()
    data = Seal(secret).close(UP, b"topic\ncorrelation", {"a": 1}, b"body" * 200)
    plain = AESGCM(key).decrypt(data[1:13], data[13:], b"\x01topic\ncorrelation")
    line, _, body = plain.partition(b"\n")
    assert json.loads(line) == {"a": 1, "packed": True} and gzip.decompress(body) == b"body" * 200
    assert Seal(secret).password == hmac.new(secret, b"tagclip mqtt 1 password", hashlib.sha256).hexdigest()
    opened = Seal(secret_of(token)).open(UP, b"topic\ncorrelation", data, 1000)
    assert opened == ({"a": 1}, b"body" * 200)
    for way, place, text, most in (
        (DOWN, b"topic\ncorrelation", token, 1000),
        (UP, b"topic\ncorrelatioN", token, 1000),
        (UP, b"topic\ncorrelation", "u" * 43, 1000),
        (UP, b"topic\ncorrelation", token, 700),
    ):
        with pytest.raises(SyncError):
            Seal(secret_of(text)).open(way, place, data, most)
    for cut in range(len(data)):
        with pytest.raises(SyncError):
            Seal(secret).open(UP, b"topic\ncorrelation", data[:cut], 1000)
    with pytest.raises(SyncError, match="at most"):
        Seal(secret).open(UP, b"", SEALED + bytes(1000 + OVERHEAD_BYTES), 1000)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mqtts://a:b@host:8883", "seen by everybody"),
        ("mqtt://host:1883", "over TLS only"),
        ("mqtts://host:8883/topic", "expected mqtts://"),
        ("mqtts://host:0", "HOST:PORT"),
        ("mqtts://", "HOST:PORT"),
        ("host:8883", "expected mqtts://"),
    ],
)
def test_a_url_that_cannot_be_used_says_why(url: str, expected: str, tmp_path: Path) -> None:
    ca = own_identity(tmp_path, ["127.0.0.1"]).ca
    with pytest.raises(ConfigError, match=expected):
        access_of(url, "password", None, ca)


def test_the_password_comes_from_a_file_or_the_environment(tmp_path: Path) -> None:
    ca = own_identity(tmp_path, ["127.0.0.1"]).ca
    (tmp_path / "password").write_text("from the file\n")
    found = access_of("mqtts://host", "environment", tmp_path / "password", ca)
    assert (found.address, found.user, found.password) == ("host:8883", "~station", "from the file")
    found = access_of("mqtts://%40me@[::1]:99", "environment", None, ca)
    assert (found.address, found.user, found.password) == ("[::1]:99", "@me", "environment")
    for password, file, authority in ((None, None, ca), ("p", tmp_path / "none", ca), ("p", None, tmp_path)):
        with pytest.raises(ConfigError, match="--mqtt"):
            access_of("mqtts://host", password, file, authority)

"""Devices that reach the station over an MQTT broker: the same answers as over HTTPS, from the same functions.

The broker is not trusted. A request counts as its device's when it opens with what the station keeps of the device's
token, whatever its topic and the broker's rules say.
"""

from __future__ import annotations

import json
import logging
import random
import secrets
import threading
import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tagclip.runtime.errors import CredentialError, LinkError, RefusedError, one_line
from tagclip.runtime.station.device_api import MAX_WAIT_S, hand_in
from tagclip.runtime.station.mqtt_access import BrokerAccess
from tagclip.runtime.station.station import Station
from tagclip.runtime.station.web import refusal_of
from tagclip.runtime.sync_fields import DEVICE_NAME, Row, parse
from tagclip.runtime.sync_messages import MAX_BATCH_BYTES
from tagclip.runtime.sync_mqtt_wire import (
    ANSWER,
    BATCH,
    HELLO,
    QUERIES,
    ROOT,
    Heard,
    Wire,
    place_of,
    topic_of,
)
from tagclip.runtime.sync_seal import DOWN, OVERHEAD_BYTES, REFUSED, UP, Seal, pack

if TYPE_CHECKING:
    from paho.mqtt.client import MQTTMessageInfo

MAX_CORRELATION = 64
MAX_HEARD_BYTES = 32 << 20  # that wait to be answered; what comes on top is passed over, and sent again
CONNECT_S = 15.0
FIRST_PAUSE_S, MOST_PAUSE_S = 0.5, 30.0
MAX_UNSENT_BYTES = 16 << 20
WRITE_S = 10.0  # for an answer to be written to the broker, when so many bytes wait for it
TOLD_AT_ONCE = 8  # devices that wait for queries, before a hit has its turn
COMPLAIN_EVERY_S = 60.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Waiting:
    """A device that waits for a query set after `revision`, until `end_s` (monotonic)."""

    heard: Heard
    seal: Seal
    revision: int
    end_s: float


class MqttSide:
    """Serves devices behind a broker while it is entered; a broker that is away is waited for.

    Args:
        station: what answers.
        access: to the broker.

    Attributes:
        answered, refused, passed_over: requests, since the start.

    Raises:
        MissingExtraError: paho-mqtt is not installed.
    """

    def __init__(self, station: Station, access: BrokerAccess) -> None:
        self._station = station
        self._wire = Wire(
            access.address,
            access.ca_pem,
            access.user,
            access.password,
            "tagclip-station",
            tuple(f"{ROOT}/+/{kind}" for kind in (BATCH, QUERIES)),
            self._heard,
            self._begun,
            will=HELLO,
            most_bytes=MAX_BATCH_BYTES + OVERHEAD_BYTES + MAX_CORRELATION + 512,
        )
        self.answered = self.refused = self.passed_over = 0
        self._hello = secrets.token_hex(16).encode("ascii")
        self._changed = threading.Condition()
        self._stop, self._lost = threading.Event(), threading.Event()
        self._inbox: OrderedDict[str, Heard] = (
            OrderedDict()
        )  # by topic: of one device's two the newest counts
        self._inbox_bytes = 0
        self._unsent: deque[tuple[MQTTMessageInfo, int]] = deque()  # with their bytes
        self._rung = False
        self._waiting: dict[str, _Waiting] = {}  # by device
        self._packed: tuple[int, bytes] = (0, b"")  # the newest query set as it travels
        self._complain_s = -COMPLAIN_EVERY_S
        self._threads = [
            threading.Thread(target=work, name=name, daemon=True)
            for name, work in (("mqtt-connect", self._connect), ("mqtt-answer", self._answer))
        ]

    def __enter__(self) -> MqttSide:
        self._station.bell.others.append(self._ring)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._station.bell.others.remove(self._ring)
        self._stop.set()
        self._lost.set()
        self._ring()
        self._threads[1].join()  # what it has begun to keep, it also acknowledges
        self._wire.close()
        self._threads[0].join(CONNECT_S)

    def _connect(self) -> None:
        """Keep a connection to the broker."""
        pause_s, told = 0.0, ""
        while not self._stop.is_set():
            self._lost.clear()
            try:
                self._wire.connect(CONNECT_S)
                # After it listens: a device that hears this may send at once.
                self._wire.publish(HELLO, self._hello, retain=True)
            except (LinkError, CredentialError, RefusedError) as error:
                if not self._stop.is_set() and told != str(error):
                    log.warning("%s; tried again until it is there", error)
                    told = str(error)
                pause_s = min(max(2 * pause_s, FIRST_PAUSE_S), MOST_PAUSE_S)
                self._stop.wait(pause_s * random.uniform(0.5, 1.0))
                continue
            log.info("devices behind the broker %s are served", self._wire.address)
            pause_s, told = 0.0, ""
            while not self._stop.is_set() and not self._lost.wait(1.0):
                pass

    def _begun(self, begun: bool) -> None:
        self._unsent.clear()
        if not begun:
            self._lost.set()

    def _heard(self, message: Heard) -> None:
        """By the wire's thread: put it where `_answer` finds it, or pass it over."""
        device = message.topic[len(ROOT) + 1 :].rpartition("/")[0]
        good = (
            DEVICE_NAME.fullmatch(device) is not None
            and message.answer_to == topic_of(device, ANSWER)
            and 0 < len(message.correlation) <= MAX_CORRELATION
            and len(message.data) <= MAX_BATCH_BYTES + OVERHEAD_BYTES
        )
        with self._changed:
            older = self._inbox.get(message.topic)
            bytes_ = self._inbox_bytes + _weight(message) - (_weight(older) if older else 0)
            if good and bytes_ <= MAX_HEARD_BYTES:
                self._inbox[message.topic], self._inbox_bytes = message, bytes_
                self._changed.notify_all()
                return
        self.passed_over += 1
        self._complain("a message on %s is passed over: not in form, or too many wait", message.topic)

    def _ring(self) -> None:
        with self._changed:
            self._rung = True
            self._changed.notify_all()

    def _answer(self) -> None:
        """Answer what came, and who waits for queries, until the end."""
        while not self._stop.is_set():
            with self._changed:
                next_s = min((each.end_s for each in self._waiting.values()), default=time.monotonic() + 60.0)
                self._changed.wait_for(lambda: self._inbox or self._rung, max(next_s - time.monotonic(), 0.0))
                rung, self._rung = self._rung, False
                message = self._inbox.popitem(last=False)[1] if self._inbox else None
                self._inbox_bytes -= _weight(message) if message else 0
            try:
                if rung or next_s <= time.monotonic():
                    self._tell_waiting()
                if message is not None:
                    self._serve(message)
            except (LinkError, RefusedError) as error:
                log.debug("an answer that cannot be sent: %s", error)  # who asked asks again
            except Exception:
                log.exception("unexpected; the station goes on")

    def _serve(self, message: Heard) -> None:
        _, _, device, kind = message.topic.split("/")
        secret = self._station.store.secret_of(device)
        if secret is None:
            self._refuse(message, f"{device} is not enrolled here; enrol it")
            return
        seal = Seal(secret)
        try:
            place = place_of(message.topic, message.correlation)
            _, body = seal.open(UP, place, message.data, MAX_BATCH_BYTES)
            if kind == QUERIES:
                self._wait(message, device, seal, body)
                return
            answer = json.dumps(hand_in(self._station, device, body)).encode("ascii")
        except CredentialError as error:
            self._refuse(message, str(error))
        except Exception as error:
            refusal = refusal_of(error, f"a {kind} of {device}")
            told = json.dumps({"error": refusal.text[:2000]}).encode("ascii")
            self._send(message, seal, refusal.status, told, wait_s=refusal.wait_s)
        else:
            self._send(message, seal, 200, answer)

    def _wait(self, message: Heard, device: str, seal: Seal, body: bytes) -> None:
        fields = Row(parse(body, "queries", 1024), "queries")
        revision = fields.integer("revision", low=0, high=1 << 53)
        wait_s = fields.number("wait_s", low=0.0, high=MAX_WAIT_S)
        fields.close()
        self._station.store.saw(device, revision)
        self._waiting[device] = _Waiting(message, seal, revision, time.monotonic() + wait_s)
        if wait_s == 0 or self._station.queries.current()[0] > revision:
            self._rung = True

    def _tell_waiting(self) -> None:
        """The newest set to those who have an older one, and "none" to those who have waited long enough."""
        revision, document = self._station.queries.current()
        if self._packed[0] != revision:
            self._packed = revision, pack(document)
        now_s, told = time.monotonic(), 0
        for device, each in list(self._waiting.items()):
            newer = revision > each.revision
            if not newer and each.end_s > now_s:
                continue
            if told == TOLD_AT_ONCE:
                self._rung = True  # the others after what came meanwhile
                return
            told += 1
            del self._waiting[device]
            if newer:
                self._send(each.heard, each.seal, 200, self._packed[1], packed=True)
            else:
                self._send(each.heard, each.seal, 204, b"")

    def _send(
        self, asked: Heard, seal: Seal, status: int, body: bytes, *, wait_s: float = 0.0, packed: bool = False
    ) -> None:
        place = place_of(asked.answer_to, asked.correlation)
        head = {"status": status, "now_s": round(time.time(), 3), "wait_s": wait_s}
        self._publish(asked, seal.close(DOWN, place, head, body, packed=packed))
        self.answered += 1

    def _refuse(self, asked: Heard, reason: str) -> None:
        """In the clear: no key is known that the device would believe."""
        self.refused += 1
        self._complain("a message on %s is refused: %s", asked.topic, reason)
        self._publish(asked, REFUSED + one_line(reason)[:199].encode("utf-8"))

    def _publish(self, asked: Heard, data: bytes) -> None:
        self._unsent.append(
            (self._wire.publish(asked.answer_to, data, correlation=asked.correlation), len(data))
        )
        try:
            # A broker that does not read holds up the station, and does not fill its memory.
            while self._unsent and (
                self._unsent[0][0].is_published() or sum(size for _, size in self._unsent) > MAX_UNSENT_BYTES
            ):
                info, _ = self._unsent[0]
                info.wait_for_publish(WRITE_S)
                if not info.is_published():
                    self._wire.drop()
                    raise LinkError(f"broker {self._wire.address} does not take what it is sent")
                self._unsent.popleft()
        except (
            RuntimeError,
            ValueError,
            IndexError,
        ) as error:  # the connection ended, and with it what was unsent
            raise LinkError(f"broker {self._wire.address}: {error}") from error

    def _complain(self, text: str, *values: str) -> None:
        """To the log, once a minute: anybody who may publish could fill it."""
        now_s = time.monotonic()
        if now_s - self._complain_s >= COMPLAIN_EVERY_S:
            self._complain_s = now_s
            log.warning(text, *(one_line(value)[:200] for value in values))


def _weight(message: Heard) -> int:
    """Memory that it takes, about."""
    return len(message.data) + len(message.topic) + 500

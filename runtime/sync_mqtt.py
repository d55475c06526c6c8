"""MQTT 5 to the station, over somebody's broker, which is trusted with nothing but carrying; a `Carrier`."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Any

from tagclip.runtime.errors import CredentialError, LinkError, RefusedError, SyncError, one_line
from tagclip.runtime.sync_fields import Row, parse, sync_errors
from tagclip.runtime.sync_https import FOR_GOOD, answer_detail
from tagclip.runtime.sync_messages import MAX_ANSWER_BYTES, MAX_QUERIES_BYTES, Answer, answer_of
from tagclip.runtime.sync_mqtt_wire import (
    ANSWER,
    BATCH,
    CONNECT_S,
    HELLO,
    QUERIES,
    Heard,
    Wire,
    place_of,
    topic_of,
)
from tagclip.runtime.sync_seal import DOWN, OVERHEAD_BYTES, REFUSED, UP, Seal, secret_of

_Opened = tuple[dict[str, Any], bytes]  # head and body

log = logging.getLogger(__name__)


class MqttCarrier:
    """A station behind a broker; a `Carrier`.

    Args:
        address: HOST:PORT of the broker.
        ca_pem: the one certificate authority that is trusted for it.
        device, token: of this device at the station.

    Attributes:
        skew_s: see `Carrier`.
        sent_bytes: of messages, as they travelled.

    Raises:
        MissingExtraError: paho-mqtt or cryptography is not installed.
    """

    def __init__(self, address: str, ca_pem: str, device: str, token: str) -> None:
        self._device, self._seal = device, Seal(secret_of(token))
        self._wire = Wire(
            address,
            ca_pem,
            device,
            self._seal.password,
            f"tagclip-{device}",
            (HELLO, topic_of(device, ANSWER)),
            self._heard,
            self._begun,
            most_bytes=MAX_QUERIES_BYTES + OVERHEAD_BYTES,
        )
        self._changed = threading.Condition()
        self._waiting: dict[
            bytes, _Opened | CredentialError | None
        ] = {}  # by correlation: the answer, once there
        self._station = b""  # which start of it is there; empty: none
        self._starts = 0  # changes of `_station` and of the connection
        self._up = False
        self.skew_s: float | None = None
        self.sent_bytes = 0

    def exchange(self, batch: bytes, timeout_s: float) -> Answer:
        """Send a batch; see `Carrier`."""
        status, body, wait_s = self._ask(BATCH, batch, CONNECT_S, timeout_s, MAX_ANSWER_BYTES)
        if status in FOR_GOOD:
            raise RefusedError(f"{self._name} answers {status}: {answer_detail(body)}")
        self._check(status, body, wait_s)
        return answer_of(body)

    def queries(self, revision: int, wait_s: float) -> dict[str, Any] | None:
        """Wait for a newer query set; see `Carrier`."""
        asked = b'{"revision": %d, "wait_s": %g}' % (revision, wait_s)
        status, body, pause_s = self._ask(QUERIES, asked, wait_s, wait_s + CONNECT_S, MAX_QUERIES_BYTES)
        if status == 204:
            return None
        self._check(status, body, pause_s)
        return parse(body, "queries", MAX_QUERIES_BYTES)

    def close(self) -> None:
        """End it; see `Carrier`."""
        self._wire.close()
        with self._changed:
            self._changed.notify_all()

    @property
    def _name(self) -> str:
        return f"station behind {self._wire.address}"

    def _ask(
        self, kind: str, body: bytes, meet_s: float, timeout_s: float, most: int
    ) -> tuple[int, bytes, float | None]:
        """Status and body of the station's answer, and how long it asks to wait.

        Args:
            meet_s: to wait for a station that is not at the broker.
        """
        correlation, topic = os.urandom(16), topic_of(self._device, kind)
        self._wire.connect(CONNECT_S)
        sealed = self._seal.close(UP, place_of(topic, correlation), {}, body)
        with self._changed:
            self._changed.wait_for(lambda: self._station or not self._up, meet_s)
            if not self._station:
                raise LinkError(f"{self._name} is not connected to the broker now")
            starts = self._starts
            self._waiting[correlation] = None
        try:
            self._wire.publish(
                topic, sealed, correlation=correlation, answer_to=topic_of(self._device, ANSWER)
            )
            self.sent_bytes += len(sealed)
            with self._changed:
                self._changed.wait_for(
                    lambda: self._waiting[correlation] is not None or self._starts != starts, timeout_s
                )
                answer = self._waiting[correlation]
                if answer is None and self._starts != starts:
                    raise LinkError(f"{self._name}: the connection ended, at one of its ends")
        finally:
            with self._changed:
                self._waiting.pop(correlation, None)
        if answer is None:
            self._wire.drop()  # it may be dead without saying so
            raise LinkError(f"{self._name}: no answer in time", timed_out=True)
        if isinstance(answer, CredentialError):
            raise answer
        return self._learn(*answer, most)

    def _begun(self, begun: bool) -> None:
        """A connection begins or has ended: who asked gets no answer; a station that is there says so anew."""
        with self._changed:
            self._station, self._starts, self._up = b"", self._starts + 1, begun
            self._changed.notify_all()

    def _heard(self, message: Heard) -> None:
        with self._changed:
            if message.topic == HELLO:
                if message.data != self._station:
                    self._station, self._starts = message.data[:64], self._starts + 1
            elif message.correlation in self._waiting:
                self._waiting[message.correlation] = self._read(message)
            self._changed.notify_all()

    def _read(self, message: Heard) -> _Opened | CredentialError | None:
        """The answer; None for what somebody else made up, which is passed over so that it can end nothing."""
        if message.data[:1] == REFUSED:
            reason = one_line(message.data[1:200].decode("utf-8", "replace"))
            return CredentialError(f"{self._name} refuses this device ({reason})")
        try:
            return self._seal.open(
                DOWN, place_of(message.topic, message.correlation), message.data, MAX_QUERIES_BYTES
            )
        except SyncError as error:
            log.debug("an answer that is passed over: %s", error)
            return None

    def _learn(self, head: dict[str, Any], body: bytes, most: int) -> tuple[int, bytes, float | None]:
        with sync_errors():
            fields = Row(head, "head")
            status = fields.integer("status", low=200, high=599)
            now_s = fields.number("now_s", low=0.0, high=253_402_300_799.0)
            wait_s = fields.number("wait_s", low=0.0, high=86_400.0)
            fields.close()
        if len(body) > most:
            raise LinkError(f"{self._name} answers with more than {most:,} bytes")
        self.skew_s = now_s - time.time()
        return status, body, wait_s or None

    def _check(self, status: int, body: bytes, wait_s: float | None) -> None:
        if status in (401, 403):
            raise CredentialError(
                f"{self._name} refuses this device ({status}: {answer_detail(body)}); enrol it anew"
            )
        if status != 200:
            raise LinkError(f"{self._name} answers {status}: {answer_detail(body)}", retry_s=wait_s)

"""One connection to an MQTT 5 broker, by paho-mqtt: TLS with one pinned authority, QoS 0, nothing kept by the broker.

The broker's acknowledgements are worth nothing here (it was measured: every broker lost messages that it had
acknowledged), so none are asked for; what counts is what the other end answers.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tagclip.runtime.errors import CredentialError, LinkError, MissingExtraError, RefusedError, one_line
from tagclip.runtime.sync_https import context_of, split_address

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessageInfo

ROOT = "tagclip/1"
HELLO = f"{ROOT}/hello"  # retained: which start of the station is there; empty when none is
BATCH, QUERIES, ANSWER = "batch", "queries", "answer"
CONNECT_S = 10.0
KEEPALIVE_S = 30
EXPIRY_S = 60  # of a message that waits at the broker; whoever sent it asks again
_BAD_USER = (134, 135, 138, 140)  # reason codes of MQTT 5: user or password, not authorised, banned, method

log = logging.getLogger(__name__)


def topic_of(device: str, kind: str) -> str:
    """Where messages of or to a device travel."""
    return f"{ROOT}/{device}/{kind}"


def place_of(topic: str, correlation: bytes) -> bytes:
    """What a sealed message belongs to: it opens on its topic alone, an answer for its own question alone."""
    return topic.encode("utf-8") + b"\n" + correlation


@dataclass(frozen=True)
class Heard:
    """A message that came.

    Attributes:
        topic, data: of the message.
        correlation: what an answer is told from others by; empty when the message names none.
        answer_to: the topic that it wants the answer on, "" for none.
    """

    topic: str
    data: bytes
    correlation: bytes
    answer_to: str


class Wire:
    """A connection that is made by `connect`, and again by the next `connect` after it ended.

    Args:
        address: HOST:PORT of the broker.
        ca_pem: the one certificate authority that is trusted.
        user, password: at the broker.
        client_id: one connection at a time may have it; the broker ends the older.
        topics: to listen to.
        heard: is given each message, by the wire's thread; must be quick and never raise.
        changed: is called, by the same thread, with True when a connection begins and False when it has ended.
        will: topic that the broker empties (retained) when this connection dies.
        most_bytes: of a message that comes; the broker drops larger ones.
    """

    def __init__(
        self,
        address: str,
        ca_pem: str,
        user: str,
        password: str,
        client_id: str,
        topics: tuple[str, ...],
        heard: Callable[[Heard], None],
        changed: Callable[[bool], None],
        *,
        will: str | None = None,
        most_bytes: int,
    ) -> None:
        try:
            import paho.mqtt.client  # noqa: F401
        except ImportError as error:
            raise MissingExtraError(
                "paho-mqtt is not installed; MQTT needs: pip install 'tagclip[mqtt]'"
            ) from error
        self.address = address
        self._host, self._port = split_address(address)
        self._context = context_of(ca_pem)
        self._user, self._password, self._client_id = user, password, client_id
        self._topics, self._heard, self._tell = topics, heard, changed
        self._will, self._most_bytes = will, most_bytes
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._client: Client | None = None
        self._error: LinkError | CredentialError | None = None
        self._up = self._closed = self._dropped = False
        self._takes_bytes = 0  # of a message, as the broker says; 0: whatever
        self._woken, self._wakes = socket.socketpair()
        self._woken.setblocking(False)
        self._wakes.setblocking(False)

    @property
    def up(self) -> bool:
        """Whether it is connected, and listens."""
        return self._up

    def connect(self, timeout_s: float) -> None:
        """Be connected and listen; several threads may ask for it at once.

        Raises:
            LinkError: the broker is out of reach or does not do as asked.
            CredentialError: it refuses user or password.
        """
        with self._changed:
            if self._dropped:
                self._changed.wait_for(lambda: self._thread is None, timeout_s)
            if self._thread is None and not self._closed:
                self._error = None
                self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)
                self._thread.start()
            mine = self._thread
            self._changed.wait_for(lambda: self._up or self._closed or self._thread is not mine, timeout_s)
            if self._closed:
                raise LinkError(f"broker {self.address}: the link is closed")
            if not self._up:
                text = f"broker {self.address}: no answer in time"
                error = self._error
                raise type(error)(str(error)) if error else LinkError(text, timed_out=True)

    def publish(
        self, topic: str, data: bytes, *, correlation: bytes = b"", answer_to: str = "", retain: bool = False
    ) -> MQTTMessageInfo:
        """Give a message to the connection; its having been written tells nothing of its arrival.

        Raises:
            LinkError: there is no connection.
            RefusedError: it is larger than the broker takes.
        """
        if self._takes_bytes and len(data) + 512 > self._takes_bytes:
            raise RefusedError(
                f"broker {self.address} takes at most {self._takes_bytes:,} bytes, the message has {len(data):,}; "
                "raise its max_packet_size"
            )
        client = self._client
        if client is None or not self._up:
            raise LinkError(f"broker {self.address}: the connection ended")
        told = _properties("PUBLISH")
        if not retain:
            told.MessageExpiryInterval = EXPIRY_S
        if correlation:
            told.CorrelationData = correlation
        if answer_to:
            told.ResponseTopic = answer_to
        info = client.publish(topic, data, qos=0, retain=retain, properties=told)
        self._wake()
        return info

    def drop(self) -> None:
        """End the connection, which may be dead without saying so; what was not sent is lost."""
        with self._changed:
            self._dropped, self._up = self._thread is not None, False
        self._wake()

    def close(self, timeout_s: float = 2.0) -> None:
        """Say farewell to the broker; whoever waits in `connect` gets LinkError."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        self._wake()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)
        if thread is None:
            self._release()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it wakes anyway; closed: nobody is left to wake
            self._wakes.send(b"\0")

    def _run(self) -> None:
        """One connection, from its beginning to its end."""
        error: LinkError | CredentialError | None = None
        try:
            self._serve(self._open())
        except (LinkError, CredentialError) as caught:
            error = caught
        except (OSError, ValueError) as caught:
            error = LinkError(
                f"broker {self.address}: {_reason(caught)}", timed_out=isinstance(caught, TimeoutError)
            )
        except Exception as caught:  # whatever a broker sends: paho raises many things over malformed packets
            error = LinkError(f"broker {self.address}: {one_line(repr(caught))[:200]}")
        self._tell(False)
        with self._changed:
            client, self._client = self._client, None
            self._up, self._dropped, self._error, self._thread = False, False, error, None
            self._changed.notify_all()
        if client is not None and (sock := client.socket()) is not None:
            sock.close()
        if self._closed:
            self._release()

    def _release(self) -> None:
        self._woken.close()
        self._wakes.close()

    def _open(self) -> Client:
        from paho.mqtt.client import Client, MQTTv5
        from paho.mqtt.enums import CallbackAPIVersion

        client = Client(
            CallbackAPIVersion.VERSION2, self._client_id, protocol=MQTTv5, reconnect_on_failure=False
        )
        client.username_pw_set(self._user, self._password)
        client.tls_set_context(self._context)
        client.connect_timeout = CONNECT_S
        # With it paho leaves the socket to this thread: TLS of one connection must not be used by two.
        client.on_socket_register_write = lambda *_: None
        client.on_connect, client.on_subscribe, client.on_message = (
            self._on_connect,
            self._on_subscribe,
            self._on_message,
        )
        client.on_disconnect = self._on_disconnect
        if self._will is not None:
            client.will_set(self._will, b"", qos=0, retain=True)
        asked = _properties("CONNECT")
        asked.MaximumPacketSize = self._most_bytes
        self._client = client
        client.connect(self._host, self._port, KEEPALIVE_S, clean_start=True, properties=asked)
        return client

    def _serve(self, client: Client) -> None:
        sock = client.socket()
        assert isinstance(sock, ssl.SSLSocket)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        until_s = time.monotonic() + CONNECT_S
        poll = select.poll()  # select() takes no descriptor over 1023, and a station has thousands
        poll.register(self._woken, select.POLLIN)
        while not self._dropped:
            if self._closed:
                self._farewell(client)
                return
            pending = sock.pending()
            poll.register(sock, select.POLLIN | (select.POLLOUT if client.want_write() else 0))
            happened = dict(poll.poll(0 if pending else 1000))
            if self._woken.fileno() in happened:
                with contextlib.suppress(BlockingIOError):
                    self._woken.recv(4096)
            if pending or happened.get(sock.fileno(), 0) & ~select.POLLOUT:
                client.loop_read()
            if client.want_write() and client.socket() is not None:
                client.loop_write()
            client.loop_misc()
            if client.socket() is None:
                raise self._error or LinkError(f"broker {self.address}: the connection ended")
            if not self._up and time.monotonic() > until_s:
                raise TimeoutError
        raise LinkError(f"broker {self.address}: given up as dead")

    def _farewell(self, client: Client) -> None:
        """Tell what is still to be told, and that this is an end and no failure; a second at most."""
        if self._up and self._will is not None:
            client.publish(self._will, b"", qos=0, retain=True)
        client.disconnect()
        end_s = time.monotonic() + 1.0
        while (sock := client.socket()) is not None and client.want_write() and time.monotonic() < end_s:
            poll = select.poll()
            poll.register(sock, select.POLLOUT)
            poll.poll(100)
            client.loop_write()

    def _on_connect(self, client: Client, _: Any, __: Any, code: Any, told: Any) -> None:
        if code.is_failure:
            self._error = self._refusal(code, f"refuses the user {self._user}")
            return
        from paho.mqtt.subscribeoptions import SubscribeOptions

        self._takes_bytes = int(getattr(told, "MaximumPacketSize", 0) or 0)
        self._tell(True)
        client.subscribe([(topic, SubscribeOptions(qos=0)) for topic in self._topics])

    def _on_subscribe(self, _: Client, __: Any, ___: Any, codes: Any, ____: Any) -> None:
        if bad := [code for code in codes if code.is_failure]:
            self._error = self._refusal(
                bad[0], f"does not let {self._user} listen to {', '.join(self._topics)}"
            )
            self.drop()
            return
        with self._changed:
            self._up = not self._dropped
            self._changed.notify_all()

    def _on_message(self, _: Client, __: Any, message: Any) -> None:
        told = message.properties
        correlation, answer_to = getattr(told, "CorrelationData", b""), getattr(told, "ResponseTopic", "")
        self._heard(Heard(message.topic, bytes(message.payload), correlation, answer_to))

    def _on_disconnect(self, _: Client, __: Any, ___: Any, code: Any, ____: Any) -> None:
        if self._error is None and code is not None and code.is_failure:
            self._error = LinkError(f"broker {self.address}: the connection ended ({code})")

    def _refusal(self, code: Any, text: str) -> LinkError | CredentialError:
        text = f"broker {self.address} {text} ({code}); is its password file of today? see docs/link.md, MQTT"
        return CredentialError(text) if code.value in _BAD_USER else LinkError(text)


def _properties(packet: str) -> Any:
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    return Properties(getattr(PacketTypes, packet))  # type: ignore[no-untyped-call]


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not of the authority that this device was told ({error.verify_message})"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return one_line(str(error)) or type(error).__name__

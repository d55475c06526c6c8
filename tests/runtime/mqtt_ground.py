"""A station behind a mosquitto of Debian's, which has the configuration that docs/link.md tells, on the loopback."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tagclip.runtime.health import Health
from tagclip.runtime.outbox import Outbox
from tagclip.runtime.station.mqtt import MqttSide
from tagclip.runtime.station.mqtt_access import BrokerAccess, passwords
from tagclip.runtime.station.station import Station
from tagclip.runtime.station.store import Filter
from tagclip.runtime.station.tls import own_identity
from tagclip.runtime.sync_client import SyncClient
from tagclip.runtime.sync_messages import QuerySet
from tagclip.runtime.sync_mqtt import MqttCarrier
from tagclip.runtime.sync_mqtt_wire import HELLO, Heard, Wire
from tagclip.runtime.sync_seal import Seal, secret_of

ENCODER = "e" * 64
DOCS = Path(__file__).parents[2] / "docs" / "link.md"
BINARY = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
PASSWD = shutil.which("mosquitto_passwd", path="/usr/bin:/usr/local/bin")
STATION, PASSWORD = "~station", "the station's, long enough"
needs_broker = pytest.mark.skipif(
    BINARY is None or PASSWD is None, reason="mosquitto is not installed (apt install mosquitto)"
)
START_S = 20.0
EVERYBODY = "pattern readwrite #\n"  # rules that keep nobody apart


def told(kind: str) -> str:
    """The fenced text of `kind` in docs/link.md."""
    (text,) = re.findall(rf"```{kind}\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    return text


class Broker:
    """Started by `start`; ends by `kill` (SIGKILL) or `stop`.

    Args:
        folder: of its files.
        certificate, key: PEM files of the server.
        acl: other rules than those of the docs.
    """

    def __init__(self, folder: Path, certificate: Path, key: Path, acl: str | None = None) -> None:
        folder.mkdir(exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.folder, self.log = folder, folder / "log"
        shutil.copy(certificate, folder / "server.pem")
        shutil.copy(key, folder / "server.key")
        (folder / "acl").write_text(told("acl") if acl is None else acl)
        conf = told("mosquitto").replace("/etc/mosquitto/tagclip", str(folder))
        conf = conf.replace("listener 8883", f"listener {self.port} 127.0.0.1")
        (folder / "conf").write_text(f"{conf}user root\nlog_dest stderr\n")  # as root, for files in /tmp
        self.process: subprocess.Popen[bytes] | None = None
        self.users([])

    def users(self, lines: list[str]) -> None:
        """Who may connect besides the station: lines NAME:PASSWORD; in force from the next start on."""
        path = self.folder / "passwords"
        path.write_text("\n".join([f"{STATION}:{PASSWORD}", *lines]) + "\n")
        path.chmod(0o600)
        assert PASSWD is not None
        subprocess.run([PASSWD, "-U", path], check=True, timeout=60)
        assert PASSWORD not in path.read_text()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        assert BINARY is not None
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([BINARY, "-c", self.folder / "conf"], stdout=log, stderr=log)
        end_s = time.monotonic() + START_S
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self.process.poll() is None and time.monotonic() < end_s, self.log.read_text()
            time.sleep(0.02)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(20)
            self.process = None


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
        self.broker = Broker(folder / "broker", identity.certificate, identity.key, acl)
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
        return BrokerAccess(self.broker.address, STATION, PASSWORD, self.ca_pem)

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


def batch(device: str = "north", *rows: Any) -> bytes:
    return json.dumps({"device": device, "messages": list(rows), "status": {"now_s": 1.5}}).encode()

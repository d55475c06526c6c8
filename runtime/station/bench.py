"""How quick a station is here: `python -m tagclip.runtime.station.bench --devices 50 --queries 100`.

Devices are threads of this process, each with the connections that a real one has, over TLS on the loopback: they wait
for queries, and hand in a hit every two seconds. So the clients take part of the processor, too. With `--carrier mqtt`
they go over a mosquitto that is started for it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from tagclip.runtime.errors import ConfigError, SyncError
from tagclip.runtime.hit import Hit
from tagclip.runtime.ids import uuid7
from tagclip.runtime.station.mqtt import MqttSide
from tagclip.runtime.station.mqtt_access import DEFAULT_USER, BrokerAccess, passwords
from tagclip.runtime.station.records import choose_database
from tagclip.runtime.station.server import Server
from tagclip.runtime.station.station import Encoder, Station
from tagclip.runtime.station.tls import own_identity
from tagclip.runtime.sync_carrier import Carrier
from tagclip.runtime.sync_https import HttpsCarrier
from tagclip.runtime.sync_messages import HIT, Message
from tagclip.runtime.sync_mqtt import MqttCarrier
from tagclip.runtime.terminal import aligned

HIT_EVERY_S = 2.0
CHANGES = 15  # queries that are added while devices wait
SETTLE_S = 3.0
REACH_S = 10.0  # for a query to reach every device
EXCHANGE_S = 30.0


def measure(
    devices: int,
    queries: int,
    carrier: str = "https",
    database: str | None = None,
    every_s: float = HIT_EVERY_S,
) -> dict[str, list[float]]:
    """Times in seconds: `armed`, from a query's being asked for to a device's having it; `handed_in`, a hit's; `all`.

    Args:
        carrier: "https" or "mqtt".
        database: URL of an empty PostgreSQL database; None for a file.
        every_s: between two hits of a device; 0 sends the next when the last is acknowledged.

    Raises:
        SyncError: the station does not answer.
        ConfigError: mosquitto is not installed.
    """
    armed: list[float] = []
    handed_in: list[float] = []
    changed: dict[int, float] = {}  # revision -> when it was asked for
    stop = threading.Event()
    with tempfile.TemporaryDirectory() as place:
        data = Path(place) / "station"
        data.mkdir()
        if database is not None:
            choose_database(data, database)
        station = Station(data, own_identity(data / "tls", ["127.0.0.1"]), Encoder(None))
        names = [f"d{number}" for number in range(devices)]
        tokens = []
        for name in names:
            code, _ = station.store.make_code(name, "bench")
            tokens.append(str(station.store.enrol(code, name, "1", None, "bench")))
        for number in range(queries):
            _add(station, f"a woman in a red jacket, number {number}")
        way = _https(station, names, tokens) if carrier == "https" else _mqtt(station, names, tokens)
        with way as carriers:

            def wait(carrier: Carrier) -> None:
                revision = 0
                while not stop.is_set():
                    document = carrier.queries(revision, 5.0)
                    if document is not None:
                        revision = int(document["revision"])
                        if revision in changed:
                            armed.append(time.monotonic() - changed[revision])

            def hand_in(carrier: Carrier, name: str) -> None:
                sequence = 0
                while not stop.wait(every_s):
                    sequence += 1
                    batch = {"device": name, "messages": [hit_message(name, sequence)], "status": {}}
                    begun_s = time.monotonic()
                    answer = carrier.exchange(json.dumps(batch).encode(), EXCHANGE_S)
                    if answer.rejected:
                        raise SyncError(f"the station refuses a hit: {answer.rejected}")
                    handed_in.append(time.monotonic() - begun_s)

            pool, started_s = ThreadPoolExecutor(2 * devices), time.monotonic()
            work = [pool.submit(wait, carrier) for carrier in carriers]
            work += [pool.submit(hand_in, *each) for each in zip(carriers, names, strict=True)]
            time.sleep(SETTLE_S)
            for number in range(CHANGES):
                before = len(armed)
                changed[station.queries.current()[0] + 1] = time.monotonic()
                _add(station, f"blue jeans, number {number}")
                end_s = time.monotonic() + REACH_S
                while len(armed) - before < devices and time.monotonic() < end_s:
                    time.sleep(0.01)
            took_s = time.monotonic() - started_s
            stop.set()
            for each in work:
                each.result()
            pool.shutdown()
            for each_carrier in carriers:
                each_carrier.close()
        station.close()
    return {"armed": armed, "handed_in": handed_in, "all": [took_s]}


@contextmanager
def _https(station: Station, names: list[str], tokens: list[str]) -> Iterator[list[Carrier]]:
    ca_pem = station.identity.ca.read_text(encoding="ascii")
    with Server(station, ("127.0.0.1", 0)) as server:
        yield [HttpsCarrier(f"127.0.0.1:{server.port}", ca_pem, token) for token in tokens]


@contextmanager
def _mqtt(station: Station, names: list[str], tokens: list[str]) -> Iterator[list[Carrier]]:
    ca_pem = station.identity.ca.read_text(encoding="ascii")
    with _broker(station) as address, MqttSide(station, BrokerAccess(address, DEFAULT_USER, "bench", ca_pem)):
        yield [MqttCarrier(address, ca_pem, name, token) for name, token in zip(names, tokens, strict=True)]


@contextmanager
def _broker(station: Station) -> Iterator[str]:
    """A mosquitto on the loopback, and its address; docs/link.md has one for use."""
    programs = [shutil.which(name, path="/usr/sbin:/usr/bin") for name in ("mosquitto", "mosquitto_passwd")]
    if None in programs:
        raise ConfigError("mosquitto is not installed; apt install mosquitto")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    users, config = station.data / "passwords", station.data / "mosquitto.conf"
    users.write_text("\n".join([f"{DEFAULT_USER}:bench", *passwords(station.store)]) + "\n", encoding="ascii")
    subprocess.run([str(programs[1]), "-U", users], check=True)
    identity = station.identity
    config.write_text(
        f"listener {port} 127.0.0.1\ncertfile {identity.certificate}\nkeyfile {identity.key}\nuser root\n"
        f"allow_anonymous false\npassword_file {users}\nset_tcp_nodelay true\n",
        encoding="utf-8",
    )
    process = subprocess.Popen([str(programs[0]), "-c", config], stderr=subprocess.DEVNULL)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _add(station: Station, text: str) -> None:
    """As the API's route does it: the text is embedded, too."""
    query: dict[str, object] = {
        "text": text,
        "view": "auto",
        "vector": station.encoder.vector(text),
        "reason": "bench",
    }
    query |= {"encoder_id": station.encoder.encoder_id, "expires_s": None}
    station.queries.add(query | {"alarms_per_hour": None, "alarms_per_1000": None}, "bench")


def hit_message(device: str, sequence: int) -> dict[str, object]:
    """A hit that a device hands in, as JSON says it."""
    now_s = time.time()
    hit = Hit(
        uuid7(), 1, "q1", "a woman in a red jacket", uuid7(), "north", "aerial", "e" * 16, 0.4, 1e-4, 0.1, 0.3,
        now_s - 2, now_s, now_s - 1, 7, (1.0, 2.0, 30.0, 80.0), (768, 576),
    )  # fmt: skip
    return Message(str(uuid7()), device, HIT, now_s, str(uuid7()), sequence, hit.to_json()).to_json()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Time a station with devices that wait and send.")
    parser.add_argument("--devices", type=int, default=50)
    parser.add_argument("--queries", type=int, default=100, help="That stand.")
    parser.add_argument("--carrier", choices=("https", "mqtt"), default="https")
    parser.add_argument("--database", metavar="URL", help="An empty PostgreSQL database.")
    parser.add_argument(
        "--every", type=float, default=HIT_EVERY_S, help="Seconds between two hits of a device."
    )
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = measure(asked.devices, asked.queries, asked.carrier, asked.database, asked.every)
    if asked.json:
        print(json.dumps(found))
        return
    rows: list[tuple[str, ...]] = [("", "times", "p50, ms", "p95, ms", "p99, ms", "most, ms")]
    for name, told in (("armed", "a query to a device's hands"), ("handed_in", "a hit to acknowledged")):
        times = 1000 * np.array(found[name] or [np.nan])
        rows.append(
            (told, str(len(found[name])), *(f"{np.percentile(times, p):.1f}" for p in (50, 95, 99, 100)))
        )
    print(aligned(rows, {0}))
    print(f"{len(found['handed_in']) / found['all'][0]:.1f} hits a second")


if __name__ == "__main__":
    main()

"""How quick a station is for a thousand devices: `python -m tagclip.runtime.station.fleet --devices 1000`.

The station is a process of its own. The devices are tasks of this one, each with the two TLS connections that a real
one has: it waits for queries over one, and hands in a hit over the other. They take part of the processor, too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from asyncio import sslproto
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tagclip.runtime.errors import MachineError, SyncError
from tagclip.runtime.station.bench import hit_message
from tagclip.runtime.station.server import TLS_BUFFER_BYTES
from tagclip.runtime.station.station import TLS, open_records
from tagclip.runtime.station.store import Store

START_S = 120.0
WAIT_S = 25  # of a device's question for queries, as `sync_client` asks
AT_ONCE = 50  # connections that are made at a time, as a fleet is not switched on in one moment


@dataclass
class Found:
    """What was measured.

    Attributes:
        posts_s: from asking to the whole answer, of each hit since every device had its first answers: to a hit, and to
            its question for queries.
        switched_on_s: the same of the hits before, while a thousand connections are made.
        acked: all hits. stored: of them, those that the station has in the end.
        station_mb: its resident memory once all are connected, and at its most.
        late: hits whose turn came while the one before was not yet answered; they were sent later.
    """

    posts_s: list[float] = field(default_factory=list)
    switched_on_s: list[float] = field(default_factory=list)
    acked: int = 0
    stored: int = 0
    late: int = 0
    station_mb: tuple[float, float] = (0.0, 0.0)


def measure(devices: int, seconds: float, every_s: float) -> Found:
    """Times of `devices` that hand in a hit every `every_s` seconds, each at times of its own.

    Raises:
        MachineError: the station does not start, or this process may not open enough connections.
        SyncError: the station does not answer as it should.
    """
    found = Found()
    with tempfile.TemporaryDirectory() as place:
        data = Path(place) / "station"
        tokens = _enrol(data, devices)  # before it starts: a thousand transactions would keep it from its own
        port, process = _start(data)
        try:
            # asyncio keeps 256 KiB for every TLS connection, half a gigabyte for a thousand devices.
            sslproto.SSLProtocol.max_size = TLS_BUFFER_BYTES
            context = ssl.create_default_context(cafile=str(data / TLS / "ca.pem"))
            asyncio.run(_live(port, context, tokens, seconds, every_s, process.pid, found))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        records = open_records(data)
        with records.read() as connection:
            (found.stored,) = connection.execute("SELECT count(*) FROM hits").fetchone()
        records.close()
    return found


def resident_mb(pid: int) -> float:
    """Memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _start(data: Path) -> tuple[int, subprocess.Popen[bytes]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    command = [sys.executable, "-m", "tagclip.runtime", "station", "--data", str(data)]
    process = subprocess.Popen([*command, "--listen", f"127.0.0.1:{port}"], stdout=subprocess.DEVNULL)
    end_s = time.monotonic() + START_S
    while time.monotonic() < end_s and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return port, process
        time.sleep(0.1)
    process.kill()
    raise MachineError(f"the station did not start within {START_S:g} s; try `tagclip station` by hand")


def _enrol(data: Path, devices: int) -> list[str]:
    records = open_records(data)
    store = Store(records)
    tokens = []
    for number in range(devices):
        code, _ = store.make_code(f"d{number}", "bench")
        tokens.append(str(store.enrol(code, f"d{number}", "1", None, "bench")))
    records.close()
    return tokens


async def _live(
    port: int,
    context: ssl.SSLContext,
    tokens: list[str],
    seconds: float,
    every_s: float,
    pid: int,
    found: Found,
) -> None:
    """All devices at once."""
    gate, ready, stop = asyncio.Semaphore(AT_ONCE), asyncio.Event(), asyncio.Event()

    lines: list[_Line] = []

    async def connected(token: str) -> _Line:
        async with gate:
            line = await _Line.open(port, context, token)
        lines.append(line)
        return line

    greeted = 0

    def greet() -> None:
        nonlocal greeted
        greeted += 1
        if greeted == 2 * len(tokens):
            ready.set()

    async def hand_in(token: str, name: str) -> None:
        line = await connected(token)
        # The station ends connections that ask nothing, so nobody waits for the others.
        due_s = time.monotonic() + random.uniform(0, min(every_s, 5.0))
        sequence = 0
        while not await _waited(stop, due_s - time.monotonic()):
            sequence += 1
            body = json.dumps(
                {"device": name, "messages": [hit_message(name, sequence)], "status": {"depth": 0}}
            ).encode()
            begun_s = time.monotonic()
            status, answer = await line.ask("POST", "/api/v1/device/messages", body)
            times = found.posts_s if ready.is_set() else found.switched_on_s
            times.append(time.monotonic() - begun_s)
            if sequence == 1:
                greet()
            if status != 200 or len(json.loads(answer)["acks"]) != 1:
                raise SyncError(f"the station answers a hit with {status}: {answer[:200]!r}")
            found.acked += 1
            due_s += every_s * random.uniform(0.8, 1.2)
            found.late += ready.is_set() and due_s < time.monotonic()

    async def wait(token: str) -> None:
        line = await connected(token)
        revision, first = 0, True
        while not stop.is_set():
            status, answer = await line.ask(
                "GET", f"/api/v1/device/queries?revision={revision}&wait_s={WAIT_S}"
            )
            if status not in (200, 204):
                raise SyncError(f"the station answers a question for queries with {status}: {answer[:200]!r}")
            revision = int(json.loads(answer)["revision"]) if answer else revision
            if first:
                greet()
            first = False

    posts = [asyncio.create_task(hand_in(token, f"d{n}")) for n, token in enumerate(tokens)]
    waits = [asyncio.create_task(wait(token)) for token in tokens]
    while not ready.is_set() and not any(task.done() for task in (*posts, *waits)):
        await asyncio.sleep(0.1)
    end_s, memory = time.monotonic() + seconds, [resident_mb(pid)]
    while time.monotonic() < end_s and not any(task.done() for task in (*posts, *waits)):
        await asyncio.sleep(min(0.5, seconds / 4))
        memory.append(resident_mb(pid))
    found.station_mb = memory[0], max(memory)
    stop.set()
    try:
        await asyncio.gather(*posts)
        for task in waits:
            if task.done():
                task.result()  # raises what it died of
            task.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
    finally:
        for line in lines:
            line.drop()


async def _waited(stop: asyncio.Event, seconds: float) -> bool:
    """Whether the end came within `seconds`."""
    try:
        await asyncio.wait_for(stop.wait(), max(seconds, 0.0))
    except asyncio.TimeoutError:
        return stop.is_set()
    return True


class _Line:
    """One kept connection of HTTP/1.1."""

    def __init__(self, token: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._token, self._reader, self._writer = token, reader, writer

    @classmethod
    async def open(cls, port: int, context: ssl.SSLContext, token: str) -> _Line:
        return cls(token, *await asyncio.open_connection("127.0.0.1", port, ssl=context))

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Status and body of the answer."""
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self._token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode("ascii") + body)
        first, *rest = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
        size = next((int(line[15:]) for line in rest if line.startswith("content-length:")), 0)
        return int(first.split()[1]), await self._reader.readexactly(size)

    def drop(self) -> None:
        """End it at once."""
        self._writer.transport.abort()


def _percentiles(times_s: list[float]) -> dict[str, float]:
    times_ms = 1000 * np.array(times_s or [np.nan])
    return {f"p{p}": round(float(np.percentile(times_ms, p)), 1) for p in (50, 95, 99, 100)}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Time a station with a fleet of devices.")
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--every", type=float, default=20.0, help="Seconds between two hits of a device.")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = measure(asked.devices, asked.seconds, asked.every)
    told = {
        "devices": asked.devices,
        "hits": found.acked,
        "lost": found.acked - found.stored,
        "late": found.late,
        "post_ms": _percentiles(found.posts_s),
        "switched_on_ms": _percentiles(found.switched_on_s),
        "station_mb": [round(value, 1) for value in found.station_mb],
    }
    if asked.json:
        print(json.dumps(told))
        return
    for name, value in told.items():
        print(f"{name:14} {value}")


if __name__ == "__main__":
    main()

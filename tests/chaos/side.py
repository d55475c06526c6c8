"""The device's side of a link to sync_station.py."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from chaos.hits import ENCODER, hit, jpeg
from chaos.sync_station import TOKEN, Station

from tagclip.runtime.health import Health
from tagclip.runtime.keys import PublicKey
from tagclip.runtime.outbox import Outbox
from tagclip.runtime.sync_client import SyncClient
from tagclip.runtime.sync_https import HttpsCarrier
from tagclip.runtime.sync_messages import QuerySet


def until(done: Callable[[], bool], timeout_s: float = 10.0) -> bool:
    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        if done():
            return True
        time.sleep(0.01)
    return done()


class Side:
    """A device: its outbox, its health, and clients for it."""

    def __init__(self, folder: Path, station: Station, key: PublicKey) -> None:
        self.folder, self.station, self.key = folder, station, key
        self.outbox = Outbox(folder / "outbox.db", "drone-1")
        self.health = Health(camera="c", detector="d", provider="cpu", encoder_id=ENCODER)
        self.sets: list[QuerySet] = []
        self.clients: list[SyncClient] = []

    def carrier(self, port: int | None = None) -> HttpsCarrier:
        return HttpsCarrier(f"127.0.0.1:{port or self.station.port}", self.station.authority.pem, TOKEN)

    def client(self, port: int | None = None) -> SyncClient:
        """A started one."""
        client = SyncClient(
            self.outbox,
            self.carrier(port),
            self.key,
            self.folder / "queries.json",
            encoder_id=ENCODER,
            on_queries=self.sets.append,
            health=self.health,
            facts=lambda: {"free_bytes": 7},
        )
        self.clients.append(client)
        client.start()
        return client

    def put(self, numbers: range) -> None:
        for number in numbers:
            self.outbox.put(hit(number), jpeg(number))

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.outbox.close()

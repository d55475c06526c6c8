"""What the station says of a disk that others fill: a file system of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

for _package in ("argon2", "cryptography", "onnxruntime", "starlette", "uvicorn"):
    pytest.importorskip(_package)

from beside import load
from fixtures.disk import mounted

from tagclip.runtime.bundle import Bundle
from tagclip.runtime.station.server import Server

STATIONS = load("test_station_security")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Where 120 MiB are."""
    with mounted(tmp_path / "disk", "120m") as place:
        yield place


def test_health_tells_of_a_full_disk_while_it_lasts(disk: Path, tiny_bundle: Bundle) -> None:
    world = STATIONS.World(disk / "data", tiny_bundle.path)
    with Server(world.station, ("127.0.0.1", 0)) as server:
        caller = STATIONS.Caller(server.port, world.station.identity.ca)
        health = ("GET", f"{STATIONS.V1}/health")
        assert caller.ask(*health)[2] == {"status": "ok"}
        others = disk / "others"
        others.write_bytes(bytes(80 << 20))
        status, _, told = caller.ask(*health)
        assert status == 200 and told["status"] == "degraded" and " MB left" in told["reasons"]["disk"]
        others.unlink()
        assert caller.ask(*health)[2] == {"status": "ok"}
        caller.connection.close()
    world.station.close()

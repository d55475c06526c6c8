"""Servers and disks that tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from beside import load
from chaos.disk import Disk


@pytest.fixture(scope="session")
def postgres() -> Iterator[Any]:
    """A PostgreSQL server (postgres_server.py); skips where none is installed. Its database is whoever's turn it is."""
    pytest.importorskip("pg8000")
    server = load("postgres_server").Server()
    yield server
    server.close()


@pytest.fixture
def ground(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A station behind a broker (mqtt_ground.py), whose rules may be another's: the parameter."""
    opened = load("mqtt_ground").Ground(tmp_path, getattr(request, "param", None))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Debian's Chromium (page_chromium.py); skips where it is not installed. For one module: its event loop runs on."""
    pytest.importorskip("playwright")
    browsers = load("page_chromium")
    if browsers.CHROMIUM is None:
        pytest.skip("Debian's Chromium is not installed: apt-get install chromium")
    with browsers.chromium() as browser:
        yield browser


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """An ext4 of 48 MB of its own, whose power can be cut; skips where none can be mounted."""
    try:
        mounted = Disk(tmp_path, 48 << 20).__enter__()
    except OSError as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    yield mounted
    mounted.__exit__()


@pytest.fixture(scope="module")
def key() -> Any:
    """What `station` signs query sets with."""
    pytest.importorskip("cryptography")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from tagclip.runtime.keys import PrivateKey

    return PrivateKey(Ed25519PrivateKey.generate())


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Whose certificate `station` has."""
    from chaos.sync_station import Authority

    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def station(authority: Any, key: Any) -> Iterator[Any]:
    """A station that misbehaves as it is told (tests/chaos/sync_station.py); tests of the real one make their own."""
    from chaos.sync_station import Station

    opened = Station(authority, key)
    yield opened
    opened.close()


@pytest.fixture
def side(tmp_path: Path, station: Any, key: Any) -> Iterator[Any]:
    """A device of `station`."""
    from chaos.side import Side

    opened = Side(tmp_path, station, key.public)
    yield opened
    opened.close()

"""Servers and disks that tests share."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chaos.disk import Disk


@pytest.fixture(scope="session")
def postgres() -> Iterator[Any]:
    """A PostgreSQL server (postgres_server.py); skips where none is installed. Its database is whoever's turn it is."""
    pytest.importorskip("pg8000")
    spec = importlib.util.spec_from_file_location(
        "postgres_server", Path(__file__).parent / "postgres_server.py"
    )
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    server = module.Server()
    yield server
    server.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """An ext4 of 48 MB of its own, whose power can be cut; skips where none can be mounted."""
    try:
        mounted = Disk(tmp_path, 48 << 20).__enter__()
    except OSError as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    yield mounted
    mounted.__exit__()

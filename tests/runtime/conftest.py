"""Servers that tests share."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


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

"""Modules that lie beside tests. pytest imports tests without a package, so that they cannot be imported by name."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

RUNTIME = Path(__file__).parent / "runtime"


def load(name: str) -> Any:
    """The module tests/runtime/NAME.py, made anew."""
    spec = importlib.util.spec_from_file_location(name, RUNTIME / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

"""Bundles here are made of few models, whose graphs are the same again and again."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def _exported_once(request: pytest.FixtureRequest) -> None:
    pytest.importorskip("torch")
    request.getfixturevalue("exported_once")

"""docs/api.md says what the routes are today."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("starlette")

from tagclip.runtime.station.api_page import page
from tagclip.runtime.station.app import ROUTES

PAGE = (Path(__file__).parent.parent.parent / "docs" / "api.md").read_text(encoding="utf-8")


def test_every_route_is_on_the_page_with_all_that_it_takes() -> None:
    """Read from the page, not made by what makes the page."""
    sections = {
        (method, path): text
        for method, path, text in re.findall(r"(?ms)^### `(\w+) (\S+)`$(.*?)(?=^##|\Z)", PAGE)
    }
    assert set(sections) == {(route.method, route.path) for route in ROUTES}
    for route in ROUTES:
        text = sections[route.method, route.path]
        who = [route.who] if isinstance(route.who, str) else sorted(route.who)
        assert f"{route.summary} For: {', '.join(who)}." in text
        body = (route.body or {}).get("properties", {})
        assert set(re.findall(r"(?m)^\| `\?(\w+)=`", text)) == set(route.query)
        assert set(re.findall(r"(?m)^\| (?:\*\*)?`(\w+)`", text)) == set(body)


def test_the_page_is_of_today() -> None:
    assert page(ROUTES) == PAGE, "python -m tagclip.runtime.station.api_page --out docs/api.md"

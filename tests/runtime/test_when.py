"""Times as people type them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timezone

import pytest

from tagclip.runtime.errors import QueryError
from tagclip.runtime.when import parse_when, show_span, show_when

NOW_S = datetime(2026, 11, 27, 12, 0, tzinfo=timezone.utc).timestamp()


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-11-27T10:30", "2026-11-27T09:30:00"),
        ("2026-11-27 10:30:15", "2026-11-27T09:30:15"),
        ("2026-07-01T10:00", "2026-07-01T08:00:00"),  # summer time
        ("2026-11-27T10:30Z", "2026-11-27T10:30:00"),
        ("2026-11-27T10:30:00-05:00", "2026-11-27T15:30:00"),
        ("2026-11-27", "2026-11-26T23:00:00"),
        ("10:30", "2026-11-27T09:30:00"),
        ("9:05", "2026-11-27T08:05:00"),
        ("90s", "2026-11-27T11:58:30"),
        ("15m", "2026-11-27T11:45:00"),
        ("1.5h", "2026-11-27T10:30:00"),
        (" 3d ", "2026-11-24T12:00:00"),
    ],
)
def test_points_in_time(text: str, utc: str) -> None:
    assert (
        datetime.fromtimestamp(parse_when(text, NOW_S), timezone.utc).replace(tzinfo=None).isoformat() == utc
    )


@pytest.mark.parametrize(
    "text", ["", "soon", "25:00", "2026-13-01", "h", "-2h", "1h30", "2026-11-27T", "99999999999d ago"]
)
def test_what_is_no_time_is_named(text: str) -> None:
    with pytest.raises(QueryError, match="expected a time such as"):
        parse_when(text, NOW_S)


def test_times_are_shown_with_their_zone() -> None:
    assert show_when(NOW_S) == "2026-11-27 13:00:00+0100"
    assert show_when(1e30) == f"{1e30:.0f} s"
    assert [show_span(s) for s in (-3, 12.4, 185, 7_800)] == ["0 s", "12 s", "3:05 min", "2:10 h"]

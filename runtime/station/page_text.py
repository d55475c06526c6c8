"""Numbers and times as a person reads them; given to the templates as filters."""

from __future__ import annotations

import datetime
from typing import Any
from urllib.parse import urlencode


def iso(time_s: float) -> str:
    """Unix time as ISO 8601, UTC, for the browser, which shows it in local time."""
    return _utc(time_s).strftime("%Y-%m-%dT%H:%M:%SZ")


def utc(time_s: float) -> str:
    """Unix time for a person, UTC."""
    return _utc(time_s).strftime("%Y-%m-%d %H:%M:%S UTC")


def _utc(time_s: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(min(max(time_s, 0.0), 253_402_300_799.0), datetime.timezone.utc)


def span(seconds: float) -> str:
    """How long: "40 s", "5 min", "3 h", "2 days"."""
    seconds = max(seconds, 0.0)
    for unit_s, unit, most in ((1, "s", 90), (60, "min", 90), (3600, "h", 48)):
        if seconds < unit_s * most:
            return f"{_short(seconds / unit_s)} {unit}"
    return f"{_short(seconds / 86400)} days"


def alarms(hit: dict[str, Any]) -> str:
    """How often somebody who is not meant would score as high as this hit."""
    rate = hit["false_alarms_per_hour"]
    if rate is None:
        return chance(hit["p_value"])
    return per_hour(rate)


def per_hour(rate: float) -> str:
    """A rate of false alarms, in words that need no arithmetic."""
    if rate <= 0:
        return "practically no false alarms"
    if rate >= 0.95:
        return f"{_short(rate)} false alarm{'' if _short(rate) == '1' else 's'} an hour"
    return f"1 false alarm in {span(3600 / rate)}"


def chance(p_value: float) -> str:
    """The chance that somebody who is not meant scores as high."""
    if p_value <= 0:
        return "by chance practically never"
    if p_value >= 0.5:
        return "as likely by chance"
    return f"1 of {_short(1 / p_value)} people by chance"


def promise(query: dict[str, Any]) -> str:
    """What a query's threshold is chosen for."""
    if query["alarms_per_hour"] is not None:
        return f"at most {per_hour(query['alarms_per_hour'])} at each camera"
    if query["alarms_per_1000"] is not None:
        return f"at most {_short(query['alarms_per_1000'])} false alarms among 1,000 people"
    return "as each device is set"


def place(found: dict[str, float] | None) -> str:
    """Where, with how far off it may be."""
    if found is None:
        return "place unknown"
    return f"{found['latitude_deg']:.5f}, {found['longitude_deg']:.5f} ± {_short(found['error_m'])} m"


def size(count: float) -> str:
    """Bytes."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{_short(count)} {unit}"
        count /= 1000
    return f"{_short(count)} GB"


def _short(value: float) -> str:
    if value >= 100:
        return f"{round(value, 1 - len(str(int(value)))) if value >= 1000 else value:,.0f}"
    return f"{value:.2g}"


def address(named: dict[str, str | None]) -> str:
    """The part of an address behind the question mark; what is None is left out."""
    return urlencode({name: value for name, value in named.items() if value is not None})


FILTERS = {
    function.__name__: function
    for function in (iso, utc, span, alarms, per_hour, chance, promise, place, size, address)
}

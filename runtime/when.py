"""Points in time as people type and read them: local time with its zone; inside, Unix time in UTC."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from tagclip.runtime.errors import QueryError

_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def parse_when(text: str, now_s: float) -> float:
    """Unix time, UTC.

    Args:
        text: "2026-11-27T10:30" or "2026-11-27 10:30:15+01:00" (without zone: local time), "10:30" (today),
            "2026-11-27", or how long ago: "90s", "15m", "2h", "3d".
        now_s: Unix time, UTC.

    Raises:
        QueryError: none of these.
    """
    given = text.strip()
    if ago := _AGO.fullmatch(given):
        return now_s - float(ago[1]) * _SECONDS[ago[2]]
    today = datetime.fromtimestamp(now_s).date().isoformat()
    # Before Python 3.11 fromisoformat knows no Z.
    written = re.sub(r"[zZ]$", "+00:00", f"{today}T{given}" if re.match(r"\d\d?:", given) else given)
    try:
        moment = datetime.fromisoformat(re.sub(r"T(\d):", r"T0\1:", written))
        return (moment if moment.tzinfo else moment.astimezone()).timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise QueryError(
            f"expected a time such as 2026-11-27T10:30, 10:30, 2026-11-27, or 15m, 2h, 3d ago; found {text!r}"
        ) from error


def show_when(time_s: float) -> str:
    """Local time with its zone: "2026-11-27 10:30:15+0100"."""
    try:
        return datetime.fromtimestamp(time_s).astimezone().strftime("%Y-%m-%d %H:%M:%S%z")
    except (ValueError, OverflowError, OSError):
        return f"{time_s:.0f} s"


def show_span(seconds: float) -> str:
    """How long: "12 s", "3:05 min", "2:10 h"."""
    whole = timedelta(seconds=round(max(seconds, 0)))
    minutes, rest = divmod(int(whole.total_seconds()), 60)
    if minutes < 1:
        return f"{rest} s"
    return f"{minutes}:{rest:02d} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d} h"

"""The hits of a filter as a file: for spreadsheets, maps, TAK and programs."""

from __future__ import annotations

import csv
import functools
import io
import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from tagclip.runtime import hit_maps
from tagclip.runtime.hit import Hit, hit_of
from tagclip.runtime.station.audit import record
from tagclip.runtime.station.operator_api import HIT_FILTER, filter_of
from tagclip.runtime.station.web import EVERY_ROLE, Answer, Ask, Refusal, Route

MOST = 20_000  # hits of a file, some 30 MB of GeoJSON; more are refused, never left out
PART = 500  # of one look at the records: devices and pages have their turn in between
ALL_PLACES = 1 << 53  # before every place
_BUSY = threading.BoundedSemaphore(2)  # files that are made at a time: each takes memory

# A spreadsheet takes a text that begins so for a formula, which can fetch and send.
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
_HIT_FIELDS = tuple(Hit.__dataclass_fields__)

_AS_THEY_ARE = (
    "score", "p_value", "false_alarms_per_hour", "threshold", "crops", "reviewed_by", "query_id", "track_id",
    "encoder_id", "revision",
)  # fmt: skip


def columns(row: dict[str, Any]) -> dict[str, object]:
    """What a line of the CSV holds of a hit as the API shows it, by name; times are UTC, ISO 8601."""
    place = row["place"] or {}
    return {
        **{name: row[name] for name in ("id", "review", "query", "device", "camera", "view")},
        **{
            name: None if row[f"{name}_s"] is None else hit_maps.utc(row[f"{name}_s"])
            for name in ("best", "start", "end", "received", "reviewed")
        },
        **{name: place.get(name) for name in ("latitude_deg", "longitude_deg", "error_m")},
        **{name: row[name] for name in _AS_THEY_ARE},
    }


# In the order of `columns`.
NAMES = (
    "id", "review", "query", "device", "camera", "view", "best", "start", "end", "received", "reviewed",
    "latitude_deg", "longitude_deg", "error_m", *_AS_THEY_ARE,
)  # fmt: skip


def table(rows: Sequence[dict[str, Any]]) -> bytes:
    """CSV (RFC 4180), UTF-8 with the mark that spreadsheets know it by.

    Args:
        rows: hits as the API shows them. What was typed and looks like a formula gets an apostrophe before it.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, NAMES)
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in columns(row).items()} for row in rows)
    return b"\xef\xbb\xbf" + text.getvalue().encode()


def lines(rows: Sequence[dict[str, Any]]) -> bytes:
    """One hit a line, as `GET /api/v1/hits` has it; ASCII."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode("ascii")


def hit_shown(row: dict[str, Any]) -> Hit:
    """The hit of a row of the API, with a person's review."""
    return hit_of({name: row[name] for name in _HIT_FIELDS})


def _map(make: Callable[[Sequence[Hit]], bytes], rows: Sequence[dict[str, Any]]) -> bytes:
    return make([hit_shown(row) for row in rows])


def _events(rows: Sequence[dict[str, Any]]) -> bytes:
    return hit_maps.cot([hit_shown(row) for row in rows], time.time())


# By format: what makes it, the media type, whether hits without a place are in it.
FORMATS: dict[str, tuple[Callable[[Sequence[dict[str, Any]]], bytes], str, bool]] = {
    "csv": (table, "text/csv; charset=utf-8", True),
    "geojson": (functools.partial(_map, hit_maps.geojson), "application/geo+json", False),
    "kml": (functools.partial(_map, hit_maps.kml), "application/vnd.google-earth.kml+xml", False),
    "cot": (_events, "text/plain; charset=utf-8", False),  # an XML document a line
    "jsonl": (lines, "application/x-ndjson", True),
}


def export_hits(ask: Ask) -> Answer:
    """The file; that it was taken home is in the audit log before it leaves."""
    kind = ask.query.get("format", "")
    if kind not in FORMATS:
        raise Refusal(400, f"format: expected one of {', '.join(FORMATS)}, found {kind[:40]!r}")
    where = filter_of(ask)
    if not _BUSY.acquire(blocking=False):
        raise Refusal(503, "other files are being made; try again", wait_s=5)
    try:
        rows: list[dict[str, Any]] = []
        after: int | None = ALL_PLACES
        while after is not None:
            part, after = ask.station.store.hits(where, after, PART, ask.by)
            rows += part
            if len(rows) > MOST:
                raise Refusal(
                    400, f"more than {MOST:,} hits; choose fewer: by query, device, since or review"
                )
        make, media, without_place = FORMATS[kind]
        left_out = 0 if without_place else sum(row["place"] is None for row in rows)
        data = make(rows)
    finally:
        _BUSY.release()
    asked = {key: value for key, value in vars(where).items() if value is not None}
    with ask.station.database.write() as connection:
        record(connection, ask.by, "hits.export", format=kind, count=len(rows) - left_out, **asked)
    name = f"hits-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.{kind}"
    return Answer(
        data=data,
        kind=media,
        headers={
            "content-disposition": f'attachment; filename="{name}"',
            "x-hits": str(len(rows) - left_out),
            "x-without-place": str(left_out),
        },
    )


def _cell(value: object) -> object:
    # Numbers are ours: a negative longitude stays a number.
    if isinstance(value, str) and (value.lstrip().startswith(_FORMULA) or value[:1] in ("\t", "\r", "\n")):
        return "'" + value
    return value


ROUTES = (
    Route(
        "GET",
        "/api/v1/export/hits",
        EVERY_ROLE,
        export_hits,
        f"Hits as a file, at most {MOST:,}.",
        query={"format": "one of " + ", ".join(FORMATS), **HIT_FILTER},
    ),
)

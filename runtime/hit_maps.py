"""Hits on maps: GeoJSON (RFC 7946), KML 2.2 (OGC 07-147r2), Cursor-on-Target events (CoT, schema 2.0).

Hits without a place are left out of all of them; `without_place` counts them.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Any
from xml.etree import ElementTree

from tagclip.runtime.earth import EARTH_M
from tagclip.runtime.hit import CONFIRMED, REJECTED, UNREVIEWED, Hit
from tagclip.runtime.store_track import Place

COT_TYPE = (
    "a-u-G"  # an atom of unknown affiliation on the ground: a camera cannot tell whose side somebody is on
)
COT_HOW = "m-i"  # by a machine, mensurated from imagery
COT_STALE_S = 86_400.0  # after somebody was last seen, their marker is old news
COT_UNKNOWN = "9999999.0"  # what CoT says where height or its error is not known
RING_CORNERS = 36
NAME_LETTERS = 60  # of a query beside a marker

# KML's aabbggrr, of the ring and the pin, by review.
_COLOURS = {UNREVIEWED: "ff00a5ff", CONFIRMED: "ff00b050", REJECTED: "ff969696"}


def without_place(hits: Iterable[Hit]) -> int:
    """How many of them have none, and so are on no map."""
    return sum(hit.place is None for hit in hits)


def geojson(hits: Sequence[Hit]) -> bytes:
    """A FeatureCollection: one point a hit, [longitude, latitude] in degrees, WGS 84; ASCII.

    `properties` are the hit's fields, `error_m` among them; times are text in UTC (ISO 8601).
    """
    features = [
        {
            "type": "Feature",
            "id": str(hit.id),
            "geometry": {
                "type": "Point",
                "coordinates": [round(hit.place.longitude_deg, 7), round(hit.place.latitude_deg, 7)],
            },
            "properties": {**properties(hit), "error_m": round(hit.place.error_m, 1)},
        }
        for hit in hits
        if hit.place
    ]
    collection = {"type": "FeatureCollection", "features": features}
    return (json.dumps(collection, indent=1, allow_nan=False) + "\n").encode("ascii")


def kml(hits: Sequence[Hit]) -> bytes:
    """A Document: one Placemark a hit, with pin, circle of the place's error, and when somebody was there; UTF-8.

    A circle over a pole or the 180th meridian is left out, the pin is not: KML cannot say where its inside is.
    """
    styles = "".join(_text_of(_style(review)) for review in _COLOURS)
    marks = "".join(_text_of(_placemark(hit, hit.place)) + "\n" for hit in hits if hit.place)
    head = '<?xml version="1.0" encoding="UTF-8"?>\n<kml xmlns="http://www.opengis.net/kml/2.2"><Document>'
    return f"{head}<name>Hits</name>{styles}\n{marks}</Document></kml>\n".encode()


def cot(hits: Sequence[Hit], now_s: float, *, gone: bool = False) -> bytes:
    """CoT events, one a line, each an XML document of its own: so they go over a TCP stream as they are; UTF-8.

    The uid is the hit's id, so a later event of the same hit moves its marker. `ce` is the radius of the place's error;
    height and its error are not known.

    Args:
        now_s: Unix time, UTC: of two events of one uid the later one counts.
        gone: stale at once, which takes their markers back.
    """
    return "".join(_text_of(_event(hit, hit.place, now_s, gone)) + "\n" for hit in hits if hit.place).encode()


def stale_s(hit: Hit) -> float:
    """From when on its marker is old news; Unix time."""
    return hit.end_s + COT_STALE_S


def properties(hit: Hit) -> dict[str, Any]:
    """The fields of a hit but for id and place, as `Hit.to_json` has them; times are texts `start`, `end`, `best`."""
    row = hit.to_json()
    times = {name: utc(row.pop(f"{name}_s")) for name in ("start", "end", "best")}
    return {**{key: value for key, value in row.items() if key not in ("id", "place")}, **times}


def utc(time_s: float) -> str:
    """Unix time as "2026-11-27T09:30:15.250Z"."""
    moment = datetime.fromtimestamp(time_s, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def ring(place: Place) -> list[tuple[float, float]] | None:
    """Longitude, latitude of corners of the circle of a place's error, anticlockwise, the first again at the end.

    None where there is none to draw: no error, or a circle over a pole or the 180th meridian.
    """
    reach = place.error_m / EARTH_M
    latitude = math.radians(place.latitude_deg)
    if not 0 < reach or abs(latitude) + reach >= math.pi / 2:
        return None
    corners = []
    for number in range(RING_CORNERS):
        turn = -math.tau * number / RING_CORNERS  # from north by west
        north = math.sin(latitude) * math.cos(reach) + math.cos(latitude) * math.sin(reach) * math.cos(turn)
        east = math.atan2(
            math.sin(turn) * math.sin(reach) * math.cos(latitude),
            math.cos(reach) - math.sin(latitude) * north,
        )
        corners.append((place.longitude_deg + math.degrees(east), math.degrees(math.asin(north))))
    if any(abs(longitude) > 180 for longitude, _ in corners):
        return None
    return [*corners, corners[0]]


def title(hit: Hit) -> str:
    """What stands beside a marker: the query, cut, and the review."""
    query = _plain(hit.query)
    short = query if len(query) <= NAME_LETTERS else query[: NAME_LETTERS - 2] + ".."
    return f"{short} ({hit.review})"


def _placemark(hit: Hit, place: Place) -> ElementTree.Element:
    """The elements in the order that the schema demands."""
    mark = ElementTree.Element("Placemark", {"id": f"hit-{hit.id}"})
    _add(mark, "name", title(hit))
    span = _add(mark, "TimeSpan")
    _add(span, "begin", utc(hit.start_s))
    _add(span, "end", utc(hit.end_s))
    _add(mark, "styleUrl", f"#{hit.review}")
    extended = _add(mark, "ExtendedData")
    for key, value in {**properties(hit), "error_m": round(place.error_m, 1)}.items():
        if value is not None:
            text = value if isinstance(value, str) else json.dumps(value)
            _add(_add(extended, "Data", name=key), "value", text)
    shapes = _add(mark, "MultiGeometry")
    _add(_add(shapes, "Point"), "coordinates", f"{place.longitude_deg:.7f},{place.latitude_deg:.7f}")
    if corners := ring(place):
        edge = _add(_add(_add(shapes, "Polygon"), "outerBoundaryIs"), "LinearRing")
        _add(edge, "coordinates", " ".join(f"{x:.7f},{y:.7f}" for x, y in corners))
    return mark


def _style(review: str) -> ElementTree.Element:
    colour = _COLOURS[review]
    style = ElementTree.Element("Style", {"id": review})
    _add(_add(style, "IconStyle"), "color", colour)
    _add(_add(style, "LineStyle"), "color", colour)
    _add(_add(style, "PolyStyle"), "color", f"40{colour[2:]}")
    return style


def _event(hit: Hit, place: Place, now_s: float, gone: bool) -> ElementTree.Element:
    names = {"version": "2.0", "uid": f"tagclip-{hit.id}", "type": COT_TYPE, "how": COT_HOW}
    times = {"time": utc(now_s), "start": utc(hit.best_s), "stale": utc(stale_s(hit))}
    if gone:
        times["stale"] = times["time"]
    event = ElementTree.Element("event", {**names, **times})
    # Plain decimals: the schema knows no exponents.
    where = {"lat": f"{place.latitude_deg:.7f}", "lon": f"{place.longitude_deg:.7f}", "hae": COT_UNKNOWN}
    _add(event, "point", **where, ce=f"{place.error_m:.1f}", le=COT_UNKNOWN)
    detail = _add(event, "detail")
    _add(detail, "contact", callsign=title(hit))
    rate = hit.false_alarms_per_hour
    said = "" if rate is None else f", {rate:.3g} false alarms an hour"
    seen = f"seen {utc(hit.start_s)} to {utc(hit.end_s)} by {hit.camera}"
    _add(
        detail,
        "remarks",
        f"{hit.query}; {hit.review}; score {hit.score:.3f}, p {hit.p_value:.3g}{said}; {seen}",
    )
    return event


def _add(
    parent: ElementTree.Element, tag: str, text: str | None = None, **attributes: str
) -> ElementTree.Element:
    child = ElementTree.SubElement(parent, tag, {key: _plain(value) for key, value in attributes.items()})
    child.text = None if text is None else _plain(text)
    return child


def _text_of(element: ElementTree.Element) -> str:
    return ElementTree.tostring(element, encoding="unicode")


def _plain(text: str) -> str:
    """One line that XML 1.0 can say: what ends lines and tabs become spaces, other control characters U+FFFD."""
    if text.isprintable():  # nearly always, and many times as fast
        return text
    return "".join(_letter(c) for c in text)


def _letter(c: str) -> str:
    if c in "\t\n\r\x85\u2028\u2029":
        return " "
    return "\ufffd" if unicodedata.category(c) in ("Cc", "Cs") or c in "\ufffe\uffff" else c

"""Hits on maps, read by other means than wrote them: the standards' own rules, an XML parser, OGC's schema."""

from __future__ import annotations

import importlib.util
import json
import re
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tagclip.runtime.hit import CONFIRMED, REJECTED, Hit
from tagclip.runtime.hit_maps import cot, geojson, kml, ring, title, utc, without_place
from tagclip.runtime.store_track import Place

K = "{http://www.opengis.net/kml/2.2}"
HERE = Place(47.3769123, 8.5417001, 6.5)
DEGREE_M = 111_194.927  # of a great circle on a sphere of 6,371,000 m: 2 pi r / 360
HOSTILE = (
    "]]> <b a='1'>&amp; \"red\"</b> \x00\x07\x1b[31m\ttab\nline\r\x85 \ufffe\uffff \ud800 caf\u00e9 "
    "\u7d05 \U0001f600 --> ${x}"
)
CLEAN = (
    "]]> <b a='1'>&amp; \"red\"</b> \ufffd\ufffd\ufffd[31m tab line   \ufffd\ufffd \ufffd caf\u00e9 "
    "\u7d05 \U0001f600 --> ${x}"
)


def hit(number: int, place: Place | None = HERE, **changes: Any) -> Hit:
    made = Hit(
        uuid.UUID(int=number), 2, "q1", "a man in a red jacket", uuid.UUID(int=1000 + number), "mast", "aerial",
        "e" * 64, 0.3125, 0.00025, 0.5, 0.25, 1_764_235_815.25, 1_764_235_820.0, 1_764_235_817.5, 75,
        (10.5, 20.0, 30.5, 61.0), (768, 576), place, 4,
    )  # fmt: skip
    return replace(made, **changes)


HITS = [
    hit(1),
    hit(2, None),
    hit(3, Place(-33.9, -179.9999999, 0.0), review=REJECTED),
    hit(4, Place(1e-7, -1e-7, 5e5)),
]


def test_times_are_utc() -> None:
    assert utc(1_764_235_815.25) == "2025-11-27T09:30:15.250Z"  # date -u -d @1764235815
    assert utc(0) == "1970-01-01T00:00:00.000Z"


def test_geojson_is_what_rfc_7946_says() -> None:
    found = json.loads(geojson(HITS))
    assert set(found) == {"type", "features"} and found["type"] == "FeatureCollection"
    assert [feature["id"] for feature in found["features"]] == [str(uuid.UUID(int=n)) for n in (1, 3, 4)]
    assert without_place(HITS) == 1
    for feature in found["features"]:
        assert (set(feature), feature["type"]) == ({"type", "id", "geometry", "properties"}, "Feature")
        assert (set(feature["geometry"]), feature["geometry"]["type"]) == ({"type", "coordinates"}, "Point")
    first = found["features"][0]
    assert first["geometry"]["coordinates"] == [8.5417001, 47.3769123]  # longitude first
    assert first["properties"] == {
        "revision": 2, "query_id": "q1", "query": "a man in a red jacket", "track_id": str(uuid.UUID(int=1001)),
        "camera": "mast", "view": "aerial", "encoder_id": "e" * 64, "score": 0.3125, "p_value": 0.00025,
        "false_alarms_per_hour": 0.5, "threshold": 0.25, "frame": 75, "box_xywh_px": [10.5, 20.0, 30.5, 61.0],
        "frame_px": [768, 576], "crops": 4, "review": "unreviewed", "start": "2025-11-27T09:30:15.250Z",
        "end": "2025-11-27T09:30:20.000Z", "best": "2025-11-27T09:30:17.500Z", "error_m": 6.5,
    }  # fmt: skip
    assert json.loads(geojson([])) == {"type": "FeatureCollection", "features": []}


def test_kml_has_a_placemark_for_each_place() -> None:
    root = ElementTree.fromstring(kml(HITS))
    assert root.tag == f"{K}kml"
    marks = root.findall(f"{K}Document/{K}Placemark")
    assert [mark.get("id") for mark in marks] == [f"hit-{uuid.UUID(int=n)}" for n in (1, 3, 4)]
    first = marks[0]
    assert first.findtext(f"{K}name") == "a man in a red jacket (unreviewed)"
    assert first.findtext(f"{K}TimeSpan/{K}begin") == "2025-11-27T09:30:15.250Z"
    assert first.findtext(f"{K}TimeSpan/{K}end") == "2025-11-27T09:30:20.000Z"
    assert first.findtext(f"{K}MultiGeometry/{K}Point/{K}coordinates") == "8.5417001,47.3769123"
    data = {one.get("name"): one.findtext(f"{K}value") for one in first.findall(f"{K}ExtendedData/{K}Data")}
    assert data["error_m"] == "6.5" and data["query"] == "a man in a red jacket" and data["frame"] == "75"
    styles = {f"#{style.get('id')}" for style in root.iter(f"{K}Style")}
    assert {mark.findtext(f"{K}styleUrl") for mark in marks} == {"#unreviewed", "#rejected"} < styles
    corners = first.findtext(f"{K}MultiGeometry/{K}Polygon/{K}outerBoundaryIs/{K}LinearRing/{K}coordinates")
    assert corners is not None and len(corners.split()) == 37
    assert marks[1].find(f".//{K}Polygon") is None  # no error, no circle
    assert all("e-" not in one.text for one in root.iter(f"{K}coordinates") if one.text)


def test_kml_follows_the_schema_of_the_ogc() -> None:
    """pykml ships the schema; nothing else of it is used."""
    etree = pytest.importorskip("lxml.etree")
    if not (spec := importlib.util.find_spec("pykml")) or not spec.submodule_search_locations:
        pytest.skip("needs pykml, for OGC's schema")
    schema = etree.XMLSchema(file=str(Path(spec.submodule_search_locations[0]) / "schemas" / "ogckml22.xsd"))
    for hits in (HITS, [], [hit(5, query=HOSTILE, camera=HOSTILE, false_alarms_per_hour=None)]):
        schema.assertValid(etree.fromstring(kml(hits)))
    wrong = (
        kml(HITS)
        .replace(b"<TimeSpan>", b"<description/><TimeSpan>")
        .replace(b"<name>a man", b"<name/><name>a")
    )
    assert not schema.validate(etree.fromstring(wrong))


def test_the_circle_has_the_radius_of_the_error() -> None:
    equator = ring(Place(0.0, 0.0, DEGREE_M / 1000))
    assert equator is not None and equator[0] == equator[-1]
    assert equator[0] == pytest.approx((0.0, 0.001), abs=1e-9)  # north
    assert equator[9] == pytest.approx(
        (-0.001, 0.0), abs=1e-9
    )  # west: anticlockwise, as KML wants its outer rings
    assert equator[18] == pytest.approx((0.0, -0.001), abs=1e-9)
    assert equator[27] == pytest.approx((0.001, 0.0), abs=1e-9)
    # A degree of longitude is half as long at 60 degrees north.
    north = ring(Place(60.0, 10.0, DEGREE_M / 1000))
    assert north is not None
    assert north[0] == pytest.approx((10.0, 60.001), abs=1e-8)
    assert north[9] == pytest.approx((9.998, 60.0), abs=1e-7)
    area = sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(north, north[1:], strict=False))
    assert area > 0


def test_circles_that_kml_cannot_say_are_left_out() -> None:
    assert ring(Place(47.0, 8.0, 0.0)) is None
    assert ring(Place(89.9999, 8.0, 50.0)) is None
    assert ring(Place(-90.0, 8.0, 50.0)) is None
    assert ring(Place(0.0, 179.9999, 50.0)) is None
    assert ring(Place(0.0, -179.9999, 50.0)) is None
    assert ring(Place(0.0, 179.999, 50.0)) is not None
    assert ring(Place(0.0, 0.0, 4.1e7)) is None


# By the public schema of CoT events, version 2.0 of 2003-06-13 (MITRE, case 11-3895).
EVENT = {
    "version": r"2\.0",
    "uid": r".+",
    "type": r"\w+(-\w+)*(;[^;]*)?",
    "how": r"\w(-\w+)*",
    "time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z",
    "start": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z",
    "stale": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z",
}
POINT = {name: r"-?\d+(\.\d+)?" for name in ("lat", "lon", "hae", "ce", "le")}  # xs:decimal has no exponent


def events(data: bytes) -> list[ElementTree.Element]:
    """Each line by itself, as a server reads a stream."""
    return [ElementTree.fromstring(line) for line in data.splitlines()]


def test_cot_events_follow_the_public_schema() -> None:
    found = events(
        cot([*HITS, hit(6, Place(0.0, 0.0, 1e-5), query=HOSTILE, camera=HOSTILE)], 1_764_236_000.0)
    )
    assert len(found) == 4
    for event in found:
        assert event.tag == "event" and set(event.attrib) == set(EVENT)
        assert [child.tag for child in event] == ["point", "detail"]
        point = event[0]
        assert set(point.attrib) == set(POINT) and len(point) == 0 and not point.text
        for rules, values in ((EVENT, event.attrib), (POINT, point.attrib)):
            for name, rule in rules.items():
                assert re.fullmatch(rule, values[name]), (name, values[name])
        assert abs(float(point.attrib["lat"])) <= 90 and abs(float(point.attrib["lon"])) <= 180


def test_a_cot_event_says_what_when_where() -> None:
    (event,) = events(cot([hit(1)], 1_764_236_000.0))
    assert event.attrib == {
        "version": "2.0", "uid": f"tagclip-{uuid.UUID(int=1)}", "type": "a-u-G", "how": "m-i",
        "time": "2025-11-27T09:33:20.000Z", "start": "2025-11-27T09:30:17.500Z", "stale": "2025-11-28T09:30:20.000Z",
    }  # fmt: skip
    assert event[0].attrib == {
        "lat": "47.3769123", "lon": "8.5417001", "hae": "9999999.0", "ce": "6.5", "le": "9999999.0",
    }  # fmt: skip
    contact, remarks = event[1]
    assert contact.attrib == {"callsign": "a man in a red jacket (unreviewed)"}
    assert remarks.text == (
        "a man in a red jacket; unreviewed; score 0.312, p 0.00025, 0.5 false alarms an hour; "
        "seen 2025-11-27T09:30:15.250Z to 2025-11-27T09:30:20.000Z by mast"
    )


def test_a_newer_revision_moves_the_same_marker() -> None:
    old, new = hit(1), hit(1, Place(47.4, 8.6, 3.0), revision=3, review=CONFIRMED, end_s=1_764_235_900.0)
    (before,), (after,) = events(cot([old], 1_764_236_000.0)), events(cot([new], 1_764_236_060.0))
    assert before.get("uid") == after.get("uid")
    assert str(before.get("time")) < str(after.get("time"))
    assert (after[0].get("lat"), after[0].get("ce")) == ("47.4000000", "3.0")


def test_hostile_text_breaks_no_format() -> None:
    one = hit(1, query=HOSTILE, camera=HOSTILE, query_id=HOSTILE)
    first = json.loads(geojson([one]))["features"][0]["properties"]
    assert first["query"] == HOSTILE  # JSON can say everything
    assert geojson([one]).isascii()
    root = ElementTree.fromstring(kml([one]))
    data = {part.get("name"): part.findtext(f"{K}value") for part in root.iter(f"{K}Data")}
    assert data["query"] == data["camera"] == data["query_id"] == CLEAN
    text = cot([one], 1_764_236_000.0)
    assert text.count(b"\n") == 1
    (event,) = events(text)
    assert str(event[1][1].text).startswith(f"{CLEAN}; unreviewed; ")
    assert str(event[1][0].get("callsign")).startswith(CLEAN[:58])


def test_long_queries_are_cut_beside_the_marker_only() -> None:
    one = hit(1, query="red " * 500)
    assert title(one) == f"{('red ' * 500)[:58]}.. (unreviewed)"
    assert (b"red " * 499) in kml([one])

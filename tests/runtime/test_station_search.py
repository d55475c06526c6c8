"""Everybody whom a device stored, searched at the station: the device's own link, real HTTPS, the bundle that ships."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for _package in ("argon2", "cryptography", "onnxruntime", "starlette", "uvicorn"):
    pytest.importorskip(_package)

from tagclip.runtime.alerts import Alerts, Promise, StandingQuery
from tagclip.runtime.earth import great_circle_m
from tagclip.runtime.health import Health
from tagclip.runtime.hit import Hit
from tagclip.runtime.ids import uuid7
from tagclip.runtime.station.retention import forget
from tagclip.runtime.station.server import Server
from tagclip.runtime.station.station import Encoder, Station, enrolment, say_address
from tagclip.runtime.station.tls import own_identity
from tagclip.runtime.station.vectors import LocalVectors
from tagclip.runtime.store import TrackStore
from tagclip.runtime.store_track import Place, StoredTrack
from tagclip.runtime.sync_enrol import enrol
from tagclip.runtime.sync_link import StationLink
from tagclip.runtime.sync_messages import Answer, verify
from tagclip.runtime.sync_track import told
from tagclip.runtime.vector_scan import Where

JPEG = b"\xff\xd8\xff\xe0" + bytes(500)
FRAME_PX = (1920, 1080)
COUNT = 240
TEXT = "a man in a red jacket"
PASSWORD = "correct horse battery"


@dataclass
class Device:
    """A device's link and store; `tracks` by id, as they were told."""

    name: str
    link: StationLink
    store: TrackStore
    tracks: dict[str, StoredTrack]


@dataclass
class World:
    station: Station
    port: int
    tokens: dict[str, str]
    devices: dict[str, Device]
    folder: Path

    def ask(
        self, method: str, path: str, body: Any = None, who: str = "admin", **query: Any
    ) -> tuple[int, Any]:
        context = ssl.create_default_context(cafile=str(self.station.identity.ca))
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=60, context=context)
        headers = {"Authorization": f"Bearer {self.tokens[who]}", "Content-Type": "application/json"}
        target = f"/api/v1{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        connection.request(method, target, None if body is None else json.dumps(body).encode(), headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        is_json = answer.headers.get("content-type") == "application/json"
        return answer.status, json.loads(data) if is_json and data else data

    def search(self, **query: Any) -> dict[str, Any]:
        status, found = self.ask("GET", "/search", **query)
        assert status == 200, found
        return found

    def count(self) -> int:
        with self.station.database.read() as connection:
            return int(connection.execute("SELECT count(*) FROM tracks").fetchone()[0])


def until(done: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end_s
        time.sleep(0.02)


def people(count: int, encoder_id: str, seed: int, camera: str = "cam") -> list[StoredTrack]:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((6, 128))[rng.integers(6, size=count)] + 0.4 * rng.standard_normal(
        (count, 128)
    )
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return [
        StoredTrack(
            uuid7(), f"{camera}{k % 2}", ("aerial", "ground", "unknown")[k % 3], 1000.0 + 10 * k, 1030.0 + 10 * k,
            1010.0 + 10 * k, k, (1.0, 2.0, 30.0, 60.0), encoder_id, vector.astype(np.float32),
            Place(47.0 + 1e-4 * k, 8.0, 2.0) if k % 4 else None,
        )
        for k, vector in enumerate(vectors)
    ]  # fmt: skip


def joined(station: Station, folder: Path, name: str, encoder_id: str) -> Device:
    code, _ = station.store.make_code(name, "test")
    enrol(enrolment(station.data, code), name, folder / name)
    store = TrackStore(folder / f"{name}.db")
    health = Health(camera="c", detector="d", provider="cpu", encoder_id=encoder_id)
    return Device(
        name, StationLink(folder / name, encoder_id, health, store=store.path).__enter__(), store, {}
    )


def tell(device: Device, tracks: list[StoredTrack]) -> None:
    device.store.add([(track, JPEG) for track in tracks])
    for start in range(0, len(tracks), 50):
        part = tracks[start : start + 50]
        device.link.tell_tracks([told(track, FRAME_PX, 4) for track in part], True)
    device.tracks.update({str(track.id): track for track in tracks})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder: Path = tmp_path_factory.mktemp("search")
    station = Station(folder / "data", own_identity(folder / "data/tls", ["127.0.0.1"]), Encoder(None))
    tokens = {}
    for role in ("admin", "operator", "reviewer"):
        station.users.set_password(role, station.users.add(role, role, "test"), PASSWORD)
        login = station.users.login(role, PASSWORD, "test", token=True)
        assert login
        tokens[role] = login.secret
    with Server(station, ("127.0.0.1", 0)) as server:
        say_address(station.data, f"127.0.0.1:{server.port}", station.identity.fingerprint())
        own = station.encoder.encoder_id
        devices = {
            "north": joined(station, folder, "north", own),
            "south": joined(station, folder, "south", "old-encoder"),
        }
        world = World(station, server.port, tokens, devices, folder)
        tell(devices["north"], people(COUNT, own, 1))
        tell(devices["south"], people(30, "old-encoder", 2, "old"))
        until(lambda: world.count() == COUNT + 30)
        yield world
        for device in devices.values():
            device.link.__exit__()
            device.store.close()
    station.close()


def ranking(tracks: dict[str, StoredTrack], query: np.ndarray) -> list[tuple[str, float]]:
    """By numpy alone: the codes that the device tells, as unit vectors, against the query."""
    scores = {}
    for name, track in tracks.items():
        row = np.asarray(track.vector, np.float64)
        codes = np.rint(row / np.abs(row).max() * 127)
        scores[name] = float(codes / np.linalg.norm(codes) @ query)
    return sorted(scores.items(), key=lambda pair: -pair[1])


@pytest.mark.parametrize("top", [1, 20, 500])
def test_the_best_by_text_are_those_of_a_comparison_with_all(world: World, top: int) -> None:
    found = world.search(text=TEXT, top=top)
    expected = ranking(world.devices["north"].tracks, np.array(world.station.encoder.vector(TEXT)))[:top]
    assert [row["track_id"] for row in found["results"]] == [name for name, _ in expected]
    np.testing.assert_allclose([r["score"] for r in found["results"]], [s for _, s in expected], atol=1e-4)
    assert (found["compared"], found["left_out"]) == (COUNT, 30)  # the other encoder's are told, never mixed
    assert [row["rank"] for row in found["results"]] == list(range(1, len(expected) + 1))
    best, track = found["results"][0], world.devices["north"].tracks[expected[0][0]]
    assert (best["device"], best["camera"], best["view"]) == ("north", track.camera, track.view)
    assert best["place"] == ([track.place.latitude_deg, 8.0, 2.0] if track.place else None)
    assert best["best"] == {
        "time_s": track.best_s,
        "frame": track.frame,
        "box_xywh_px": [1.0, 2.0, 30.0, 60.0],
    }


def test_what_travels_scores_as_what_the_device_keeps(world: World) -> None:
    """Eight bits against the device's sixteen."""
    query = np.array(world.station.encoder.vector(TEXT))
    for row in world.search(text=TEXT, top=500)["results"]:
        kept = world.devices["north"].tracks[row["track_id"]].vector
        assert row["score"] == pytest.approx(float(kept @ query), abs=5e-3)


@pytest.mark.parametrize(
    ("query", "meant"),
    [
        ({"device": "north"}, lambda t: True),
        ({"device": "south"}, lambda t: False),
        ({"camera": "cam1"}, lambda t: t.camera == "cam1"),
        ({"view": "aerial", "camera": "cam0"}, lambda t: t.view == "aerial" and t.camera == "cam0"),
        ({"after": "1970-01-01T00:33:20Z"}, lambda t: t.end_s >= 2000),
        ({"after": "1970-01-01T00:25:00Z", "before": "1970-01-01T00:26:40Z"},
         lambda t: t.end_s >= 1500 and t.start_s <= 1600),
        ({"near": "47.01,8.0,300"},
         lambda t: t.place and float(great_circle_m(47.01, 8.0, t.place.latitude_deg, 8.0)) <= 300),
    ],
    ids=["device", "other-device", "camera", "view", "after", "between", "near"],
)  # fmt: skip
def test_only_where_it_was_asked_for(
    world: World, query: dict[str, str], meant: Callable[[StoredTrack], bool]
) -> None:
    tracks = {name: t for name, t in world.devices["north"].tracks.items() if meant(t)}
    found = world.search(text=TEXT, top=500, **query)
    expected = ranking(tracks, np.array(world.station.encoder.vector(TEXT)))
    assert [row["track_id"] for row in found["results"]] == [name for name, _ in expected]
    assert found["compared"] == len(tracks)


@pytest.mark.parametrize(
    ("query", "status", "text"),
    [
        ({}, 400, "give text, or like"),
        ({"text": "a", "like": "b"}, 400, "not both"),
        ({"text": "a", "top": "501"}, 400, "top: expected a whole number from 1 to 500"),
        ({"text": "a", "near": "1,2"}, 400, "near expects LATITUDE,LONGITUDE,METRES"),
        ({"text": "a", "after": "soon"}, 400, "expected a time"),
        ({"text": "a", "view": "up"}, 400, "view: expected one of"),
        ({"text": " "}, 400, ""),
        ({"like": str(uuid.UUID(int=1))}, 404, "no such hit or track"),
    ],
)
def test_what_cannot_be_asked_is_named(world: World, query: dict[str, str], status: int, text: str) -> None:
    found, answer = world.ask("GET", "/search", **query)
    assert found == status and text in answer["error"]


def test_more_like_this_and_the_log_says_who_asked_for_what(world: World) -> None:
    tracks = world.devices["north"].tracks
    name, track = next(iter(tracks.items()))
    rest = {other: t for other, t in tracks.items() if other != name}
    codes = np.rint(track.vector / np.abs(track.vector).max() * 127).astype(np.float64)
    expected = [other for other, _ in ranking(rest, codes / np.linalg.norm(codes))[:7]]
    hit = str(uuid7())
    with world.station.database.write() as connection:
        connection.execute(
            "INSERT INTO hits(id, device, query_id, revision, best_s, received_s, document)"
            " VALUES(?, ?, ?, 1, 0, ?, ?)",
            (hit, "north", "q", time.time(), json.dumps({"track_id": name})),
        )
    for like in (name, hit):
        found = world.search(like=like, top=7)
        assert [row["track_id"] for row in found["results"]] == expected and found["left_out"] == 30
    for who in ("operator", "reviewer"):
        assert world.ask("GET", "/search", who=who, text=f"asked by the {who}")[0] == 200
    _, audit = world.ask("GET", "/audit", limit="500")
    asked = {(row["who"], row["facts"].get("text")) for row in audit["rows"] if row["action"] == "search"}
    assert {("operator", "asked by the operator"), ("reviewer", "asked by the reviewer")} <= asked


def test_a_picture_is_asked_for_and_comes(world: World) -> None:
    north = world.devices["north"]
    name, lost = list(north.tracks)[3], list(north.tracks)[4]
    north.store._db.execute("DELETE FROM tracks WHERE id = ?", (uuid.UUID(lost).bytes,))
    status, said = world.ask("GET", f"/tracks/{name}/picture")
    assert status == 202 and "asked for" in said["text"]
    assert world.ask("GET", f"/tracks/{lost}/picture")[0] == 202
    assert {row["picture"] for row in world.search(like=name, top=1)["results"]} == {"on the device"}
    tell(north, people(1, world.station.encoder.encoder_id, 77, "late"))  # something to exchange
    until(lambda: world.ask("GET", f"/tracks/{name}/picture")[0] == 200)
    assert world.ask("GET", f"/tracks/{name}/picture") == (200, JPEG)
    until(lambda: world.ask("GET", f"/tracks/{lost}/picture")[0] == 410)
    assert world.ask("GET", f"/tracks/{uuid7()}/picture")[0] == 404
    until(lambda: len(north.link.outbox) == 0)
    with world.station.database.write() as connection:
        connection.execute("DELETE FROM tracks WHERE camera LIKE 'late%'")
    del north.tracks[next(n for n, t in north.tracks.items() if t.camera.startswith("late"))]


def message(device: str, kind: str, body: dict[str, Any], boot: str, seq: int) -> dict[str, Any]:
    known = {"id": str(uuid7()), "device": device, "kind": kind, "made_s": 1.0}
    return {**known, "boot_id": boot, "seq": seq, "body": body}


def test_no_device_changes_what_another_told_and_old_ones_are_answered_as_before(world: World) -> None:
    name, track = next(iter(world.devices["north"].tracks.items()))
    boot = str(uuid7())
    body = told(replace(track, camera="forged"), FRAME_PX, 4).to_json()
    picture = {"track_id": name, "jpeg": base64.b64encode(JPEG).decode()}
    rows = [message("south", "track", body, boot, 1), message("south", "thumbnail", picture, boot, 2)]
    code, _ = world.station.store.make_code("east", "test")
    world.tokens["east"] = world.station.store.enrol(code, "east", "0.1", None, "test") or ""
    for row in rows:
        row["device"] = "east"
    sent = {"device": "east", "messages": rows, "status": {}}
    status, answer = world.ask("POST", "/device/messages", sent, "east")
    # No field that a device without tracks does not know.
    assert status == 200 and set(answer) == {"acks", "rejected", "queries_revision"} and not answer["acks"]
    assert all("another device's" in one["reason"] for one in answer["rejected"])
    assert world.station.tracks.shown([name])[name]["camera"] == track.camera


def test_of_a_track_that_is_told_again_the_later_counts(world: World) -> None:
    code, _ = world.station.store.make_code("west", "test")
    world.tokens["west"] = world.station.store.enrol(code, "west", "0.1", None, "test") or ""
    (track,) = people(1, "west-encoder", 5)
    boot, before = str(uuid7()), world.count()
    name = str(track.id)
    for seq, end_s in ((2, 2000.0), (1, 1500.0), (3, 2500.0)):  # the second one is late
        body = told(replace(track, end_s=end_s), FRAME_PX, 4).to_json()
        row = message("west", "track", body, boot, seq)
        for _ in range(2):  # sent twice
            sent = {"device": "west", "messages": [row], "status": {}}
            _, answer = world.ask("POST", "/device/messages", sent, "west")
            assert answer["acks"] == [row["id"]]
        assert world.count() == before + 1
        assert world.station.tracks.shown([name])[name]["end_s"] == (2500.0 if seq == 3 else 2000.0)
        found = world.station.vectors.search(np.ones(128, np.float32) / 128**0.5, "west-encoder", Where(), 5)
        assert [one for one, _ in found.tracks] == [name]
    with world.station.database.write() as connection:
        connection.execute("DELETE FROM tracks WHERE id = ?", (name,))
    assert not world.station.vectors.search(np.ones(128, np.float32), "west-encoder", Where(), 5).tracks
    again = LocalVectors(world.station.database)  # the cache made anew finds the same
    query = np.asarray(world.station.encoder.vector(TEXT), np.float32)
    asked = (query, world.station.encoder.encoder_id, Where(), 9)
    assert again.search(*asked) == world.station.vectors.search(*asked)


def test_candidates_are_judged_as_the_device_judges_them(world: World) -> None:
    _, added = world.ask("POST", "/queries", {"text": TEXT, "reason": "test", "alarms_per_hour": 5})
    status, found = world.ask("GET", f"/queries/{added['id']}/candidates", who="reviewer", top=20)
    assert status == 200 and found["promise"] == {"rate": 5.0, "per": "hour", "of_query": True}
    assert (found["compared"], found["left_out"], found["unjudged"]) == (COUNT, 30, 0)
    yardstick = world.station.encoder.yardstick()
    vector = np.asarray(world.station.encoder.vector(TEXT), np.float32)
    north = world.devices["north"].tracks
    # The device's own judge, who sees everybody of one camera and allows anything: everybody is a hit.
    by_camera = {}
    for camera in ("cam0", "cam1"):
        query = StandingQuery(added["id"], TEXT, vector, Promise(9e5))
        alerts = Alerts([query], yardstick.background, yardstick.typical, FRAME_PX)
        own = sorted((t for t in north.values() if t.camera == camera), key=lambda t: t.end_s)
        hits = [hit for track in own for hit in alerts.judge(track, 4, last=True)]
        assert len(hits) == len(own)
        by_camera[camera] = {str(hit.track_id): hit for hit in hits}, alerts
    p_values = []
    for row in found["candidates"]:
        hits, alerts = by_camera[row["camera"]]
        hit = hits[row["track_id"]]
        # Eight bits move a score by a thousandth, and its chance by some percent.
        assert row["score"] == pytest.approx(hit.score, abs=5e-3)
        assert row["p_value"] == pytest.approx(hit.p_value, rel=0.15)
        rate = alerts.people_per_hour
        assert row["false_alarms_per_hour"] == pytest.approx(row["p_value"] * rate, rel=0.01)
        stick = alerts._judge.of(row["view"])[0]  # type: ignore[union-attr]
        assert row["threshold"] == pytest.approx(stick.score_at(5 / rate, True), abs=1e-4)
        assert row["over"] == (row["p_value"] <= 5 / rate)
        p_values.append(row["p_value"])
    assert len(p_values) == 20 and p_values == sorted(p_values)
    # The best of all, by the chance: none left out is less likely a false alarm, but for what eight bits move.
    everybody = [hit.p_value for hits, _ in by_camera.values() for hit in hits.values()]
    np.testing.assert_allclose(p_values, sorted(everybody)[:20], rtol=0.2)
    assert world.ask("GET", f"/queries/{uuid7()}/candidates")[0] == 404


def test_a_changed_threshold_is_a_new_signed_set(world: World) -> None:
    _, added = world.ask("POST", "/queries", {"text": TEXT, "reason": "test"})
    path = f"/queries/{added['id']}"
    status, changed = world.ask("PATCH", path, {"alarms_per_1000": 3}, "operator")
    assert status == 200 and changed["revision"] == added["revision"] + 1
    revision, document = world.station.queries.current()
    signed = verify(json.loads(document), world.station.key.public)
    (query,) = [one for one in signed.queries if one.id == added["id"]]
    assert signed.revision == revision == changed["revision"]
    assert (query.alarms_per_1000, query.alarms_per_hour, query.text) == (3.0, None, TEXT)
    until(lambda: world.devices["north"].link.client.revision == revision)
    assert world.ask("PATCH", path, {"alarms_per_hour": 1}, "reviewer")[0] == 403
    for body in ({}, {"alarms_per_hour": 1, "alarms_per_1000": 1}, {"alarms_per_hour": 0}, {"text": "x"}):
        assert world.ask("PATCH", path, body)[0] == 400
    assert world.station.queries.current()[0] == revision
    assert world.ask("PATCH", path, {"alarms_per_hour": None})[1]["alarms_per_1000"] is None
    assert world.ask("PATCH", f"/queries/{uuid7()}", {"alarms_per_hour": 1})[0] == 404


class OldStation:
    """A carrier to a station of before tracks: it refuses their kind, by the form that it knows."""

    skew_s = None

    def __init__(self) -> None:
        self.kinds: list[str] = []

    def exchange(self, batch: bytes, timeout_s: float) -> Answer:
        acks, rejected = [], {}
        for row in json.loads(batch)["messages"]:
            self.kinds.append(row["kind"])
            if row["kind"] in ("hit", "picture", "status"):
                acks.append(row["id"])
            else:
                rejected[row["id"]] = "message.kind: expected one of hit, picture, status, found 'track'"
        return Answer(tuple(acks), rejected, 0)

    def queries(self, revision: int, wait_s: float) -> None:
        time.sleep(0.05)

    def close(self) -> None:
        pass


def test_tracks_wait_for_a_station_that_knows_them_and_hits_do_not(world: World, tmp_path: Path) -> None:
    code, _ = world.station.store.make_code("waits", "test")
    enrol(enrolment(world.station.data, code), "waits", tmp_path / "waits")
    old = OldStation()
    health = Health(camera="c", detector="d", provider="cpu", encoder_id="e")
    link = StationLink(tmp_path / "waits", "e", health, carrier=old)
    link.tell_tracks([told(track, FRAME_PX, 4) for track in people(5, "e", 3)], True)
    with link:
        until(lambda: len(old.kinds) == 5)
        until(lambda: link.client.counts.batches >= 1)
        link.outbox.put_thumbnail(str(uuid7()), JPEG)
        link.tell(hit(), JPEG)
        until(lambda: old.kinds.count("picture") == 1)
        until(lambda: len(link.outbox) == 6)
        assert old.kinds.count("track") == 5 and link.outbox.facts()["rejected"] == 0
        link.client._stop.set()  # no wait for what this station never takes


def hit() -> Hit:
    track = people(1, "e", 4)[0]
    seen = told(track, FRAME_PX, 4)
    same = {f.name: getattr(seen, f.name) for f in fields(Hit) if hasattr(seen, f.name)}
    return Hit(id=uuid7(), revision=1, query_id="q", query="x", score=0.5, p_value=0.01,
               false_alarms_per_hour=None, threshold=0.4, **same)  # fmt: skip


def test_tracks_go_by_age_and_by_size_with_their_pictures(world: World) -> None:
    """Last: nobody is left."""
    database = world.station.database
    with database.write() as connection:
        connection.execute("DELETE FROM hits")
        connection.execute("UPDATE tracks SET received_s = received_s - 10 * 86400 WHERE camera = 'cam0'")
    now_s, before = time.time(), world.count()
    assert forget(database, now_s, 30, 1 << 40) == 0 and world.count() == before
    forget(database, now_s, 9, 1 << 40)
    assert world.count() == before - COUNT // 2
    assert {row["camera"] for row in world.search(text=TEXT, top=500)["results"]} == {"cam1"}
    forget(database, now_s, 9, 1000)
    assert world.count() == 0 and world.search(text=TEXT)["results"] == []
    with database.read() as connection:
        assert connection.execute("SELECT count(*) FROM pictures").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM wanted_pictures").fetchone() == (0,)
    _, audit = world.ask("GET", "/audit", limit="500")
    assert {row["action"] for row in audit["rows"]} >= {"tracks.delete", "picture.ask", "picture.view"}

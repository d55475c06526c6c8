"""A query that arrives is put to whom the device has seen: who is a hit, who is told once, what a restart repeats."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from beside import load

from tagclip.runtime.alerts import Alerts, Promise, StandingQuery
from tagclip.runtime.health import Health
from tagclip.runtime.hit import Hit, hit_of
from tagclip.runtime.hit_log import HitLog
from tagclip.runtime.retro import Past, Retro, found_afterwards
from tagclip.runtime.store import TrackStore
from tagclip.runtime.store_track import StoredTrack

JPEG = b"\xff\xd8\xff\xe0 a picture"
NONE: frozenset[uuid.UUID] = frozenset()


ALERTS = load("test_alerts")
BACKGROUND = ALERTS.background(2000)


class Device:
    """What `Armed` does with it, with hits in a file as there."""

    def __init__(self, folder: Path, hours: float = 24.0) -> None:
        self.health = Health(camera="north", detector="", provider="", encoder_id="e", store=folder / "s.db")
        self.store = TrackStore(folder / "s.db")
        self.log = HitLog(folder / "s.db.hits.jsonl")
        self.told: list[Hit] = []
        where = Past(self.store.path, self.log.path, "north", ALERTS.SIZE, hours)
        self.retro = Retro(where, BACKGROUND, ALERTS.TYPICAL, self.health)

    def tell(self, hit: Hit, jpeg: bytes) -> None:
        assert jpeg == JPEG and hit_of(json.loads(json.dumps(hit.to_json()))) is not None
        self.log.append(hit)
        self.told.append(hit)

    def arm(self, *queries: StandingQuery, in_view: frozenset[uuid.UUID] = NONE) -> list[Hit]:
        """Who is told until nothing is searched any more."""
        before = len(self.told)
        self.retro.arm(queries, self.store.last_key(), in_view, 100.0)
        until_s = time.monotonic() + 60
        while not self.retro.idle() and time.monotonic() < until_s:
            if not self.retro.take(self.tell):
                time.sleep(0.005)
        return self.told[before:]

    def end(self, wait_s: float = 60.0) -> None:
        self.retro.close(self.tell, self.store.last_key, wait_s)
        self.log.close()
        self.store.close()


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    made = Device(tmp_path)
    yield made
    made.end()


QUERIES: list[StandingQuery] = ALERTS.queries(3)


def meant(query: StandingQuery, ago_s: float = 60.0, **changes: object) -> StoredTrack:
    """Somebody who fits the query, seen so long ago."""
    now_s = time.time()
    return replace(ALERTS.track(query.vector, now_s - ago_s - 1, now_s - ago_s), **changes)


def others(count: int, seed: int = 5) -> list[StoredTrack]:
    rng = np.random.default_rng(seed)
    return [meant(replace(QUERIES[0], vector=ALERTS.unit(rng.normal(size=ALERTS.DIM)))) for _ in range(count)]


def keep(device: Device, *tracks: StoredTrack) -> None:
    device.store.add([(track, JPEG) for track in tracks])


def test_who_fits_is_told_once_marked_as_found_afterwards(device: Device) -> None:
    one = meant(QUERIES[0])
    keep(device, *others(50), one)
    (hit,) = [hit for hit in device.arm(QUERIES[0]) if hit.track_id == one.id]
    assert (hit.query_id, hit.camera, hit.revision, hit.end_s) == (QUERIES[0].id, "north", 1, one.end_s)
    assert found_afterwards(hit) and hit.score >= hit.threshold and hit.p_value <= 0.01
    assert device.arm(QUERIES[0]) == []  # it is looked for already
    assert [h.track_id for h in device.arm(*QUERIES[:2]) if h.query_id == QUERIES[0].id] == []
    live = Alerts(QUERIES[:1], BACKGROUND, ALERTS.TYPICAL, ALERTS.SIZE).judge(meant(QUERIES[0]), 3, last=True)
    assert len(live) == 1 and not found_afterwards(live[0])


@pytest.mark.parametrize(
    "changes",
    [
        {"camera": "south"},
        {"encoder_id": "another"},
        {"view": "aerial"},  # of which the background has nobody
    ],
    ids=["camera", "encoder", "view"],
)
def test_who_is_not_judged(device: Device, changes: dict[str, str]) -> None:
    keep(device, meant(QUERIES[0], **changes))
    assert device.arm(QUERIES[0]) == []


def test_who_was_seen_too_long_ago_or_is_in_view_or_came_later_is_left_out(device: Device) -> None:
    old, seen, now = meant(QUERIES[0], 25 * 3600), meant(QUERIES[0]), meant(QUERIES[0])
    keep(device, old, seen, now)
    found = device.arm(QUERIES[0], in_view=frozenset({now.id}))
    assert [hit.track_id for hit in found] == [seen.id]
    keep(device, meant(QUERIES[0]))  # judged as they pass
    assert device.arm(*QUERIES[:1]) == []


def test_a_query_for_another_view_or_over_is_not_put_to_anybody(device: Device) -> None:
    keep(device, meant(QUERIES[0]))
    assert device.arm(replace(QUERIES[0], view="aerial"), replace(QUERIES[0], id="x", expires_s=1.0)) == []


def test_nobody_is_told_again_after_a_restart(tmp_path: Path) -> None:
    first = Device(tmp_path)
    keep(first, *others(20), meant(QUERIES[0]), meant(QUERIES[1]))
    assert len({h.track_id for h in first.arm(*QUERIES[:2]) if h.p_value < 0.001}) == 2
    keep(first, meant(QUERIES[0]))  # as they passed: judged, so not again
    first.end()
    second = Device(tmp_path)
    keep(second, meant(QUERIES[0]))
    before = second.store.last_key()
    found = second.arm(*QUERIES[:2])
    assert len(found) == 1  # who came while nobody looked
    assert second.store.last_key() == before
    second.end()
    third = Device(tmp_path)
    assert third.arm(*QUERIES[:2]) == []
    assert [hit.query_id for hit in third.arm(*QUERIES) if hit.query_id != QUERIES[2].id] == []
    third.end()


def test_q1_of_another_run_is_another_query(tmp_path: Path) -> None:
    first = Device(tmp_path)
    keep(first, meant(QUERIES[0]), meant(QUERIES[1]))
    assert len(first.arm(replace(QUERIES[0], id="q1"))) >= 1
    first.end()
    second = Device(tmp_path)
    assert len(second.arm(replace(QUERIES[1], id="q1"))) >= 1
    second.end()


def test_a_search_that_was_cut_off_is_done_again_and_tells_nobody_twice(tmp_path: Path) -> None:
    """The loop over the frames takes three hits, and the power fails: only the file of hits knows of them."""
    first = Device(tmp_path)
    people = [meant(QUERIES[0]) for _ in range(10)]
    keep(first, *people)
    lax = replace(QUERIES[0], promise=Promise(500.0, per_hour=False))
    first.retro.arm([lax], first.store.last_key(), NONE, 100.0)
    until_s = time.monotonic() + 60
    while len(first.told) < 3 and time.monotonic() < until_s:
        first.retro.take(first.tell)
    first.retro._stop.set()
    first.retro._thread.join()
    first.log.close()
    first.store.close()
    second = Device(tmp_path)
    again = second.arm(lax)
    assert {h.track_id for h in first.told + again} == {person.id for person in people}
    assert len(first.told) + len(again) == 10
    second.end()


def test_the_promise_holds_for_people_who_are_not_meant(tmp_path: Path) -> None:
    """Ten false alarms among 1,000 people are allowed to each of 12 queries; 1,000 people pass, from another draw."""
    device = Device(tmp_path)
    _, people = ALERTS.crowd(77, 1000)
    now_s = time.time()
    keep(device, *(ALERTS.track(vector, now_s - 100, now_s - 99) for vector in people))
    queries = ALERTS.queries(12, seed=21)
    alarms = len(device.arm(*queries)) / len(queries)  # of a query among 1,000
    assert 0 < alarms <= 12.0
    device.end()


def test_a_damaged_memory_or_store_of_before_costs_a_search_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "s.db.searched.json").write_text('{"version": 1, "store"')
    device = Device(tmp_path)
    keep(device, meant(QUERIES[0]))
    assert len(device.arm(QUERIES[0])) == 1
    device.end()
    memory = json.loads((tmp_path / "s.db.searched.json").read_text())
    memory["store"] += 1
    (tmp_path / "s.db.searched.json").write_text(json.dumps(memory))
    (tmp_path / "s.db.hits.jsonl").unlink()
    device = Device(tmp_path)
    assert len(device.arm(QUERIES[0])) == 1
    device.end()

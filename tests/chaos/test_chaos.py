"""Small sizes of what docs/reliability.md says was run in full: nothing that a device kept is lost or doubled.

Root is needed for most of it: network namespaces, TUN devices, loop devices. TAGCLIP_OFFLINE_HITS sets how many people
are found while the link is away.
"""

from __future__ import annotations

import os
import sqlite3
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

for _package in ("argon2", "cryptography", "onnxruntime", "starlette", "uvicorn"):
    pytest.importorskip(_package)

from chaos.hits import ENCODER, hit, jpeg
from chaos.kills import chaos
from chaos.power import power_cuts
from chaos.soak import soak
from chaos.station import Ground, free_address, make_known
from chaos.sync_station import Link

from tagclip.runtime import outbox as outbox_module
from tagclip.runtime.health import Health
from tagclip.runtime.station.fleet import measure
from tagclip.runtime.station.station import RECORDS
from tagclip.runtime.sync_enrol import read_enrolment
from tagclip.runtime.sync_https import HttpsCarrier
from tagclip.runtime.sync_link import StationLink
from tagclip.runtime.sync_messages import Answer

pytestmark = pytest.mark.slow
OFFLINE_HITS = int(os.environ.get("TAGCLIP_OFFLINE_HITS", "400"))
OFFLINE_S = 8 * 3600
RATE = 250_000  # bytes per second, 2 Mbit/s


def where_possible(run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return run()
    except OSError as error:
        pytest.skip(f"not possible here: {error}")


def small_chaos(folder: Path, seed: int, **more: Any) -> dict[str, Any]:
    folder.mkdir()
    small = {"devices": 2, "hits": 160, "seconds": 2.5, "station_s": (0.7, 1.2), "device_s": (0.8, 2.0)}
    return where_possible(lambda: chaos(folder, seed=seed, **{**small, **more}))


@pytest.mark.parametrize("mqtt", [False, True], ids=["https", "mqtt"])
def test_kills_over_a_bad_link_lose_and_double_nothing(tmp_path: Path, mqtt: bool) -> None:
    if mqtt:
        pytest.importorskip("paho.mqtt")
    found = small_chaos(tmp_path / "a", 1, mqtt=mqtt)
    assert (found["put"], found["lost"], found["doubled"], found["strange"]) == (160, 0, 0, 0), found
    assert found["drained"] and found["station_kills"] and found["device_kills"] and found["packets_lost"]
    assert bool(found["broker_kills"]) == mqtt


def test_kills_lose_what_a_station_acknowledges_before_it_commits(tmp_path: Path) -> None:
    """The control."""
    assert any(
        small_chaos(tmp_path / str(seed), seed, devices=1, device_s=(60.0, 60.0), broken="hasty")["lost"] > 0
        for seed in range(5)
    )


def test_power_cuts_at_both_ends_lose_and_double_nothing(tmp_path: Path) -> None:
    found = where_possible(lambda: power_cuts(tmp_path, 2, most_s=1.0, seed=3))
    assert found["put"] > 0 and found["drained"], found
    assert (found["lost"], found["doubled"], found["strange"]) == (0, 0, 0), found


def test_power_cuts_lose_what_is_not_synchronous(tmp_path: Path) -> None:
    """The control."""
    runs = (
        where_possible(
            lambda seed=seed: power_cuts(tmp_path / str(seed), 1, most_s=1.5, synchronous="NORMAL")
        )
        for seed in range(5)
    )
    assert any(found["lost"] > 0 for found in runs)


class Clock:
    """A clock that is set."""

    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def time(self) -> float:
        return self.now_s


class Counting(HttpsCarrier):
    """Knows how large its batches were."""

    sizes: list[int]

    def exchange(self, batch: bytes, timeout_s: float) -> Answer:
        self.sizes.append(len(batch))
        return super().exchange(batch, timeout_s)


def test_eight_hours_offline_come_home_the_most_remarkable_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quota has room for all hits and a part of their pictures; the link then has 2 Mbit/s."""
    data, address = tmp_path / "ground", free_address()
    ground = Ground(data, address, log=tmp_path / "station.log")
    (folder,) = make_known(data, ["drone"], tmp_path)
    known = read_enrolment(folder)
    link = Link(int(address.rpartition(":")[2]), RATE)
    carrier = Counting(f"127.0.0.1:{link.port}", known.ca_pem, known.token)
    carrier.sizes = []
    link.cut()
    clock = Clock(time.time() - OFFLINE_S)
    monkeypatch.setattr(outbox_module, "time", clock)
    quota = 2_400 * OFFLINE_HITS
    health = Health(camera="c", detector="d", provider="cpu", encoder_id=ENCODER)
    try:
        with StationLink(folder, ENCODER, health, carrier=carrier, max_bytes=quota) as device:
            for number in range(OFFLINE_HITS):
                clock.now_s += OFFLINE_S / OFFLINE_HITS
                assert device.outbox.put(hit(number), jpeg(number))
            facts = device.outbox.facts()
            assert facts["bytes"] <= quota and facts["oldest_s"] == pytest.approx(OFFLINE_S, rel=0.01)
            assert facts["dropped_hits"] == 0 and OFFLINE_HITS / 5 < facts["dropped_pictures"] < OFFLINE_HITS
            pictures = OFFLINE_HITS - facts["dropped_pictures"]
            began_s = time.monotonic()
            link.mend()
            assert device.client.drain(120 + 4 * facts["bytes"] / RATE)
            print(
                f"{facts}, drained in {time.monotonic() - began_s:.1f} s, {link.up_bytes:,} bytes on the link,"
                f" batches of at most {max(carrier.sizes):,} bytes"
            )
        assert max(carrier.sizes) <= 2 * RATE  # never more than 2 s of the link in flight
    finally:
        link.close()
        ground.close()
    with sqlite3.connect(data / RECORDS) as records:
        hits = [
            (uuid.UUID(id_).int, received_s)
            for id_, received_s in records.execute("SELECT id, received_s FROM hits ORDER BY place")
        ]
        shown = [
            (uuid.UUID(id_).int, received_s, content)
            for id_, received_s, content in records.execute(
                "SELECT hit_id, received_s, jpeg FROM pictures ORDER BY rowid"
            )
        ]
    records.close()
    ranked = sorted(range(OFFLINE_HITS), key=lambda number: (hit(number).p_value, number))
    assert [number for number, _ in hits] == ranked
    # The quota took the pictures of the least remarkable, of equals the oldest.
    kept = set(sorted(ranked, key=lambda number: (hit(number).p_value, -number))[:pictures])
    assert [number for number, _, _ in shown] == [number for number in ranked if number in kept]
    assert all(content == jpeg(number) for number, _, content in shown)
    assert max(at_s for _, at_s in hits) <= min(at_s for _, at_s, _ in shown)


def test_memory_and_files_of_both_ends_stay_as_they_are(tmp_path: Path) -> None:
    found = soak(tmp_path, 1500, devices=1, rows=3)
    assert (found["put"], found["lost"], found["doubled"]) == (1500, 0, 0)
    _, warm, *_, last = found["rows"]
    for end in ("station", "device"):
        assert last[f"{end}_mb"] - warm[f"{end}_mb"] < 15 and last[f"{end}_files"] <= warm[f"{end}_files"] + 3
        assert last[f"{end}_wal_mb"] < 20


def test_a_fleet_is_answered_and_loses_nothing() -> None:
    found = measure(10, 1.0, 0.3)
    assert found.acked == found.stored >= len(found.posts_s) >= 10

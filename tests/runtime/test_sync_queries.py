"""Query sets over a real HTTPS station: which are taken, which refused, and what is in force meanwhile."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cryptography")
from chaos.hits import ENCODER
from chaos.side import Side, until

from tagclip.runtime import sync_client, sync_https
from tagclip.runtime.errors import SyncError
from tagclip.runtime.keys import PrivateKey
from tagclip.runtime.sync_messages import sign


def query(number: int, **more: Any) -> dict[str, Any]:
    return {
        **{"id": f"q{number}", "text": "a man", "view": "auto", "vector": [1.0, 0.5], "encoder_id": ENCODER},
        **{"alarms_per_hour": 1.0, "alarms_per_1000": None, "reason": "", "expires_s": None},
        **more,
    }


def test_a_query_set_is_in_force_within_a_second_and_after_a_restart(side: Side, station: Any) -> None:
    client = side.client()
    until(lambda: station.gets > 0)
    times = []
    for revision in range(1, 11):
        begun_s = time.monotonic()
        station.publish(revision, [query(n) for n in range(revision)])
        assert until(lambda revision=revision: client.revision == revision, 5)
        times.append(time.monotonic() - begun_s)
    assert sorted(times)[9] < 1.0
    assert [len(queries.queries) for queries in side.sets] == list(range(1, 11))
    assert side.sets[-1].queries[3].vector == (1.0, 0.5)
    assert (side.folder / "queries.json").stat().st_mode & 0o777 == 0o600
    client.close()
    side.sets.clear()
    offline = side.client(port=1)
    assert offline.revision == 10 and side.sets[-1].revision == 10


def test_query_sets_that_are_not_to_be_trusted_are_refused_and_said(side: Side, station: Any) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    station.publish(5, [query(1)])
    client = side.client()
    assert until(lambda: client.revision == 5)
    good = station.document
    forged = {name: value for name, value in good.items() if name != "signature"} | {"revision": 7}
    stranger = PrivateKey(Ed25519PrivateKey.generate())
    cases = [
        ("did not sign", sign(forged, stranger)),
        ("did not sign", {**good, "revision": 8}),
        ("expired", sign({**forged, "expires_s": time.time() - 5}, station.key)),
        ("expected more than 5, found 4", sign({**forged, "revision": 4}, station.key)),
    ]
    for text, document in cases:
        with pytest.raises(SyncError, match=text):
            client._keeper.take(document, time.time())
    with station.changed:
        station.document = cases[0][1]
        station.changed.notify_all()
    assert until(lambda: "did not sign" in side.health.reasons().get("queries", ""))
    time.sleep(0.5)
    assert client.revision == 5 and len(side.sets) == 1 and client.counts.refused_sets < 5  # no mad rush
    assert json.loads((side.folder / "queries.json").read_text()) == good
    station.publish(9, [])
    assert until(lambda: client.revision == 9) and until(lambda: not side.health.reasons())


def test_vectors_of_another_encoder_are_refused_and_their_texts_kept(
    side: Side, station: Any, caplog: pytest.LogCaptureFixture
) -> None:
    station.publish(1, [query(1), query(2, encoder_id="f" * 64), query(3, vector=None, encoder_id=None)])
    client = side.client()
    assert until(lambda: client.revision == 1 and bool(side.sets))
    assert [q.vector for q in side.sets[0].queries] == [(1.0, 0.5), None, None]
    assert [q.text for q in side.sets[0].queries] == ["a man"] * 3
    assert "1 of 3 queries come with vectors of encoder ffffffffffff" in caplog.text


def test_an_expired_or_foreign_set_that_was_kept(side: Side, station: Any, key: PrivateKey) -> None:
    """Offline a device goes on with the last good set, were it expired; damage is no set."""
    path = side.folder / "queries.json"
    document = {"revision": 3, "issued_s": 1.0, "expires_s": 2.0, "queries": [query(1)]}
    path.write_text(json.dumps(sign(document, key)))
    assert side.client(port=1).revision == 3
    for text in ("", "{", json.dumps({**sign(document, key), "revision": 4})):
        path.write_text(text)
        assert side.client(port=1).revision == 0


def test_one_that_was_away_for_a_week_and_a_new_one_end_with_the_same_set(
    side: Side, station: Any, key: PrivateKey, tmp_path: Path
) -> None:
    week_ago_s = time.time() - 8 * 86_400
    old = {
        "revision": 3,
        "issued_s": week_ago_s,
        "expires_s": week_ago_s + 30 * 86_400,
        "queries": [query(1)],
    }
    (side.folder / "queries.json").write_text(json.dumps(sign(old, key)))
    folder = tmp_path / "enrolled an hour ago"
    folder.mkdir()
    new = Side(folder, station, key.public)
    try:
        station.publish(40, [query(2), query(7, alarms_per_hour=3.0)])
        clients = side.client(), new.client()
        assert until(lambda: [client.revision for client in clients] == [40, 40])
        assert side.sets[0].revision == 3  # in force until it heard of the newer one
        assert side.sets[-1] == new.sets[-1] and [q.id for q in new.sets[-1].queries] == ["q2", "q7"]
        kept = [json.loads((place / "queries.json").read_text()) for place in (side.folder, folder)]
        assert kept[0] == kept[1]
    finally:
        new.close()


class FastClock:
    """The time of a device whose clock is three years ahead."""

    monotonic, sleep = staticmethod(time.monotonic), staticmethod(time.sleep)

    @staticmethod
    def time() -> float:
        return time.time() + 1e8


def test_the_clock_of_the_station_counts(side: Side, station: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device whose clock is wrong takes a set that its station issued now."""
    monkeypatch.setattr(sync_client, "time", FastClock)
    monkeypatch.setattr(sync_https, "time", FastClock)
    station.publish(1, [])
    client = side.client()
    assert until(lambda: client.revision == 1)
    with pytest.raises(SyncError, match="expired"):  # by its own clock
        client._keeper.take(sign({**station.document, "revision": 2}, station.key), FastClock.time())


def test_a_station_that_was_set_back_is_told_of(side: Side, station: Any) -> None:
    station.publish(5, [])
    client = side.client()
    assert until(lambda: client.revision == 5)
    station.revision_offset = -3
    side.put(range(1))
    assert until(lambda: "restored from a backup" in side.health.reasons().get("station", ""))

"""Search in a store gives what comparing with every stored vector gives."""

from __future__ import annotations

import uuid
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numkong")

from tagclip.runtime.earth import great_circle_m
from tagclip.runtime.errors import StoreEncoderError
from tagclip.runtime.store import TrackStore
from tagclip.runtime.store_index import StoreIndex
from tagclip.runtime.store_track import Place, StoredTrack
from tagclip.runtime.vector_scan import Where, to_int8

ENCODER = "a" * 64
DIM = 96


def unit(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


def crowd(count: int, seed: int = 0, spread: float = 0.3) -> np.ndarray:
    """Vectors in a few tight clusters, as those of people in the same clothes are: many scores nearly equal."""
    rng = np.random.default_rng(seed)
    return unit(
        rng.standard_normal((8, DIM))[rng.integers(8, size=count)]
        + spread * rng.standard_normal((count, DIM))
    )


def stored(k: int, vector: np.ndarray, encoder: str = ENCODER) -> tuple[StoredTrack, bytes]:
    place = Place(47.0 + 1e-4 * k, 8.0, 2.0) if k % 3 else None
    start_s = 1000.0 + 10 * k
    name = uuid.UUID(int=k + 1)
    box = (0.0, 0.0, 1.0, 2.0)
    return StoredTrack(
        name, f"cam{k % 4}", "ground", start_s, start_s + 30, start_s, k, box, encoder, vector, place
    ), b"jpeg"


def by_hand(
    store: TrackStore, query: np.ndarray, top: int, allowed=lambda track: True
) -> list[tuple[int, float]]:
    tracks = {key: t for key, t in store.since(0) if allowed(t)}
    scores = {key: float(t.vector.astype(np.float32) @ query) for key, t in tracks.items()}
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))[:top]


@pytest.fixture
def store(tmp_path: Path):
    with TrackStore(tmp_path / "s.db") as opened:
        opened.add([stored(k, v) for k, v in enumerate(crowd(3000))])
        yield opened


@pytest.mark.parametrize("top", [1, 5, 50, 5000])
def test_the_best_are_those_of_a_comparison_with_all(store: TrackStore, top: int) -> None:
    index = StoreIndex(store, ENCODER, DIM)
    for query in crowd(12, seed=9):
        found, expected = index.search(query, top), by_hand(store, query, top)
        assert [key for key, _ in found] == [key for key, _ in expected]
        np.testing.assert_allclose([s for _, s in found], [s for _, s in expected], atol=1e-6)


def test_what_is_read_in_many_parts_is_whole(store: TrackStore, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = StoreIndex(store, ENCODER, DIM)
    monkeypatch.setattr("tagclip.runtime.store.AT_ONCE", 7)
    parts = StoreIndex(store, ENCODER, DIM)
    assert len(parts) == len(whole) == 3000
    for name, column in whole._scan.columns.items():
        np.testing.assert_array_equal(parts._scan.columns[name][:3000], column[:3000])
    # And each is what its own track says.
    for row, (key, track) in enumerate(store.since(0)):
        column = {name: values[row] for name, values in parts._scan.columns.items()}
        rounded = column["codes"] * column["scale"] - track.vector.astype(np.float32)
        assert (column["key"], column["start_s"], column["end_s"]) == (key, track.start_s, track.end_s)
        assert np.linalg.norm(rounded) == pytest.approx(column["error"], rel=1e-3)
        assert np.isnan(column["latitude_deg"]) == (track.place is None)
        assert track.camera == f"cam{column['camera']}"


def test_scores_in_eight_bits_are_never_off_by_more_than_their_bound(store: TrackStore) -> None:
    """With many threads' worth of rows, too: the halves are put together in order."""
    index = StoreIndex(store, ENCODER, DIM)
    for query in crowd(20, seed=3, spread=2.0):
        scores, bounds = index._scan._scores(query)
        exact = np.array([t.vector.astype(np.float32) @ query for _, t in store.since(0)])
        assert (np.abs(scores - exact) <= bounds).all() and bounds.max() < 0.03


def test_only_where_it_was_asked_for(store: TrackStore) -> None:
    index = StoreIndex(store, ENCODER, DIM)
    query = crowd(1, seed=5)[0]
    cases = [
        (Where(after_s=20_000), lambda t: t.end_s >= 20_000),
        (Where(after_s=1500, before_s=1700), lambda t: t.end_s >= 1500 and t.start_s <= 1700),
        (Where(cameras=frozenset({"cam1", "cam3", "none"})), lambda t: t.camera in ("cam1", "cam3")),
        (
            Where(near=(47.01, 8.0, 200.0)),
            lambda t: t.place and great_circle_m(47.01, 8.0, t.place.latitude_deg, 8.0) <= 200,
        ),
    ]
    for where, allowed in cases:
        found = index.search(query, 40, index.allowed(where))
        assert [k for k, _ in found] == [k for k, _ in by_hand(store, query, 40, allowed)] and found
    assert index.search(query, 5, index.allowed(Where(cameras=frozenset({"none"})))) == []


def test_it_follows_the_store(store: TrackStore) -> None:
    index = StoreIndex(store, ENCODER, DIM)
    new = crowd(10, seed=77, spread=2.0)
    store.add([stored(5000 + k, v) for k, v in enumerate(new)])
    index.refresh()
    assert len(index) == 3010 and index.search(new[4], 1)[0][1] == pytest.approx(1, abs=1e-3)
    # Replaced, and deleted.
    store.add([stored(5004, unit(-new[4]))])
    store._db.execute("DELETE FROM tracks WHERE frame < 100")
    index.refresh()
    assert len(index) == 2910 == len(store)
    assert [key for key, _ in index.search(new[4], 3)] == [key for key, _ in by_hand(store, new[4], 3)]
    assert index.search(unit(-new[4]), 1)[0][1] == pytest.approx(1, abs=1e-3)


def test_an_empty_store_has_nobody(tmp_path: Path) -> None:
    with TrackStore(tmp_path / "e.db") as empty:
        assert StoreIndex(empty, ENCODER, DIM).search(crowd(1)[0], 5) == []


def test_vectors_of_another_encoder_are_refused(store: TrackStore) -> None:
    store.add([stored(9000, crowd(1)[0], "b" * 64)])
    with pytest.raises(
        StoreEncoderError,
        match=r"\(1 by bbbbbbbbbbbb\), the bundle's is aaaaaaaaaaaa: `tagclip store reindex`",
    ):
        StoreIndex(store, ENCODER, DIM)


def test_eight_bits() -> None:
    codes, scale = to_int8(np.array([0.5, -1.0, 0.0, 0.004], np.float32))
    assert codes.dtype == np.int8 and codes.tolist() == [64, -127, 0, 1] and scale == pytest.approx(1 / 127)
    assert to_int8(np.zeros(3, np.float32))[0].tolist() == [0, 0, 0]


def test_distances_on_earth() -> None:
    """Paris to London, by the published great-circle distance of 343.5 km; a degree of latitude is 111.2 km."""
    assert great_circle_m(48.8566, 2.3522, 51.5074, -0.1278) == pytest.approx(343_500, rel=0.003)
    assert great_circle_m(0, 0, 1, 0) == pytest.approx(111_195, rel=1e-4)
    assert np.isnan(great_circle_m(0, 0, np.nan, 0))

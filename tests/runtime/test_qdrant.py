"""The station's vectors in Qdrant: what a search finds is what the exact scan of the records finds.

Qdrant's client brings an engine of its own, which runs in this process and is exact; no cluster is asked here.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

qdrant_client = pytest.importorskip("qdrant_client")

from tagclip.runtime.errors import ConfigError, StoreError
from tagclip.runtime.station.database import Database
from tagclip.runtime.station.vectors import Found, LocalVectors, TrackVector, unit
from tagclip.runtime.station.vectors_qdrant import QdrantVectors, open_qdrant
from tagclip.runtime.vector_scan import Where

DIM, TRACKS = 24, 300
pytestmark = [
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect"),
    pytest.mark.filterwarnings("ignore:Local mode performs exact"),
]


def track(number: int, encoder: str = "toy", dim: int = DIM) -> TrackVector:
    rng = np.random.default_rng(number)
    codes = rng.integers(-127, 128, dim).astype(np.int8)
    return TrackVector(
        f"01900000-0000-7000-8000-{number:012x}",
        f"d{number % 3}",
        ("gate", "north")[number % 2],
        ("aerial", "ground", "unknown")[number % 3],
        encoder,
        1000.0 + number,
        1004.0 + number,
        5000.0 + number,
        None if number % 4 == 0 else (50.0 + number / 1000, 8.0),
        unit(codes.tobytes()),
    )


def keep(database: Database, *tracks: TrackVector) -> None:
    """As rows of the table, which the exact scan reads; vectors as the codes that they were made of."""
    with database.write() as connection:
        for each in tracks:
            number = int(each.track_id[-12:], 16)
            codes = np.random.default_rng(number).integers(-127, 128, len(each.vector)).astype(np.int8)
            connection.execute(
                "INSERT INTO tracks(id, device, camera, view, encoder_id, start_s, end_s, received_s, latitude_deg,"
                " longitude_deg, boot_id, seq, document, vector) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'b', 1, '{}', ?)",
                (
                    *(each.track_id, each.device, each.camera, each.view, each.encoder_id),
                    *(
                        each.start_s,
                        each.end_s,
                        each.received_s,
                        *(each.place or (None, None)),
                        codes.tobytes(),
                    ),
                ),
            )


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "records.sqlite")
    keep(
        database,
        *(track(number) for number in range(TRACKS)),
        *(track(TRACKS + n, "other") for n in range(5)),
    )
    yield database
    database.close()


@pytest.fixture
def client() -> Iterator[Any]:
    client = qdrant_client.QdrantClient(":memory:")
    yield client
    client.close()


def same(found: Found, expected: Found) -> None:
    assert (found.compared, found.left_out) == (expected.compared, expected.left_out)
    assert [name for name, _ in found.tracks] == [name for name, _ in expected.tracks]
    assert [score for _, score in found.tracks] == pytest.approx([s for _, s in expected.tracks], abs=1e-5)


QUERY = unit(np.random.default_rng(77).integers(-127, 128, DIM).astype(np.int8).tobytes())


@pytest.mark.parametrize(
    "where",
    [
        Where(),
        Where(after_s=1200.0),
        Where(before_s=1100.0),
        Where(after_s=1104.0, before_s=1104.0),
        Where(cameras=frozenset({"gate", "nowhere"})),
        Where(devices=frozenset({"d1"}), views=frozenset({"ground"})),
        Where(near=(50.1, 8.0, 3000.0)),
        Where(near=(50.1, 8.0, 3000.0), cameras=frozenset({"north"}), after_s=1101.0),
        Where(devices=frozenset({"nobody"})),
    ],
    ids=[
        "all",
        "after",
        "before",
        "moment",
        "cameras",
        "device and view",
        "near",
        "near, camera, after",
        "nobody",
    ],
)
def test_it_finds_what_the_exact_scan_finds(database: Database, client: Any, where: Where) -> None:
    """It was told by `_fill`, of the records alone."""
    engine = QdrantVectors(client, b"station", database)
    for encoder, top in (("toy", 20), ("toy", 1000), ("other", 3), ("absent", 3)):
        same(
            engine.search(QUERY, encoder, where, top),
            LocalVectors(database).search(QUERY, encoder, where, top),
        )


def test_telling_again_replaces_and_old_ones_go(database: Database, client: Any) -> None:
    engine = QdrantVectors(client, b"station", database)
    more = track(400)
    engine.add([more])
    assert (
        engine.search(QUERY, "toy", Where(), 9).compared == TRACKS
    )  # the records do not have it: it was deleted
    keep(database, more)
    for _ in range(2):
        engine.add([more, track(3)])
    exact = LocalVectors(database)
    same(engine.search(QUERY, "toy", Where(), 1000), exact.search(QUERY, "toy", Where(), 1000))
    with database.write() as connection:
        connection.execute("DELETE FROM tracks WHERE received_s < ? OR id = ?", (5100.0, track(200).track_id))
        connection.execute("INSERT INTO deleted_hits(id, deleted_s) VALUES(?, 1.0)", (track(200).track_id,))
    engine.remove_before(5100.0)
    same(engine.search(QUERY, "toy", Where(), 1000), exact.search(QUERY, "toy", Where(), 1000))


def test_what_it_lost_it_is_told_again_and_other_stations_see_nothing(
    database: Database, client: Any
) -> None:
    engine = QdrantVectors(client, b"station", database)
    nothing = Database(database.path.with_name("others.sqlite"))
    assert QdrantVectors(client, b"another station", nothing).search(QUERY, "toy", Where(), 9) == Found(
        [], 0, 0
    )
    nothing.close()
    gone = next(
        each.name for each in client.get_collections().collections if client.count(each.name).count == TRACKS
    )
    client.delete_collection(gone)
    with pytest.raises(StoreError, match="does not answer as it should"):
        engine.add([track(1)])  # the device is not told that it is kept, and tells it again:
    engine.add([track(1)])
    assert engine.search(QUERY, "toy", Where(), 9).compared == 1
    again = QdrantVectors(client, b"station", database)
    same(again.search(QUERY, "toy", Where(), 50), LocalVectors(database).search(QUERY, "toy", Where(), 50))


def test_a_collection_is_made_with_codes_in_memory(database: Database) -> None:
    """What is asked of a cluster; the engine in this process takes no notice of it."""
    asked = []

    class Client(qdrant_client.QdrantClient):
        def create_collection(self, *values: Any, **named: Any) -> bool:
            asked.append((values, named))
            return bool(super().create_collection(*values, **named))

    client = Client(":memory:")
    QdrantVectors(client, b"station", database)
    client.close()
    assert len(asked) == 2
    for (name, vectors), named in asked:
        assert name.startswith("tagclip-") and vectors.size == DIM and vectors.on_disk
        assert (
            named["quantization_config"].scalar.type == "int8"
            and named["quantization_config"].scalar.always_ram
        )


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.5:6333", "http://example.org", "https://user:key@host:6333", "https://host:port", "host:6333",
        "https://host:6333/?api-key=x", "ftp://127.0.0.1",
    ],
)  # fmt: skip
def test_urls_that_would_show_vectors_or_keys_are_refused(url: str, database: Database) -> None:
    with pytest.raises(ConfigError, match="--vectors: .*expected https://"):
        open_qdrant(url, b"station", database)


def test_a_cluster_out_of_reach_is_an_error_and_no_other_engine_steps_in(database: Database) -> None:
    with warnings.catch_warnings(), pytest.raises(StoreError, match="--vectors.* does not answer"):
        open_qdrant("http://127.0.0.1:1", b"station", database)

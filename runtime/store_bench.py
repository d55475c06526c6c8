"""How fast a store takes tracks in and answers, on this machine."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tagclip.runtime.files import check_target
from tagclip.runtime.ids import uuid7
from tagclip.runtime.store import Retention, TrackStore
from tagclip.runtime.store_index import StoreIndex
from tagclip.runtime.store_track import StoredTrack

BATCH = 32  # tracks of one transaction
WARM_UP = 3  # searches that do not count


def measure(
    folder: Path, tracks: int, dim: int, queries: int, progress: Callable[[int, int], None]
) -> dict[str, Any]:
    """Fill a store in `folder`, which must be new, with clustered random vectors; search it; remove it.

    Returns:
        {"tracks", "dim", "batch", "inserts_per_s", "load_s", "search_ms": {"p50", "p95", "p99"}}; each batch is on the
        disk before the next is begun, searches are for the best 20.

    Raises:
        OutputError, StoreError: the folder cannot be used.
    """
    check_target(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    middles = 0.7 * rng.standard_normal((200, dim))

    def people(count: int) -> np.ndarray:
        vectors = middles[rng.integers(len(middles), size=count)] + rng.standard_normal((count, dim))
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    picture = bytes(200)
    try:
        with TrackStore(folder / "bench.db", Retention(max_bytes=1 << 42)) as store:
            spent = 0.0
            for start in range(0, tracks, BATCH):
                vectors = people(min(BATCH, tracks - start))
                rows = [
                    (
                        StoredTrack(
                            uuid7(), "bench", "aerial", k, k + 5, k, k, (0, 0, 9, 9), "b" * 64, vector
                        ),
                        picture,
                    )
                    for k, vector in enumerate(vectors, start)
                ]
                began = time.perf_counter()
                store.add(rows)
                spent += time.perf_counter() - began
                progress(start + len(rows), tracks)
            began = time.perf_counter()
            index = StoreIndex(store, "b" * 64, dim)
            load_s = time.perf_counter() - began
            times = []
            for query in people(queries + WARM_UP):
                began = time.perf_counter()
                index.search(query, 20)
                times.append(1000 * (time.perf_counter() - began))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    searches = np.array(times[WARM_UP:])
    return {
        "tracks": tracks,
        "dim": dim,
        "batch": BATCH,
        "inserts_per_s": round(tracks / spent),
        "load_s": round(load_s, 2),
        "search_ms": {f"p{p}": round(float(np.percentile(searches, p)), 1) for p in (50, 95, 99)},
    }

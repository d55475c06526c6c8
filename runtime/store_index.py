"""Exact search in a store: who fits a text best, of everybody or of those at some time and place.

Vectors lie in memory in eight bits, one scale each. A query is compared with all of them; the rounding error, known for
each vector, bounds how far its score may be off, and whoever can still be among the best is compared again with the
vector that the store keeps. So the answer is that of a comparison with all stored vectors, at half of the bytes.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.earth import great_circle_m
from tagclip.runtime.errors import StoreEncoderError
from tagclip.runtime.store import TrackStore

FIRST_ROWS = 1024
THREADS = 2
ALONE = 50_000  # rows below which one thread is as fast
FLOAT_ERROR = 1e-5  # of float32 sums, on top of the bound

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Where:
    """Which tracks to look at; None for any.

    Attributes:
        after_s, before_s: Unix time, UTC; whoever was seen at any time between counts.
        cameras: names.
        near: latitude and longitude in degrees, and a radius in metres; tracks without a place are left out.
    """

    after_s: float | None = None
    before_s: float | None = None
    cameras: frozenset[str] | None = None
    near: tuple[float, float, float] | None = None


class StoreIndex:
    """All vectors of a store that one encoder made. Not safe for several threads at once.

    Args:
        store: open; may grow and shrink meanwhile, `refresh` follows.
        encoder_id: of the encoder whose queries will be searched.
        dim: of its vectors.

    Raises:
        StoreEncoderError: other encoders made some of the vectors.
        StoreError: the store is damaged.
    """

    def __init__(self, store: TrackStore, encoder_id: str, dim: int) -> None:
        self._store, self._encoder_id = store, encoder_id
        self._rows = 0
        self._last_key = 0
        self._columns: dict[str, NDArray[Any]] = {
            "codes": np.empty((FIRST_ROWS, dim), np.int8),
            "scale": np.empty(FIRST_ROWS, np.float32),
            "error": np.empty(FIRST_ROWS, np.float32),
            "key": np.empty(FIRST_ROWS, np.int64),
            "start_s": np.empty(FIRST_ROWS, np.float64),
            "end_s": np.empty(FIRST_ROWS, np.float64),
            "camera": np.empty(FIRST_ROWS, np.int32),
            "latitude_deg": np.empty(FIRST_ROWS, np.float64),
            "longitude_deg": np.empty(FIRST_ROWS, np.float64),
        }
        self._cameras: dict[str, int] = {}
        self._pool = ThreadPoolExecutor(THREADS)
        self.refresh()

    def __len__(self) -> int:
        return self._rows

    def refresh(self) -> None:
        """Take in what was added to the store since, and forget what was deleted. Raises: as the constructor."""
        for rows in self._store.searched_since(self._last_key):
            self._append(rows)
        if len(self._store) < self._rows:
            kept = np.isin(self._columns["key"][: self._rows], self._store.keys())
            self._rows = int(kept.sum())
            for column in self._columns.values():
                column[: self._rows] = column[: len(kept)][kept]

    def _of_others(self) -> StoreEncoderError:
        others = {name: count for name, count in self._store.encoders().items() if name != self._encoder_id}
        counts = ", ".join(f"{count} by {name[:12]}" for name, count in sorted(others.items()))
        return StoreEncoderError(
            f"{self._store.path} holds tracks of other encoders ({counts}), the bundle's is "
            f"{self._encoder_id[:12]}: `tagclip store reindex` embeds their pictures anew, or name the old bundle"
        )

    def _append(self, rows: list[tuple[Any, ...]]) -> None:
        """Rows of SEARCHED, all at once: one by one a million would take minutes."""
        key, encoder_id, camera, start_s, end_s, latitude, longitude, vector = zip(*rows, strict=True)
        if set(encoder_id) != {self._encoder_id}:
            raise self._of_others()
        vectors = np.frombuffer(b"".join(vector), np.float16).reshape(len(rows), -1).astype(np.float32)
        codes, scale = to_int8(vectors)
        values = {
            "codes": codes,
            "scale": scale,
            "error": np.linalg.norm(vectors - codes * scale[:, None], axis=1),
            "key": key,
            "start_s": start_s,
            "end_s": end_s,
            "camera": [self._cameras.setdefault(name, len(self._cameras)) for name in camera],
            "latitude_deg": np.array(latitude, np.float64),  # None is not a number
            "longitude_deg": np.array(longitude, np.float64),
        }
        last = self._rows + len(rows)
        while last > len(self._columns["key"]):
            for name, column in self._columns.items():
                self._columns[name] = np.concatenate([column, np.empty_like(column)])
        for name, value in values.items():
            self._columns[name][self._rows : last] = value
        self._rows, self._last_key = last, max(self._last_key, key[-1])

    def search(
        self, query: Floats, top: int, allowed: NDArray[np.bool_] | None = None
    ) -> list[tuple[int, float]]:
        """The best tracks: (key, cosine), best first, at most `top`; equal scores by key.

        Args:
            query: float32 (D,), a unit vector of the encoder.
            allowed: as `allowed` gave it; default all.
        """
        if allowed is None:
            allowed = np.ones(self._rows, bool)
        wanted = min(top, int(np.count_nonzero(allowed)))
        if not wanted:
            return []
        scores, bounds = self._scores(query)
        lower, upper = scores - bounds, scores + bounds
        lower[~allowed] = -np.inf
        # At least `wanted` tracks score as much as this; whoever may score as much is looked at again.
        least = np.partition(lower, len(lower) - wanted)[len(lower) - wanted]
        rows = np.flatnonzero((upper >= least) & allowed)
        keys = self._columns["key"][rows]
        stored = self._store.vectors(keys)
        exact = [(float(vector.astype(np.float32) @ query), key) for key, vector in stored.items()]
        exact.sort(key=lambda pair: (-pair[0], pair[1]))
        return [(key, score) for score, key in exact[:top]]

    def _scores(self, query: Floats) -> tuple[Floats, Floats]:
        """Approximate cosines (n,), and how far each may be off."""
        import numkong

        codes, scale = to_int8(query)
        n = self._rows
        dots = np.empty(n, np.float32)

        def part(start: int, end: int) -> None:
            matrix = self._columns["codes"][start:end]
            dots[start:end] = np.asarray(numkong.cdist(codes[None], matrix, "dot", out_dtype="float32"))[0]

        if n < ALONE:
            part(0, n)
        else:
            edges = np.linspace(0, n, THREADS + 1).astype(int)
            list(self._pool.map(part, edges[:-1], edges[1:]))
        dots *= self._columns["scale"][:n] * scale
        # |q x - q' x'| <= |q| |x - x'| + |q - q'| |x'|, and |x'| <= 1 + |x - x'|.
        error, own = self._columns["error"][:n], np.float32(np.linalg.norm(query - codes * scale))
        bounds = error * np.float32(1 + own) + np.float32(1.001 * own + FLOAT_ERROR)
        return dots, bounds

    def allowed(self, where: Where) -> NDArray[np.bool_]:
        """Which tracks, (n,) in the order of the index, are where they were asked for; until the next `refresh`."""
        n = self._rows
        column = {name: values[:n] for name, values in self._columns.items()}
        allowed = np.ones(n, bool)
        if where.after_s is not None:
            allowed &= column["end_s"] >= where.after_s
        if where.before_s is not None:
            allowed &= column["start_s"] <= where.before_s
        if where.cameras is not None:
            allowed &= np.isin(column["camera"], [self._cameras.get(name, -1) for name in where.cameras])
        if where.near is not None:
            latitude, longitude, radius_m = where.near
            distance_m = great_circle_m(latitude, longitude, column["latitude_deg"], column["longitude_deg"])
            allowed &= distance_m <= radius_m  # not a number is not near
        return allowed


def to_int8(vectors: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Codes int8 (..., D) and their scales float32 (...): codes * scale is the vector, rounded."""
    scale = np.asarray(np.maximum(np.abs(vectors).max(-1).astype(np.float64), 1e-12) / 127, np.float32)
    return np.rint(vectors / scale[..., None]).astype(np.int8), scale

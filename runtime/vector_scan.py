"""Exact search over vectors in memory, for a device's store and for a station: who fits a text best, of those allowed.

Vectors lie there in eight bits, one scale each. A query is compared with all of them; the rounding error, known for
each vector, bounds how far its score may be off, and whoever can still be among the best is compared again with the
vector that was stored. So the answer is that of a comparison with all stored vectors, at half of the bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.earth import great_circle_m
from tagclip.runtime.errors import QueryError

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
        devices, views: names; at a station alone.
    """

    after_s: float | None = None
    before_s: float | None = None
    cameras: frozenset[str] | None = None
    near: tuple[float, float, float] | None = None
    devices: frozenset[str] | None = None
    views: frozenset[str] | None = None


class Scan:
    """Rows of one encoder, in the order in which they were added. Not safe for several threads at once.

    Args:
        dim: of the vectors.
        names: columns of text beside key, start_s, end_s, latitude_deg and longitude_deg: "camera", "device", "view".
    """

    def __init__(self, dim: int, names: Sequence[str]) -> None:
        self.rows = 0
        self.columns: dict[str, NDArray[Any]] = {
            "codes": np.empty((FIRST_ROWS, dim), np.int8),
            "scale": np.empty(FIRST_ROWS, np.float32),
            "error": np.empty(FIRST_ROWS, np.float32),
            "key": np.empty(FIRST_ROWS, np.int64),
            "start_s": np.empty(FIRST_ROWS, np.float64),
            "end_s": np.empty(FIRST_ROWS, np.float64),
            "latitude_deg": np.empty(FIRST_ROWS, np.float64),
            "longitude_deg": np.empty(FIRST_ROWS, np.float64),
            **{name: np.empty(FIRST_ROWS, np.int32) for name in names},
        }
        self._numbers: dict[str, dict[str, int]] = {name: {} for name in names}
        self._pool = ThreadPoolExecutor(THREADS)

    def append(self, values: Mapping[str, Any]) -> None:
        """Rows, all at once: one by one a million would take minutes.

        Args:
            values: by column, (n,) each and (n, D) for codes; text for names, None or not a number for no place.
        """
        last = self.rows + len(values["key"])
        while last > len(self.columns["key"]):
            for name, column in self.columns.items():
                self.columns[name] = np.concatenate([column, np.empty_like(column)])
        for name, value in values.items():
            if name in self._numbers:
                known = self._numbers[name]
                value = [known.setdefault(text, len(known)) for text in value]
            self.columns[name][self.rows : last] = value
        self.rows = last

    def keep(self, kept: NDArray[np.bool_]) -> None:
        """Forget the rows that are not `kept`, (n,)."""
        self.rows = int(kept.sum())
        for column in self.columns.values():
            column[: self.rows] = column[: len(kept)][kept]

    def column(self, name: str) -> NDArray[Any]:
        """Of all rows, until the next change."""
        return self.columns[name][: self.rows]

    def allowed(self, where: Where) -> NDArray[np.bool_]:
        """Which rows, (n,), are where they were asked for; until the next change."""
        allowed = np.ones(self.rows, bool)
        if where.after_s is not None:
            allowed &= self.column("end_s") >= where.after_s
        if where.before_s is not None:
            allowed &= self.column("start_s") <= where.before_s
        for name, wanted in (("camera", where.cameras), ("device", where.devices), ("view", where.views)):
            if wanted is not None:
                numbers = [self._numbers[name].get(text, -1) for text in wanted]
                allowed &= np.isin(self.column(name), numbers)
        if where.near is not None:
            latitude, longitude, radius_m = where.near
            distance_m = great_circle_m(
                latitude, longitude, self.column("latitude_deg"), self.column("longitude_deg")
            )
            allowed &= distance_m <= radius_m  # not a number is not near
        return allowed

    def search(
        self,
        query: Floats,
        top: int,
        allowed: NDArray[np.bool_],
        stored: Callable[[NDArray[np.int64]], Mapping[int, NDArray[np.floating]]],
    ) -> list[tuple[int, float]]:
        """The best rows: (key, cosine), best first, at most `top`; equal scores by key.

        Args:
            query: float32 (D,), a unit vector of the encoder.
            allowed: as `allowed` gave it.
            stored: gives the vectors (D,) of keys, as far as they are still there.
        """
        wanted = min(top, int(np.count_nonzero(allowed)))
        if not wanted:
            return []
        scores, bounds = self._scores(query)
        lower, upper = scores - bounds, scores + bounds
        lower[~allowed] = -np.inf
        # At least `wanted` tracks score as much as this; whoever may score as much is looked at again.
        least = np.partition(lower, len(lower) - wanted)[len(lower) - wanted]
        keys = self.column("key")[np.flatnonzero((upper >= least) & allowed)]
        exact = [(float(vector.astype(np.float32) @ query), key) for key, vector in stored(keys).items()]
        exact.sort(key=lambda pair: (-pair[0], pair[1]))
        return [(key, score) for score, key in exact[:top]]

    def _scores(self, query: Floats) -> tuple[Floats, Floats]:
        """Approximate cosines (n,), and how far each may be off."""
        import numkong

        codes, scale = to_int8(query)
        n = self.rows
        dots = np.empty(n, np.float32)

        def part(start: int, end: int) -> None:
            matrix = self.columns["codes"][start:end]
            dots[start:end] = np.asarray(numkong.cdist(codes[None], matrix, "dot", out_dtype="float32"))[0]

        if n < ALONE:
            part(0, n)
        else:
            edges = np.linspace(0, n, THREADS + 1).astype(int)
            list(self._pool.map(part, edges[:-1], edges[1:]))
        dots *= self.column("scale") * scale
        # |q x - q' x'| <= |q| |x - x'| + |q - q'| |x'|, and |x'| <= 1 + |x - x'|.
        error, own = self.column("error"), np.float32(np.linalg.norm(query - codes * scale))
        bounds = error * np.float32(1 + own) + np.float32(1.001 * own + FLOAT_ERROR)
        return dots, bounds


def to_int8(vectors: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Codes int8 (..., D) and their scales float32 (...): codes * scale is the vector, rounded."""
    scale = np.asarray(np.maximum(np.abs(vectors).max(-1).astype(np.float64), 1e-12) / 127, np.float32)
    return np.rint(vectors / scale[..., None]).astype(np.int8), scale


def parse_near(text: str, option: str = "--near") -> tuple[float, float, float]:
    """Degrees of latitude and longitude, and metres: "47.37,8.54,200". Raises: QueryError."""
    try:
        latitude, longitude, radius_m = (float(part) for part in text.split(","))
    except ValueError:
        latitude = longitude = radius_m = float("nan")
    if not (abs(latitude) <= 90 and abs(longitude) <= 180 and 0 < radius_m < 2.1e7):
        raise QueryError(f"{option} expects LATITUDE,LONGITUDE,METRES such as 47.37,8.54,200; found {text!r}")
    return latitude, longitude, radius_m

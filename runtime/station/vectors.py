"""How everybody looked whom a device stored, and who of them fits a text best: the station's search, over all devices.

The records of tracks are in tracks.py. An engine of vectors may lose everything and is filled from them again; it is
told of tracks before their messages are acknowledged, so whatever it missed is told to it once more.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.station.database import Database
from tagclip.runtime.vector_scan import Scan, Where

NAMES = ("device", "camera", "view")
AT_ONCE = 4096  # rows: some megabytes
SOME = 500  # in one statement

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class TrackVector:
    """A track, as far as a search looks at it.

    Attributes:
        track_id: of all devices together; a later one of the same id replaces it.
        view: "aerial", "ground" or "unknown".
        start_s, end_s: Unix time, UTC, by the device's clock.
        received_s: by the station's.
        place: latitude and longitude in degrees; None when unknown.
        vector: float32 (D,), a unit vector.
    """

    track_id: str
    device: str
    camera: str
    view: str
    encoder_id: str
    start_s: float
    end_s: float
    received_s: float
    place: tuple[float, float] | None
    vector: Floats


@dataclass(frozen=True)
class Found:
    """The answer to a search.

    Attributes:
        tracks: id and cosine, best first.
        compared: of how many tracks.
        left_out: tracks that would have been compared, but for another encoder that made their vectors.
    """

    tracks: list[tuple[str, float]]
    compared: int
    left_out: int


class Vectors(Protocol):
    """An engine of vectors; any thread may call."""

    def add(self, tracks: Sequence[TrackVector]) -> None:
        """Take tracks in; when it returns they are found. Those that it has already are no error."""
        ...

    def remove_before(self, received_s: float) -> None:
        """Forget all tracks that came before `received_s`, Unix time."""
        ...

    def search(self, vector: Floats, encoder_id: str, where: Where, top: int) -> Found:
        """The best tracks of an encoder, at most `top`.

        Args:
            vector: float32 (D,), a unit vector.
        """
        ...


class LocalVectors:
    """The engine without a server: `Vectors` by an exact scan over the rows of the station's own file.

    Args:
        database: with the table of tracks, which is all that it keeps; what it has in memory follows that.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._scans: dict[tuple[str, int], Scan] = {}  # by encoder and dimension
        self._lock = threading.Lock()
        self._last = 0

    def add(self, tracks: Sequence[TrackVector]) -> None:
        """They are in the table; the next search reads them there."""

    def remove_before(self, received_s: float) -> None:
        """They are gone from the table; the next search sees that."""

    def search(self, vector: Floats, encoder_id: str, where: Where, top: int) -> Found:
        """See `Vectors`."""
        with self._lock:
            self._refresh()
            allowed = {key: scan.allowed(where) for key, scan in self._scans.items()}
            own = (encoder_id, len(vector))
            compared = int(allowed[own].sum()) if own in allowed else 0
            left_out = sum(int(rows.sum()) for key, rows in allowed.items() if key != own)
            ranked = self._scans[own].search(vector, top, allowed[own], self._stored) if compared else []
        ids = dict(self._rows("place, id", [place for place, _ in ranked]))
        # Who was deleted or told again meanwhile is left out.
        return Found([(ids[place], score) for place, score in ranked if place in ids], compared, left_out)

    def _stored(self, places: NDArray[np.int64]) -> dict[int, Floats]:
        return {place: unit(codes) for place, codes in self._rows("place, vector", places.tolist())}

    def _rows(self, columns: str, places: Sequence[int]) -> list[Any]:
        found: list[Any] = []
        with self._database.read() as connection:
            for start in range(0, len(places), SOME):
                part = places[start : start + SOME]
                marks = ", ".join("?" * len(part))
                found += connection.execute(
                    f"SELECT {columns} FROM tracks WHERE place IN ({marks})", part
                ).fetchall()
        return found

    def _refresh(self) -> None:
        while rows := self._read():
            self._last = rows[-1][0]
            encoders: dict[tuple[str, int], list[tuple]] = {}  # type: ignore[type-arg]
            for row in rows:
                encoders.setdefault((row[1], len(row[-1])), []).append(row)
            for key, part in encoders.items():
                place, _, device, camera, view, start_s, end_s, latitude, longitude, vector = zip(
                    *part, strict=True
                )
                codes = np.frombuffer(b"".join(vector), np.int8).reshape(len(part), -1)
                scale = (1.0 / np.linalg.norm(codes.astype(np.float32), axis=1)).astype(np.float32)
                self._scans.setdefault(key, Scan(key[1], NAMES)).append(
                    {
                        "codes": codes,
                        "scale": scale,
                        "error": np.zeros(len(part)),  # they are stored so
                        "key": place,
                        **dict(zip(NAMES, (device, camera, view), strict=True)),
                        "start_s": start_s,
                        "end_s": end_s,
                        "latitude_deg": np.array(latitude, np.float64),  # None is not a number
                        "longitude_deg": np.array(longitude, np.float64),
                    }
                )
        with self._database.read() as connection:
            (count,) = connection.execute("SELECT count(*) FROM tracks").fetchone()
            if count >= sum(scan.rows for scan in self._scans.values()):
                return
            left = np.array(connection.execute("SELECT place FROM tracks").fetchall(), np.int64)
        for scan in self._scans.values():
            scan.keep(np.isin(scan.column("key"), left))

    def _read(self) -> list[tuple]:  # type: ignore[type-arg]
        with self._database.read() as connection:
            return connection.execute(
                "SELECT place, encoder_id, device, camera, view, start_s, end_s, latitude_deg, longitude_deg, vector"
                " FROM tracks WHERE place > ? ORDER BY place LIMIT ?",
                (self._last, AT_ONCE),
            ).fetchall()


def unit(codes: bytes) -> Floats:
    """The unit vector float32 (D,) of its int8 codes (D bytes), of which only the direction counts."""
    vector = np.frombuffer(codes, np.int8).astype(np.float32)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)

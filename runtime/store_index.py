"""Exact search in a device's store: see vector_scan for how."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.errors import StoreEncoderError
from tagclip.runtime.store import TrackStore
from tagclip.runtime.vector_scan import Floats, Scan, Where, to_int8


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
        self._last_key = 0
        self._scan = Scan(dim, ("camera",))
        self.refresh()

    def __len__(self) -> int:
        return self._scan.rows

    def refresh(self) -> None:
        """Take in what was added to the store since, and forget what was deleted. Raises: as the constructor."""
        for rows in self._store.searched_since(self._last_key):
            self._append(rows)
        if len(self._store) < len(self):
            self._scan.keep(np.isin(self._scan.column("key"), self._store.keys()))

    def search(
        self, query: Floats, top: int, allowed: NDArray[np.bool_] | None = None
    ) -> list[tuple[int, float]]:
        """The best tracks: (key, cosine), best first, at most `top`; equal scores by key.

        Args:
            query: float32 (D,), a unit vector of the encoder.
            allowed: as `allowed` gave it; default all.
        """
        allowed = np.ones(len(self), bool) if allowed is None else allowed
        return self._scan.search(query, top, allowed, self._store.vectors)

    def allowed(self, where: Where) -> NDArray[np.bool_]:
        """Which tracks, (n,) in the order of the index, are where they were asked for; until the next `refresh`."""
        return self._scan.allowed(where)

    def _of_others(self) -> StoreEncoderError:
        others = {name: count for name, count in self._store.encoders().items() if name != self._encoder_id}
        counts = ", ".join(f"{count} by {name[:12]}" for name, count in sorted(others.items()))
        return StoreEncoderError(
            f"{self._store.path} holds tracks of other encoders ({counts}), the bundle's is "
            f"{self._encoder_id[:12]}: `tagclip store reindex` embeds their pictures anew, or name the old bundle"
        )

    def _append(self, rows: list[tuple[Any, ...]]) -> None:
        """Rows of SEARCHED."""
        key, encoder_id, camera, start_s, end_s, latitude, longitude, vector = zip(*rows, strict=True)
        if set(encoder_id) != {self._encoder_id}:
            raise self._of_others()
        vectors = np.frombuffer(b"".join(vector), np.float16).reshape(len(rows), -1).astype(np.float32)
        codes, scale = to_int8(vectors)
        self._scan.append(
            {
                "codes": codes,
                "scale": scale,
                "error": np.linalg.norm(vectors - codes * scale[:, None], axis=1),
                "key": key,
                "start_s": start_s,
                "end_s": end_s,
                "camera": camera,
                "latitude_deg": np.array(latitude, np.float64),  # None is not a number
                "longitude_deg": np.array(longitude, np.float64),
            }
        )
        self._last_key = max(self._last_key, key[-1])

"""Ranks those whom a device saw, by how well a description fits them: after the fact, from its store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tagclip.runtime.search import Encodes
from tagclip.runtime.store import TrackStore
from tagclip.runtime.store_index import StoreIndex
from tagclip.runtime.store_track import StoredTrack
from tagclip.runtime.vector_scan import Where


@dataclass(frozen=True)
class StoredHit:
    """One result.

    Attributes:
        rank: from 1, best first.
        score: cosine of the description and the track, in [-1, 1].
        thumbnail: JPEG of the track's best crop; empty where no pictures were asked for.
    """

    rank: int
    score: float
    track: StoredTrack
    thumbnail: bytes

    def to_json(self, crop_path: str | None) -> dict[str, Any]:
        """The hit as `tagclip search --json` prints it; times are Unix time, UTC."""
        track, place = self.track, self.track.place
        return {
            "rank": self.rank,
            "score": round(self.score, 4),
            "track_id": str(track.id),
            "start_s": round(track.start_s, 3),
            "end_s": round(track.end_s, 3),
            "best": {
                "time_s": round(track.best_s, 3),
                "frame": track.frame,
                "box_xywh_px": [round(value, 1) for value in track.box_xywh_px],
                "crop": crop_path,
            },
            "camera": track.camera,
            "view": track.view,
            "place": [place.latitude_deg, place.longitude_deg, place.error_m] if place else None,
        }


@dataclass(frozen=True)
class StoredResult:
    """The best tracks, ranked; how many were compared, of how many that the store holds."""

    hits: list[StoredHit]
    compared: int
    stored: int


def search_store(
    store: TrackStore,
    query: str,
    text: Encodes,
    encoder_id: str,
    dim: int,
    top: int,
    where: Where,
    *,
    pictures: bool = True,
) -> StoredResult:
    """Rank the tracks of a store.

    Args:
        text: the bundle's text encoder.
        encoder_id, dim: the bundle's.
        pictures: read them; without, thumbnails are empty, and an encrypted store needs no key.

    Raises:
        StoreEncoderError: another bundle made the store's vectors.
        StoreError: the store is damaged.
        KeyFileError: its pictures are encrypted with another key than the store was opened with.
        QueryError, EngineError: the text cannot be embedded.
    """
    index = StoreIndex(store, encoder_id, dim)
    allowed = index.allowed(where)
    ranked = index.search(text.embed([query])[0], top, allowed)
    keys = [key for key, _ in ranked]
    tracks = store.get(keys)
    jpegs = store.thumbnails(keys) if pictures else dict.fromkeys(keys, b"")
    # A track may be replaced or deleted by the device meanwhile.
    found = [(score, tracks[key], jpegs[key]) for key, score in ranked if key in tracks and key in jpegs]
    hits = [StoredHit(rank, *hit) for rank, hit in enumerate(found, 1)]
    return StoredResult(hits, int(allowed.sum()), len(index))

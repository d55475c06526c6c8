"""Gives the tracks of a store the vectors of another encoder, from their thumbnails."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.errors import StoreError
from tagclip.runtime.search import Encodes
from tagclip.runtime.source import Image, decode_image
from tagclip.runtime.store import TrackStore
from tagclip.runtime.views import VIEWS

BATCH = 64


def reindex(
    store: TrackStore,
    encoder_id: str,
    encoder: Callable[[str], Encodes],
    progress: Callable[[int, int], None],
) -> int:
    """Embed every track that another encoder embedded; how many that were. Done batch by batch, so it can be cut off.

    Args:
        encoder_id: of the new encoder.
        encoder: takes "aerial", "ground" or "auto", gives what embeds pictures of that view; asked for every batch.
        progress: called with tracks done and all.

    Raises:
        StoreError: the store is damaged, or holds a picture that cannot be decoded.
        EngineError: the encoder fails.
    """
    todo = [key for key, track in store.since(0) if track.encoder_id != encoder_id]
    for start in range(0, len(todo), BATCH):
        keys = todo[start : start + BATCH]
        tracks, pictures = store.get(keys), store.thumbnails(keys)
        vectors: dict[int, NDArray[np.floating]] = {}
        for view in sorted({_view(track.view) for track in tracks.values()}):
            of_view = [key for key in tracks if _view(tracks[key].view) == view]
            crops = [decoded(pictures[key], f"{store.path}: track {key}") for key in of_view]
            vectors |= dict(zip(of_view, encoder(view).embed(crops), strict=True))
        store.embed_anew(vectors, encoder_id)
        progress(min(start + BATCH, len(todo)), len(todo))
    return len(todo)


def _view(view: str) -> str:
    return view if view in VIEWS else "auto"


def decoded(jpeg: bytes, whose: str) -> Image:
    """A thumbnail as RGB uint8 (H, W, 3). Raises: StoreError, it is none; the message begins with `whose`."""
    image = decode_image(jpeg)
    if image is None:
        raise StoreError(f"{whose}: the picture cannot be decoded; restore the store, or prune it")
    return image

"""The watcher's economy: a crop is embedded once, and what is kept is what embedding all of them anew would give."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from tagclip.runtime.boxes import Detections
from tagclip.runtime.bundle import Bundle
from tagclip.runtime.encoder import ImageEncoder
from tagclip.runtime.health import Health
from tagclip.runtime.search import mean_vector
from tagclip.runtime.source import Frame, Image
from tagclip.runtime.store import TrackStore
from tagclip.runtime.watch import Camera, Watcher

SIZE = (900, 320)


class Crowd:
    """Three people who walk to the right, one below the other, 2 pixels a frame; the last leaves after 40 frames."""

    def detect(self, frame: Frame) -> Detections:
        tops = (20, 120, 220) if frame.index < 40 else (20, 120)
        boxes = np.array([[20 + 2 * frame.index, top, 30, 80] for top in tops], np.float32)
        return Detections(boxes, np.ones(len(boxes), np.float32))


class Counting:
    """A real encoder that remembers which pictures it was given, by their bytes."""

    def __init__(self, encoder: ImageEncoder) -> None:
        self._encoder, self.seen = encoder, list[bytes]()

    def embed(self, crops: Sequence[Image]) -> np.ndarray:
        self.seen += [crop.tobytes() for crop in crops]
        return self._encoder.embed(crops)


def frames(count: int) -> list[Frame]:
    """Noise that is another one in every frame, 10 a second, so that no two crops are alike."""
    rng = np.random.default_rng(0)
    return [
        Frame(k, k / 10, rng.integers(0, 255, (SIZE[1], SIZE[0], 3), dtype=np.uint8)) for k in range(count)
    ]


def test_each_crop_is_embedded_once_and_the_mean_is_that_of_all(
    tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tagclip.runtime.watch.KEEP_EVERY_S", 1.0)
    plain = ImageEncoder(tiny_bundle, "ground")
    counting = Counting(plain)
    health = Health(camera="c", detector="crowd", provider="cpu", encoder_id=tiny_bundle.encoder_id)
    with TrackStore(tmp_path / "s.db") as store:
        camera = Camera("c", "ground", 0.0, SIZE)
        watcher = Watcher(camera, Crowd(), lambda view: counting, tiny_bundle.encoder_id, store, True, health)
        kept = 0
        for frame in frames(120):
            before = len(counting.seen)
            watcher.see(frame)
            kept += len(counting.seen) > before
        shown = [watcher._keeper.crops(track.id) for track in watcher._tracker.live()]
        watcher.end()
        stored = list(store.get(store.keys()).values())
    assert kept > 5  # many rounds, and so many chances to embed the same crop again
    assert (
        len(counting.seen) == len(set(counting.seen)) > 24
    )  # 3 people with 8 crops each, and those driven out
    assert len(stored) == health.counts.people == health.counts.tracks == 3
    # The two who were in view till the end, by their own last crops, embedded all together and anew.
    expected = [mean_vector(plain.embed([crop.image for crop in crops]), crops) for crops in shown]
    assert len(expected) == 2
    for vector in expected:
        nearest = min(float(np.abs(track.vector.astype(np.float32) - vector).max()) for track in stored)
        assert nearest < 1e-3  # stored in 16 bits


def test_another_view_embeds_anew(
    tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drone that climbs: the same crops go to the other specialist, and the two are not mixed."""
    monkeypatch.setattr("tagclip.runtime.watch.KEEP_EVERY_S", 1.0)
    both = {view: Counting(ImageEncoder(tiny_bundle, view)) for view in ("ground", "aerial")}
    health = Health(camera="c", detector="crowd", provider="cpu", encoder_id=tiny_bundle.encoder_id)
    with TrackStore(tmp_path / "s.db") as store:
        camera = Camera("c", "ground", 0.0, SIZE)
        watcher = Watcher(camera, Crowd(), both.__getitem__, tiny_bundle.encoder_id, store, True, health)
        for frame in frames(30):
            watcher.see(frame)
        (live, *_) = watcher._tracker.live()
        crops = watcher._keeper.crops(live.id)
        first = watcher._embedded("ground", {0: crops})[0]
        second = watcher._embedded("aerial", {0: crops})[0]
    for view, vector in (("ground", first), ("aerial", second)):
        plain = ImageEncoder(tiny_bundle, view).embed([crop.image for crop in crops])
        np.testing.assert_allclose(vector, mean_vector(plain, crops), atol=1e-5)
    assert np.abs(first - second).max() > 1e-3

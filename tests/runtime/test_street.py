"""Real people: descriptions against a real, elevated, fixed camera. Users, who do not have the clip, skip this.

`pytest tests/runtime/test_street.py -s` prints the table of which docs/model.md speaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from tagclip.runtime.association import iou
from tagclip.runtime.bundle import open_bundle
from tagclip.runtime.detectors import SAMPLES
from tagclip.runtime.encoder import ImageEncoder, TextEncoder
from tagclip.runtime.motion import MotionDetector
from tagclip.runtime.search import Encoders, search_video
from tagclip.runtime.source import VideoSource

STREET = Path(__file__).parents[3] / "shared" / "data" / "street.mp4"
pytestmark = pytest.mark.skipif(not STREET.exists(), reason="the street clip is not here")

# Who is who, by eye: one box (frame, x, y, w, h) of each.
PEOPLE = {
    "black leather": (202, 718, 257, 38, 103),
    "black coat 1": (8, 570, 239, 34, 88),
    "brown jacket": (223, 555, 288, 41, 116),
    "red sleeves": (30, 623, 252, 43, 102),
    "blond": (30, 667, 248, 30, 96),
    "bald": (53, 654, 252, 39, 110),
    "black coat 2": (126, 559, 219, 28, 85),
    "white bag": (109, 194, 65, 14, 34),
    "light blue": (124, 648, 212, 40, 86),
    "striped": (200, 220, 192, 29, 75),
    "black coat 3": (227, 694, 223, 28, 88),
}
# Whom a description fits; the first three have to be found first.
DESCRIPTIONS: dict[str, tuple[str, ...]] = {
    "a person in a light blue hooded jacket and blue jeans with a black bag": ("light blue",),
    "a man in a navy jacket with red sleeves and dark blue trousers": ("red sleeves",),
    "a woman with blond hair in a long black coat": ("blond",),
    "a man in a dark jacket and blue jeans": ("brown jacket", "bald"),
    "a man in a black leather jacket and black trousers": ("black leather",),
    "a man in a long black coat and black trousers": ("black coat 1", "black coat 2", "black coat 3"),
    "a bald man in a black jacket and blue jeans": ("bald",),
    "a man in a navy striped sweater and light blue jeans": ("striped",),
    "a person in dark clothes carrying a white bag": ("white bag",),
    "a woman with a white hat and a light blue coat": ("light blue",),
    "someone in a red and blue jacket": ("red sleeves",),
    "light blue jacket, flared jeans": ("light blue",),
    "a man with a brown jacket and jeans": ("brown jacket",),
    "a woman with fair hair": ("blond",),
}


class Remembering:
    """Image encoder for crops that live as long as the test: every search asks for the same."""

    def __init__(self, encoder: ImageEncoder) -> None:
        self.encoder = encoder
        self.known: dict[tuple[int, ...], np.ndarray] = {}

    def embed(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        key = tuple(map(id, crops))
        if key not in self.known:
            self.known[key] = self.encoder.embed(crops)
        return self.known[key]


@pytest.mark.usefixtures("one_playing")
def test_described_people_rank_high() -> None:
    """Every person is one track; the three plain descriptions come first, all together have a mean AP of 0.8."""
    source, bundle = VideoSource(STREET), open_bundle(None)
    samples = source.sample(SAMPLES)
    images = Remembering(ImageEncoder(bundle, "auto"))
    encoders = Encoders(images, TextEncoder(bundle), bundle.encoder_id, "auto")
    precision = []
    for number, (text, wanted) in enumerate(DESCRIPTIONS.items()):
        detector = MotionDetector(source.width_px, source.height_px, samples)
        found = search_video(source, detector, text, encoders, top=99, drop_still=True)
        ranking = []
        for hit in found.hits:
            assert hit.track is not None
            boxes = {seen.frame: seen.box_xywh_px for seen in hit.track.observations}
            names = [
                name
                for name, (frame, *box) in PEOPLE.items()
                if frame in boxes
                and iou(np.array([box], np.float32), np.array([boxes[frame]], np.float32))[0, 0] > 0.5
            ]
            assert len(names) <= 1
            ranking += names or ["somebody else"]
        assert sorted(name for name in ranking if name in PEOPLE) == sorted(PEOPLE)
        right = np.array([name in wanted for name in ranking])
        precision.append(float((right.cumsum() / np.arange(1, len(right) + 1))[right].mean()))
        print(f"{precision[-1]:.2f}  {text}: {', '.join(ranking[:3])}")
        assert number >= 3 or ranking[0] == wanted[0], text
    print(f"mean AP {np.mean(precision):.2f} over {len(precision)} descriptions of {len(PEOPLE)} people")
    assert np.mean(precision) > 0.8

"""Why somebody was a hit: the score, what others score, the chance of a false alarm, and what each term said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tagclip.runtime.background import Background
from tagclip.runtime.crops import KEEP
from tagclip.runtime.hit import Hit
from tagclip.runtime.judge import MANY_CROPS, Yardstick
from tagclip.runtime.plot import COLOURS, Axis, Plot, page
from tagclip.runtime.sheet import MARK, place
from tagclip.runtime.source import Image, decode_image
from tagclip.runtime.store_crops import HitCrop
from tagclip.runtime.terms import Term

WIDTH_PX, HEIGHT_PX = 1100, 560
STRIP_PX = 200  # under it, with the pictures that counted
BINS = 60


@dataclass(frozen=True)
class Part:
    """What one term of the query said.

    Attributes:
        cosine: of the term's text and the person.
        sigmas: how many standard deviations that lies over the mean of the background.
    """

    term: Term
    cosine: float
    sigmas: float


@dataclass(frozen=True)
class Explanation:
    """Of one hit.

    Attributes:
        stick: the query's yardstick in the hit's view.
        source: of the background.
        parts: the query's terms, in their order.
        crops: the pictures whose weighted mean made the score; none where the store has them no longer, or the hit was
            found among those who were seen before.
    """

    hit: Hit
    stick: Yardstick
    source: str
    parts: list[Part]
    crops: Sequence[HitCrop] = ()

    @property
    def background(self) -> np.ndarray:
        """Scores (N,) of those who are not meant, rising: seen in as many pictures as the hit, one or several."""
        return (self.stick.many if self.hit.crops >= MANY_CROPS else self.stick.one).scores

    def facts(self) -> dict[str, Any]:
        """As `tagclip alerts explain --json` prints them."""
        scores = self.background
        return {
            **self.hit.to_json(),
            "background": {
                "source": self.source,
                "people": len(scores),
                "mean": round(float(scores.mean()), 4),
                "std": round(float(scores.std()), 4),
                "best": round(float(scores[-1]), 4),
                "score_higher": int(len(scores) - np.searchsorted(scores, self.hit.score, side="left")),
            },
            "terms": [
                {
                    "text": part.term.text,
                    "weight": part.term.weight,
                    "cosine": round(part.cosine, 4),
                    "sigmas": round(part.sigmas, 2),
                }
                for part in self.parts
            ],
            "counted": [{"frame": crop.frame, "weight": round(crop.weight, 4)} for crop in self.crops],
        }


def explain(
    hit: Hit,
    terms: list[Term],
    texts: np.ndarray,
    vector: np.ndarray,
    stick: Yardstick,
    background: Background,
    crops: Sequence[HitCrop] = (),
) -> Explanation:
    """Put together what is known.

    Args:
        texts: float32 (T, D), unit rows of the terms.
        vector: float32 (D,), of the person.
        crops: that counted.

    Raises:
        BackgroundError: the background has nobody of the hit's view.
    """
    others = background.of(hit.view).many @ texts.T
    cosines = texts @ vector
    sigmas = (cosines - others.mean(0)) / np.maximum(others.std(0), 1e-6)
    parts = [Part(*each) for each in zip(terms, cosines.tolist(), sigmas.tolist(), strict=True)]
    return Explanation(hit, stick, background.source, parts, crops)


def draw_explanation(found: Explanation, thumbnail: bytes | None) -> Image:
    """The background's scores, the threshold and the hit, and under them what counted; RGB uint8 (H, W, 3).

    Args:
        thumbnail: JPEG that the store keeps of the person.
    """
    hit, scores = found.hit, found.background
    height_px = HEIGHT_PX + (STRIP_PX if found.crops else 0)
    image = page(WIDTH_PX, height_px, hit.query, f"{len(scores):,} people who are not meant: {found.source}")
    low = float(scores[0])
    high = max(float(scores[-1]), hit.score, hit.threshold) + 0.05
    counts, edges = np.histogram(scores, BINS, (low, high))
    plot = Plot(
        image,
        Axis("score", low, high),
        Axis("people", 0.8, max(2.0, float(counts.max())), log=True),
        (96, 110, WIDTH_PX - 330, HEIGHT_PX - 190),
    )
    plot.bars(edges.tolist(), counts.tolist(), COLOURS[0])
    plot.upright(hit.threshold, "threshold", COLOURS[1], 0)
    plot.upright(hit.score, f"{hit.score:.2f}", MARK, 1)
    picture = decode_image(thumbnail) if thumbnail else None
    if picture is not None:
        place(image, picture, WIDTH_PX - 210, 110, 180, 260)
    rows = [f"chance {hit.p_value:.2g}", f"pictures {hit.crops}", f"view {hit.view}"]
    if hit.false_alarms_per_hour is not None:
        rows.insert(1, f"{hit.false_alarms_per_hour:.2g} false alarms/h")
    for number, text in enumerate(rows):
        plot.note(text, WIDTH_PX - 210, 400 + 22 * number)
    width_px = (WIDTH_PX - 40) // KEEP
    for number, crop in enumerate(found.crops):
        left = 20 + number * width_px
        picture = decode_image(crop.jpeg)
        if picture is not None:
            place(image, picture, left, HEIGHT_PX, width_px - 8, STRIP_PX - 40)
        plot.note(f"{crop.frame}: {crop.weight:.0%}", left, height_px - 20)
    return image

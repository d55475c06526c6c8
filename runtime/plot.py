"""Plots for the eye, drawn with OpenCV: a device has no matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from tagclip.runtime.sheet import CARD, FONT, INK, PAPER, SOFT, Colour, ascii_only
from tagclip.runtime.source import Image

# RGB, told apart by people with any colour vision (Okabe and Ito).
COLOURS: tuple[Colour, ...] = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167))


@dataclass(frozen=True)
class Axis:
    """Values `low` to `high`; `log` for powers of ten, both over 0 then."""

    label: str
    low: float
    high: float
    log: bool = False

    def share(self, value: float) -> float:
        """Where a value lies, 0 at `low`, 1 at `high`, beyond them too."""
        if self.log:
            low, high, value = np.log10([self.low, self.high, max(value, 1e-300)]).tolist()
            return float((value - low) / (high - low))
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Round values between the ends."""
        if self.log:
            return [
                10.0**k
                for k in range(int(np.ceil(np.log10(self.low))), int(np.floor(np.log10(self.high))) + 1)
            ]
        rough = (self.high - self.low) / 8
        size = 10.0 ** np.floor(np.log10(rough))
        step = float(size * min((1, 2, 5, 10), key=lambda k: abs(k - rough / size)))
        return [float(k) * step for k in range(int(np.ceil(self.low / step)), int(self.high / step) + 1)]


class Plot:
    """A plot with its axes, on `image`, RGB uint8 (H, W, 3)."""

    def __init__(self, image: Image, x: Axis, y: Axis, box_xywh_px: tuple[int, int, int, int]) -> None:
        self.image, self.x, self.y = image, x, y
        self._left, self._top, self._width, self._height = box_xywh_px
        image[self._top : self._top + self._height, self._left : self._left + self._width] = CARD
        for value in x.ticks():
            at = self.at(value, y.low)
            cv2.line(image, at, (at[0], self._top), PAPER, 1)
            self.note(f"{value:g}", at[0] - 14, at[1] + 20)
        for value in y.ticks():
            at = self.at(x.low, value)
            cv2.line(image, at, (self._left + self._width, at[1]), PAPER, 1)
            self.note(f"{value:g}", self._left - 62, at[1] + 5)
        self.note(x.label, self._left, self._top + self._height + 46)
        self.note(y.label, self._left - 62, self._top - 12)

    def at(self, x: float, y: float) -> tuple[int, int]:
        """The pixel of a point, kept inside."""
        right, up = np.clip([self.x.share(x), self.y.share(y)], 0.0, 1.0).tolist()
        return round(self._left + right * self._width), round(self._top + (1 - up) * self._height)

    def curve(
        self, xs: Sequence[float], of: Callable[[float], float], colour: Colour, label: str, row: int
    ) -> None:
        """A line through the points of a function, and its name in the `row`th line of the legend."""
        points = np.array([self.at(x, of(x)) for x in xs], np.int32)
        cv2.polylines(self.image, [points], False, colour, 2, cv2.LINE_AA)
        self.note(label, self._left + self._width - 290, self._top + 24 + 22 * row, colour)

    def upright(self, x: float, label: str, colour: Colour, row: int) -> None:
        """A line at `x`, with its name in the `row`th line from above."""
        at = self.at(x, self.y.low)
        cv2.line(self.image, at, (at[0], self._top), colour, 1, cv2.LINE_AA)
        self.note(label, at[0] + 5, self._top + 18 + 20 * row, colour)

    def dot(self, x: float, y: float, colour: Colour) -> None:
        """A point."""
        cv2.circle(self.image, self.at(x, y), 5, colour, -1, cv2.LINE_AA)

    def bars(self, edges: Sequence[float], heights: Sequence[float], colour: Colour) -> None:
        """A histogram: n + 1 edges, n heights."""
        for low, high, height in zip(edges, edges[1:], heights, strict=False):
            if height > 0:
                (x0, y0), (x1, y1) = self.at(low, self.y.low), self.at(high, height)
                cv2.rectangle(self.image, (x0 + 1, y1), (max(x1 - 1, x0 + 1), y0), colour, -1)

    def note(self, text: str, x: int, y: int, colour: Colour = SOFT) -> None:
        """Text at a pixel."""
        cv2.putText(self.image, ascii_only(text), (x, y), FONT, 0.48, colour, 1, cv2.LINE_AA)


def page(width_px: int, height_px: int, title: str, below: str) -> Image:
    """An empty page with a title and a line under it."""
    image = np.empty((height_px, width_px, 3), np.uint8)
    image[:] = PAPER
    cv2.putText(image, ascii_only(title)[:90], (24, 42), FONT, 0.8, INK, 2, cv2.LINE_AA)
    cv2.putText(image, ascii_only(below)[:150], (24, 70), FONT, 0.48, SOFT, 1, cv2.LINE_AA)
    return image

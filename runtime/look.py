"""How somebody looks, for telling people apart from one frame to the next: colours of the upper and the lower half."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.source import Image

Floats = NDArray[np.float32]


def look_of(image: Image, box: Floats) -> Floats:
    """Colours of a box: two HSV histograms (upper, lower half), float32 (2, 96), each summing to 1."""
    x, y, w, h = (float(value) for value in box)
    x0, x1 = max(int(x + 0.2 * w), 0), min(int(x + 0.8 * w) + 1, image.shape[1])
    look = np.full((2, 96), 1.0 / 96, np.float32)
    for half, (start, stop) in enumerate(((0.12, 0.5), (0.5, 0.95))):
        y0, y1 = max(int(y + start * h), 0), min(int(y + stop * h) + 1, image.shape[0])
        if x1 - x0 < 2 or y1 - y0 < 2:
            continue
        part = cv2.resize(image[y0:y1, x0:x1], (12, 16), interpolation=cv2.INTER_AREA)
        hsv = cv2.cvtColor(part, cv2.COLOR_RGB2HSV)
        counts = cv2.calcHist([hsv], [0, 1, 2], None, [8, 3, 4], [0, 180, 0, 256, 0, 256])
        look[half] = counts.ravel() / counts.sum()
    return look


def distance(a: Floats, b: Floats) -> float:
    """Bhattacharyya distance of two looks, in [0, 1], the mean over the halves."""
    return float(np.sqrt(np.maximum(1.0 - np.sqrt(a * b).sum(1), 0.0)).mean())

"""From crops of any size to the fixed input of the image graphs. Training and device both call `prepare`.

The whole pipeline: take the RGB crop, stretch it to height x width. Scaling and normalising stand inside the
graph, so that an engine takes the camera's bytes as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from tagclip.runtime.errors import SourceError
from tagclip.runtime.fields import Fields

Crops = npt.NDArray[np.uint8]

MAX_SIDE_PX = 2048

# Version 1 knows one pipeline; the fields say which, so that another one cannot be taken for it.
_FIXED = {
    "color": "RGB",
    "layout": "NHWC",
    "dtype": "uint8",
    "resize": "stretch",
    "interpolation": "area-or-linear",
}


@dataclass(frozen=True)
class PreprocessSpec:
    """The size that crops are stretched to, in pixels."""

    height_px: int
    width_px: int

    def to_json(self) -> dict[str, Any]:
        """The `preprocess` object of bundle.json."""
        return {"height_px": self.height_px, "width_px": self.width_px, **_FIXED}

    @classmethod
    def from_json(cls, value: object, path: str = "preprocess") -> PreprocessSpec:
        """Read the `preprocess` object of bundle.json.

        Raises:
            BundleManifestError: a field is absent, unknown, or asks for another pipeline than this one.
        """
        fields = Fields(value, path)
        for key, known in _FIXED.items():
            fields.text(key, choices=(known,))
        spec = cls(
            fields.integer("height_px", low=1, high=MAX_SIDE_PX),
            fields.integer("width_px", low=1, high=MAX_SIDE_PX),
        )
        fields.close()
        return spec


def prepare(crops: Sequence[npt.NDArray[np.uint8]], spec: PreprocessSpec, out: Crops | None = None) -> Crops:
    """Stretch every crop to the size of `spec`.

    Area averaging when both sides shrink or stay (it does not alias), linear interpolation otherwise.

    Args:
        crops: N arrays uint8 (H, W, 3), RGB, each of its own size.
        spec: the size to make.
        out: optional uint8 buffer of at least N rows (M >= N, height, width, 3), written in place.

    Returns:
        uint8 (N, height, width, 3); a view of `out` when that is given.

    Raises:
        SourceError: a crop is empty, not uint8 or not (H, W, 3).
        ValueError: `out` has another dtype or shape.
    """
    size = (spec.height_px, spec.width_px)
    if out is None:
        out = np.empty((len(crops), *size, 3), np.uint8)
    elif out.dtype != np.uint8 or out.ndim != 4 or out.shape[1:] != (*size, 3) or len(out) < len(crops):
        raise ValueError(
            f"out: expected uint8 (>={len(crops)}, {size[0]}, {size[1]}, 3), got {out.dtype} {out.shape}"
        )
    for index, crop in enumerate(crops):
        if crop.dtype != np.uint8 or crop.ndim != 3 or crop.shape[2] != 3 or crop.size == 0:
            raise SourceError(
                f"crop {index}: expected uint8 (H, W, 3) with H and W at least 1, "
                f"found {crop.dtype} {crop.shape}; cut RGB crops inside the frame"
            )
        shrinks = crop.shape[0] >= size[0] and crop.shape[1] >= size[1]
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        # OpenCV wants (width, height); contiguous because a crop is usually a window into a frame.
        out[index] = cv2.resize(np.ascontiguousarray(crop), (size[1], size[0]), interpolation=interpolation)
    return out[: len(crops)]

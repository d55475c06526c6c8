"""A contact sheet: what the people of a data folder look like, and how they are described."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tagclip.train.datasets.picture import decode

PEOPLE = 24


def contact_sheet(images: Path, annotations: list[dict[str, Any]]) -> bytes:
    """PNG of people, a row each: up to 8 of their pictures and two captions.

    Args:
        images: the folder that `file_path` is relative to.
        annotations: of at most PEOPLE people, those of one person in a row.

    Raises:
        DataError: a picture cannot be read.
    """
    by_id: dict[int, list[dict[str, Any]]] = {}
    for row in annotations:
        by_id.setdefault(row["id"], []).append(row)
    lines = []
    for rows in by_id.values():
        cells = []
        for row in rows[:8]:
            image: Any = decode(images / row["file_path"])[0]
            scale = min(96 / image.shape[0], 64 / image.shape[1])
            cell = np.full((96, 64, 3), 30, np.uint8)
            small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)[:96, :64]
            cell[: small.shape[0], : small.shape[1]] = small
            cells.append(cell)
        text = np.full((96, 640, 3), 30, np.uint8)
        for k, caption in enumerate((rows[0]["captions"][0], rows[-1]["captions"][:2][-1])):
            for n, start in enumerate(range(0, min(len(caption), 255), 85)):
                at = (8, 16 + 46 * k + 14 * n)
                cv2.putText(text, caption[start : start + 85], at, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (230,) * 3)
        blank = [np.full((96, 64, 3), 30, np.uint8)] * (8 - len(cells))
        lines.append(np.hstack([*cells, *blank, text]))
    ok, data = cv2.imencode(".png", np.vstack(lines))
    assert ok
    return bytes(data)

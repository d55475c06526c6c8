"""How well pictures are found by the camera's elevation, and by how many pixels tall the person is."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from tagclip.runtime.errors import DataError
from tagclip.train.data import Sample
from tagclip.train.evaluate import Row
from tagclip.train.ranking import Ids, Numbers, Vectors, search

# Lower ends; the first band has none. Degrees above the person's horizon, and pixels of the image file.
ELEVATION_DEG = (15, 30, 45, 60, 75)
HEIGHT_PX = (32, 48, 64, 96, 128, 192)


def elevations(folder: Path, split: str, samples: list[Sample]) -> Numbers:
    """`elevation_deg` (N,) of the annotation of each image, NaN where there is none.

    Raises:
        DataError: no image of the split has one, or one is not a number.
    """
    path = folder / f"{split}_reid.json"
    known: dict[Path, float] = {}
    for number, row in enumerate(json.loads(path.read_text(encoding="utf-8"))):
        value = row.get("elevation_deg")
        if value is None:
            continue
        if type(value) not in (int, float) or not -90 <= value <= 90:
            raise DataError(f"{path} row {number}: elevation_deg must be -90 to 90 degrees, found {value!r}")
        known[folder / "images" / row["file_path"]] = float(value)
    found = np.array([known.get(sample.path, np.nan) for sample in samples])
    if np.isnan(found).all():
        raise DataError(f"{path}: expected elevation_deg in its rows, found none; leave out --by elevation")
    return found


def heights(samples: list[Sample], tick: Callable[[int, int], None] = lambda done, total: None) -> Numbers:
    """Height (N,) of each image file in pixels.

    Raises:
        DataError: an image cannot be read.
    """

    def height(sample: Sample) -> int:
        image = cv2.imread(str(sample.path), cv2.IMREAD_UNCHANGED)
        if image is None:
            raise DataError(f"cannot read the image {sample.path}; make the data set again")
        return int(image.shape[0])

    out = np.empty(len(samples))
    with ThreadPoolExecutor(2) as pool:
        for done, value in enumerate(pool.map(height, samples), 1):
            out[done - 1] = value
            tick(done, len(samples))
    return out


def by_band(
    texts: Vectors,
    images: Vectors,
    owner: Ids,
    identity: Ids,
    value: Numbers,
    edges: tuple[int, ...],
    unit: str,
    exclude_own: bool = False,
) -> dict[str, Row]:
    """One line a band: every caption looks for its person's pictures of this band, among all pictures of other people.

    The person's pictures of other bands are neither right nor wrong. So every band has the same wrong pictures, and a
    band with few pictures is not easier than one with many.

    Args:
        texts, images, owner, identity, exclude_own: as in `evaluate.answer`.
        value: (G,) what the bands divide, of each picture; NaN is in no band.
        edges: lower ends of the bands after the first, rising.
        unit: "deg" or "px".

    Returns:
        name -> the queries behind it, `gallery` being the band's pictures; bands without queries are absent.
    """
    band = np.where(np.isnan(value), -1, np.searchsorted(edges, value, "right"))
    own = owner if exclude_own else None
    result = {}
    for k in range(len(edges) + 1):
        inside = band == k
        if not inside.any():
            continue
        found = search(texts, images, identity[owner], identity, own, inside)
        queries = np.flatnonzero(~np.isnan(found.ap))
        if len(queries):
            name = _name(edges, k, unit)
            result[name] = Row(found.metrics()[queries], queries, identity[owner][queries], int(inside.sum()))
    return result


def _name(edges: tuple[int, ...], k: int, unit: str) -> str:
    if k == 0:
        return f"under {edges[0]} {unit}"
    if k == len(edges):
        return f"from {edges[-1]} {unit}"
    return f"{edges[k - 1]} to {edges[k]} {unit}"

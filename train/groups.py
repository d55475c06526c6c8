"""How well pictures are found by the camera's elevation, and by how many pixels tall the person is."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tagclip.runtime.errors import DataError
from tagclip.runtime.ranking import Ids, Numbers, Vectors, search
from tagclip.train.data import Sample
from tagclip.train.datasets.picture import read_picture
from tagclip.train.evaluate import Row

# Lower ends; the first band has none. Degrees above the person's horizon, and pixels of the image file.
ELEVATION_DEG = (15, 30, 45, 60, 75)
HEIGHT_PX = (32, 48, 64, 96, 128, 192)


def elevations(samples: list[Sample]) -> Numbers:
    """Elevation (N,) of the camera in each image in degrees, NaN where the annotation has none.

    Raises:
        DataError: no image has one.
    """
    found = np.array([np.nan if s.elevation_deg is None else s.elevation_deg for s in samples])
    if np.isnan(found).all():
        raise DataError("expected elevation_deg in the annotations, found none; leave out --by elevation")
    return found


def heights(samples: list[Sample], tick: Callable[[int, int], None] = lambda done, total: None) -> Numbers:
    """Height (N,) of each image file in pixels.

    Raises:
        DataError: an image is missing, cut off or broken.
    """

    out = np.empty(len(samples))
    with ThreadPoolExecutor(2) as pool:
        for done, value in enumerate(
            pool.map(lambda sample: read_picture(sample.path).height_px, samples), 1
        ):
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

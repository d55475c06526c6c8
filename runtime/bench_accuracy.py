"""How well the very engine that is timed finds people: R@1 and mAP on the test split of a data folder.

The numbers are those of `tagclip evaluate`, with what a device has: every caption is a query, every picture of its
person is right, the one it was written for included.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.encoder import BATCH, ImageEncoder, TextEncoder
from tagclip.runtime.engines import Engines
from tagclip.runtime.errors import DataError
from tagclip.runtime.ranking import Ids, Vectors, search
from tagclip.runtime.source import read_image
from tagclip.runtime.views import VIEWS

ANNOTATIONS = "test_reid.json"
GALLERIES = ("all", *VIEWS)


@dataclass(frozen=True)
class Picture:
    """One row of the annotations: where the picture is, whom it shows, "aerial" or "ground", and its captions."""

    path: Path
    identity: int
    view: str
    captions: tuple[str, ...]


def read_pictures(folder: Path) -> list[Picture]:
    """The test split of a data folder in our own form, see docs/data.md.

    Raises:
        DataError: no such file, or a row that breaks the contract; the message names it.
    """
    path = folder / ANNOTATIONS
    try:
        rows = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(
            f"{path}: {error.strerror}; expected a folder as `tagclip synth crops` or `tagclip data build` writes it"
        ) from error
    except ValueError as error:
        raise DataError(
            f"{path} is not JSON ({error}); expected a list of pictures, see docs/data.md"
        ) from error
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{path}: expected a list of pictures with at least one; see docs/data.md")
    return [_picture(folder, row, f"{path}, row {number}") for number, row in enumerate(rows)]


def accuracy(
    engines: Engines, pictures: list[Picture], view: str, progress: Callable[[int, int], None]
) -> dict[str, Any]:
    """Retrieval of every caption among all pictures, and among those of each view.

    Args:
        engines: what is timed.
        view: "own" embeds each picture by the encoder of its view; else as ImageEncoder takes it, for all.
        progress: called with pictures done and their number.

    Returns:
        gallery -> {"r1", "map" (percent), "queries", "gallery" (counts)}; queries without a right picture do not count.

    Raises:
        DataError: a picture cannot be read. QueryError: a caption holds no known word.
        EngineError: as the encoders.
    """
    images = np.empty((len(pictures), engines.bundle.manifest.embedding_dim), np.float32)
    done = 0
    for name in VIEWS if view == "own" else (view,):
        encoder = ImageEncoder(engines.bundle, name, engine=engines)
        here = [k for k, picture in enumerate(pictures) if view != "own" or picture.view == name]
        for start in range(0, len(here), BATCH):
            part = here[start : start + BATCH]
            images[part] = encoder.embed([_read(pictures[k].path) for k in part])
            done += len(part)
            progress(done, len(pictures))
    captions = [(caption, picture.identity) for picture in pictures for caption in picture.captions]
    texts = TextEncoder(engines.bundle, engine=engines).embed([caption for caption, _ in captions])
    asked = np.array([identity for _, identity in captions])
    shown = np.array([picture.identity for picture in pictures])
    views = np.array([picture.view for picture in pictures])
    found = {}
    for gallery in GALLERIES:
        kept = np.ones(len(pictures), bool) if gallery == "all" else views == gallery
        if kept.any():
            found[gallery] = _retrieval(texts, images[kept], asked, shown[kept])
    return found


def _retrieval(texts: Vectors, images: Vectors, asked: Ids, shown: Ids) -> dict[str, Any]:
    found = search(texts, images, asked, shown)
    counted = np.isfinite(found.ap)
    r1, ap = (
        100 * float(each[counted].mean()) if counted.any() else 0.0 for each in (found.hit[:, 0], found.ap)
    )
    return {"r1": r1, "map": ap, "queries": int(counted.sum()), "gallery": len(shown)}


def _picture(folder: Path, row: Any, where: str) -> Picture:
    form = '{"file_path": text, "id": whole number, "cam_id": 0 or 1, "captions": [text, ...]}'
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected {form}, found {str(row)[:60]!r}")
    name, identity, captions, camera = (
        row.get("file_path"),
        row.get("id"),
        row.get("captions"),
        row.get("cam_id", 1),
    )
    texts = isinstance(captions, list) and captions and all(isinstance(text, str) for text in captions)
    if not isinstance(name, str) or type(identity) is not int or camera not in (0, 1) or not texts:
        raise DataError(f"{where}: expected {form}, found {str(row)[:60]!r}")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise DataError(f"{where}: file_path {name!r} leaves the folder images; expected a path below it")
    return Picture(folder / "images" / path, identity, VIEWS[camera], tuple(captions or ()))


def _read(path: Path) -> NDArray[np.uint8]:
    image = read_image(path)
    if image is None:
        raise DataError(
            f"{path} cannot be read as a picture; pictures in a tar have to be unpacked for a benchmark"
        )
    return image

"""`tagclip synth card`: a data folder described for who wants to use it, with contact sheets."""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.errors import DataError
from tagclip.runtime.files import write_atomic
from tagclip.runtime.views import VIEWS
from tagclip.train.datasets.layout import find_layouts, read_json, read_rows
from tagclip.train.datasets.picture import decode, read_pictures
from tagclip.train.datasets.sample import SPLITS, Sample
from tagclip.train.datasets.tar import split_member
from tagclip.train.synth.card_text import markdown
from tagclip.train.synth.statistics import Survey, bands
from tagclip.train.synth.unfinished import SETTINGS

NAME = "card.md"
HEIGHT_PX = (24, 48, 96)  # of a picture; what divides the bands
# A sheet for each band of elevation in degrees; the first and the last take what lies beyond, too.
ELEVATION_DEG: dict[str, tuple[tuple[int, ...], tuple[str, ...]]] = {
    "ground": ((0, 10), ("below 0", "0 to 10", "10 to 25")),
    "aerial": ((45, 60, 75), ("30 to 45", "45 to 60", "60 to 75", "75 to 90")),
}
COLUMNS, ROWS = 8, 4
CELL_PX = 128  # height of every crop on a sheet, unless it is wider than high: then its width
GAP_PX = 4
GREY = 40
SHEET_BYTES = 200_000  # at most, so that sheets can be kept in a repository
EXAMPLES = 6


@dataclass
class _Choice:
    """The few of many that a draw by their names picks: the same, in whatever order they come, and stored however."""

    limit: int
    # By person: the lowest draw and what it is for.
    _lowest: dict[int, tuple[int, Any]] = field(default_factory=dict)

    def offer(self, sample: Sample, what: Any, draw: int) -> None:
        before = self._lowest.get(sample.identity)
        if before is None or draw < before[0]:
            self._lowest[sample.identity] = (draw, what)

    def chosen(self) -> list[Any]:
        """At most `limit`, each of another person."""
        return [
            what for _, what in heapq.nsmallest(self.limit, self._lowest.values(), key=lambda pair: pair[0])
        ]


def write_card(
    folder: Path, out: Path, tick: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Write `card.md` and the sheets that it shows into the folder `out`, which may hold other files.

    The same data folder gives the same bytes. Memory holds annotations, never more than a sheet's pictures.

    Args:
        folder: of `tagclip synth crops`; pictures in files or in tars.
        tick: called with pictures read, and pictures in all.

    Returns:
        all numbers of the card: what JSON takes.

    Raises:
        DataError: the folder is none of `tagclip synth crops`, or an annotation or a picture is damaged.
        OutputError: `out` cannot be written.
    """
    layouts = find_layouts(folder)
    survey, examples = Survey(), _Choice(EXAMPLES)
    sheets = {
        (view, band): _Choice(COLUMNS * ROWS) for view in ELEVATION_DEG for band in ELEVATION_DEG[view][1]
    }
    paths: dict[str, list[Path]] = {view: [] for view in VIEWS}
    for split in SPLITS:
        for layout in layouts:
            for where, row in read_rows(layout, split):
                sample = layout.sample(row, where)
                survey.add(split, sample)
                view, draw = VIEWS[sample.view], _draw(sample)
                paths[view].append(sample.path)
                sheets[view, _band(view, sample)].offer(sample, sample.path, draw)
                if split == "train":
                    examples.offer(sample, sample.captions[draw % len(sample.captions)], draw)
    card = {"made": [_made(layout.folder) for layout in layouts], **survey.numbers()}
    card["in_tars"] = split_member(next(path for some in paths.values() for path in some)) is not None
    card["captions"]["examples"] = sorted(examples.chosen(), key=lambda text: (len(text), text))
    card["height_px"] = _heights(paths, tick)
    drawn = {key: contact_sheet(choice.chosen()) for key, choice in sheets.items() if choice.chosen()}
    card["sheets"] = [
        {
            "file": f"card-{view}-{band.replace(' to ', '-').replace(' ', '-')}.jpg",
            "view": view,
            "elevation_deg": band,
        }
        for view, band in drawn
    ]
    for sheet, data in zip(card["sheets"], drawn.values(), strict=True):
        write_atomic(out / sheet["file"], data)
    write_atomic(out / NAME, markdown(card).encode())
    return card


def _draw(sample: Sample) -> int:
    """A number from the picture's name, as random as a draw."""
    name = f"{sample.identity} {sample.path.name}".encode(errors="replace")
    return int.from_bytes(blake2b(name, digest_size=8).digest(), "big")


def _band(view: str, sample: Sample) -> str:
    edges, names = ELEVATION_DEG[view]
    assert sample.elevation_deg is not None  # Survey has seen to it
    return names[bisect_right(edges, sample.elevation_deg)]


def _made(folder: Path) -> Mapping[str, Any] | None:
    """What synth.json says of how the folder was made; None where there is no such file."""
    path = folder / SETTINGS
    if not path.exists():
        return None
    found = read_json(path)
    if not isinstance(found, dict) or not all(type(value) in (int, str) for value in found.values()):
        raise DataError(f"{path}: expected an object of numbers and names, found {str(found)[:80]}")
    return found


def _heights(paths: Mapping[str, list[Path]], tick: Callable[[int, int], None]) -> dict[str, dict[str, int]]:
    """How many pictures of each view are in each band of height in pixels; reads all of them."""
    out, before, total = {}, 0, sum(map(len, paths.values()))
    for view, some in paths.items():
        heights = []
        for found in read_pictures(some, partial(_tick_on, tick, before, total)):
            if isinstance(found, DataError):
                raise found
            heights.append(found.height_px)
        before += len(some)
        out[view] = bands(heights, HEIGHT_PX)
    return out


def _tick_on(tick: Callable[[int, int], None], before: int, total: int, done: int, _: int) -> None:
    tick(before + done, total)


def contact_sheet(paths: Iterable[Path]) -> bytes:
    """JPEG of at most SHEET_BYTES with crops in rows of COLUMNS, all CELL_PX high where they are not wider than high.

    Raises:
        DataError: a picture cannot be read.
    """
    crops = [_fitted(decode(path)[0]) for path in paths]
    width = max(crop.shape[1] for crop in crops)
    blank = [np.full((CELL_PX, width, 3), GREY, np.uint8)] * (-len(crops) % COLUMNS)
    cells = [_padded(crop, CELL_PX, width) for crop in crops] + blank
    cells = [_padded(cell, CELL_PX + GAP_PX, width + GAP_PX) for cell in cells]
    sheet = np.vstack([np.hstack(cells[k : k + COLUMNS]) for k in range(0, len(cells), COLUMNS)])
    for quality in range(90, 0, -10):
        data = bytes(cv2.imencode(".jpg", sheet, [cv2.IMWRITE_JPEG_QUALITY, quality])[1])
        if len(data) <= SHEET_BYTES:
            break
    return data


def _fitted(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture at CELL_PX high, or as wide where it is wider than high."""
    height, width = image.shape[:2]
    scale = CELL_PX / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=how), np.uint8)


def _padded(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """A picture in the middle of a grey field."""
    out = np.full((height, width, 3), GREY, np.uint8)
    top, left = (height - image.shape[0]) // 2, (width - image.shape[1]) // 2
    out[top : top + image.shape[0], left : left + image.shape[1]] = image
    return out

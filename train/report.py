"""All that `tagclip evaluate` tells about a model: metrics with intervals, bands, a comparison, a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tagclip.runtime.errors import DataError
from tagclip.runtime.files import write_atomic
from tagclip.train.bootstrap import interval
from tagclip.train.compare import Difference, compare
from tagclip.train.data import load_split
from tagclip.train.evaluate import METRICS, Answers, Measured, Row, answer, rows, summary
from tagclip.train.groups import ELEVATION_DEG, HEIGHT_PX, by_band, elevations, heights
from tagclip.train.measure import embed, open_model, owners
from tagclip.train.progress import Tick
from tagclip.train.queries_sheet import draw_queries
from tagclip.train.wordings import ByWording, by_wording


@dataclass(frozen=True)
class Report:
    """What was measured; None for what was not asked for.

    `differences` are to another model, `expansion` those of expanded captions to the captions alone.
    """

    lines: dict[str, Measured]
    bands: dict[str, Measured] | None
    differences: dict[str, dict[str, Difference]] | None
    wordings: ByWording | None = None
    expanded: dict[str, Measured] | None = None
    expansion: dict[str, dict[str, Difference]] | None = None


def measured(row: Row) -> Measured:
    """The means of a row and their 95 % intervals over people, in percent."""
    ends = 100 * interval(row.values, row.identity)
    known = bool(np.isfinite(ends).all())
    return Measured(
        **summary(row), interval={m: ends[k].tolist() if known else None for k, m in enumerate(METRICS)}
    )


def evaluation(
    model: Path,
    folder: Path,
    split: str,
    *,
    view: str | None = None,
    exclude_own: bool = False,
    other: Path | None = None,
    by: str | None = None,
    picture: Path | None = None,
    wordings: bool = False,
    expand: int = 0,
    tick: Tick = lambda what, done, total, note: None,
) -> Report:
    """Evaluate a model on one split of a data folder.

    Args:
        model: a checkpoint or a bundle.
        view: "all", "aerial" or "ground" for the lines of this gallery only; the picture then shows this gallery.
        exclude_own: leave the picture that a caption was written for out of its gallery.
        other: another checkpoint or bundle, compared on the same captions.
        by: "elevation" or "height".
        picture: PNG of the best and the worst queries to write.
        wordings: also measure plain words, new company and unseen words (wordings.py).
        expand: also measure captions that so many of their best pictures have joined; 0 for not.
        tick: told what is done, how much of it, and of how much.

    Raises:
        CheckpointError, BundleError, DataError, OutputError: what is missing, damaged or cannot be written.
    """
    samples = load_split(folder, split)
    # Whatever can be wrong is found before the minutes of embedding.
    first, second = open_model(model), open_model(other) if other is not None else None
    degrees = elevations(samples) if by == "elevation" else None
    identity, seen = np.array([s.identity for s in samples]), np.array([s.view for s in samples])
    owner = owners(samples)
    texts, images = embed(first, samples, lambda done, total: tick("embed", done, total, ""))
    answers = answer(texts, images, owner, identity, seen, exclude_own)
    lines = rows(answers, view)
    if not lines:
        raise DataError(_nothing(answers, view, exclude_own, f"{folder}: {split}"))

    bands = None
    if by == "elevation" and degrees is not None:
        bands = by_band(texts, images, owner, identity, degrees, ELEVATION_DEG, "deg", exclude_own)
    elif by == "height":
        pixels = heights(samples, lambda done, total: tick("heights", done, total, ""))
        bands = by_band(texts, images, owner, identity, pixels, HEIGHT_PX, "px", exclude_own)
    differences = None
    if second is not None:
        vectors = embed(second, samples, lambda done, total: tick("embed the other", done, total, ""))
        differences = compare(answers, answer(*vectors, owner, identity, seen, exclude_own), view)
    expanded = expansion = None
    if expand:
        joined = answer(texts, images, owner, identity, seen, exclude_own, expand)
        expanded = {name: measured(row) for name, row in rows(joined, view).items()}
        expansion = compare(joined, answers, view)
    if picture is not None:
        sheet = draw_queries(
            samples, answers, texts, images, view or "all", exclude_own, f"{model}, {folder} {split}"
        )
        write_atomic(picture, sheet)
    return Report(
        {name: measured(row) for name, row in lines.items()},
        None if bands is None else {name: measured(row) for name, row in bands.items()},
        differences,
        by_wording(first, samples, images, folder) if wordings else None,
        expanded,
        expansion,
    )


def _nothing(answers: Answers, view: str | None, exclude_own: bool, where: str) -> str:
    """Why no caption can be answered, and the way out."""
    if view is not None and view not in answers.found:
        return f"{where}: expected pictures from the {view} view, found none; choose another --view"
    if exclude_own:
        return f"{where}: no caption has another picture of its person to find; leave out --exclude-own"
    return f"{where}: no caption's person has a picture from the {view} view; choose another --view"

"""Captions of an annotated picture, and new captions for a whole folder of pictures.

Words are drawn from the annotation alone, with a stream of their own: another wording leaves the pictures as they
are, and a folder can be described anew without being rendered anew.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from tagclip.runtime.errors import DataError
from tagclip.runtime.files import write_atomic
from tagclip.train.synth.appearance import from_json
from tagclip.train.synth.captions import Wording, captions

HELD_OUT_CAPTIONS = 2  # of a validation or test picture
Row = dict[str, Any]


def describe(
    row: Row, seed: int, count: int, *, wording: Wording = "train", complete: bool = False
) -> list[str]:
    """`count` different captions of one picture; the same for the same seed.

    Args:
        row: an annotation with `file_path`, `attributes`, `visible` and `elevation_deg`.
        wording, complete: as in `captions`.
    """
    rng = np.random.default_rng([seed, zlib.crc32(row["file_path"].encode())])
    return captions(
        from_json(row["attributes"]),
        row["visible"],
        row["elevation_deg"],
        rng,
        count,
        wording=wording,
        complete=complete,
    )


def describe_for(split: str, row: Row, seed: int, count: int) -> list[str]:
    """Captions as a split has them.

    Operators leave things out, so training does; validation and test say nearly all that is seen in each of two
    captions: a query that fits many people would measure that, not the model.
    """
    held_out = split != "train"
    return describe(row, seed, HELD_OUT_CAPTIONS if held_out else count, complete=held_out)


def recaption(
    folder: Path,
    count: int,
    seed: int = 0,
    workers: int | None = None,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, int]:
    """Write new captions into the annotations of a folder that `tagclip synth crops` made.

    Args:
        count: captions of each training picture.
        tick: called with (pictures done, all pictures).

    Returns:
        number of captions per split.

    Raises:
        DataError: an annotation file is missing, damaged, or not from `tagclip synth crops`.
    """
    splits = {split: _read(folder / f"{split}_reid.json") for split in ("train", "val", "test")}
    total, done, counts = sum(map(len, splits.values())), 0, {}
    with ProcessPoolExecutor(workers or os.cpu_count() or 1, mp_context=get_context("spawn")) as pool:
        for split, rows in splits.items():
            chunks = [(split, rows[k : k + 500], seed, count) for k in range(0, len(rows), 500)]
            found = []
            for part in pool.map(_chunk, chunks):
                found += part
                done += len(part)
                tick(done, total)
            for row, texts in zip(rows, found, strict=True):
                row["captions"] = texts
            counts[split] = sum(map(len, found))
    for split, rows in splits.items():
        write_rows(folder, split, rows)
    return counts


def write_rows(folder: Path, split: str, rows: list[Row]) -> None:
    """The annotations of a split, atomically."""
    write_atomic(folder / f"{split}_reid.json", json.dumps(rows, separators=(",", ":")).encode())


def _chunk(job: tuple[str, list[Row], int, int]) -> list[list[str]]:
    split, rows, seed, count = job
    return [describe_for(split, row, seed, count) for row in rows]


def _read(path: Path) -> list[Row]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        if not all({"file_path", "attributes", "visible", "elevation_deg"} <= row.keys() for row in rows):
            raise DataError(
                f"{path}: expected attributes, visible and elevation_deg in every row; only folders of "
                "`tagclip synth crops` can be described anew"
            )
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{path} cannot be read as annotations: {error}") from error
    return list(rows)

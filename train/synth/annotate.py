"""Captions of an annotated picture, and new captions for a whole folder of pictures.

Words are drawn from the annotation alone, with a stream of their own: another wording leaves the pictures as they
are, and a folder can be described anew without being rendered anew.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from tagclip.runtime.errors import DataError
from tagclip.runtime.files import write_atomic
from tagclip.train.datasets.layout import read_json
from tagclip.train.datasets.sample import checked_path
from tagclip.train.datasets.tar import split_member
from tagclip.train.synth.appearance import from_json
from tagclip.train.synth.captions import Wording, captions
from tagclip.train.synth.shards import Row, describe_anew, row_json
from tagclip.train.synth.unfinished import SETTINGS, as_json

HELD_OUT_CAPTIONS = 2  # of a validation or test picture
_IN_TAR = re.compile(r"(train|val|test)-\d+\.tar/")


def describe(
    row: Row, seed: int, count: int, *, wording: Wording = "train", complete: bool = False
) -> list[str]:
    """`count` different captions of one picture; the same for the same seed.

    Args:
        row: an annotation with `file_path`, `attributes`, `visible` and `elevation_deg`.
        wording, complete: as in `captions`.
    """
    # The same words whether pictures lie in tars (`train-000000.tar/KEY.jpg`) or in files (`train/KEY.jpg`).
    name = _IN_TAR.sub(r"\1/", row["file_path"])
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return captions(
        from_json(row["attributes"]),
        row["visible"],
        row["elevation_deg"],
        rng,
        count,
        wording=wording,
        complete=complete,
    )


def describe_for(split: str, row: Row, seed: int, count: int, wording: Wording = "train") -> list[str]:
    """Captions as a split has them.

    Operators leave things out, so training does; validation and test say nearly all that is seen in each of two
    captions: a query that fits many people would measure that, not the model.
    """
    held_out = split != "train"
    return describe(row, seed, HELD_OUT_CAPTIONS if held_out else count, wording=wording, complete=held_out)


def recaption(
    folder: Path,
    count: int,
    seed: int = 0,
    workers: int | None = None,
    tick: Callable[[int, int], None] = lambda done, total: None,
    wording: Wording = "train",
) -> dict[str, int]:
    """Write new captions into the annotations of a folder that `tagclip synth crops` made, those in tars included.

    Each file is replaced as a whole, `*_reid.json` last. After an interruption the same call makes all agree.

    Args:
        count: captions of each training picture.
        tick: called with (pictures done, all pictures).
        wording: as in `captions`.

    Returns:
        number of captions per split.

    Raises:
        DataError: an annotation file is missing, damaged, or not from `tagclip synth crops`; or a tar is.
        OutputError: a file cannot be replaced.
    """
    splits = {split: _read(folder / f"{split}_reid.json") for split in ("train", "val", "test")}
    total, done, counts = sum(map(len, splits.values())), 0, {}
    with ProcessPoolExecutor(workers or os.cpu_count() or 1, mp_context=get_context("spawn")) as pool:
        for split, rows in splits.items():
            chunks = [(split, rows[k : k + 500], seed, count, wording) for k in range(0, len(rows), 500)]
            found = []
            for part in pool.map(_chunk, chunks):
                found += part
                done += len(part)
                tick(done, total)
            for row, texts in zip(rows, found, strict=True):
                row["captions"] = texts
            counts[split] = sum(map(len, found))
    tars: dict[Path, dict[str, Row]] = {}
    for rows in splits.values():
        for row in rows:
            inside = split_member(folder / "images" / row["file_path"])
            if inside is not None:
                tars.setdefault(inside[0], {})[Path(inside[1]).stem] = row
    for tar, by_key in tars.items():
        describe_anew(tar, by_key)
    _note(folder / SETTINGS, {"captions": count, "captions_seed": seed, "wording": wording})
    for split, rows in splits.items():
        write_rows(folder, split, rows)
    return counts


def write_rows(folder: Path, split: str, rows: list[Row]) -> None:
    """The annotations of a split, atomically."""
    write_atomic(folder / f"{split}_reid.json", b"[" + b",".join(map(row_json, rows)) + b"]")


def _note(settings: Path, words: Row) -> None:
    """Say in synth.json, where there is one, that the captions are others than it says."""
    if settings.exists():
        content = read_json(settings)
        if not isinstance(content, dict):
            raise DataError(f"{settings}: expected an object, found {type(content).__name__}")
        write_atomic(settings, as_json({**content, **words}))


def _chunk(job: tuple[str, list[Row], int, int, Wording]) -> list[list[str]]:
    split, rows, seed, count, wording = job
    return [describe_for(split, row, seed, count, wording) for row in rows]


def _read(path: Path) -> list[Row]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        if not all({"file_path", "attributes", "visible", "elevation_deg"} <= row.keys() for row in rows):
            raise DataError(
                f"{path}: expected attributes, visible and elevation_deg in every row; only folders of "
                "`tagclip synth crops` can be described anew"
            )
        for k, row in enumerate(rows):
            checked_path(row["file_path"], f"{path} row {k}: file_path", path.parent / "images")
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{path} cannot be read as annotations: {error}") from error
    return list(rows)

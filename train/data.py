"""Annotations of docs/data.md and the arrays that training and evaluation take from them."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.errors import DataError
from tagclip.runtime.preprocess import PreprocessSpec, prepare
from tagclip.train.attributes import labels_of

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Sample:
    """One image: path, identity, view (0 aerial, 1 ground) and its captions (at least one).

    `attributes` are class numbers, see attributes.py; empty when the annotation has none.
    """

    path: Path
    identity: int
    view: int
    captions: tuple[str, ...]
    attributes: tuple[int, ...] = ()


def load_split(folder: Path, split: str) -> list[Sample]:
    """Read `<split>_reid.json` of a data folder.

    Raises:
        DataError: no such file, or a row that breaks the contract; the message names the row.
    """
    path = folder / f"{split}_reid.json"
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(
            f"expected {path}, found none; make data with `tagclip synth crops {folder} --identities 1000`"
        ) from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{path}: expected a list of at least one image, found {type(rows).__name__}")
    return [_sample(folder, row, f"{path} row {k}") for k, row in enumerate(rows)]


def _sample(folder: Path, row: Any, where: str) -> Sample:
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected an object, found {type(row).__name__}")
    file_path, identity, captions = row.get("file_path"), row.get("id"), row.get("captions")
    # A missing cam_id is a ground image: the classic ground-only sets have none.
    view = row.get("cam_id", 1)
    if not isinstance(file_path, str) or not file_path:
        raise DataError(f"{where}: file_path must be a path below images/, found {file_path!r}")
    if Path(file_path).is_absolute() or ".." in Path(file_path).parts:
        raise DataError(f"{where}: file_path must stay below images/, found {file_path!r}")
    if type(identity) is not int:
        raise DataError(f"{where}: id must be a whole number, found {identity!r}")
    if view not in (0, 1):
        raise DataError(f"{where}: cam_id must be 0 (aerial) or 1 (ground), found {view!r}")
    if (
        not isinstance(captions, list)
        or not captions
        or not all(isinstance(c, str) and c.strip() for c in captions)
    ):
        raise DataError(f"{where}: captions must be a list of sentences, found {captions!r}")
    try:
        attributes = labels_of(row["attributes"], row["visible"]) if "attributes" in row else ()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{where}: attributes and visible are not what synth writes: {error!r}") from error
    return Sample(folder / "images" / file_path, identity, int(view), tuple(captions), attributes)


def check_data(folder: Path) -> dict[str, dict[str, int]]:
    """Validate a data folder: every row, every image file, no identity in two splits.

    Returns:
        per split: images, identities, captions, aerial, ground.

    Raises:
        DataError: what is wrong, and where.
    """
    if not folder.is_dir():
        raise DataError(f"expected a data folder, found nothing at {folder}")
    seen: dict[int, str] = {}
    report = {}
    for split in SPLITS:
        if split == "val" and not (folder / "val_reid.json").exists():
            continue  # TAG-PEDES and its like have none; training then asks for one
        samples = load_split(folder, split)
        for sample in samples:
            if not sample.path.is_file():
                raise DataError(f"{split}: expected the image {sample.path}, found none")
            if seen.setdefault(sample.identity, split) != split:
                raise DataError(
                    f"identity {sample.identity} is in {seen[sample.identity]} and in {split}; "
                    "identities never cross splits"
                )
        report[split] = {
            "images": len(samples),
            "identities": len({s.identity for s in samples}),
            "captions": sum(len(s.captions) for s in samples),
            "aerial": sum(s.view == 0 for s in samples),
            "ground": sum(s.view == 1 for s in samples),
        }
    return report


def load_images(
    samples: list[Sample],
    spec: PreprocessSpec,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> NDArray[np.uint8]:
    """Prepared crops (N, height, width, 3) RGB uint8, in the order of `samples`.

    Raises:
        DataError: an image cannot be read.
    """
    out = np.empty((len(samples), spec.height_px, spec.width_px, 3), np.uint8)

    def load(k: int) -> None:
        image = cv2.imread(str(samples[k].path))
        if image is None:
            raise DataError(f"cannot read the image {samples[k].path}; make the data set again")
        prepare([np.ascontiguousarray(image[..., ::-1], np.uint8)], spec, out=out[k : k + 1])

    with ThreadPoolExecutor(4) as pool:
        for done, _ in enumerate(pool.map(load, range(len(samples))), 1):
            if done % 500 == 0 or done == len(samples):
                tick(done, len(samples))
    return out

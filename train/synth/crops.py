"""`tagclip synth crops`: pictures of people from the ground and from the air, with attributes and captions."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tagclip.runtime.files import folder_atomic, write_atomic
from tagclip.runtime.views import VIEWS
from tagclip.train.synth.annotate import describe_for, write_rows
from tagclip.train.synth.appearance import sample_appearance, to_json
from tagclip.train.synth.figure import Figure
from tagclip.train.synth.shot import Crop, shoot

HELD_OUT_IDENTITIES = 200  # of validation and of test, at most; a tenth of a small set


def split_of(identity: int, identities: int) -> str:
    """Split of an identity: the lowest numbers are the test set, so it stays the same when the set grows."""
    held_out = min(HELD_OUT_IDENTITIES, max(1, identities // 10))
    return "test" if identity < held_out else "val" if identity < 2 * held_out else "train"


def identity_crops(
    seed: int, identity: int, images_per_view: int
) -> tuple[dict[str, Any], list[tuple[str, Crop]]]:
    """Attributes of an identity and its (view, crop) pictures; the same for the same seed, whoever computes it."""
    rng = np.random.default_rng([seed, identity])
    person = sample_appearance(rng)
    figure = Figure(person, rng)
    neighbour = Figure(sample_appearance(rng), rng)
    pictures = [(view, shoot(figure, neighbour, view, rng)) for view in VIEWS for _ in range(images_per_view)]
    return to_json(person), pictures


def _chunk(job: tuple[Path, int, list[int], int, int, int]) -> list[tuple[str, dict[str, Any]]]:
    """Worker: writes the pictures of some identities, returns (split, annotation) rows."""
    folder, seed, members, identities, images_per_view, captions = job
    import torch

    torch.set_num_threads(1)
    rows = []
    for identity in members:
        split = split_of(identity, identities)
        attributes, pictures = identity_crops(seed, identity, images_per_view)
        counters = {"aerial": 0, "ground": 0}
        for view, crop in pictures:
            name = f"{split}/{identity:06d}_{view[0]}{counters[view]}.jpg"
            counters[view] += 1
            ok, data = cv2.imencode(
                ".jpg", crop.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, crop.jpeg_quality]
            )
            assert ok
            (folder / "images" / name).write_bytes(data.tobytes())
            annotation: dict[str, Any] = {
                "file_path": name,
                "id": identity,
                "cam_id": 0 if view == "aerial" else 1,
                "captions": [],
                "elevation_deg": round(crop.elevation_deg, 1),
                "attributes": attributes,
                "visible": {k: round(v, 3) for k, v in crop.visible.items()},
            }
            # From the annotation alone, rounded as it is, so that `synth captions` gives the same words again.
            annotation["captions"] = describe_for(split, annotation, seed, captions)
            rows.append((split, annotation))
    return rows


def write_crops(
    out: Path,
    identities: int,
    images_per_view: int = 4,
    seed: int = 0,
    workers: int | None = None,
    tick: Callable[[int, int], None] = lambda done, total: None,
    *,
    captions: int = 6,
) -> dict[str, int]:
    """Make the data set in folder `out` (new or empty), with annotations and a contact sheet.

    Args:
        identities: number of people, at least 3.
        images_per_view: pictures of each from the air and from the ground.
        captions: of each training picture; validation and test pictures have two.
        workers: processes, default one a core. The result does not depend on it.
        tick: called with (identities done, all identities).

    Returns:
        number of images per split.

    Raises:
        OutputError: `out` exists and is not empty, or cannot be written.
    """
    with folder_atomic(out) as folder:
        for split in ("train", "val", "test"):
            (folder / "images" / split).mkdir(parents=True)
        splits: dict[str, list[dict[str, Any]]] = {"train": [], "val": [], "test": []}
        done = 0
        for rows in _run(folder, identities, images_per_view, captions, seed, workers or os.cpu_count() or 1):
            for split, row in rows:
                splits[split].append(row)
            done += len({row["id"] for _, row in rows})
            tick(done, identities)
        for split, annotations in splits.items():
            write_rows(folder, split, annotations)
        write_atomic(folder / "sheet.png", contact_sheet(folder, splits["train"] or splits["test"]))
    return {split: len(rows) for split, rows in splits.items()}


def _run(
    folder: Path, identities: int, images_per_view: int, captions: int, seed: int, workers: int
) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    size = 8
    jobs = [
        (
            folder,
            seed,
            list(range(start, min(start + size, identities))),
            identities,
            images_per_view,
            captions,
        )
        for start in range(0, identities, size)
    ]
    if workers == 1 or len(jobs) == 1:
        yield from map(_chunk, jobs)
        return
    # One thread a process, or the linear algebra of all processes fights for the same cores; it is read at import.
    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_chunk, jobs)


def contact_sheet(folder: Path, annotations: list[dict[str, Any]], people: int = 24) -> bytes:
    """PNG of the first people, a row each: all their pictures and one caption."""
    by_id: dict[int, list[dict[str, Any]]] = {}
    for row in annotations:
        by_id.setdefault(row["id"], []).append(row)
    lines = []
    for rows in list(by_id.values())[:people]:
        cells = []
        for row in rows[:8]:
            image: Any = cv2.imread(str(folder / "images" / row["file_path"]))
            scale = min(96 / image.shape[0], 64 / image.shape[1])
            cell = np.full((96, 64, 3), 30, np.uint8)
            small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)[:96, :64]
            cell[: small.shape[0], : small.shape[1]] = small
            cells.append(cell)
        text = np.full((96, 640, 3), 30, np.uint8)
        for k, caption in enumerate((rows[0]["captions"][0], rows[-1]["captions"][1])):
            for n, start in enumerate(range(0, min(len(caption), 255), 85)):
                at = (8, 16 + 46 * k + 14 * n)
                cv2.putText(text, caption[start : start + 85], at, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (230,) * 3)
        blank = [np.full((96, 64, 3), 30, np.uint8)] * (8 - len(cells))
        lines.append(np.hstack([*cells, *blank, text]))
    ok, data = cv2.imencode(".png", np.vstack(lines))
    assert ok
    return bytes(data)

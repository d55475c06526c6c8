"""`tagclip synth crops`: pictures of people from the ground and from the air, with attributes and captions."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.files import folder_atomic, write_atomic
from tagclip.runtime.views import VIEWS
from tagclip.train.synth.annotate import describe_for, write_rows
from tagclip.train.synth.appearance import sample_appearance, to_json
from tagclip.train.synth.body import Array
from tagclip.train.synth.camera import Camera, elevation_of, look_at
from tagclip.train.synth.figure import Figure, Posed
from tagclip.train.synth.picture import Stage, record, visible_parts
from tagclip.train.synth.places import sample_place

HELD_OUT_IDENTITIES = 200  # of validation and of test, at most; a tenth of a small set
ELEVATION_DEG = {"aerial": (30.0, 88.0), "ground": (-5.0, 25.0)}
RENDER_PX = (4_000, 20_000)  # fewest and most rays per crop; between, four to a pixel of the final picture
NEIGHBOUR_SHARE = 0.2  # of crops show part of another person
OCCLUDED_SHARE = 0.1


@dataclass(frozen=True)
class Crop:
    """One picture of one identity.

    Attributes:
        image: (H, W, 3) RGB uint8.
        jpeg_quality: 0..100.
        elevation_deg: true elevation of the camera.
        visible: share of the person's pixels by part.
    """

    image: NDArray[np.uint8]
    jpeg_quality: int
    elevation_deg: float
    visible: dict[str, float]


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
    pictures = [
        (view, _picture(figure, neighbour, view, rng)) for view in VIEWS for _ in range(images_per_view)
    ]
    return to_json(person), pictures


def _picture(
    figure: Figure,
    neighbour: Figure,
    view: str,
    rng: np.random.Generator,
) -> Crop:
    moving = float(rng.choice([0.0, rng.uniform(0.3, 1.0)], p=[0.3, 0.7]))
    posed = figure.posed(rng.uniform(0, 2 * np.pi), moving, rng.uniform(0, 2 * np.pi), (0.0, 0.0))
    people = [posed]
    elevation = rng.uniform(*ELEVATION_DEG[view])
    camera, elevation = _camera(elevation, float(posed.vertices[:, 2].max()), rng)
    if rng.random() < NEIGHBOUR_SHARE:
        people.append(_beside(neighbour, camera, rng))
    # People as a detector finds them: mostly small, rarely large; log-uniform in size.
    size_px = float(np.exp(rng.uniform(np.log(26), np.log(200))))
    x_px, y_px = _window(camera, posed, int(np.clip(2 * size_px**2, *RENDER_PX)), rng)
    linear, person, part = Stage(people, sample_place(rng)).render(camera, x_px, y_px)
    if rng.random() < OCCLUDED_SHARE:
        _occlude(linear, person, rng)
    visible = visible_parts(person, part, 0)
    height = max(12, round(size_px * min(1.0, len(y_px) / len(x_px))))
    image = record(linear, height, rng)
    return Crop(image, int(rng.integers(35, 96)), elevation, visible)


def _camera(elevation_deg: float, height_m: float, rng: np.random.Generator) -> tuple[Camera, float]:
    target = np.array([0, 0, 0.52 * height_m], np.float32)
    distance = float(np.exp(rng.uniform(np.log(4.0), np.log(45.0))))
    elevation, azimuth = np.deg2rad(elevation_deg), rng.uniform(0, 2 * np.pi)
    position = target + distance * np.array(
        [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)]
    )
    position[2] = max(position[2], 0.4)  # no camera below the ground
    # Near the nadir a person may lie any way in the picture; else nearly upright.
    roll = rng.normal(0, 4 if elevation_deg < 30 else 9) if elevation_deg < 72 else rng.uniform(-50, 50)
    return look_at(position, target, float(roll), 1000.0, (0.0, 0.0)), elevation_of(position, target)


def _beside(neighbour: Figure, camera: Camera, rng: np.random.Generator) -> Posed:
    """The other person at arm's length to one side, and a little nearer or farther."""
    side = camera.axes[0, :2] * rng.choice([-1, 1]) * rng.uniform(0.5, 0.95)
    depth = camera.axes[2, :2] * rng.uniform(-0.5, 0.9)
    place = side + depth
    phase, yaw = rng.uniform(0, 2 * np.pi, 2)
    return neighbour.posed(
        float(phase), float(rng.random() < 0.7), float(yaw), (float(place[0]), float(place[1]))
    )


def _window(camera: Camera, posed: Posed, rays: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Pixel columns and rows of a crop as an imperfect detector cuts it."""
    points = camera.project(posed.vertices)
    low, high = points.min(0), points.max(0)
    size = high - low
    low = low - size * rng.uniform(-0.05, 0.16, 2)
    high = high + size * rng.uniform(-0.05, 0.16, 2)
    if rng.random() < 0.06:  # cut off below or above by something, or by the edge of the frame
        cut = size[1] * rng.uniform(0.1, 0.4)
        if rng.random() < 0.75:
            high[1] -= cut
        else:
            low[1] += 0.4 * cut
    width, height = high - low
    rows = int(np.sqrt(rays * height / width))
    columns = max(8, round(rows * width / height))
    x = low[0] + (np.arange(columns) + 0.5) * width / columns
    y = low[1] + (np.arange(rows) + 0.5) * height / rows
    return x.astype(np.float32), y.astype(np.float32)


def _occlude(linear: Array, person: NDArray[np.int64], rng: np.random.Generator) -> None:
    """A post, a rail or a bush in front, of one noisy colour."""
    height, width = person.shape
    if rng.random() < 0.5:
        x = int(rng.integers(0, width))
        area: tuple[slice, slice] = np.s_[:, x : x + max(1, int(width * rng.uniform(0.05, 0.2)))]
    else:
        area = np.s_[int(height * rng.uniform(0.6, 0.9)) :, :]
    shape = person[area].shape
    linear[area] = rng.uniform(0.02, 0.6) * rng.uniform(0.7, 1.3, 3) * rng.uniform(0.8, 1.2, (*shape, 1))
    person[area] = -1


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

"""`tagclip synth stills`: pictures of places with nobody, few or many people, with boxes: to train a detector on.

OUT/images/000012.jpg, and OUT/stills.json: {"seed", "width_px", "height_px", "stills": [{"file", "altitude_m",
"pitch_deg", "focal_px", "people": [{"box_xywh_px", "visible", "posture"}]}]}. A box is that of the whole person, cut at
the picture's edge.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tagclip.runtime.files import check_target, folder_atomic, write_atomic
from tagclip.train.synth.body import Array
from tagclip.train.synth.camera import Camera
from tagclip.train.synth.figure import Figure, Posed
from tagclip.train.synth.filming import box_inside, extent
from tagclip.train.synth.flight import Pose
from tagclip.train.synth.people import sample_appearance
from tagclip.train.synth.picture import Stage, ground_reach_m
from tagclip.train.synth.places import sample_place
from tagclip.train.synth.poses import sample_pose
from tagclip.train.synth.props import Prop, scattered
from tagclip.train.synth.raycast import Caster, use_device
from tagclip.train.synth.sensor import record
from tagclip.train.synth.workers import each

SIZE_PX = (448, 336)
PER_JOB = 8
FIGURES = 6  # that the stills of a job share; dressing somebody costs as much as a picture
PITCH_DEG = (6.0, 90.0)
FIELD_OF_VIEW_DEG = (30.0, 85.0)
ALTITUDE_M = (1.5, 120.0)
TALL_PX = (12.0, 190.0)  # somebody in the middle of the picture; log-uniform
PERSON_M = 1.7
MEAN_PEOPLE = 6.0
EMPTY = 0.12  # share of stills without a person
MOST_PEOPLE = 14
IN_GROUPS = 0.35  # of people stand close to another
RAYS_PER_SIDE = 1.5  # of a pixel
LEAST_PIXELS = 10  # that show a person


def write_stills(
    out: Path,
    count: int,
    seed: int = 0,
    workers: int | None = None,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, int]:
    """Make `count` stills in the folder `out` (new or empty); the same for the same seed, whoever computes them.

    Returns:
        stills, and people in them.

    Raises:
        OutputError: `out` is not empty, or cannot be written.
    """
    check_target(out)
    rows: dict[int, dict[str, Any]] = {}
    jobs = [(seed, first, min(PER_JOB, count - first)) for first in range(0, count, PER_JOB)]
    with folder_atomic(out) as folder:
        (folder / "images").mkdir()
        for part in each(_stills, jobs, workers or os.cpu_count() or 1, use_device, "cpu"):
            for number, row, data in part:
                write_atomic(folder / "images" / row["file"], data)
                rows[number] = row
            tick(len(rows), count)
        listed = [rows[number] for number in sorted(rows)]
        truth = {"seed": seed, "width_px": SIZE_PX[0], "height_px": SIZE_PX[1], "stills": listed}
        write_atomic(folder / "stills.json", (json.dumps(truth, separators=(",", ":")) + "\n").encode())
    return {"stills": len(rows), "people": sum(len(row["people"]) for row in listed)}


def _stills(job: tuple[int, int, int]) -> list[tuple[int, dict[str, Any], bytes]]:
    seed, first, count = job
    import torch

    torch.set_num_threads(1)
    dressing = np.random.default_rng([seed, 6, first])
    figures = [Figure(sample_appearance(dressing), dressing) for _ in range(FIGURES)]
    made = []
    for number in range(first, first + count):
        rng = np.random.default_rng([seed, 7, number])
        image, row = still(figures, rng)
        ok, data = cv2.imencode(
            ".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(35, 96))]
        )
        assert ok
        made.append((number, {"file": f"{number:06d}.jpg", **row}, data.tobytes()))
    return made


def still(figures: list[Figure], rng: np.random.Generator) -> tuple[np.ndarray, dict[str, Any]]:
    """One picture, RGB uint8 (H, W, 3), and its row of stills.json."""
    camera, row = _camera(rng)
    place = sample_place(rng)
    if rng.random() < 0.3:
        place = replace(place, sun_strength=0.0)
    people = [_posed(figures, at, rng) for at in _places(camera, rng)]
    props: list[Prop] = []
    for _ in range(rng.poisson(5)):
        at = _on_ground(camera, rng)
        if at is not None:
            props += scattered(at, rng)
    scale = RAYS_PER_SIDE
    x = ((np.arange(round(SIZE_PX[0] * scale)) + 0.5) / scale - 0.5).astype(np.float32)
    y = ((np.arange(round(SIZE_PX[1] * scale)) + 0.5) / scale - 0.5).astype(np.float32)
    nobody = not people and not props  # a stage is never empty: something far behind the camera
    stage = Stage(people, place, props if not nobody else scattered(camera.position[:2] - 500.0, rng))
    linear, person, _ = stage.render(camera, x, y)
    truth = [
        {**seen, "posture": posed.figure.person.posture}
        for k, posed in enumerate(people)
        if (seen := _seen(camera, posed, k, person, place.sun)) is not None
    ]
    return record(linear, SIZE_PX[1], rng), {**row, "people": truth}


def _camera(rng: np.random.Generator) -> tuple[Camera, dict[str, float]]:
    """A camera anywhere from a wall to high above, from which somebody in the middle would be of a size of TALL_PX."""
    width, height = SIZE_PX
    pitch = np.deg2rad(rng.uniform(*PITCH_DEG))
    focal_px = width / 2 / np.tan(np.deg2rad(rng.uniform(*FIELD_OF_VIEW_DEG)) / 2)
    tall_px = np.exp(rng.uniform(*np.log(TALL_PX)))
    altitude_m = float(np.clip(focal_px * PERSON_M / tall_px * np.sin(pitch), *ALTITUDE_M))
    yaw = rng.uniform(0, 2 * np.pi)
    pose = Pose(
        0.0, 0.0, altitude_m, float(np.rad2deg(yaw)), float(np.rad2deg(pitch)), float(rng.normal(0, 4))
    )
    camera = pose.camera(float(focal_px), width, height)
    told = {"altitude_m": altitude_m, "pitch_deg": float(np.rad2deg(pitch)), "focal_px": float(focal_px)}
    return camera, {name: round(value, 2) for name, value in told.items()}


def _on_ground(camera: Camera, rng: np.random.Generator) -> Array | None:
    """A place (2,) in metres that the picture shows; None when the ray that was drawn misses the ground."""
    x, y = rng.uniform(-0.05, 1.05, 2) * SIZE_PX
    ray = camera.rays(np.array([x], np.float32), np.array([y], np.float32))[0, 0]
    if ray[2] > -1e-3:
        return None
    distance = -camera.position[2] / ray[2]
    if not 1.0 < distance < 0.9 * ground_reach_m(camera.position[2]):
        return None
    found: Array = (camera.position + distance * ray)[:2]
    return found


def _places(camera: Camera, rng: np.random.Generator) -> list[Array]:
    """Where people are, (2,) metres each."""
    wanted = 0 if rng.random() < EMPTY else min(MOST_PEOPLE, 1 + rng.poisson(MEAN_PEOPLE - 1))
    found: list[Array] = []
    for _ in range(4 * wanted):
        if len(found) == wanted:
            break
        if found and rng.random() < IN_GROUPS:
            angle = rng.uniform(0, 2 * np.pi)
            beside = rng.uniform(0.5, 1.6) * np.array([np.cos(angle), np.sin(angle)])
            at: Array | None = found[int(rng.integers(len(found)))] + beside
        else:
            at = _on_ground(camera, rng)
        if at is not None and all(np.hypot(*(at - other)) > 0.45 for other in found):
            found.append(at)
    return found


def _posed(figures: list[Figure], at: Array, rng: np.random.Generator) -> Posed:
    figure = figures[int(rng.integers(len(figures)))]
    pose = sample_pose(rng)
    moving = {"walking": float(rng.uniform(0.3, 1.0)), "running": 1.5}.get(pose.posture, 0.0)
    phase, yaw = rng.uniform(0, 2 * np.pi, 2)
    return figure.posed(float(phase), moving, float(yaw), (float(at[0]), float(at[1])), pose)


def _seen(camera: Camera, posed: Posed, who: int, person: np.ndarray, sun: Array) -> dict[str, Any] | None:
    """Box and visible share of somebody; None when hardly anything of them is in the picture."""
    box = box_inside(camera, posed, SIZE_PX)
    pixels = int((person == who).sum()) / RAYS_PER_SIDE**2
    if box is None or min(box[2:]) <= 1 or pixels < LEAST_PIXELS:
        return None
    low, high = extent(camera, posed)
    # Alone: the same rays, cast at nobody else.
    scale = RAYS_PER_SIDE
    x = np.arange(np.floor(low[0] * scale), np.ceil(high[0] * scale), dtype=np.float32)
    y = np.arange(np.floor(low[1] * scale), np.ceil(high[1] * scale), dtype=np.float32)
    rays = camera.rays((x + 0.5) / scale - 0.5, (y + 0.5) / scale - 0.5).reshape(-1, 3)
    alone = int((Caster(posed.vertices, posed.faces).cast(camera.position, rays, sun).face >= 0).sum())
    return {"box_xywh_px": box, "visible": round(min(1.0, pixels * scale**2 / max(alone, 1)), 3)}

"""`tagclip synth scene`: a video of people who walk under a camera on a pole or a drone, with the truth beside it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tagclip.runtime.errors import ConfigError, OutputError
from tagclip.runtime.files import folder_atomic, write_atomic
from tagclip.runtime.mp4 import mp4_atomic
from tagclip.train.synth.appearance import to_json
from tagclip.train.synth.camera import Camera, elevation_of
from tagclip.train.synth.captions import captions
from tagclip.train.synth.figure import Posed
from tagclip.train.synth.filming import Filming, Shot, SteadyPlace
from tagclip.train.synth.flight import MOTIONS, SPEED_MPS, Flight, Motion
from tagclip.train.synth.mot import write_mot
from tagclip.train.synth.picture import visible_parts
from tagclip.train.synth.places import sample_place
from tagclip.train.synth.walkers import LEAST_PIXELS, Walker, ground_span, sample_walkers

FIELD_OF_VIEW_DEG = 50.0  # horizontal
ALTITUDE_M = (2.0, 120.0)
PITCH_DEG = (5.0, 90.0)
PEOPLE = (1, 100)
PASSING_S = 4.0  # for which a flying drone sees whoever stands still, at least


def parse_size(text: str) -> tuple[int, int]:
    """Width and height in pixels of "640x360".

    Raises:
        ConfigError: not of this form, odd, or outside of 64 to 4096.
    """
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text.strip().lower())
    sizes = [int(value) for value in found.groups()] if found else []
    if not sizes or any(value % 2 or not 64 <= value <= 4096 for value in sizes):
        raise ConfigError(f"--size must be two even numbers of 64 to 4096 such as 640x360, found {text!r}")
    return sizes[0], sizes[1]


def focal_length_px(width_px: int) -> float:
    """Focal length in pixels of a picture `width_px` wide."""
    return float(width_px / 2 / np.tan(np.deg2rad(FIELD_OF_VIEW_DEG / 2)))


def write_scene(
    out: Path,
    *,
    people: int,
    seconds: float,
    fps: int,
    altitude_m: float,
    pitch_deg: float,
    width_px: int,
    height_px: int,
    seed: int,
    motion: Motion = "fixed",
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Make `out` (.mp4), the truth beside it (.json), and the same for MOT tools (the folder .mot).

    Args:
        people: 1 to 100.
        altitude_m: of the camera over the ground, 2 to 120.
        pitch_deg: below the horizon, 5 to 90.
        motion: "fixed" on a pole, "hover": a drone that holds its place as well as it can, "moving": one that flies.
        tick: called with (frames done, all frames).

    Returns:
        frames, people, and the paths of the truth and of the folder; docs/data.md has the form of the truth.

    Raises:
        ConfigError: a number is out of range, or the camera would see nobody.
        OutputError: a file is there already, or cannot be written; nothing is left behind.
    """
    _check("people", people, PEOPLE)
    _check("altitude_m", altitude_m, ALTITUDE_M)
    _check("pitch_deg", pitch_deg, PITCH_DEG)
    if motion not in MOTIONS:
        raise ConfigError(f"motion must be one of {', '.join(MOTIONS)}, found {motion!r}")
    focal_px = focal_length_px(width_px)
    span = ground_span(altitude_m, pitch_deg, focal_px, width_px, height_px)
    truth_path, mot_path = _free_paths(out)
    rng = np.random.default_rng([seed, 1])
    flying = np.random.default_rng([seed, 4])
    speed_mps = min(flying.uniform(*SPEED_MPS), (span.far_m - span.near_m) / PASSING_S)
    flight = Flight(motion, altitude_m, pitch_deg, speed_mps, seconds, flying)
    place = sample_place(rng) if motion == "fixed" else SteadyPlace.of(sample_place(rng))
    walkers = sample_walkers(flight, span, people, seconds, rng)
    camera = flight.pose(0.0).camera(focal_px, width_px, height_px)
    filming = Filming(place, camera, width_px, height_px)
    seen: dict[int, _Best] = {}
    frames: list[dict[str, Any]] = []
    total = max(1, round(seconds * fps))
    made: list[Path] = []
    try:
        with mp4_atomic(out, fps, (width_px, height_px)) as write:
            for number in range(total):
                time_s = number / fps
                pose = flight.pose(time_s)
                if motion != "fixed":
                    camera = pose.camera(focal_px, width_px, height_px)
                present = [k for k, w in enumerate(walkers) if filming.near(camera, w.place(time_s))]
                posed = {k: walkers[k].at(time_s) for k in present}
                shot = filming.frame(camera, posed, np.random.default_rng([seed, 2, number]))
                rows = [
                    row | {"place_m": [round(float(v), 3) for v in walkers[row["id"] - 1].place(time_s)]}
                    for row in _people_in(filming, camera, posed, shot, seen)
                ]
                lens = {name: round(value, 4) for name, value in asdict(pose).items()}
                frames.append({"frame": number, "time_s": round(time_s, 3), "camera": lens, "people": rows})
                write(shot.image[..., ::-1].copy())
                tick(number + 1, total)
            truth = {
                "fps": fps,
                "width_px": width_px,
                "height_px": height_px,
                "seed": seed,
                "camera": {
                    "motion": motion,
                    "altitude_m": altitude_m,
                    "pitch_deg": pitch_deg,
                    "focal_px": focal_px,
                },
                "people": [_person(k, walkers[k], seen[k], seed) for k in sorted(seen)],
                "frames": frames,
            }
            write_atomic(truth_path, (json.dumps(truth, separators=(",", ":")) + "\n").encode())
            made.append(truth_path)
            with folder_atomic(mot_path) as folder:
                write_mot(folder, mot_path.name, truth)
            made.append(mot_path)
        made.append(out)
        _check_video(out, total)
    except BaseException:
        # A video without its truth is no scene, nor is a truth without its video.
        for path in made:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        raise
    return {"frames": total, "people": len(seen), "truth": str(truth_path), "mot": str(mot_path)}


def _check(name: str, value: float, limits: tuple[float, float]) -> None:
    if not limits[0] <= value <= limits[1]:
        raise ConfigError(f"{name} must be {limits[0]:g} to {limits[1]:g}, found {value:g}")


def _free_paths(out: Path) -> tuple[Path, Path]:
    """The names of the truth and of the MOT folder, after looking that no name is taken."""
    truth_path, mot_path = out.with_suffix(".json"), out.with_suffix(".mot")
    if out.suffix.lower() != ".mp4":
        raise OutputError(f"{out}: expected a name that ends in .mp4")
    for path in (out, truth_path, mot_path):
        if path.exists() or path.is_symlink():
            raise OutputError(f"{path} exists; remove it or choose another name")
    if not out.parent.is_dir():
        raise OutputError(f"{out.parent} is no folder; make it first")
    return truth_path, mot_path


def _check_video(path: Path, frames: int) -> None:
    """OpenCV's writer does not say when a disk is full: count what it wrote."""
    video = cv2.VideoCapture(str(path))
    found = int(video.get(cv2.CAP_PROP_FRAME_COUNT)) if video.isOpened() else 0
    video.release()
    if found != frames:
        raise OutputError(
            f"cannot write {path}: {found} of {frames} frames were written; is the disk full? Choose another place"
        )


@dataclass(frozen=True)
class _Best:
    """The frame that shows most of somebody: how many pixels, the share of each part, the camera's elevation."""

    pixels: int
    parts: dict[str, float]
    elevation_deg: float


def _people_in(
    filming: Filming, camera: Camera, posed: dict[int, Posed], shot: Shot, seen: dict[int, _Best]
) -> list[dict[str, Any]]:
    """Rows of the truth for those whom a frame shows; keeps in `seen` the best frame of each so far."""
    rows = []
    for k, somebody in posed.items():
        box, pixels = filming.box(camera, somebody), int((shot.person == k).sum())
        if box is None or pixels < LEAST_PIXELS:
            continue
        visible = round(filming.visible(camera, somebody, k, shot.person), 3)
        rows.append({"id": k + 1, "box_xywh_px": box, "pixels": pixels, "visible": visible})
        if k not in seen or pixels > seen[k].pixels:
            elevation = elevation_of(camera.position, somebody.vertices.mean(0))
            seen[k] = _Best(pixels, visible_parts(shot.person, shot.part, k), elevation)
    return rows


def _person(k: int, walker: Walker, best: _Best, seed: int) -> dict[str, Any]:
    words = np.random.default_rng([seed, 3, k])
    texts = captions(walker.figure.person, best.parts, best.elevation_deg, words, 2, complete=True)
    return {"id": k + 1, "captions": texts, "attributes": to_json(walker.figure.person)}

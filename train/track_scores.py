"""How well the tracker keeps people apart on rendered scenes: IDF1 and MOTA by py-motmetrics.

    tagclip synth scene hover.mp4 --people 12 --seconds 15 --altitude 15 --pitch 40 --size 768x576 --hover --seed 1
    python -m tagclip.train.track_scores hover.mp4

The boxes are the truth's, made worse as a detector makes them: they tremble, the less of a person is seen the more
often nobody is found, and now and then there is a box where nobody is.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.association import iou
from tagclip.runtime.boxes import Detections
from tagclip.runtime.errors import DataError
from tagclip.runtime.source import VideoSource
from tagclip.runtime.tracker import Tracker

TREMBLE = 0.04  # of the height, one standard deviation, on each side
MISSED = 0.1  # of the people who are wholly seen; who is half seen is missed half the time
FALSE_ALARMS = 0.1  # a frame
LEAST_VISIBLE = 0.25  # who is seen less is neither asked for nor counted against the tracker
LEAST_HEIGHT_PX = 24.0

Floats = NDArray[np.float32]


def detected(people: list[dict[str, Any]], size_px: tuple[int, int], rng: np.random.Generator) -> Detections:
    """What a detector might make of the truth of one frame."""
    rows = []
    for person in people:
        x, y, w, h = person["box_xywh_px"]
        if rng.random() < max(MISSED, 1.0 - person["visible"]):
            continue
        left, top, right, bottom = np.array([x, y, x + w, y + h]) + rng.normal(0, TREMBLE * h, 4)
        rows.append([left, top, max(right - left, 2.0), max(bottom - top, 4.0), rng.uniform(0.4, 1.0)])
    if rng.random() < FALSE_ALARMS:
        h = rng.uniform(20, 100)
        rows.append(
            [
                rng.uniform(0, size_px[0] - h / 2),
                rng.uniform(0, size_px[1] - h),
                0.4 * h,
                h,
                rng.uniform(0.3, 0.7),
            ]
        )
    found = np.array(rows, np.float32).reshape(-1, 5)
    return Detections(found[:, :4], found[:, 4])


def score(video: Path, *, camera_moves: bool, seed: int = 0) -> dict[str, float]:
    """IDF1, MOTA, and how often a person's track changes, in one scene.

    Args:
        video: of `tagclip synth scene`, its truth beside it.
        camera_moves: as in `Tracker`.
        seed: of the detector's faults.

    Raises:
        DataError: there is no truth beside the video.
        SourceError: the video cannot be read.
    """
    truth = _truth(video)
    frames = {frame["frame"]: frame["people"] for frame in truth["frames"]}
    rng, tracker = np.random.default_rng(seed), Tracker(camera_moves=camera_moves)
    size_px = (truth["width_px"], truth["height_px"])
    for frame in VideoSource(video):
        tracker.update(frame, detected(frames.get(frame.index, []), size_px, rng).usable())
    told: dict[int, list[tuple[int, Any]]] = {}
    for track in tracker.finish():
        for seen in track.observations:
            if seen.observed:
                told.setdefault(seen.frame, []).append((track.id, seen.box_xywh_px))
    return _judged(frames, told)


def _judged(
    frames: dict[int, list[dict[str, Any]]], told: dict[int, list[tuple[int, Any]]]
) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its dependencies' deprecations are not ours
        import motmetrics

        book = motmetrics.MOTAccumulator(auto_id=True)
        for number in sorted(frames):
            people, tracks = frames[number], told.get(number, [])
            asked = [
                p for p in people if p["visible"] >= LEAST_VISIBLE and p["box_xywh_px"][3] >= LEAST_HEIGHT_PX
            ]
            other = _boxes([p["box_xywh_px"] for p in people if p not in asked])
            here = _boxes([p["box_xywh_px"] for p in asked])
            boxes = _boxes([box for _, box in tracks])
            # A track of somebody who is not asked for counts for nothing.
            best, ignored = iou(boxes, here).max(1, initial=0), iou(boxes, other).max(1, initial=0)
            kept = (best >= 0.5) | (ignored < 0.5)
            apart = 1.0 - iou(here, boxes[kept]).astype(np.float64)
            apart[apart > 0.5] = np.nan
            ids = [identity for (identity, _), keep in zip(tracks, kept, strict=True) if keep]
            book.update([p["id"] for p in asked], ids, apart)
        row = motmetrics.metrics.create().compute(book, metrics=["idf1", "mota", "num_switches"]).iloc[0]
    return {"idf1": float(row.idf1), "mota": float(row.mota), "switches": int(row.num_switches)}


def _boxes(rows: list[Any]) -> Floats:
    return np.array(rows, np.float32).reshape(-1, 4)


def _truth(video: Path) -> dict[str, Any]:
    path = video.with_suffix(".json")
    try:
        truth: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: expected the truth that `tagclip synth scene` writes beside its video: {error}"
        ) from error
    return truth


@click.command()
@click.argument("videos", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--seed", default=0, show_default=True, help="Of the detector's faults.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def main(videos: tuple[Path, ...], seed: int, as_json: bool) -> None:
    """Score the tracker on scenes, with and without knowing how the camera moves."""
    from tagclip.runtime.terminal import aligned

    scores = {
        str(video): {
            name: score(video, camera_moves=moves, seed=seed)
            for name, moves in (("with", True), ("without", False))
        }
        for video in videos
    }
    if as_json:
        click.echo(json.dumps(scores, indent=2))
        return
    rows = [("scene", "camera's motion", "IDF1", "MOTA", "switches")]
    for video, both in scores.items():
        rows += [
            (video, name, f"{100 * s['idf1']:.1f}", f"{100 * s['mota']:.1f}", f"{s['switches']}")
            for name, s in both.items()
        ]
    click.echo(aligned(rows, left={0, 1}))


if __name__ == "__main__":
    from tagclip.runtime.cli import run

    run(main, "python -m tagclip.train.track_scores", sys.argv[1:])

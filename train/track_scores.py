"""How well the tracker keeps people apart on rendered scenes: IDF1, MOTA and identity switches by py-motmetrics.

    tagclip synth scene hover.mp4 --people 12 --seconds 15 --altitude 15 --pitch 40 --size 768x576 --hover --seed 1
    python -m tagclip.train.track_scores hover.mp4

The boxes are the truth's, made worse as a detector makes them: they tremble, the less of a person is seen the more
often nobody is found, for several frames together, and now and then there is a box where nobody is. With `--detector`
they are a detector's own.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.association import iou
from tagclip.runtime.boxes import Detections
from tagclip.runtime.errors import DataError, OutputError
from tagclip.runtime.source import Frame, VideoSource
from tagclip.runtime.tracker import Tracker

TREMBLE = 0.04  # of the height, one standard deviation, on each side
MISSED = 0.1  # of the people who are wholly seen; who is half seen is missed half the time
MISSED_FRAMES = (
    5  # after so many on average it is drawn anew whether somebody is hard to find: misses come in runs
)
FALSE_ALARMS = 0.1  # a frame
LEAST_VISIBLE = 0.25  # who is seen less is neither asked for nor counted against the tracker
BANDS_PX = {"all": (24.0, np.inf), "small": (10.0, 24.0)}  # heights of the people who are asked for
SAME_IOU = 0.5

Floats = NDArray[np.float32]
Finder = Callable[[Frame], Detections]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Seen:
    """One frame as it is judged: who was there and what the tracker said, each an identity and x, y, w, h."""

    frame: int
    people: list[tuple[int, Box]]
    tracks: list[tuple[int, Box]]


def detected(
    people: list[dict[str, Any]], size_px: tuple[int, int], rng: np.random.Generator, luck: dict[int, float]
) -> Detections:
    """What a detector might make of the truth of one frame.

    Args:
        luck: in [0, 1), of each person by identity; kept and changed from frame to frame, empty at first. Who has less
            than the chance to be missed is.
    """
    rows = []
    for person in people:
        x, y, w, h = person["box_xywh_px"]
        if person["id"] not in luck or rng.random() < 1 / MISSED_FRAMES:
            luck[person["id"]] = rng.random()
        if luck[person["id"]] < max(MISSED, 1.0 - person["visible"]):
            continue
        left, top, right, bottom = np.array([x, y, x + w, y + h]) + rng.normal(0, TREMBLE * h, 4)
        rows.append([left, top, max(right - left, 2.0), max(bottom - top, 4.0), rng.uniform(0.4, 1.0)])
    if rng.random() < FALSE_ALARMS:
        h = rng.uniform(20, 100)
        left, top = rng.uniform(0, size_px[0] - h / 2), rng.uniform(0, size_px[1] - h)
        rows.append([left, top, 0.4 * h, h, rng.uniform(0.3, 0.7)])
    found = np.array(rows, np.float32).reshape(-1, 5)
    return Detections(found[:, :4], found[:, 4])


def simulated(truth: dict[str, Any], seed: int) -> Finder:
    """A detector that knows the truth, and errs by `seed`."""
    people = {frame["frame"]: frame["people"] for frame in truth["frames"]}
    size_px, rng = (truth["width_px"], truth["height_px"]), np.random.default_rng(seed)
    luck: dict[int, float] = {}
    return lambda frame: detected(people.get(frame.index, []), size_px, rng, luck)


def followed(
    video: Path, finder: Finder, *, camera_moves: bool
) -> tuple[dict[int, list[tuple[int, Box]]], float]:
    """Tracks of a video by frame, only what was observed, and the tracker's milliseconds a frame (processor time).

    Args:
        camera_moves: as in `Tracker`.

    Raises:
        SourceError: the video cannot be read.
    """
    tracker, spent_s, frames = Tracker(camera_moves=camera_moves), 0.0, 0
    for frame in VideoSource(video):
        found = finder(frame).usable()
        start_s = time.process_time()
        tracker.update(frame, found)
        spent_s += time.process_time() - start_s
        frames += 1
    told: dict[int, list[tuple[int, Box]]] = {}
    for track in tracker.finish():
        for seen in track.observations:
            if seen.observed:
                told.setdefault(seen.frame, []).append((track.id, seen.box_xywh_px))
    return told, 1000 * spent_s / max(frames, 1)


def asked(
    truth: dict[str, Any], told: dict[int, list[tuple[int, Box]]], band_px: tuple[float, float]
) -> list[Seen]:
    """The frames, of the people only those whose height is in `band_px` and of whom enough is seen.

    A track on somebody who is not asked for, and one on nobody whose height is outside of the band, counts for nothing,
    neither for nor against the tracker.
    """
    frames = []
    for frame in truth["frames"]:
        people: list[tuple[int, Box]] = []
        others: list[tuple[int, Box]] = []
        for person in frame["people"]:
            box = person["box_xywh_px"]
            wanted = person["visible"] >= LEAST_VISIBLE and band_px[0] <= box[3] < band_px[1]
            (people if wanted else others).append((person["id"], tuple(box)))
        tracks = told.get(frame["frame"], [])
        best = iou(_boxes(tracks), _boxes(people)).max(1, initial=0)
        ignored = iou(_boxes(tracks), _boxes(others)).max(1, initial=0)
        height_px = _boxes(tracks)[:, 3]
        inside = (band_px[0] <= height_px) & (height_px < band_px[1])
        kept = (best >= SAME_IOU) | ((ignored < SAME_IOU) & inside)
        frames.append(
            Seen(frame["frame"], people, [row for row, keep in zip(tracks, kept, strict=True) if keep])
        )
    return frames


def judged(frames: list[Seen]) -> dict[str, float]:
    """How well the tracks are the people's.

    Returns:
        idf1, mota, up to 1; f1, of the boxes alone, which idf1 would be if all identities were right; NaN where nobody
        was asked for. switches; boxes, of the people.
    """
    boxes = sum(len(frame.people) for frame in frames)
    if not boxes:
        return {"idf1": np.nan, "f1": np.nan, "mota": np.nan, "switches": 0, "boxes": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its dependencies' deprecations are not ours
        import motmetrics

        book = motmetrics.MOTAccumulator(auto_id=True)
        for frame in frames:
            apart = 1.0 - iou(_boxes(frame.people), _boxes(frame.tracks)).astype(np.float64)
            apart[apart > 1.0 - SAME_IOU] = np.nan
            book.update([who for who, _ in frame.people], [who for who, _ in frame.tracks], apart)
        row = (
            motmetrics.metrics.create()
            .compute(book, metrics=["idf1", "mota", "num_switches", "num_misses"])
            .iloc[0]
        )
    same = boxes - int(row.num_misses)
    return {
        "idf1": float(row.idf1),
        "f1": 2 * same / (boxes + sum(len(frame.tracks) for frame in frames)),
        "mota": float(row.mota),
        "switches": int(row.num_switches),
        "boxes": boxes,
    }


def write_mot(folder: Path, name: str, truth: dict[str, Any], frames: list[Seen]) -> None:
    """Add a scene to `folder` as TrackEval reads it: gt/NAME, trackers/tagclip/data/NAME.txt, seqmap.txt.

    Raises:
        OutputError: it cannot be written.
    """
    rows = {"gt": "".join(_lines(frame.frame, frame.people, "1,1,1") for frame in frames)}
    rows["tracks"] = "".join(_lines(frame.frame, frame.tracks, "1,-1,-1,-1") for frame in frames)
    gt, tracks, seqmap = folder / "gt" / name, folder / "trackers" / "tagclip" / "data", folder / "seqmap.txt"
    try:
        (gt / "gt").mkdir(parents=True, exist_ok=True)
        tracks.mkdir(parents=True, exist_ok=True)
        (gt / "gt" / "gt.txt").write_text(rows["gt"], encoding="ascii")
        (gt / "seqinfo.ini").write_text(
            f"[Sequence]\nname={name}\nseqLength={len(truth['frames'])}\n", encoding="utf-8"
        )
        (tracks / f"{name}.txt").write_text(rows["tracks"], encoding="ascii")
        known = seqmap.read_text(encoding="utf-8").split() if seqmap.exists() else ["name"]
        seqmap.write_text("\n".join([*known, *({name} - set(known))]) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write the tracks to {folder}: {error}") from error


def _lines(frame: int, rows: list[tuple[int, Box]], rest: str) -> str:
    return "".join(
        f"{frame + 1},{who},{','.join(f'{value:.6g}' for value in box)},{rest}\n" for who, box in rows
    )


def _boxes(rows: list[tuple[int, Box]]) -> Floats:
    return np.array([box for _, box in rows], np.float32).reshape(-1, 4)


def truth_of(video: Path) -> dict[str, Any]:
    """The truth beside a video of `tagclip synth scene`.

    Raises:
        DataError: there is none, or it is none.
    """
    path = video.with_suffix(".json")
    try:
        truth: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: expected the truth that `tagclip synth scene` writes beside its video: {error}"
        ) from error
    return truth


def scores(
    video: Path, *, camera_moves: bool, trials: int = 1, detector: str | None = None, mot: Path | None = None
) -> dict[str, Any]:
    """What `judged` says of one scene for each of BANDS_PX, and `ms` a frame.

    Args:
        trials: how many times the simulated detector is tried, with seeds from 0; numbers are means, and `range` is
            of idf1.
        detector: instead of the simulated one, as `--detector` of `tagclip run`; then once is enough.
        mot: see `write_mot`; of the people of 24 pixels and more, in the first trial.

    Raises:
        DataError, SourceError, OutputError: see `truth_of`, `followed`, `write_mot`.
        ConfigError, EngineError, MissingExtraError: of the detector.
    """
    truth = truth_of(video)
    rows: list[dict[str, Any]] = []
    for seed in range(trials if detector is None else 1):
        finder = simulated(truth, seed) if detector is None else _network(video, detector)
        told, ms = followed(video, finder, camera_moves=camera_moves)
        seen = {name: asked(truth, told, band) for name, band in BANDS_PX.items()}
        if mot is not None and seed == 0:
            write_mot(mot, video.stem, truth, seen["all"])
        rows.append({name: judged(frames) for name, frames in seen.items()} | {"ms": ms})
    result: dict[str, Any] = {"ms": float(np.mean([row["ms"] for row in rows]))}
    for name in BANDS_PX:
        result[name] = {key: float(np.mean([row[name][key] for row in rows])) for key in rows[0][name]}
        each = [row[name]["idf1"] for row in rows]
        result[name]["range"] = [min(each), max(each)]
    return result


def _network(video: Path, name: str) -> Finder:
    from tagclip.runtime.detectors import detector_of, graph_of

    return detector_of(VideoSource(video), None, graph_of(name)).detect


def table(told: dict[str, dict[str, Any]]) -> list[tuple[str, ...]]:
    """Rows of text, the head first."""
    rows: list[tuple[str, ...]] = [
        ("scene", "people", "camera's motion", "IDF1", "from", "to", "F1", "MOTA", "switches", "boxes", "ms")
    ]
    for video, both in told.items():
        for (way, one), band in ((item, band) for item in both.items() for band in BANDS_PX):
            if one[band]["boxes"]:
                low_px, high_px = BANDS_PX[band]
                people = f"{low_px:g} px up" if np.isinf(high_px) else f"{low_px:g} to {high_px:g} px"
                shares = [one[band]["idf1"], *one[band]["range"], one[band]["f1"], one[band]["mota"]]
                numbers = [f"{one[band]['switches']:.1f}", f"{one[band]['boxes']:.0f}", f"{one['ms']:.1f}"]
                rows.append((video, people, way, *(f"{100 * share:.1f}" for share in shares), *numbers))
    return rows


@click.command()
@click.argument("videos", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "--trials", default=5, show_default=True, type=click.IntRange(1), help="Of the simulated detector."
)
@click.option("--detector", metavar="NAME", help="Find people with this, as `tagclip run --detector` does.")
@click.option(
    "--mot",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also write truth and tracks for TrackEval.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def main(
    videos: tuple[Path, ...], trials: int, detector: str | None, mot: Path | None, as_json: bool
) -> None:
    """Score the tracker on scenes, with and without knowing how the camera moves."""
    import cv2

    from tagclip.runtime.terminal import aligned

    cv2.setNumThreads(1)  # the time a frame is that of one core
    told = {
        str(video): {
            name: scores(
                video, camera_moves=moves, trials=trials, detector=detector, mot=mot if moves else None
            )
            for name, moves in (("with", True), ("without", False))
        }
        for video in videos
    }
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    click.echo(aligned(table(told), left={0, 1, 2}))


if __name__ == "__main__":
    from tagclip.runtime.cli import run

    run(main, "python -m tagclip.train.track_scores", sys.argv[1:])

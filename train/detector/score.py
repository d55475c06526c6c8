"""How well a detector finds people in pictures that training never saw: AP by pycocotools.

    python -m tagclip.train.detector.score runtime/data/person.onnx data/stills
    python -m tagclip.train.detector.score runtime/data/person.onnx hover.mp4 moving.mp4

The pictures are the held-out ones of folders of stills, or frames of scenes. The graph is run as the device runs it.
Who hardly shows is neither to be found nor missed. Bands are heights in pixels.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.boxes import Detector
from tagclip.runtime.errors import TagclipError
from tagclip.runtime.onnx_detector import OnnxDetector
from tagclip.runtime.source import Frame, VideoSource
from tagclip.train.detector.pictures import SURE_VISIBLE, Boxes, Images, Still, read, read_stills
from tagclip.train.progress import Tick, bar
from tagclip.train.track_scores import truth_of

BANDS_PX = {"all": (8.0, 1e5), "24 and more": (24.0, 1e5), "8 to 16": (8.0, 16.0), "16 to 24": (16.0, 24.0)}
BANDS_PX |= {"24 to 48": (24.0, 48.0), "48 to 96": (48.0, 96.0), "96 and more": (96.0, 1e5)}

SCENE_STEP = 5  # every fifth frame; those between are nearly the same
LEAST_SCORE = 0.02  # AP ranks by score, and wants nearly all of them


@dataclass(frozen=True)
class Look:
    """A picture, RGB uint8 (H, W, 3), with boxes (n, 4) left, top, right, bottom in pixels, and visible shares (n,)."""

    image: Images
    boxes: Boxes
    visible: NDArray[np.float32]


def looks_at_stills(stills: list[Still]) -> Iterator[Look]:
    """Each still as a whole. Raises: DataError."""
    for still in stills:
        yield Look(read(still), still.boxes, still.visible)


def looks_at_scene(video: Path, truth: dict[str, Any]) -> Iterator[Look]:
    """Every `SCENE_STEP`th frame of a video of `tagclip synth scene`; `truth` is what stands beside it.

    Raises:
        SourceError: the video cannot be read.
    """
    people = {frame["frame"]: frame["people"] for frame in truth["frames"]}
    for frame in VideoSource(video):
        if frame.index % SCENE_STEP == 0:
            rows = people.get(frame.index, [])
            boxes = np.array([row["box_xywh_px"] for row in rows], np.float32).reshape(-1, 4)
            boxes[:, 2:] += boxes[:, :2]
            yield Look(frame.image, boxes, np.array([row["visible"] for row in rows], np.float32))


def score(
    detector: Detector, looks: Iterable[Look], count: int = 0, tick: Tick = lambda *_: None
) -> dict[str, dict[str, float]]:
    """By band: `ap50`, `ap` (mean over IoU 0.5 to 0.95), `recall` at IoU 0.5 of all boxes, and `people`; 0 to 1.

    Args:
        count: of looks, as far as `tick` is to know.
    """
    truth: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": [], "categories": [{"id": 1}]}
    found: list[dict[str, Any]] = []
    for number, look in enumerate(looks):
        image = look.image
        truth["images"].append({"id": number, "height": image.shape[0], "width": image.shape[1]})
        for box, visible in zip(look.boxes, look.visible, strict=True):
            left, top, right, bottom = map(float, box)
            truth["annotations"].append(
                {
                    "id": len(truth["annotations"]) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "bbox": [left, top, right - left, bottom - top],
                    "area": (bottom - top) ** 2,  # so that COCO's bands of area are bands of height
                    "iscrowd": int(visible < SURE_VISIBLE),
                }
            )
        people = detector.detect(Frame(number, float(number), image))
        for at, sure in zip(people.boxes_xywh_px, people.scores, strict=True):
            row = {"image_id": number, "category_id": 1, "bbox": list(map(float, at)), "score": float(sure)}
            found.append(row)
        tick("score", number + 1, count, "")
    return _by_coco(truth, found)


def _by_coco(truth: dict[str, Any], found: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        ours = COCO()
        ours.dataset = truth | {"info": {}}
        ours.createIndex()
        theirs = ours.loadRes(found) if found else COCO()
        if not found:
            theirs.dataset = truth | {"annotations": []}
            theirs.createIndex()
        for row in theirs.dataset["annotations"]:
            row["area"] = row["bbox"][3] ** 2
        run = COCOeval(ours, theirs, "bbox")
        run.params.areaRng = [[low**2, high**2] for low, high in BANDS_PX.values()]
        run.params.areaRngLbl = list(BANDS_PX)
        run.params.maxDets = [100]
        run.evaluate()
        run.accumulate()
    heights = [row["bbox"][3] for row in truth["annotations"] if not row["iscrowd"]]
    result = {}
    for k, (name, (low, high)) in enumerate(BANDS_PX.items()):
        precision = run.eval["precision"][:, :, 0, k, 0]  # (IoU, recall)
        recall = run.eval["recall"][0, 0, k, 0]
        result[name] = {
            "ap50": float(precision[0].mean()),
            "ap": float(precision.mean()),
            "recall": float(recall),
            "people": float(sum(low <= height <= high for height in heights)),
        }
    return result


def score_all(graph: Path, pictures: list[Path], tick: Tick = lambda *_: None) -> dict[str, dict[str, float]]:
    """What `score` says of a graph, of all `pictures` together: folders of stills, or scenes that end in .mp4.

    Raises:
        DataError, SourceError: a folder or a scene cannot be read. ConfigError, EngineError: of the detector.
    """
    scenes = [(path, truth_of(path)) for path in pictures if path.suffix == ".mp4"]
    folders = [path for path in pictures if path.suffix != ".mp4"]
    stills = read_stills(*folders)[1] if folders else []
    count = len(stills) + sum(-(-len(truth["frames"]) // SCENE_STEP) for _, truth in scenes)
    looks = chain(looks_at_stills(stills), *(looks_at_scene(*scene) for scene in scenes))
    first = next(looks)
    height, width = first.image.shape[:2]
    detector = OnnxDetector(graph, (width, height), min_score=LEAST_SCORE)
    return score(detector, chain([first], looks), count, tick)


@click.command()
@click.argument("graph", type=click.Path(path_type=Path))
@click.argument("pictures", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON.")
def main(graph: Path, pictures: tuple[Path, ...], as_json: bool) -> None:
    """Score the detector GRAPH on PICTURES: held-out stills of folders, and scenes."""
    try:
        with bar() as tick:
            numbers = score_all(graph, list(pictures), tick)
    except TagclipError as error:
        raise SystemExit(f"error: {error}") from error
    if as_json:
        click.echo(json.dumps(numbers))
        return
    click.echo(f"{'height, pixels':<16}{'people':>8}{'AP50':>8}{'AP':>8}{'recall':>8}")
    for name, row in numbers.items():
        click.echo(
            f"{name:<16}{row['people']:>8.0f}{row['ap50']:>8.3f}{row['ap']:>8.3f}{row['recall']:>8.3f}"
        )


if __name__ == "__main__":
    sys.exit(main())

"""How well a detector finds people in the stills that training never saw: AP by pycocotools.

    python -m tagclip.train.detector.score runtime/data/person.onnx data/stills

The graph is run as the device runs it. Who hardly shows is neither to be found nor missed. Bands are heights in pixels.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import click

from tagclip.runtime.boxes import Detector
from tagclip.runtime.errors import TagclipError
from tagclip.runtime.onnx_detector import OnnxDetector
from tagclip.runtime.source import Frame
from tagclip.train.detector.pictures import SURE_VISIBLE, Still, read, read_stills
from tagclip.train.progress import Tick, bar

BANDS_PX = {"all": (8.0, 1e5), "24 and more": (24.0, 1e5), "8 to 16": (8.0, 16.0), "16 to 24": (16.0, 24.0)}
BANDS_PX |= {"24 to 48": (24.0, 48.0), "48 to 96": (48.0, 96.0), "96 and more": (96.0, 1e5)}

LEAST_SCORE = 0.02  # AP ranks by score, and wants nearly all of them


def score(
    detector: Detector, stills: list[Still], tick: Tick = lambda *_: None
) -> dict[str, dict[str, float]]:
    """By band: `ap50`, `ap` (mean over IoU 0.5 to 0.95), `recall` at IoU 0.5 of all boxes, and `people`; 0 to 1."""
    truth: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": [], "categories": [{"id": 1}]}
    found: list[dict[str, Any]] = []
    for number, still in enumerate(stills):
        image = read(still)
        truth["images"].append({"id": number, "height": image.shape[0], "width": image.shape[1]})
        for box, visible in zip(still.boxes, still.visible, strict=True):
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
        tick("score", number + 1, len(stills), "")
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


@click.command()
@click.argument("graph", type=click.Path(path_type=Path))
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON.")
def main(graph: Path, folders: tuple[Path, ...], as_json: bool) -> None:
    """Score the detector GRAPH on the held-out stills of FOLDERS."""
    try:
        _, held_out = read_stills(*folders)
        image = read(held_out[0])
        with bar() as tick:
            detector = OnnxDetector(graph, (image.shape[1], image.shape[0]), min_score=LEAST_SCORE)
            numbers = score(detector, held_out, tick)
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

"""`tagclip search`: find people in a video or a folder by a description."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tagclip.runtime.boxes import Detector
    from tagclip.runtime.search import Encoders, Hit, SearchResult
    from tagclip.runtime.source import FolderSource, VideoSource

SAMPLES = 25


@click.command()
@click.argument("text")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--bundle", type=click.Path(path_type=Path), help="Folder of the encoders.  [default: ours]")
@click.option("--top", default=5, show_default=True, type=click.IntRange(1), help="How many results.")
@click.option(
    "--view",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "aerial", "ground"]),
    help="Where the camera looks from; auto averages both encoders.",
)
@click.option(
    "--detector",
    default=None,
    type=click.Choice(["motion", "boxes"]),
    help="What finds people in a video: motion (fixed cameras) or a file of boxes.  [default: motion]",
)
@click.option("--boxes", type=click.Path(path_type=Path), help="MOT text, or JSON of `tagclip synth scene`.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder to make: sheet, crops, video, JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def search(
    text: str,
    source: Path,
    bundle: Path | None,
    top: int,
    view: str,
    detector: str | None,
    boxes: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Find people by description in a video, or in a folder of pictures of people.

    TEXT describes clothing and carried things: "a woman in a light blue jacket with a black bag".
    SOURCE is a video file, an image, or a folder of images with one person each.
    """
    if detector == "boxes" and boxes is None:
        raise click.UsageError("--detector boxes needs --boxes FILE")
    if detector == "motion" and boxes is not None:
        raise click.UsageError("--boxes goes with --detector boxes; drop one of the two")

    from tagclip.runtime.query import check_query
    from tagclip.runtime.search import search_folder, search_video
    from tagclip.runtime.source import VideoSource, open_source

    query = check_query(text)
    if out is not None:
        _check_out(out)
    opened = open_source(source)
    if isinstance(opened, VideoSource):
        finder = _detector(opened, boxes)
        encoders = _encoders(bundle, view)
        shown = Progress("searching", "frames")
        result = search_video(
            opened, finder, query, encoders, top=top, drop_still=boxes is None, progress=shown.update
        )
    else:
        if boxes is not None or detector is not None:
            raise click.UsageError(f"{source} holds images of one person each: no --detector, no --boxes")
        encoders = _encoders(bundle, view)
        shown = Progress("searching", "images")
        result = search_folder(opened, query, encoders, top=top, progress=shown.update)
    shown.end()
    crop_paths = _write_out(out, opened, result) if out is not None else None
    if as_json:
        click.echo(json.dumps(result.to_json(crop_paths), ensure_ascii=False, indent=2))
    else:
        click.echo(table(result.hits))
    click.echo(_compared(result, isinstance(opened, VideoSource)), err=True)
    for warning in result.warnings:
        click.echo(f"warning: {warning}", err=True)
    if out is not None:
        click.echo(f"written: {out}", err=True)


def table(hits: list[Hit]) -> str:
    """The hits as aligned text; one line that says so when there is none."""
    if not hits:
        return "nobody found"
    if hits[0].track is None:
        rows = [("rank", "score", "image")]
        rows += [(str(hit.rank), f"{hit.score:.3f}", str(hit.path)) for hit in hits]
        return _aligned(rows, left={2})
    rows_video = [("rank", "score", "track", "time", "frame", "box x,y,w,h")]
    for hit in hits:
        assert hit.track is not None  # hits of one search are all of one kind
        best = hit.crops[0]
        rows_video.append(
            (
                str(hit.rank),
                f"{hit.score:.3f}",
                str(hit.track.id),
                f"{clock(hit.track.start_s)}-{clock(hit.track.end_s)}",
                str(best.frame),
                ",".join(str(round(value)) for value in best.box_xywh_px),
            )
        )
    return _aligned(rows_video, left={3, 5})


def clock(time_s: float) -> str:
    """Seconds as m:ss, or h:mm:ss from one hour on."""
    minutes, seconds = divmod(int(time_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _aligned(rows: Sequence[tuple[str, ...]], left: set[int]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _compared(result: SearchResult, video: bool) -> str:
    one, many = ("person", "people") if video else ("image", "images")
    return f"{result.searched} {one if result.searched == 1 else many} compared"


def _check_out(out: Path) -> None:
    """Say before the work, not after it, that the results have no place to go."""
    from tagclip.runtime.errors import OutputError

    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file, expected a folder to make; choose another name")
    if out.exists() and any(out.iterdir()):
        raise OutputError(f"{out} exists and is not empty; remove it or choose another name")


def _encoders(bundle: Path | None, view: str) -> Encoders:
    from tagclip.runtime.bundle import open_bundle
    from tagclip.runtime.encoder import ImageEncoder, TextEncoder
    from tagclip.runtime.search import Encoders

    opened = open_bundle(bundle)
    encoders = Encoders(ImageEncoder(opened, view), TextEncoder(opened), opened.encoder_id, view)
    if view == "auto":
        click.echo(
            "view unknown: both encoders averaged; pass --view aerial or --view ground if you know it",
            err=True,
        )
    return encoders


def _detector(source: VideoSource, boxes: Path | None) -> Detector:
    from tagclip.runtime.boxes import FileBoxes
    from tagclip.runtime.motion import MotionDetector

    if boxes is not None:
        return FileBoxes(boxes)
    return MotionDetector(source.width_px, source.height_px, source.fps, source.sample(SAMPLES))


def _write_out(out: Path, source: VideoSource | FolderSource, result: SearchResult) -> list[str]:
    """Write the folder of results; returns the crops' paths as they are once it stands."""
    import cv2

    from tagclip.runtime.annotate import write_annotated
    from tagclip.runtime.errors import OutputError
    from tagclip.runtime.files import folder_atomic
    from tagclip.runtime.sheet import Card, draw_sheet
    from tagclip.runtime.source import Image, VideoSource, read_image

    def encoded(image: Image, suffix: str) -> bytes:
        ok, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        if not ok:
            raise OutputError(f"this OpenCV cannot write {suffix} files")
        return bytes(data)

    cards, names = [], []
    with folder_atomic(out) as work:
        (work / "crops").mkdir()
        for hit in result.hits:
            if hit.track is not None:
                images = [crop.image for crop in hit.crops]
                lines = [
                    f"track {hit.track.id}, best at {clock(hit.crops[0].time_s)}",
                    f"seen {clock(hit.track.start_s)} - {clock(hit.track.end_s)}",
                ]
            else:
                assert hit.path is not None
                image = read_image(hit.path)
                if image is None:
                    raise OutputError(f"{hit.path} changed while it was searched; search again")
                images, lines = [image], [hit.path.name]
            name = f"crops/{hit.rank:02d}.jpg"
            (work / name).write_bytes(encoded(images[0], ".jpg"))
            names.append(str(out / name))
            cards.append(Card(hit.rank, hit.score, lines, images))
        compared = _compared(result, isinstance(source, VideoSource))
        subtitle = f"{compared}, view {result.view}, encoder {result.encoder_id[:12]}"
        (work / "sheet.png").write_bytes(encoded(draw_sheet(result.query, subtitle, cards), ".png"))
        text = json.dumps(result.to_json(names), ensure_ascii=False, indent=2)
        (work / "results.json").write_text(text + "\n", encoding="utf-8")
        if isinstance(source, VideoSource):
            shown = Progress("drawing", "frames")
            write_annotated(source, result.tracks, result.hits, work / "annotated.mp4", shown.update)
            shown.end()
    return names


class Progress:
    """One line on a terminal, rewritten in place, once the work takes longer than two seconds."""

    WAIT_S = 2.0
    EVERY_S = 0.25

    def __init__(self, doing: str, noun: str) -> None:
        self._doing, self._noun = doing, noun
        self._start_s = time.monotonic()
        self._last_s = self._start_s
        self._shown = False

    def update(self, done: int, total: int) -> None:
        """Say how far it is; `total` 0 is unknown."""
        now_s = time.monotonic()
        early = now_s - self._start_s < self.WAIT_S or now_s - self._last_s < self.EVERY_S
        if early or not sys.stderr.isatty():
            return
        self._last_s = now_s
        text = f"{self._doing}: {done} {self._noun}"
        if total >= done > 0:
            rest_s = (now_s - self._start_s) * (total - done) / done
            text = f"{self._doing}: {done} of {total} {self._noun}, {clock(rest_s + 0.5)} left"
        click.echo(f"\r{text:<60}", nl=False, err=True)
        self._shown = True

    def end(self) -> None:
        """Clear the line."""
        if self._shown:
            click.echo(f"\r{'':<60}\r", nl=False, err=True)

"""`tagclip search`: find people in a video or a folder by a description."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tagclip.runtime.key_cli import PICTURE_KEY

if TYPE_CHECKING:
    from tagclip.runtime.search import Encoders, Hit, SearchResult
    from tagclip.runtime.source import FolderSource, VideoSource


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
    "--engine",
    default="cpu",
    show_default=True,
    metavar="NAME",
    help="Of the encoders: cpu, cuda, ort-tensorrt, openvino, tensorrt, tensorrt-rtx; auto says which it took.",
)
@click.option(
    "--detector",
    default=None,
    metavar="motion|person|boxes|FILE.onnx",
    help="What finds people in a video: motion (fixed cameras), person (the network that ships), a file of boxes, "
    "or your ONNX graph with its contract.  [default: motion]",
)
@click.option("--boxes", type=click.Path(path_type=Path), help="MOT text, or JSON of `tagclip synth scene`.")
@click.option(
    "--after", help="Of a store: seen since; 2026-11-27T10:30 or 10:30 (local time), or 2h for so long ago."
)
@click.option("--before", help="Of a store: seen until.")
@click.option("--camera", "cameras", multiple=True, help="Of a store: by this camera; may be given again.")
@click.option("--near", metavar="LAT,LON,METRES", help="Of a store: within so many metres of a place.")
@PICTURE_KEY
@click.option("--out", type=click.Path(path_type=Path), help="Folder to make: sheet, crops, video, JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def search(
    text: str,
    source: Path,
    bundle: Path | None,
    top: int,
    view: str,
    engine: str,
    detector: str | None,
    boxes: Path | None,
    after: str | None,
    before: str | None,
    cameras: tuple[str, ...],
    near: str | None,
    picture_keys: tuple[Path, ...],
    out: Path | None,
    as_json: bool,
) -> None:
    """Find people by description in a video, a folder of pictures of people, or a device's store.

    TEXT describes clothing and carried things: "a woman in a light blue jacket with a black bag".
    SOURCE is a video file, an image, a folder of images with one person each, or a store of `tagclip run`.
    """
    if detector == "boxes" and boxes is None:
        raise click.UsageError("--detector boxes needs --boxes FILE")
    if detector not in (None, "boxes") and boxes is not None:
        raise click.UsageError("--boxes goes with --detector boxes; drop one of the two")

    from tagclip.runtime.detectors import MOTION, describe, detector_of, drop_still, graph_of
    from tagclip.runtime.files import check_target
    from tagclip.runtime.query import check_query
    from tagclip.runtime.search import search_folder, search_video
    from tagclip.runtime.search_store_cli import parse_where, search_stored
    from tagclip.runtime.source import VideoSource, open_source
    from tagclip.runtime.store_form import is_store
    from tagclip.runtime.terminal import Progress

    query = check_query(text)
    if out is not None:
        check_target(out)
    if is_store(source):
        if view != "auto" or detector or boxes:
            raise click.UsageError(f"{source} is a store: no --view, no --detector, no --boxes")
        where = parse_where(after, before, cameras, near)
        search_stored(query, source, where, bundle, top, out, as_json, engine, picture_keys)
        return
    if after or before or cameras or near or picture_keys:
        raise click.UsageError(
            f"--after, --before, --camera, --near and --picture-key ask a store; {source} is none"
        )
    opened = open_source(source)
    if isinstance(opened, VideoSource):
        graph = None if boxes else graph_of(detector or MOTION)
        finder = detector_of(opened, boxes, graph, engine)
        if graph is not None:
            click.echo(f"detector: {describe(finder)}", err=True)
        encoders = _encoders(bundle, view, engine)
        shown = Progress("searching", "frames")
        result = search_video(
            opened, finder, query, encoders, top=top, drop_still=drop_still(finder), progress=shown.update
        )
    else:
        if boxes is not None or detector is not None:
            raise click.UsageError(f"{source} holds images of one person each: no --detector, no --boxes")
        encoders = _encoders(bundle, view, engine)
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
    from tagclip.runtime.terminal import aligned, clock

    if not hits:
        return "nobody found"
    if hits[0].track is None:
        rows = [("rank", "score", "image")]
        rows += [(str(hit.rank), f"{hit.score:.3f}", str(hit.path)) for hit in hits]
        return aligned(rows, left={2})
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
    return aligned(rows_video, left={3, 5})


def _compared(result: SearchResult, video: bool) -> str:
    one, many = ("person", "people") if video else ("image", "images")
    return f"{result.searched} {one if result.searched == 1 else many} compared"


def _encoders(bundle: Path | None, view: str, engine: str) -> Encoders:
    from tagclip.runtime.bundle import open_bundle
    from tagclip.runtime.encoder import ImageEncoder, TextEncoder
    from tagclip.runtime.engines import Engines
    from tagclip.runtime.search import Encoders

    opened = open_bundle(bundle)
    engines = Engines(opened, engine)
    encoders = Encoders(
        ImageEncoder(opened, view, engine=engines),
        TextEncoder(opened, engine=engines),
        opened.encoder_id,
        view,
    )
    if engine == "auto":
        click.echo(f"the encoders run on {engines.name}", err=True)
    if view == "auto":
        click.echo(
            "view unknown: both encoders averaged; pass --view aerial or --view ground if you know it",
            err=True,
        )
    return encoders


def _write_out(out: Path, source: VideoSource | FolderSource, result: SearchResult) -> list[str]:
    """Write the folder of results; returns the crops' paths as they are once it stands."""
    from tagclip.runtime.annotate import write_annotated
    from tagclip.runtime.errors import OutputError
    from tagclip.runtime.files import folder_atomic
    from tagclip.runtime.sheet import Card, draw_sheet, image_bytes
    from tagclip.runtime.source import VideoSource, read_image
    from tagclip.runtime.terminal import Progress, clock

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
            (work / name).write_bytes(image_bytes(images[0], ".jpg"))
            names.append(str(out / name))
            cards.append(Card(hit.rank, hit.score, lines, images))
        compared = _compared(result, isinstance(source, VideoSource))
        subtitle = f"{compared}, view {result.view}, encoder {result.encoder_id[:12]}"
        (work / "sheet.png").write_bytes(image_bytes(draw_sheet(result.query, subtitle, cards), ".png"))
        text = json.dumps(result.to_json(names), ensure_ascii=False, indent=2)
        (work / "results.json").write_text(text + "\n", encoding="utf-8")
        if isinstance(source, VideoSource):
            shown = Progress("drawing", "frames")
            write_annotated(source, result.tracks, result.hits, work / "annotated.mp4", shown.update)
            shown.end()
    return names

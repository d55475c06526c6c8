"""`tagclip alerts export`: hits as maps, a contact sheet, and a video."""

from __future__ import annotations

import functools
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tagclip.runtime.key_cli import PICTURE_KEY

if TYPE_CHECKING:
    from tagclip.runtime.hit import Hit

PATH = click.Path(path_type=Path)


@click.command("export")
@click.argument("hits", metavar="HITS.jsonl", type=PATH)
@click.option("--kml", type=PATH, help="Write KML 2.2: pins, circles of the places' error, times.")
@click.option("--geojson", type=PATH, help="Write GeoJSON: a point a hit.")
@click.option("--cot", type=PATH, help="Write Cursor-on-Target: an event a line.")
@click.option("--sheet", type=PATH, help="Write a contact sheet, .png or .jpg; needs --store.")
@click.option("--store", type=PATH, help="The store of the run, for the sheet's pictures.")
@PICTURE_KEY
@click.option("--video", type=PATH, help="Write the video again with the hits' boxes, .mp4; needs --source.")
@click.option("--source", type=PATH, help="The video that the hits were found in.")
@click.option("--camera", help="Only hits of this camera.")
@click.option(
    "--review",
    type=click.Choice(["unreviewed", "confirmed", "rejected"]),
    help="Only hits of which a person said so.  [default: all]",
)
@click.option("--dry-run", is_flag=True, help="Say what would be written, write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def export(
    hits: Path,
    kml: Path | None,
    geojson: Path | None,
    cot: Path | None,
    sheet: Path | None,
    store: Path | None,
    picture_keys: tuple[Path, ...],
    video: Path | None,
    source: Path | None,
    camera: str | None,
    review: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Write the hits of a file to maps, a contact sheet, a video; of each hit the newest revision.

    Times in the maps are UTC, on the sheet local with their zone. Hits without a place are on no map. Each file takes
    its name when it is complete, and replaces one of that name.
    """
    outputs = {"kml": kml, "geojson": geojson, "cot": cot, "sheet": sheet, "video": video}
    targets = {name: path for name, path in outputs.items() if path is not None}
    _check_usage(targets, {"HITS.jsonl": hits, "--store": store, "--source": source})

    from tagclip.runtime.hit_log import HitReader
    from tagclip.runtime.hit_sheet import ranked

    reader = HitReader(hits)
    if reader.torn_bytes:
        click.echo(
            f"warning: {hits} ends in {reader.torn_bytes} bytes of a half-written hit; left out", err=True
        )
    chosen = [
        hit
        for hit in reader
        if (review is None or hit.review == review) and (camera is None or hit.camera == camera)
    ]
    written = _write(targets, ranked(chosen), store, picture_keys, source, dry_run)
    found = {"hits": len(reader), "chosen": len(chosen), "torn_bytes": reader.torn_bytes, "dry_run": dry_run}
    if as_json:
        click.echo(json.dumps({**found, "files": written}))
        return
    click.echo(f"{len(reader)} hits, {len(chosen)} of them chosen")
    for row in written:
        notes = [f"{row['left_out']} left out: {row['why']}"] if row["left_out"] else []
        notes += [f"{row['without_picture']} without a picture"] if row.get("without_picture") else []
        text = ", ".join([f"{row['hits']} hits", *notes])
        click.echo(f"{'would write' if dry_run else 'written'}: {row['path']} ({row['form']}): {text}")


def _check_usage(targets: dict[str, Path], inputs: dict[str, Path | None]) -> None:
    """Raises: click.UsageError, options that do not go together, or a file that would be overwritten."""
    if not targets:
        raise click.UsageError("name what to write: --kml, --geojson, --cot, --sheet or --video")
    for name, option in (("sheet", "--store"), ("video", "--source")):
        if (name in targets) != (inputs[option] is not None):
            raise click.UsageError(f"--{name} and {option} go together; name both or neither")
    for name, suffixes in (("sheet", (".png", ".jpg")), ("video", (".mp4",))):
        if name in targets and targets[name].suffix not in suffixes:
            raise click.UsageError(
                f"--{name} expects a name ending in {' or '.join(suffixes)}, found {targets[name]}"
            )
    taken = {path.resolve(): name for name, path in inputs.items() if path is not None}
    for name, path in targets.items():
        if other := taken.get(path.resolve()):
            raise click.UsageError(f"--{name} would overwrite {path}, which is {other}; choose another name")
        if path.is_dir():
            raise click.UsageError(f"--{name} expects a file, {path} is a folder")
        taken[path.resolve()] = f"--{name}"


def _write(
    targets: dict[str, Path],
    hits: list[Hit],
    store: Path | None,
    picture_keys: tuple[Path, ...],
    source: Path | None,
    dry_run: bool,
) -> list[dict[str, Any]]:
    """Write the files, those that may be refused for what they read first; a row of facts of each."""
    from tagclip.runtime import hit_maps
    from tagclip.runtime.files import write_atomic
    from tagclip.runtime.hit_sheet import MOST_CARDS, beyond_end, check_video, draw_hits, draw_video
    from tagclip.runtime.picture_key import read_picture_keys
    from tagclip.runtime.source import VideoSource
    from tagclip.runtime.store import TrackStore
    from tagclip.runtime.terminal import Progress

    opened = None if source is None else VideoSource(source)
    if opened is not None:
        check_video(hits, opened)
    rows: list[dict[str, Any]] = []
    if "sheet" in targets:
        assert store is not None
        path, why = targets["sheet"], f"a sheet has {MOST_CARDS}"
        with TrackStore(store, read_only=True, keys=read_picture_keys(picture_keys)) as kept:
            drawn = draw_hits(hits, kept, path.suffix)
        if not dry_run:
            write_atomic(path, drawn.data)
        row = _row("sheet", path, drawn.drawn, drawn.left_out, why)
        rows.append({**row, "without_picture": drawn.without_picture})
    lost = hit_maps.without_place(hits)
    cot = functools.partial(hit_maps.cot, now_s=time.time())
    for name, make in (("kml", hit_maps.kml), ("geojson", hit_maps.geojson), ("cot", cot)):
        if name in targets:
            if not dry_run:
                write_atomic(targets[name], make(hits))
            rows.append(_row(name, targets[name], len(hits) - lost, lost, "place unknown"))
    if opened is not None:
        path = targets["video"]
        # A container that does not say how long it is: only drawing will tell.
        beyond = beyond_end(hits, opened.fps, opened.frame_count) if opened.frame_count else 0
        if not dry_run:
            shown = Progress("drawing", "frames")
            beyond = draw_video(hits, opened, path, shown.update).left_out
            shown.end()
        rows.append(_row("video", path, len(hits) - beyond, beyond, "the video ends before them"))
    return rows


def _row(form: str, path: Path, hits: int, left_out: int, why: str) -> dict[str, Any]:
    return {
        "form": form,
        "path": str(path),
        "hits": hits,
        "left_out": left_out,
        "why": why if left_out else None,
    }

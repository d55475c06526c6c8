"""`tagclip run`: the device. It watches a camera's footage and keeps whom it saw."""

from __future__ import annotations

import functools
import time
from pathlib import Path

import click


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "--store", "path", type=click.Path(path_type=Path), required=True, help="File to keep people in."
)
@click.option("--camera", help="Name of the camera.  [default: the file's name]")
@click.option("--bundle", type=click.Path(path_type=Path), help="Folder of the encoders.  [default: ours]")
@click.option(
    "--view",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "aerial", "ground"]),
    help="Where the camera looks from; auto goes by the telemetry, without it both encoders are averaged.",
)
@click.option("--boxes", type=click.Path(path_type=Path), help="Boxes of the people, instead of motion.")
@click.option(
    "--start", help="When the footage begins; default so long before the file's last change as it lasts."
)
@click.option(
    "--place", metavar="LAT,LON,METRES", help="Where the camera stands, and how exactly that is known."
)
@click.option("--telemetry", type=click.Path(path_type=Path), help="Of a drone: .srt of DJI, .csv or .json.")
@click.option(
    "--altitude", type=float, help="Of the camera over the people's ground, metres, if it is fixed."
)
@click.option("--pitch", type=float, help="Degrees below the horizon, if it is fixed.")
@click.option("--yaw", type=float, help="Degrees clockwise from north, if it is fixed.")
@click.option("--fov", type=float, help="Horizontal field of view, degrees.")
@click.option(
    "--days", type=click.FloatRange(min=0), default=3.0, show_default=True, help="How long to keep people."
)
@click.option(
    "--max-gb",
    type=click.FloatRange(min=0.001),
    default=4.0,
    show_default=True,
    help="How large the store may get.",
)
def run(
    source: Path,
    path: Path,
    camera: str | None,
    bundle: Path | None,
    view: str,
    boxes: Path | None,
    start: str | None,
    place: str | None,
    telemetry: Path | None,
    altitude: float | None,
    pitch: float | None,
    yaw: float | None,
    fov: float | None,
    days: float,
    max_gb: float,
) -> None:
    """Watch SOURCE, a video file, and keep every person in a store that `tagclip search` answers from.

    A picture, a vector, times and places are kept, for --days days and up to --max-gb gigabytes; the oldest make room.
    """
    from tagclip.runtime.bundle import open_bundle
    from tagclip.runtime.encoder import ImageEncoder
    from tagclip.runtime.errors import SourceError
    from tagclip.runtime.search_cli import detector_of
    from tagclip.runtime.search_store_cli import parse_near
    from tagclip.runtime.source import VideoSource, open_source
    from tagclip.runtime.store import Retention, TrackStore
    from tagclip.runtime.store_track import Place
    from tagclip.runtime.telemetry import CameraPose, Telemetry, read_telemetry
    from tagclip.runtime.terminal import Progress
    from tagclip.runtime.watch import Camera, Watcher
    from tagclip.runtime.when import parse_when, show_when

    opened = open_source(source)
    if not isinstance(opened, VideoSource):
        raise SourceError(
            f"{source} holds pictures, expected a video; `tagclip search` looks through pictures"
        )
    if start:
        start_s = parse_when(start, time.time())
    else:
        start_s = source.stat().st_mtime - opened.frame_count / opened.fps
    where = Place(*parse_near(place, "--place")) if place else None
    fixed = CameraPose(
        latitude_deg=where.latitude_deg if where else None,
        longitude_deg=where.longitude_deg if where else None,
        altitude_m=altitude,
        pitch_deg=pitch,
        yaw_deg=yaw,
        field_of_view_deg=fov,
    )
    told = read_telemetry(telemetry, fixed) if telemetry else Telemetry(fixed=fixed)
    size_px = (opened.width_px, opened.height_px)
    known = Camera(camera or source.stem, view, start_s, size_px, where, told)
    encoders = open_bundle(bundle)
    shown = Progress("watching", "frames")
    with TrackStore(path, Retention(days, int(max_gb * 1e9))) as store:
        watcher = Watcher(
            known,
            detector_of(opened, boxes),
            functools.cache(lambda of: ImageEncoder(encoders, of)),
            encoders.encoder_id,
            store,
            boxes is None,
        )
        for frame in opened:
            watcher.see(frame)
            shown.update(frame.index + 1, opened.frame_count)
        watcher.end()
        shown.end()
        old = store.prune(time.time())
        click.echo(
            f"{watcher.people} people kept in {path}, seen by {known.name} from {show_when(start_s)} on"
        )
        if old or store.dropped:
            click.echo(
                f"{old} deleted that were seen more than {days:g} days ago (--days keeps them longer), "
                f"{store.dropped} to make room (--max-gb)",
                err=True,
            )
    for warning in opened.warnings:
        click.echo(f"warning: {warning}", err=True)

"""`tagclip run`: the device. It watches a camera's footage and keeps whom it saw."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from tagclip.runtime.key_cli import PICTURE_KEY


def _use_config(context: click.Context, _parameter: click.Parameter, path: Path | None) -> None:
    if path is not None and not context.resilient_parsing:
        from tagclip.runtime.run_config import use_config

        use_config(context, path)


@click.command()
@click.argument("source")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    is_eager=True,
    expose_value=False,
    callback=_use_config,
    help="YAML file of these options; the command line comes first.",
)
@click.option("--show-config", is_flag=True, help="Print what would be used, and where it came from.")
@click.option(
    "--store", "path", type=click.Path(path_type=Path), required=True, help="File to keep people in."
)
@click.option("--camera", help="Name of the camera.  [default: the file's or host's name]")
@click.option("--bundle", type=click.Path(path_type=Path), help="Folder of the encoders.  [default: ours]")
@click.option(
    "--engine",
    default="cpu",
    show_default=True,
    metavar="NAME",
    help="Of the encoders: cpu, cuda, ort-tensorrt, openvino, tensorrt, tensorrt-rtx; auto says which it took.",
)
@click.option(
    "--view",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "aerial", "ground"]),
    help="Where the camera looks from; auto goes by the telemetry, without it both encoders are averaged.",
)
@click.option(
    "--detector",
    default="motion",
    show_default=True,
    metavar="motion|person|FILE.onnx",
    help="What finds people: motion, for cameras that stand; person, the network that ships, for all others; or "
    "your ONNX graph with its contract.",
)
@click.option("--boxes", type=click.Path(path_type=Path), help="Boxes of the people, instead of motion.")
@click.option(
    "--start", help="When the footage begins; default so long before the file's last change as it lasts."
)
@click.option(
    "--place", metavar="LAT,LON,METRES", help="Where the camera stands, and how exactly that is known."
)
@click.option(
    "--telemetry",
    metavar="FILE|LINK",
    help="Of a drone: .srt of DJI, .tlog, .csv or .json; or MAVLink: udp:HOST:PORT, tcp:HOST:PORT, serial:NAME:BAUD.",
)
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
@click.option(
    "--query",
    "queries",
    multiple=True,
    metavar="TEXT",
    help="Whom to look for; may be given often. More terms: +TEXT, -TEXT, with *WEIGHT.",
)
@click.option(
    "--alarms-per-hour",
    type=click.FloatRange(min=0, min_open=True),
    help="False alarms allowed to each query.  [default: 1]",
)
@click.option(
    "--alarms-per-1000",
    type=click.FloatRange(min=0, min_open=True),
    help="The same among 1,000 people, instead.",
)
@click.option(
    "--background", type=click.Path(path_type=Path), help="Of `tagclip calibrate`; default the bundle's own."
)
@click.option(
    "--hits",
    type=click.Path(path_type=Path),
    help="Hits are added to it, JSON lines; default STORE.hits.jsonl.",
)
@click.option(
    "--station",
    type=click.Path(path_type=Path),
    help="Folder of `tagclip enrol`: tell that station of hits, and look for whom it wants.",
)
@click.option(
    "--look-back",
    type=click.FloatRange(min=0, max=24 * 366),
    default=24.0,
    show_default=True,
    metavar="HOURS",
    help="A query is put to those in the store, too, who were seen so recently; 0 for nobody.",
)
@PICTURE_KEY
@click.option("--json", "as_json", is_flag=True, help="Print hits as JSON lines.")
@click.option("--listen", metavar="[ADDRESS:]PORT", help="Tell health and metrics there; default nowhere.")
@click.option("--expose", is_flag=True, help="--listen may be an address that other machines reach.")
@click.option(
    "--max-memory-mb", type=click.FloatRange(min=64), help="Ends in order when it is above for a minute."
)
@click.option(
    "--log", "log_form", type=click.Choice(["auto", "text", "json"]), default="auto", show_default=True
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
)
@click.pass_context
def run(
    context: click.Context, /, show_config: bool, log_form: str, log_level: str, days: float, **given: Any
) -> None:
    """Watch SOURCE and keep every person in a store that `tagclip search` answers from.

    SOURCE is a video file or a camera: rtsp://HOST/PATH, http://, tcp://, udp://, /dev/video0, csi://0 (of a Jetson),
    or gst:'PIPELINE', as for gst-launch-1.0. A camera that goes away is waited for; only its newest frame is looked at.

    With --station and without --bundle, the station says which bundle is used.

    A picture, a vector, times and places are kept, for --days days and up to --max-gb gigabytes; the oldest make room.
    """
    from tagclip.runtime.logs import logging_to

    if show_config:
        from tagclip.runtime.run_config import show_config as shown

        click.echo(shown(context))
        return
    with logging_to(sys.stderr, log_form, log_level):
        from tagclip.runtime.device import Device
        from tagclip.runtime.errors import MachineError
        from tagclip.runtime.service import Stop, start_anew
        from tagclip.runtime.when import show_when

        with Stop() as stop:
            settings = _settings(days=days, **given)
            device = Device(settings, stop, click.echo)
            outcome = device.run()
        click.echo(
            f"{outcome.people} people kept in {settings.store}, seen by {settings.camera} from "
            f"{show_when(outcome.start_s)} on",
            err=settings.as_json,
        )
        if outcome.old or outcome.dropped:
            click.echo(
                f"{outcome.old} deleted that were seen more than {days:g} days ago (--days keeps them longer), "
                f"{outcome.dropped} to make room (--max-gb)",
                err=True,
            )
        if stop.failed:
            raise MachineError(stop.reason)
    if device.restart:
        start_anew()


def _settings(
    *,
    source: str,
    detector: str,
    boxes: Path | None,
    path: Path,
    camera: str | None,
    start: str | None,
    place: str | None,
    altitude: float | None,
    pitch: float | None,
    yaw: float | None,
    fov: float | None,
    max_gb: float,
    listen: str | None,
    expose: bool,
    queries: tuple[str, ...],
    alarms_per_hour: float | None,
    alarms_per_1000: float | None,
    background: Path | None,
    hits: Path | None,
    station: Path | None,
    look_back: float,
    **same: Any,
) -> Any:
    """The options as the device takes them."""
    from tagclip.runtime.alerts import Promise, promised
    from tagclip.runtime.armed import Orders
    from tagclip.runtime.detectors import graph_of
    from tagclip.runtime.device import Settings, listening
    from tagclip.runtime.feeds import live_name
    from tagclip.runtime.source import is_live
    from tagclip.runtime.store_track import Place
    from tagclip.runtime.telemetry import CameraPose
    from tagclip.runtime.vector_scan import parse_near
    from tagclip.runtime.when import parse_when

    graph = graph_of(detector)
    if graph is not None and boxes is not None:
        raise click.UsageError("--boxes replaces the detector; drop one of the two")
    if alarms_per_hour and alarms_per_1000:
        raise click.UsageError("--alarms-per-hour and --alarms-per-1000 promise the same thing; drop one")
    if not queries and not station and (alarms_per_hour or alarms_per_1000 or background or hits):
        raise click.UsageError("nobody is looked for; say whom with --query, or name a --station")
    promise = promised(alarms_per_hour, alarms_per_1000) or Promise(1.0)
    where = Place(*parse_near(place, "--place")) if place else None
    return Settings(
        source=source,
        detector=graph,
        boxes=boxes,
        store=path,
        camera=camera or (live_name(source) if is_live(source) else Path(source).stem),
        start_s=parse_when(start, time.time()) if start else None,
        place=where,
        pose=CameraPose(
            latitude_deg=where.latitude_deg if where else None,
            longitude_deg=where.longitude_deg if where else None,
            altitude_m=altitude,
            pitch_deg=pitch,
            yaw_deg=yaw,
            field_of_view_deg=fov,
        ),
        max_bytes=int(max_gb * 1e9),
        listen=listening(listen, exposed=expose),
        orders=Orders(
            queries,
            promise,
            background,
            hits or path.with_name(path.name + ".hits.jsonl"),
            station,
            look_back,
        )
        if queries or station
        else None,
        **same,
    )

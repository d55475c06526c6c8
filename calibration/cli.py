"""`tagclip calibrate`: what scores mean at a site, from footage in which nobody is looked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tagclip.calibration.collect import Encoder
    from tagclip.runtime.background import Background
    from tagclip.runtime.bundle import Bundle


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--background",
    "source",
    required=True,
    type=click.Path(path_type=Path),
    metavar="VIDEO|STORE|DIR",
    help="Footage, a store of `tagclip run`, or an annotated folder, of people whom nobody looks for.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="A file *.npz for `tagclip run --background`; or a folder: a new bundle with the background in it.",
)
@click.option(
    "--view",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "aerial", "ground"]),
    help="Where the camera of a VIDEO looks from.",
)
@click.option(
    "--detector", default="motion", show_default=True, metavar="motion|person|FILE.onnx", help="Of a VIDEO."
)
@click.option("--engine", default="cpu", show_default=True, metavar="NAME", help="Of the encoders.")
@click.option("--json", "as_json", is_flag=True, help="Print what was measured as JSON.")
def calibrate(
    bundle: Path, source: Path, out: Path, view: str, detector: str, engine: str, as_json: bool
) -> None:
    """Measure what BUNDLE's scores mean, from people whom nobody looks for.

    The more people, the rarer the false alarm that can be told: a thousand and more for one in a thousand.
    A background whose people are looked for later would count them as false alarms; take other footage.
    """
    import functools

    from tagclip.runtime.background import write_background
    from tagclip.runtime.bundle import open_bundle
    from tagclip.runtime.encoder import ImageEncoder
    from tagclip.runtime.engines import Engines
    from tagclip.runtime.files import check_target
    from tagclip.runtime.terminal import aligned

    as_file = out.suffix == ".npz"
    if not as_file:
        check_target(out)
    opened = open_bundle(bundle)
    engines = Engines(opened, engine)
    encoder = functools.cache(lambda name: ImageEncoder(opened, name, engine=engines))
    found = _collect(source, view, detector, engines.name, encoder, opened)
    if as_file:
        write_background(out, found)
    else:
        _bundle_with(opened, found, out)
    people = {name: len(each.one) for name, each in found.views.items()}
    facts: dict[str, object] = {"encoder_id": found.encoder_id, "source": found.source, "people": people}
    facts["people_per_hour"] = found.people_per_hour
    if as_json:
        click.echo(json.dumps(facts, ensure_ascii=False, indent=2))
        return
    rows = [("view", "people", "told at best")]
    rows += [(name, str(count), f"1 false alarm among {count:,} people") for name, count in people.items()]
    click.echo(aligned(rows, {0, 2}))
    click.echo(f"written: {out}", err=True)


def _collect(
    source: Path, view: str, detector: str, engine: str, encoder: Encoder, bundle: Bundle
) -> Background:
    from tagclip.calibration.collect import of_folder, of_store, of_video, video_people
    from tagclip.runtime.detectors import detector_of, drop_still, graph_of
    from tagclip.runtime.source import VideoSource, open_source
    from tagclip.runtime.store import TrackStore
    from tagclip.runtime.store_form import is_store
    from tagclip.runtime.terminal import Progress

    if source.is_dir():
        shown = Progress("embedding", "pictures")
        found = of_folder(source, encoder, bundle.encoder_id, shown.update)
    elif is_store(source):
        shown = Progress("embedding", "people")
        with TrackStore(source, read_only=True) as store:
            found = of_store(store, encoder, bundle.encoder_id, shown.update)
    else:
        video = open_source(source)
        if not isinstance(video, VideoSource):
            raise click.UsageError(f"{source} is a picture; expected a video, a store or an annotated folder")
        shown = Progress("watching", "frames")
        finder = detector_of(video, None, graph_of(detector), engine)
        found = of_video(
            video,
            lambda seen: video_people(seen, finder, drop_still(finder), shown.update),
            view,
            encoder,
            bundle.encoder_id,
        )
    shown.end()
    return found


def _bundle_with(bundle: Bundle, background: Background, out: Path) -> None:
    """A copy of the bundle with the background in it; not signed, whatever the other was."""
    from tagclip.runtime.background import BACKGROUND, pack
    from tagclip.runtime.bundle_write import rewrite_bundle

    rewrite_bundle(bundle, out, {BACKGROUND: pack(background)})
    click.echo(f"{out}: a new bundle; sign it where devices ask for it: tagclip bundle sign", err=True)

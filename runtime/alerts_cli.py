"""`tagclip alerts`: why a hit, what a threshold costs, and hits as files for others."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tagclip.runtime.key_cli import PICTURE_KEY

if TYPE_CHECKING:
    from tagclip.runtime.alerts_curve import Curve
    from tagclip.runtime.alerts_explain import Explanation
    from tagclip.runtime.hit import Hit

PATH = click.Path(path_type=Path)


@click.group()
def alerts() -> None:
    """Look into hits, and tune by eye what is one."""


alerts.add_command(importlib.import_module("tagclip.runtime.alerts_export_cli").export)


def _common(command: Any) -> Any:
    for option in (
        PICTURE_KEY,
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
        click.option("--out", type=PATH, help="Draw it into this file, *.png or *.jpg."),
        click.option("--background", type=PATH, help="Of `tagclip calibrate`; default the bundle's own."),
        click.option("--bundle", type=PATH, help="Default: the bundle that ships."),
    ):
        command = option(command)
    return command


@alerts.command()
@click.argument("hit", metavar="HIT")
@click.option("--hits", required=True, type=PATH, help="The file of hits that `tagclip run` adds to.")
@click.option(
    "--store", type=PATH, help="Of the run, for the pictures that counted and for what each term said."
)
@_common
def explain(
    hit: str,
    hits: Path,
    store: Path | None,
    bundle: Path | None,
    background: Path | None,
    out: Path | None,
    as_json: bool,
    picture_keys: tuple[Path, ...],
) -> None:
    """Say why HIT, the id or its beginning, is one."""
    from tagclip.runtime.alerts import TYPICAL, Promise, standing
    from tagclip.runtime.alerts_explain import draw_explanation
    from tagclip.runtime.alerts_explain import explain as explained
    from tagclip.runtime.background import read_background
    from tagclip.runtime.bundle import open_bundle
    from tagclip.runtime.encoder import TextEncoder
    from tagclip.runtime.errors import StoreEncoderError
    from tagclip.runtime.judge import Judge
    from tagclip.runtime.picture_key import read_picture_keys
    from tagclip.runtime.store import TrackStore
    from tagclip.runtime.terms import parse_terms

    found = _hit(hits, hit)
    opened = open_bundle(bundle)
    if found.encoder_id != opened.encoder_id:
        raise StoreEncoderError(
            f"the hit was made by encoder {found.encoder_id}, the bundle's is {opened.encoder_id}; name its --bundle"
        )
    text, people = TextEncoder(opened), read_background(opened, background)
    query = standing([found.query], text, people, Promise(1.0))[0]
    stick = Judge(query.vector[None], people, text.embed(TYPICAL)).of(found.view)[0]
    terms = parse_terms(found.query)
    vectors = text.embed([term.text for term in terms])
    track, thumbnail, crops = None, None, []
    if store is not None:
        with TrackStore(store, read_only=True, keys=read_picture_keys(picture_keys)) as opened_store:
            track = opened_store.track_of(found.track_id)
            thumbnail = opened_store.thumbnail_of(found.track_id) if out is not None else None
            crops = opened_store.hit_crops.of(found.id, pictures=out is not None)
    if track is None:
        terms, vectors = [], vectors[:0]
    vector = query.vector if track is None else track.vector.astype("float32")
    result = explained(found, terms, vectors, vector, stick, people, crops)
    if out is not None:
        _write(out, draw_explanation(result, thumbnail))
    click.echo(json.dumps(result.facts(), ensure_ascii=False, indent=2) if as_json else _explained(result))
    if store is not None and track is None:
        click.echo(f"{store} has this track no longer: no picture, no terms", err=True)
    elif store is not None and not crops:
        click.echo(f"{store} has no pictures of this hit but the best of the person", err=True)
    if out is not None:
        click.echo(f"written: {out}", err=True)


@alerts.command()
@click.argument("query", metavar="QUERY")
@click.argument("store", type=PATH)
@click.option(
    "--alarms-per-hour",
    type=click.FloatRange(min=0, min_open=True),
    help="Where the threshold is.  [default: 1]",
)
@click.option(
    "--alarms-per-1000", type=click.FloatRange(min=0, min_open=True), help="The same among 1,000 people."
)
@click.option("--top", type=click.IntRange(min=1), default=11, show_default=True, help="People to show.")
@_common
def curve(
    query: str,
    store: Path,
    alarms_per_hour: float | None,
    alarms_per_1000: float | None,
    top: int,
    bundle: Path | None,
    background: Path | None,
    out: Path | None,
    as_json: bool,
    picture_keys: tuple[Path, ...],
) -> None:
    """Show how many false alarms QUERY costs at each threshold, and who of STORE is over it or just under."""
    if alarms_per_hour and alarms_per_1000:
        raise click.UsageError("--alarms-per-hour and --alarms-per-1000 promise the same thing; drop one")

    from tagclip.runtime.alerts import TYPICAL, Promise, promised, standing
    from tagclip.runtime.alerts_curve import curve as measured
    from tagclip.runtime.alerts_curve import draw_curve
    from tagclip.runtime.background import read_background
    from tagclip.runtime.bundle import open_bundle
    from tagclip.runtime.encoder import TextEncoder
    from tagclip.runtime.picture_key import read_picture_keys
    from tagclip.runtime.store import TrackStore

    promise = promised(alarms_per_hour, alarms_per_1000) or Promise(1.0)
    opened = open_bundle(bundle)
    people = read_background(opened, background)
    text = TextEncoder(opened)
    standing_query = standing([query], text, people, promise)[0]
    with TrackStore(store, read_only=True, keys=read_picture_keys(picture_keys)) as opened_store:
        typical = text.embed(TYPICAL)
        found = measured(opened_store, standing_query, people, typical, top, pictures=out is not None)
    if out is not None:
        _write(out, draw_curve(found))
    click.echo(json.dumps(found.to_json(), ensure_ascii=False, indent=2) if as_json else _curve(found))
    if out is not None:
        click.echo(f"written: {out}", err=True)


def _hit(path: Path, name: str) -> Hit:
    """The one hit whose id begins with `name`."""
    from tagclip.runtime.errors import HitError
    from tagclip.runtime.hit_log import HitReader

    wanted = name.lower().strip()
    found = [hit for hit in HitReader(path) if str(hit.id).startswith(wanted)]
    if len(found) != 1:
        raise HitError(
            f"{path}: expected one hit whose id begins with {name!r}, found {len(found)}; give more of the id"
        )
    return found[0]


def _write(path: Path, image: Any) -> None:
    from tagclip.runtime.errors import OutputError
    from tagclip.runtime.files import write_atomic
    from tagclip.runtime.sheet import image_bytes

    if path.suffix not in (".png", ".jpg"):
        raise OutputError(f"{path}: expected a name *.png or *.jpg")
    write_atomic(path, image_bytes(image, path.suffix))


def _explained(found: Explanation) -> str:
    from tagclip.runtime.terminal import aligned
    from tagclip.runtime.when import show_when

    hit, facts = found.hit, found.facts()
    background = facts["background"]
    rows = [
        ("query", hit.query),
        ("seen", f"{hit.camera}, {show_when(hit.best_s)}, view {hit.view}, {hit.crops} picture(s)"),
        ("score", f"{hit.score:.3f}, threshold {hit.threshold:.3f}"),
        ("background", f"{background['people']:,} people who are not meant ({background['source']})"),
        (
            "",
            f"mean {background['mean']:.3f}, deviation {background['std']:.3f}, best {background['best']:.3f}",
        ),
        ("", f"{background['score_higher']} of them score as high"),
        ("chance", f"{hit.p_value:.2g} that somebody who is not meant is a hit with this score"),
    ]
    if found.crops:
        rows.insert(
            2, ("counted", ", ".join(f"frame {crop.frame} {crop.weight:.0%}" for crop in found.crops))
        )
    if hit.false_alarms_per_hour is not None:
        rows.append(("", f"{hit.false_alarms_per_hour:.2g} false alarms an hour, were the threshold there"))
    for part in found.parts:
        said = f"{part.sigmas:+.1f} deviations from the usual, cosine {part.cosine:.3f}, weight {part.term.weight:g}"
        rows.append((f"  {part.term.text}", said))
    return aligned(rows, {0, 1})


def _curve(found: Curve) -> str:
    from tagclip.runtime.terminal import aligned
    from tagclip.runtime.when import show_when

    facts = found.to_json()
    rows = [("view", "false alarms in 1,000", "an hour", "threshold")]
    for view, thresholds in facts["thresholds"].items():
        rows += [
            (view, f"{row['per_1000']:g}", f"{row['per_hour']:.2g}", f"{row['score']:.3f}")
            for row in thresholds
        ]
    people = [("", "score", "false alarms an hour", "camera", "view", "seen", "track")]
    people += [
        (
            "HIT" if one.hit else "",
            f"{one.score:.3f}",
            f"{one.p_value * found.people_per_hour:.2g}",
            one.track.camera,
            one.track.view,
            show_when(one.track.best_s),
            str(one.track.id),
        )
        for one in found.people
    ]
    told = f"{found.compared:,} people compared, {found.people_per_hour:.0f} an hour"
    return "\n".join([aligned(rows, {0}), "", aligned(people, {0, 3, 4, 5, 6}), told])

"""`tagclip store`: what a device's store holds, and what can be done with it."""

from __future__ import annotations

import functools
import json
import time
from pathlib import Path

import click

from tagclip.runtime.key_cli import PICTURE_KEY


@click.group()
def store() -> None:
    """Look after what a device keeps of whom it saw."""


@store.command("info")
@click.argument("path", metavar="STORE", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def info(path: Path, as_json: bool) -> None:
    """How many tracks STORE holds, of which cameras and times."""
    from tagclip.runtime.store import TrackStore
    from tagclip.runtime.when import show_when

    with TrackStore(path, read_only=True) as opened:
        facts = opened.facts()
    if as_json:
        click.echo(json.dumps(facts))
        return
    click.echo(f"tracks    {facts['tracks']:,}, {facts['bytes'] / 1e6:.1f} MB")
    if facts["tracks"]:
        click.echo(f"seen      {show_when(facts['first_s'])} to {show_when(facts['last_s'])}")
    for camera, count in facts["cameras"].items():
        click.echo(f"camera    {camera}: {count:,}")
    for encoder, count in facts["encoders"].items():
        click.echo(f"encoder   {encoder[:12]}: {count:,}")


@store.command("prune")
@click.argument("path", metavar="STORE", type=click.Path(path_type=Path))
@click.option("--days", type=click.FloatRange(min=0), required=True, help="Keep who was seen this recently.")
def prune(path: Path, days: float) -> None:
    """Delete from STORE whoever was last seen longer ago, pictures included."""
    from tagclip.runtime.store import Retention, TrackStore

    with TrackStore(path, Retention(days=days), must_exist=True) as opened:
        gone = opened.prune(time.time())
        click.echo(f"{gone} tracks deleted, {len(opened)} kept")


@store.command("reindex")
@click.argument("path", metavar="STORE", type=click.Path(path_type=Path))
@click.option("--bundle", type=click.Path(path_type=Path), help="Folder of the encoders.  [default: ours]")
@PICTURE_KEY
def reindex(path: Path, bundle: Path | None, picture_keys: tuple[Path, ...]) -> None:
    """Embed the pictures in STORE with another bundle's encoders, so that its queries find them.

    A vector is then that of one picture, no longer the mean of several. An interrupted run goes on when started again.
    """
    from tagclip.runtime.bundle import open_bundle
    from tagclip.runtime.encoder import ImageEncoder
    from tagclip.runtime.picture_key import read_picture_keys
    from tagclip.runtime.reindex import reindex as run
    from tagclip.runtime.store import TrackStore
    from tagclip.runtime.terminal import Progress

    opened = open_bundle(bundle)
    shown = Progress("embedding", "pictures")
    with TrackStore(path, must_exist=True, keys=read_picture_keys(picture_keys)) as kept:
        done = run(
            kept, opened.encoder_id, functools.cache(lambda view: ImageEncoder(opened, view)), shown.update
        )
    shown.end()
    click.echo(f"{done} tracks embedded anew by {opened.encoder_id[:12]}")


@store.command("encrypt")
@click.argument("path", metavar="STORE", type=click.Path(path_type=Path))
@PICTURE_KEY
def encrypt(path: Path, picture_keys: tuple[Path, ...]) -> None:
    """Encrypt the pictures in STORE that are not yet, with the first --picture-key; no `tagclip run` may be writing.

    To change the key, name the new one and then the old one. An interrupted run goes on when started again.
    """
    from tagclip.runtime.picture_key import read_picture_keys
    from tagclip.runtime.store import Retention, TrackStore
    from tagclip.runtime.terminal import Progress

    keys = read_picture_keys(picture_keys)
    if keys is None:
        raise click.UsageError("name a --picture-key; `tagclip key new FILE` makes one")
    shown = Progress("encrypting", "pictures")
    with TrackStore(path, Retention(max_bytes=1 << 42), must_exist=True, keys=keys) as opened:
        done = opened.seal_pictures(shown.update)
    shown.end()
    click.echo(f"{done} pictures encrypted with key {keys.id}")


@store.command("bench")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--tracks", type=click.IntRange(1000, 5_000_000), default=1_000_000, show_default=True)
@click.option("--dim", type=click.IntRange(8, 4096), default=512, show_default=True, help="Of the vectors.")
@click.option("--queries", type=click.IntRange(1, 1000), default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def bench(folder: Path, tracks: int, dim: int, queries: int, as_json: bool) -> None:
    """Measure inserts and searches with made-up tracks in FOLDER, which must be new and is removed."""
    from tagclip.runtime.store_bench import measure
    from tagclip.runtime.terminal import Progress

    shown = Progress("filling", "tracks")
    found = measure(folder, tracks, dim, queries, shown.update)
    shown.end()
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo(
        f"{tracks:,} tracks, vectors of {dim}; batches of {found['batch']}, each on the disk before the next"
    )
    click.echo(f"inserts   {found['inserts_per_s']:,} a second")
    click.echo(f"load      {found['load_s']} s")
    click.echo("search    " + ", ".join(f"{name} {value} ms" for name, value in found["search_ms"].items()))

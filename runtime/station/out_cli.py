"""What leaves the station: the options of `tagclip station` for it, and `tagclip station annotations`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tagclip.runtime.key_cli import PICTURE_KEY

_FILE = click.Path(path_type=Path, dir_okay=False)
_OPTIONS = (
    click.option(
        "--cot",
        metavar="URL",
        help="Send confirmed hits that have a place to a TAK endpoint: udp://, tcp:// or tls://HOST:PORT.",
    ),
    click.option("--cot-all", is_flag=True, help="The same with hits that nobody decided about yet."),
    click.option("--cot-ca", type=_FILE, help="Authority of the TAK server, PEM; tls:// needs it."),
    click.option("--cot-cert", type=_FILE, help="The station's certificate at the TAK server, PEM."),
    click.option("--cot-key", type=_FILE, help="Its private key, PEM, without a passphrase."),
    click.option(
        "--webhook",
        "webhooks",
        multiple=True,
        metavar="URL",
        help="Post new hits and decisions there, https://HOST/PATH; may be given often.",
    ),
    click.option("--webhook-secret-file", type=_FILE, help="Whose first line signs them: whsec_ and base64."),
    click.option(
        "--webhook-days",
        type=click.FloatRange(min=0.01, max=30),
        default=3.0,
        show_default=True,
        help="After which what no webhook takes is given up.",
    ),
)


def out_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of out.Out."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command("annotations")
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("station"),
    show_default=True,
    help="Folder of the station, which may run or not.",
)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder to make; absent or empty."
)
@PICTURE_KEY
def annotate(data: Path, out: Path, picture_keys: tuple[Path, ...]) -> None:
    """Write what people decided as a data folder for `tagclip train`; see docs/out.md.

    Confirmed hits become pictures with their query as a caption, one identity a track; rejected ones are listed apart.
    """
    from tagclip.runtime.picture_key import read_picture_keys
    from tagclip.runtime.station.annotations import write_annotations
    from tagclip.runtime.station.cli import with_records
    from tagclip.runtime.terminal import Progress

    keys = read_picture_keys(picture_keys)
    shown = Progress("writing", "pictures")
    written = with_records(data, lambda database: write_annotations(database, keys, out, shown.update))
    shown.end()
    click.echo(
        f"{out}: {written.positives} pictures of {written.identities} tracks, {written.negatives} negatives"
    )
    click.echo(", ".join(f"{split} {count}" for split, count in written.splits.items()) + " pictures")
    if not all(written.splits.values()):
        click.echo("too few tracks for each split to have some; training needs train and val")
    for count, why in (
        (written.without_picture, "whose picture has not come"),
        (written.without_view, "neither from the air nor from the ground"),
        (written.broken, "whose picture is no JPEG that can be read"),
    ):
        if count:
            click.echo(f"left out: {count} decided hits {why}")

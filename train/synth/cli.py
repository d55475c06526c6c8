"""The commands under `tagclip synth`: parse, one library call, print."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.group()
def synth() -> None:
    """Make synthetic people: crops to train on, scenes to try on."""


@synth.command("crops")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--identities", type=click.IntRange(min=3), required=True, help="Number of people.")
@click.option(
    "--images-per-view", type=click.IntRange(min=1), default=4, show_default=True, help="Of each, per view."
)
@click.option(
    "--captions",
    "per_image",
    type=click.IntRange(1, 20),
    default=6,
    show_default=True,
    help="Of a training picture.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--workers", type=click.IntRange(min=1), help="Processes; default one a core.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def crops(
    out: Path,
    identities: int,
    images_per_view: int,
    per_image: int,
    seed: int,
    workers: int | None,
    as_json: bool,
) -> None:
    """Pictures of people from the ground and from the air, with captions, in the folder OUT.

    The same seed makes the same bytes, however many processes work.
    """
    from tagclip.train.progress import bar
    from tagclip.train.synth.crops import write_crops

    with bar() as tick:
        counts = write_crops(
            out,
            identities,
            images_per_view,
            seed,
            workers,
            lambda done, total: tick("people", done, total, ""),
            captions=per_image,
        )
    if as_json:
        click.echo(json.dumps(counts))
    else:
        click.echo(
            f"{out}: "
            + ", ".join(f"{n} {split}" for split, n in counts.items())
            + " images; look at sheet.png"
        )


@synth.command("captions")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--captions", "per_image", type=click.IntRange(1, 20), default=6, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--workers", type=click.IntRange(min=1), help="Processes; default one a core.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def captions(folder: Path, per_image: int, seed: int, workers: int | None, as_json: bool) -> None:
    """Describe the pictures of FOLDER anew, without rendering them again."""
    from tagclip.train.progress import bar
    from tagclip.train.synth.annotate import recaption

    with bar() as tick:
        counts = recaption(
            folder, per_image, seed, workers, lambda done, total: tick("pictures", done, total, "")
        )
    if as_json:
        click.echo(json.dumps(counts))
    else:
        click.echo(f"{folder}: " + ", ".join(f"{n} {split}" for split, n in counts.items()) + " captions")


@synth.command("scene")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--people", type=click.IntRange(1, 40), default=6, show_default=True)
@click.option("--seconds", type=click.FloatRange(min=1), default=12.0, show_default=True)
@click.option("--fps", type=click.IntRange(1, 60), default=10, show_default=True)
@click.option("--altitude", type=click.FloatRange(2, 60), default=7.0, show_default=True, help="Metres.")
@click.option(
    "--pitch",
    type=click.FloatRange(5, 85),
    default=22.0,
    show_default=True,
    help="Degrees below the horizon.",
)
@click.option("--size", default="640x360", show_default=True, help="Width x height in pixels.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def scene(
    out: Path,
    people: int,
    seconds: float,
    fps: int,
    altitude: float,
    pitch: float,
    size: str,
    seed: int,
    as_json: bool,
) -> None:
    """A video OUT.mp4 of people walking under a fixed camera, with boxes, identities and captions in OUT.json."""
    from tagclip.train.progress import bar
    from tagclip.train.synth.scene import parse_size, write_scene

    width, height = parse_size(size)
    with bar() as tick:
        summary = write_scene(
            out,
            people=people,
            seconds=seconds,
            fps=fps,
            altitude_m=altitude,
            pitch_deg=pitch,
            width_px=width,
            height_px=height,
            seed=seed,
            tick=lambda done, total: tick("frames", done, total, ""),
        )
    click.echo(
        json.dumps(summary)
        if as_json
        else f"{out}: {summary['frames']} frames, {people} people; truth in {summary['truth']}"
    )

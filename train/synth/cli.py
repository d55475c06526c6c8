"""The commands under `tagclip synth`: parse, one library call, print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tagclip.train.synth.captions import Wording
    from tagclip.train.synth.world import Part


@click.group()
def synth() -> None:
    """Make synthetic people: crops to train on, scenes to try on."""


@synth.command("crops")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--identities", type=click.IntRange(3, 1_000_000), required=True, help="Number of people.")
@click.option(
    "--images-per-view",
    type=click.IntRange(1, 1_000),
    default=4,
    show_default=True,
    help="Of each, per view.",
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
@click.option("--tar", is_flag=True, help="Pictures in tar files of 1,000 (WebDataset), not in a file each.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes; default one a core.")
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="Casts the rays."
)
@click.option(
    "--without",
    type=click.Choice(["geometry", "patterns", "camera"]),
    multiple=True,
    help="For experiments: leave this out of the world.",
)
@click.option("--shifted", is_flag=True, help="For experiments: another palette and camera, to measure on.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def crops(
    out: Path,
    identities: int,
    images_per_view: int,
    per_image: int,
    seed: int,
    tar: bool,
    workers: int | None,
    device: str,
    without: tuple[Part, ...],
    shifted: bool,
    as_json: bool,
) -> None:
    """Pictures of people from the ground and from the air, with captions, in the folder OUT.

    The same seed makes the same bytes, however many processes work. An interrupted run goes on when the same
    command is given again; until all is there, OUT does not exist.
    """
    from tagclip.train.progress import bar
    from tagclip.train.synth.crops import write_crops
    from tagclip.train.synth.world import World

    try:
        with bar() as tick:
            counts = write_crops(
                out,
                identities,
                images_per_view,
                seed,
                workers,
                lambda what, done, total: tick(what, done, total, ""),
                captions=per_image,
                tar=tar,
                device=device,
                world=World(tuple(sorted(set(without))), shifted),
            )
    except KeyboardInterrupt:
        click.echo("what is done is kept; the same command goes on with it", err=True)
        raise
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
@click.option(
    "--wording",
    type=click.Choice(["train", "plain", "company", "unseen"]),
    default="train",
    show_default=True,
    help="For experiments: the usual words only, usual words in new company, words that training never says.",
)
@click.option("--workers", type=click.IntRange(min=1), help="Processes; default one a core.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def captions(
    folder: Path, per_image: int, seed: int, wording: Wording, workers: int | None, as_json: bool
) -> None:
    """Describe the pictures of FOLDER anew, without rendering them again."""
    from tagclip.train.progress import bar
    from tagclip.train.synth.annotate import recaption

    with bar() as tick:
        counts = recaption(
            folder, per_image, seed, workers, lambda done, total: tick("pictures", done, total, ""), wording
        )
    if as_json:
        click.echo(json.dumps(counts))
    else:
        click.echo(f"{folder}: " + ", ".join(f"{n} {split}" for split, n in counts.items()) + " captions")


@synth.command("describe")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--model", type=click.Path(path_type=Path), required=True, help="Folder of a vision-language model."
)
@click.option(
    "--captions",
    "per_image",
    type=click.IntRange(1, 20),
    default=1,
    show_default=True,
    help="How often each picture is described.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def describe(folder: Path, model: Path, per_image: int, seed: int, as_json: bool) -> None:
    """Let a local model describe the pictures of FOLDER, and keep what does not contradict the truth.

    The captions go to FOLDER/vlm_captions.json, annotations stay as they are. An interrupted run goes on when the same
    command is given again. Nothing is downloaded.
    """
    from tagclip.train.progress import bar
    from tagclip.train.synth.describe import CAPTIONS, describe_folder

    with bar() as tick:
        counts = describe_folder(
            folder, model, per_image, seed, lambda done, total: tick("pictures", done, total, "")
        )
    if as_json:
        click.echo(json.dumps(counts))
    else:
        for outcome, number in counts.items():
            click.echo(f"{outcome:<10}{number:>8}")
        click.echo(f"{folder / CAPTIONS}: {counts['accepted']} captions of {sum(counts.values())} answers")


@synth.command("card")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for page and pictures.")
@click.option("--json", "as_json", is_flag=True, help="Print the numbers of the card as JSON.")
def card(folder: Path, out: Path, as_json: bool) -> None:
    """Describe the data set in FOLDER: a page card.md with counts and shares, and contact sheets."""
    from tagclip.train.progress import bar
    from tagclip.train.synth.card import write_card

    with bar() as tick:
        numbers = write_card(folder, out, lambda done, total: tick("pictures", done, total, ""))
    if as_json:
        click.echo(json.dumps(numbers))
    else:
        images = sum(split["images"] for split in numbers["splits"].values())
        click.echo(f"{out / 'card.md'}: {images} images, {len(numbers['sheets'])} contact sheets")


@synth.command("stills")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--count", type=click.IntRange(2, 1_000_000), required=True, help="Number of pictures.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--workers", type=click.IntRange(min=1), help="Processes; default one a core.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def stills(out: Path, count: int, seed: int, workers: int | None, as_json: bool) -> None:
    """Pictures with nobody, few or many people and their boxes, in the folder OUT: to train a detector on."""
    from tagclip.train.progress import bar
    from tagclip.train.synth.stills import write_stills

    with bar() as tick:
        counts = write_stills(
            out, count, seed, workers, lambda done, total: tick("pictures", done, total, "")
        )
    if as_json:
        click.echo(json.dumps(counts))
    else:
        click.echo(f"{out}: {counts['people']} people in {counts['stills']} pictures")


@synth.command("scene")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--people", type=click.IntRange(1, 100), default=6, show_default=True)
@click.option("--seconds", type=click.FloatRange(min=1), default=12.0, show_default=True)
@click.option("--fps", type=click.IntRange(1, 60), default=10, show_default=True)
@click.option("--altitude", type=click.FloatRange(2, 120), default=7.0, show_default=True, help="Metres.")
@click.option(
    "--pitch",
    type=click.FloatRange(5, 90),
    default=22.0,
    show_default=True,
    help="Degrees below the horizon; 90 looks straight down.",
)
@click.option(
    "--moving/--hover",
    default=None,
    help="From a drone that flies, or one that holds its place in the wind; default from a pole.",
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
    moving: bool | None,
    size: str,
    seed: int,
    as_json: bool,
) -> None:
    """A video OUT.mp4 of people who walk, seen from a pole or a drone.

    The truth is in OUT.json (boxes, identities, captions, the camera's pose), and in the folder OUT.mot for MOT tools.
    """
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
            motion="fixed" if moving is None else "moving" if moving else "hover",
            tick=lambda done, total: tick("frames", done, total, ""),
        )
    click.echo(
        json.dumps(summary)
        if as_json
        else f"{out}: {summary['frames']} frames, {summary['people']} people; truth in {summary['truth']}"
        f" and {summary['mot']}"
    )

"""The commands synth, data, train and evaluate: parse, one library call, print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--workers", type=click.IntRange(min=1), help="Processes; default one a core.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def crops(
    out: Path, identities: int, images_per_view: int, seed: int, workers: int | None, as_json: bool
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
        )
    if as_json:
        click.echo(json.dumps(counts))
    else:
        click.echo(
            f"{out}: "
            + ", ".join(f"{n} {split}" for split, n in counts.items())
            + " images; look at sheet.png"
        )


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


@click.group()
def data() -> None:
    """Look after training data."""


@data.command("check")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True)
def check(folder: Path, as_json: bool) -> None:
    """Validate the annotations and images in FOLDER."""
    from tagclip.train.data import check_data

    report = check_data(folder)
    if as_json:
        click.echo(json.dumps(report))
        return
    click.echo(f"{'split':6} {'images':>7} {'people':>7} {'captions':>9} {'aerial':>7} {'ground':>7}")
    for split, row in report.items():
        counts = (f"{row['images']:7d}", f"{row['identities']:7d}", f"{row['captions']:9d}")
        click.echo(" ".join([f"{split:6}", *counts, f"{row['aerial']:7d}", f"{row['ground']:7d}"]))


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1)
@click.option("--data", "folder", type=click.Path(path_type=Path), help="Data folder; default the config's.")
@click.option("--out", type=click.Path(path_type=Path), help="Checkpoint folder; default runs/NAME.")
@click.option("--resume", is_flag=True, help="Go on from the last state saved in OUT.")
@click.option("--json", "as_json", is_flag=True, help="Print the metrics as JSON.")
def train(
    config: Path,
    overrides: tuple[str, ...],
    folder: Path | None,
    out: Path | None,
    resume: bool,
    as_json: bool,
) -> None:
    """Train the model of CONFIG (a YAML file); key=value changes single settings, such as train.epochs=3.

    Several GPUs or machines: torchrun --nproc-per-node N --no-python tagclip train CONFIG.
    """
    from tagclip.runtime.errors import OutputError
    from tagclip.train.config import load_config
    from tagclip.train.engine import is_first
    from tagclip.train.evaluate import as_table
    from tagclip.train.loop import Run
    from tagclip.train.progress import bar
    from tagclip.train.report import history_table

    settings = load_config(config, list(overrides))
    target = out or Path("runs") / settings.name
    # The other processes of torchrun may come late, when the first has begun to write.
    if is_first() and not resume and target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutputError(f"{target} exists and is not empty; use --resume to go on, or another --out")
    with bar(quiet=not is_first()) as tick:
        run = Run(settings, folder or Path(settings.data), target, tick)
        if resume:
            run.resume()
        if is_first():
            for note in run.notes:
                click.echo(note, err=True)
        metrics: dict[str, Any] = run.go()
    if not is_first():
        return
    if as_json:
        click.echo(json.dumps(metrics))
        return
    click.echo(history_table(metrics["history"]))
    click.echo(f"{target}: best by validation is epoch {metrics['best_epoch']}; curves.png has all of them")
    click.echo(as_table(metrics["val"]))


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--data", "folder", type=click.Path(path_type=Path), required=True, help="Data folder.")
@click.option("--split", type=click.Choice(["train", "val", "test"]), default="test", show_default=True)
@click.option("--view", type=click.Choice(["all", "aerial", "ground"]), help="Only this gallery.")
@click.option("--json", "as_json", is_flag=True)
def evaluate(model: Path, folder: Path, split: str, view: str | None, as_json: bool) -> None:
    """Retrieval metrics of MODEL, a checkpoint or a bundle, in percent.

    Every caption of the split is a query. A checkpoint routes each image by the view that it predicts; a bundle uses
    the specialist of the image's labelled view.
    """
    from tagclip.train.evaluate import as_table
    from tagclip.train.measure import evaluate_path

    result = evaluate_path(model, folder, split)
    if view is not None:
        result = {view: result[view]}
    click.echo(json.dumps(result) if as_json else as_table(result))

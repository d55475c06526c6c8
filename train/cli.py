"""`tagclip train`: parse, one library call, print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click


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
    from tagclip.train.journal import history_table
    from tagclip.train.loop import Run
    from tagclip.train.progress import bar

    settings = load_config(config, list(overrides))
    target = out or Path("runs") / settings.name
    # The other processes of torchrun may come late, when the first has begun to write.
    if is_first() and not resume and target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutputError(f"{target} exists and is not empty; use --resume to go on, or another --out")
    with bar(quiet=not is_first()) as tick:
        run = Run(settings, folder or Path(settings.data), target, tick, resume)
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

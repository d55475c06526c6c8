"""`tagclip train`: parse, one library call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1)
@click.option("--data", "folder", type=click.Path(path_type=Path), help="Data folder; default the config's.")
@click.option("--out", type=click.Path(path_type=Path), help="Checkpoint folder; default runs/NAME.")
@click.option("--resume", is_flag=True, help="Go on after the last finished epoch in OUT.")
def train(
    config: Path, overrides: tuple[str, ...], folder: Path | None, out: Path | None, resume: bool
) -> None:
    """Train the model of CONFIG (a YAML file); key=value changes single settings, such as train.epochs=3."""
    from tagclip.runtime.errors import OutputError
    from tagclip.train.config import load_config
    from tagclip.train.evaluate import as_table
    from tagclip.train.loop import Run
    from tagclip.train.progress import bar

    settings = load_config(config, list(overrides))
    target = out or Path("runs") / settings.name
    if not resume and target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutputError(f"{target} exists and is not empty; use --resume to go on, or another --out")
    with bar() as tick:
        run = Run(settings, folder or Path(settings.data), target, tick)
        if resume:
            run.resume()
        metrics: dict[str, Any] = run.go()
    click.echo(f"{target}: best by validation is epoch {metrics['best_epoch']}")
    click.echo(as_table(metrics["val"]))

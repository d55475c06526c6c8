"""What each part of the synthetic world brings, measured where no training set has been: one table.

    python -m tagclip.train.worlds configs/ablation.yaml --worlds DIR --out OUT [--seeds 3] [--json]

DIR holds data folders of `tagclip synth crops`: "whole", any others such as "without-patterns", and "shifted", which is
only measured on. Each of the others trains the same model with every seed; the numbers are of the test split of
"shifted", the differences to the run of the same seed on "whole". Training that is done is not done again.
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from tagclip.runtime.cli import run
from tagclip.runtime.errors import DataError
from tagclip.train.ablation import Outcome, as_markdown, measure, summarise, train_once
from tagclip.train.config import load_config
from tagclip.train.data import input_spec, load_images, load_split
from tagclip.train.progress import Tick

WHOLE, SHIFTED = "whole", "shifted"


def worlds(config: Path, folder: Path, out: Path, seeds: int, tick: Tick) -> list[Outcome]:
    """Train on every world of `folder` and measure on the shifted one.

    Args:
        config: what to train.
        out: a folder a run in it.

    Raises:
        ConfigError, DataError, CheckpointError, OutputError, TrainingError: what is wrong.
    """
    names = sorted(
        path.parent.name for path in folder.glob("*/train_reid.json") if path.parent.name != SHIFTED
    )
    if WHOLE not in names or len(names) < 2 or not (folder / SHIFTED).is_dir():
        raise DataError(
            f"{folder}: expected data folders {WHOLE}, {SHIFTED} and at least one other to compare, "
            f"found {', '.join(names) or 'none'}; docs/data.md shows how to make them"
        )
    names.sort(key=lambda name: name != WHOLE)
    samples = load_split(folder / SHIFTED, "test")
    crops = load_images(samples, input_spec(load_config(config, []).model))
    outcomes = {name: Outcome(name, WHOLE, []) for name in names}
    for seed in range(seeds):
        for name in names:
            place = out / f"{name}-{seed}"
            train_once(config, folder / name, place, [f"train.seed={seed}"], name, tick)
            outcomes[name].seeds.append(measure(place, samples, crops, known_view=False))
    return list(outcomes.values())


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "--worlds", "folder", type=click.Path(path_type=Path), required=True, help="Folder of data folders."
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the runs.")
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(config: Path, folder: Path, out: Path, seeds: int, as_json: bool) -> None:
    """Train on several synthetic worlds and compare them on another."""
    from tagclip.train.progress import bar

    with bar() as tick:
        table = summarise(worlds(config, folder, out, seeds, tick))
    click.echo(json.dumps(table) if as_json else as_markdown(table))


if __name__ == "__main__":
    run(main, "python -m tagclip.train.worlds")

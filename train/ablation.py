"""What each part of TAG-CLIP brings: variants of one configuration, several seeds, one table.

    python -m tagclip.train.ablation configs/ablation.yaml --data DIR --out OUT [--seeds 3] [--json]

A variant's run that is finished is not trained again, and one that was cut off goes on: start the same command again.
The numbers are of the test split. A difference is paired with the first variant's run of the same seed, its interval is
over the people of the test, seeds taken together.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from tagclip.runtime.errors import TagclipError
from tagclip.runtime.preprocess import PreprocessSpec
from tagclip.train.bootstrap import interval
from tagclip.train.checkpoint import load_checkpoint
from tagclip.train.config import load_config
from tagclip.train.data import load_images, load_split
from tagclip.train.embed import embed_split
from tagclip.train.evaluate import METRICS, Row, answer, rows
from tagclip.train.loop import Run
from tagclip.train.split import as_split

# Name -> settings that differ from the base, an HR-MoE without view and orthogonal loss (arXiv 2511.08369, Table 4).
VARIANTS: dict[str, list[str]] = {
    "plain CLIP": ["model.moe_layers=[]"],
    "vanilla MoE": ["model.router=token"],
    "HR-MoE": [],
    "HR-MoE + view": ["train.weight_view=0.5"],
    "HR-MoE + orthogonal": ["train.weight_ortho=1.0"],
    "HR-MoE + both": ["train.weight_view=0.5", "train.weight_ortho=1.0"],
}
KNOWN = "HR-MoE + both, view known"  # the same weights, each picture routed by its label
Tick = Callable[[str, int, int, str], None]


@dataclass(frozen=True)
class Outcome:
    """One variant: per seed the queries' numbers in the gallery of all pictures."""

    name: str
    seeds: list[Row]


def ablation(config: Path, folder: Path, out: Path, seeds: int, tick: Tick) -> list[Outcome]:
    """Train every variant with every seed, as far as it is not done, and measure it on the test split.

    Args:
        config: the base configuration.
        folder: data of `tagclip synth crops`.
        out: a folder a run in it.

    Raises:
        ConfigError, DataError, CheckpointError, OutputError, TrainingError: what is wrong.
    """
    outcomes = {name: Outcome(name, []) for name in (*VARIANTS, KNOWN)}
    for seed in range(seeds):
        for name, overrides in VARIANTS.items():
            run = out / f"{name.replace(' ', '-').replace('+', 'and')}-{seed}"
            _train(config, folder, run, [*overrides, f"train.seed={seed}"], name, tick)
            outcomes[name].seeds.append(_measure(run, folder, known_view=False))
            if name == "HR-MoE + both":
                outcomes[KNOWN].seeds.append(_measure(run, folder, known_view=True))
    return list(outcomes.values())


def _train(config: Path, folder: Path, run: Path, overrides: list[str], name: str, tick: Tick) -> None:
    if (run / "metrics.json").exists():
        return
    resumes = (run / "last.safetensors").exists()
    settings = load_config(config, overrides)
    training = Run(
        settings, folder, run, lambda what, *rest: tick(f"{name}, {run.name[-1]}: {what}", *rest), resumes
    )
    if resumes:
        training.resume()
    training.go()


def _measure(run: Path, folder: Path, known_view: bool) -> Row:
    model, tokenizer_json, config = load_checkpoint(run)
    samples = load_split(folder, "test")
    spec = PreprocessSpec(config.model.height_px, config.model.width_px)
    data = as_split(samples, tokenizer_json, model.context_length, load_images(samples, spec))
    images, texts = embed_split(model, data, known_view=known_view)
    answers = answer(texts.numpy(), images.numpy(), data.owner, data.identity, data.view)
    return rows(answers, "all")["all"]


def summarise(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """For each variant: mean and spread over seeds of R@1 and mAP in percent, and the difference to the first."""
    base = outcomes[0]
    table = []
    for outcome in outcomes:
        line: dict[str, Any] = {"variant": outcome.name, "seeds": len(outcome.seeds)}
        for metric in ("r1", "map"):
            k = METRICS.index(metric)
            each = [100 * float(row.values[:, k].mean()) for row in outcome.seeds]
            change = np.mean(
                [a.values[:, k] - b.values[:, k] for a, b in zip(outcome.seeds, base.seeds, strict=True)], 0
            )
            ends = 100 * interval(change[:, None], outcome.seeds[0].identity)[0]
            line[metric] = {
                "mean": float(np.mean(each)),
                "deviation": float(np.std(each, ddof=1)) if len(each) > 1 else None,
                "difference": 100 * float(change.mean()),
                "interval": None if outcome is base else ends.tolist(),
            }
        table.append(line)
    return table


def as_markdown(table: list[dict[str, Any]]) -> str:
    """The table of docs/ablation.md."""
    lines = [
        "| variant | R@1 | to the first | mAP | to the first |",
        "|---|---|---|---|---|",
    ]
    for row in table:
        cells = [row["variant"]]
        for metric in ("r1", "map"):
            one = row[metric]
            spread = "" if one["deviation"] is None else f" ± {one['deviation']:.1f}"
            cells.append(f"{one['mean']:.1f}{spread}")
            ends = one["interval"]
            cells.append("" if ends is None else f"{one['difference']:+.1f} [{ends[0]:+.1f}, {ends[1]:+.1f}]")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--data", "folder", type=click.Path(path_type=Path), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the runs.")
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(config: Path, folder: Path, out: Path, seeds: int, as_json: bool) -> None:
    """Train and compare the variants of TAG-CLIP."""
    from tagclip.train.progress import bar

    try:
        with bar() as tick:
            table = summarise(ablation(config, folder, out, seeds, tick))
    except TagclipError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    click.echo(json.dumps(table) if as_json else as_markdown(table))


if __name__ == "__main__":
    main()

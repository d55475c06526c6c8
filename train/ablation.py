"""What each part of TAG-CLIP brings: variants of one configuration, several seeds, one table.

    python -m tagclip.train.ablation configs/ablation.yaml --data DIR --out OUT [--seeds 3] [--json]

A variant's run that is finished is not trained again, and one that was cut off goes on: start the same command again.
The numbers are of the test split. A difference is paired with the run of the same seed of "plain CLIP", for what goes
beyond the paper with that of "HR-MoE + both"; its interval is over the people of the test, seeds taken together.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.cli import run
from tagclip.train.bootstrap import interval
from tagclip.train.checkpoint import load_checkpoint
from tagclip.train.config import load_config
from tagclip.train.data import Sample, input_spec, load_images, load_split
from tagclip.train.embed import embed_split
from tagclip.train.evaluate import METRICS, TITLES, Row, answer, rows
from tagclip.train.loop import Run
from tagclip.train.progress import Tick
from tagclip.train.split import as_split

# Name -> settings that differ from the base, an HR-MoE without view and orthogonal loss (arXiv 2511.08369, Table 4).
METHOD: dict[str, list[str]] = {
    "plain CLIP": ["model.moe_layers=[]"],
    "vanilla MoE": ["model.router=token"],
    "HR-MoE": [],
    "HR-MoE + view": ["train.weight_view=0.5"],
    "HR-MoE + orthogonal": ["train.weight_ortho=1.0"],
    "HR-MoE + both": ["train.weight_view=0.5", "train.weight_ortho=1.0"],
}
KNOWN = "HR-MoE + both, view known"  # the same weights, each picture routed by its label
# On top of "HR-MoE + both", with which they are compared: what may close the gap between the views.
PK = ["train.sampler=pk", "train.view_balanced=true"]
BEYOND: dict[str, list[str]] = {
    "captions crossed over": ["train.cross_caption=0.3"],
    "balanced views": ["train.view_balanced=true"],
    "4 pictures a person": PK,
    "4 pictures a person, ground teaches": [*PK, "train.weight_ground=1.0"],
    "averaged weights": ["train.ema=0.999"],
}
BEYOND_SEEDS = 2  # at most: these are tried out, the parts of the method are measured
# Metric and gallery of each column.
COLUMNS = (("r1", "all"), ("map", "all"), ("map", "aerial"), ("map", "ground"))
Rows = dict[str, Row]  # by gallery


@dataclass(frozen=True)
class Outcome:
    """One variant: per seed all queries' numbers by gallery, and the name of the variant that it is compared with."""

    name: str
    against: str
    seeds: list[Rows]


def ablation(config: Path, folder: Path, out: Path, seeds: int, tick: Tick) -> list[Outcome]:
    """Train every variant with every seed, as far as it is not done, and measure it on the test split.

    Args:
        config: the base configuration.
        folder: data of `tagclip synth crops`.
        out: a folder a run in it.

    Raises:
        ConfigError, DataError, CheckpointError, OutputError, TrainingError: what is wrong.
    """
    both = METHOD["HR-MoE + both"]
    variants = {name: (settings, "plain CLIP") for name, settings in METHOD.items()}
    variants |= {name: ([*both, *settings], "HR-MoE + both") for name, settings in BEYOND.items()}
    names = [*METHOD, KNOWN, *BEYOND]
    outcomes = {name: Outcome(name, variants.get(name, variants["HR-MoE"])[1], []) for name in names}
    samples = load_split(folder, "test")
    crops = load_images(samples, input_spec(load_config(config, []).model))
    for seed in range(seeds):
        for name, (overrides, _) in variants.items():
            if name in BEYOND and seed >= BEYOND_SEEDS:
                continue
            place = out / f"{name.replace(' ', '-').replace('+', 'and').replace(',', '')}-{seed}"
            train_once(config, folder, place, [*overrides, f"train.seed={seed}"], name, tick)
            outcomes[name].seeds.append(measure(place, samples, crops, known_view=False))
            if name == "HR-MoE + both":
                outcomes[KNOWN].seeds.append(measure(place, samples, crops, known_view=True))
    return list(outcomes.values())


def train_once(config: Path, folder: Path, run: Path, overrides: list[str], name: str, tick: Tick) -> None:
    """Train into the folder `run` what is not trained there yet; one that was cut off goes on."""
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


def measure(run: Path, samples: list[Sample], crops: NDArray[np.uint8], known_view: bool) -> Rows:
    """Numbers of every query in each gallery of COLUMNS; crops (N, H, W, 3) of the samples at the model's size."""
    model, tokenizer_json, _ = load_checkpoint(run)
    data = as_split(samples, tokenizer_json, model.context_length, crops)
    images, texts = embed_split(model, data, known_view=known_view)
    found = rows(answer(texts.numpy(), images.numpy(), data.owner, data.identity, data.view))
    return {gallery: found[gallery] for _, gallery in COLUMNS}


def summarise(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """For each variant and column: mean and spread over seeds in percent, and the difference to its `against`."""
    by_name = {outcome.name: outcome for outcome in outcomes}
    return [
        {
            "variant": outcome.name,
            "against": outcome.against,
            "seeds": len(outcome.seeds),
            "columns": [_column(outcome, by_name[outcome.against], *column) for column in COLUMNS],
        }
        for outcome in outcomes
    ]


def _column(outcome: Outcome, base: Outcome, metric: str, gallery: str) -> dict[str, Any]:
    k = METRICS.index(metric)
    own, others = ([seed[gallery].values[:, k] for seed in each.seeds] for each in (outcome, base))
    each = [100 * float(values.mean()) for values in own]
    change = np.mean([a - b for a, b in zip(own, others, strict=False)], 0)  # of the seeds that both have
    ends = 100 * interval(change[:, None], outcome.seeds[0][gallery].identity)[0]
    return {
        "metric": metric,
        "gallery": gallery,
        "mean": float(np.mean(each)),
        "deviation": float(np.std(each, ddof=1)) if len(each) > 1 else None,
        "difference": 100 * float(change.mean()),
        "interval": None if outcome is base else ends.tolist(),
    }


def as_markdown(table: list[dict[str, Any]]) -> str:
    """The table of docs/ablation.md: mean ± deviation over seeds, then the difference and its interval."""
    titles = ["seeds", *(f"{TITLES[METRICS.index(metric)]}, {gallery}" for metric, gallery in COLUMNS)]
    lines = ["| " + " | ".join(["variant", *titles]) + " |", "|---" * (1 + len(titles)) + "|"]
    for row in table:
        cells = [row["variant"], str(row["seeds"])]
        for one in row["columns"]:
            spread = "" if one["deviation"] is None else f" ± {one['deviation']:.1f}"
            ends = one["interval"]
            change = "" if ends is None else f"; {one['difference']:+.1f} [{ends[0]:+.1f}, {ends[1]:+.1f}]"
            cells.append(f"{one['mean']:.1f}{spread}{change}")
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

    with bar() as tick:
        table = summarise(ablation(config, folder, out, seeds, tick))
    click.echo(json.dumps(table) if as_json else as_markdown(table))


if __name__ == "__main__":
    run(main, "python -m tagclip.train.ablation")

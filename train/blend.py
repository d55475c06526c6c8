"""Between where a run began and where it ended: weights averaged over the two (WiSE-FT, arXiv 2109.01903, eq. 1).

    python -m tagclip.train.blend runs/nano --data data/nano --out runs/blend

A model that was trained on from another one gains on what it saw and loses elsewhere. Half-way between the two it keeps
most of both. The batch norms then get the statistics of the crops, since those of neither fit the weights between.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click
import numpy as np
import torch
from torch import nn

from tagclip.runtime.errors import CheckpointError, TagclipError
from tagclip.runtime.files import check_target, folder_atomic
from tagclip.train.checkpoint import load_checkpoint, write_tensors
from tagclip.train.data import input_spec, load_split
from tagclip.train.from_bundle import load_bundle
from tagclip.train.images import spread_crops
from tagclip.train.model import TagClip

CROPS = 2048  # that give the statistics
# A bundle does not hold these: they begin anew, and there is nothing to average them with.
_NEW = ("image_router", "log_scale")


def blend(run: Path, data: Path, out: Path, share: float) -> None:
    """Write a checkpoint to `out` (new or empty) whose weights are (1 - share) of the start and `share` of the run's.

    Args:
        run: a run that began with a bundle (train.pretrained); the bundle lies where it lay then.
        data: the run's data folder.
        share: 0 the start, 1 the run's end.

    Raises:
        CheckpointError: `run` is no such run. BundleError, DataError, OutputError: as their names say.
    """
    check_target(out)
    ended, tokenizer_json, config = load_checkpoint(run)
    if not config.train.pretrained or config.model.clip:
        raise CheckpointError(
            f"{run}: expected a run of small towers that began with a bundle (train.pretrained), "
            f"found one that began with {config.train.pretrained or 'random weights'}"
        )
    crops = spread_crops(load_split(data, "train"), input_spec(config.model), CROPS)
    begun, _, _ = load_checkpoint(run)
    load_bundle(begun, tokenizer_json, Path(config.train.pretrained), crops)
    with torch.no_grad():
        for (name, mine), (_, first) in zip(ended.named_parameters(), begun.named_parameters(), strict=True):
            if not any(part in name for part in _NEW):
                mine.lerp_(first, 1 - share)
        _renew_norms(ended, crops)
    with folder_atomic(out) as folder:
        for name in ("config.json", "tokenizer.json", "metrics.json"):
            shutil.copy(run / name, folder / name)
        write_tensors(folder / "model.safetensors", ended.state_dict())


def _renew_norms(model: TagClip, crops: np.ndarray) -> None:
    """Statistics of the batch norms: the mean over all crops."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    model.eval()
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean of all batches
    size = min(
        256, len(crops)
    )  # few crops are one batch; of many, what is left over would count as much as a batch
    for first in range(0, len(crops) - size + 1, size):
        model.image(torch.tensor(crops[first : first + size]))
    model.eval()


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the new checkpoint.")
@click.option(
    "--share", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="Of the run's end."
)
def main(run: Path, data: Path, out: Path, share: float) -> None:
    """Average the weights that RUN ended with and those of the bundle that it began with."""
    try:
        blend(run, data, out, share)
    except TagclipError as error:
        raise SystemExit(f"error: {error}") from error
    click.echo(f"{out}: {1 - share:g} of {run}'s start, {share:g} of its end")


if __name__ == "__main__":
    sys.exit(main())

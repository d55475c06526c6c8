"""Training of the detector: `python -m tagclip.train.detector.fit data/stills --out runs/detector`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

from tagclip.runtime.errors import DataError, TagclipError, TrainingError
from tagclip.train.backbone import load_photographs
from tagclip.train.checkpoint import write_json, write_tensors
from tagclip.train.config_model import BACKBONE_LAYERS
from tagclip.train.detector.model import PersonNet, load
from tagclip.train.detector.pictures import SIDE_PX, Images, Still, read, read_stills, varied
from tagclip.train.detector.targets import Target, loss_of, stacked
from tagclip.train.progress import Tick, bar

AVERAGE = 0.99  # decay of the averaged weights, which are what is kept
WARM_UP = 0.05  # share of the steps
FROZEN = 3  # layers of the trunk, up to a stride of 4 pixels: edges and textures, and most of its time
TRUNK_LR = 0.25  # of the learning rate
CLIP_NORM = 5.0


def fit(
    folders: list[Path],
    out: Path,
    *,
    epochs: int = 13,
    batch: int = 12,
    lr: float = 2e-3,
    weight_decay: float = 0.02,
    seed: int = 0,
    device: str = "cpu",
    workers: int = 1,
    begin: Path | None = None,
    frozen: int = FROZEN,
    tick: Tick = lambda what, done, total, note: None,
) -> dict[str, float]:
    """Train on the stills of `folders` that are not held out; writes model.safetensors and metrics.json into `out`.

    Args:
        begin: a run whose weights to begin with; else the trunk begins with those of photographs.
        frozen: layers of the trunk that stay as they are, 0 to 6; the others learn at `TRUNK_LR` of the rate.

    Returns:
        the losses of the last epoch, and its seconds.

    Raises:
        DataError: no stills, or too few. TrainingError: the loss is no longer finite.
        OutputError: `out` cannot be written. CheckpointError: `begin` holds no detector.
    """
    train, _ = read_stills(*folders)
    torch.manual_seed(seed)
    net = PersonNet()
    if begin is None:
        load_photographs(net.trunk)
    else:
        load(net, begin)
    net.trunk.freeze(frozen)
    net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    groups = _groups(net, lr, weight_decay)
    optimiser = torch.optim.AdamW(groups, lr=lr)
    per_epoch = len(train) // batch
    if not per_epoch:
        raise DataError(
            f"expected {batch} stills to train on, as --batch says, found {len(train)}; make more, or lower it"
        )
    steps = epochs * per_epoch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, [group["lr"] for group in groups], max(steps, 2), pct_start=WARM_UP
    )
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(AVERAGE), use_buffers=True)  # type: ignore[no-untyped-call]
    sums = np.zeros(2)
    history: list[dict[str, float]] = []
    net.train()
    data = _Pictures(train, seed)
    for step, (images, target) in enumerate(_batches(data, epochs, batch, workers, device != "cpu"), 1):
        logits, sides = net(images.to(device, non_blocking=True))
        found, boxes = loss_of(logits, sides, tuple(part.to(device, non_blocking=True) for part in target))
        loss = found + boxes
        if not torch.isfinite(loss):
            raise TrainingError(f"step {step}: the loss is {loss.item()}; take a smaller --lr than {lr:g}")
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(net.parameters(), CLIP_NORM)
        optimiser.step()
        schedule.step()
        average.update_parameters(net)
        sums = 0.98 * sums + 0.02 * np.array([found.item(), boxes.item()])
        shown = sums / (1 - 0.98**step)
        tick("train", step, steps, f"found {shown[0]:.3f} boxes {shown[1]:.3f}")
        if step % per_epoch == 0:
            history.append({"step": step, "found": float(shown[0]), "boxes": float(shown[1])})
            write_tensors(out / "model.safetensors", average.module.state_dict())
            write_json(out / "metrics.json", {"stills": len(train), "history": history})
    return history[-1]


def _groups(net: PersonNet, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Weights that learn, apart by what they are: the trunk's slowly, matrices with decay."""
    trunk = {id(weight) for weight in net.trunk.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for weight in net.parameters():
        if weight.requires_grad:
            groups.setdefault((id(weight) in trunk, weight.ndim > 1), []).append(weight)
    return [
        {
            "params": weights,
            "lr": lr * (TRUNK_LR if in_trunk else 1.0),
            "weight_decay": weight_decay if matrices else 0.0,
        }
        for (in_trunk, matrices), weights in groups.items()
    ]


class _Pictures(Dataset[tuple[Images, Target]]):
    """What is seen of still `k` in an epoch; chance comes from (seed, epoch, k), whoever makes it."""

    def __init__(self, stills: list[Still], seed: int):
        self.stills, self.seed = stills, seed

    def __getitem__(self, at: tuple[int, int]) -> tuple[Images, Target]:
        epoch, k = at
        return varied(read(self.stills[k]), self.stills[k], np.random.default_rng([self.seed, epoch, k]))


def _batches(data: _Pictures, epochs: int, batch: int, workers: int, pinned: bool) -> DataLoader[Any]:
    """Whole batches of every epoch, made ahead in worker processes: uint8 (B, H, W, 3), and the stacked targets."""
    orders = (
        np.random.default_rng([data.seed, epoch]).permutation(len(data.stills)) for epoch in range(epochs)
    )
    jobs = [
        [(epoch, int(number)) for number in order[k : k + batch]]
        for epoch, order in enumerate(orders)
        for k in range(0, len(order) - batch + 1, batch)
    ]
    return DataLoader(
        data,
        batch_sampler=jobs,
        collate_fn=_collated,
        num_workers=workers,
        multiprocessing_context="spawn" if workers else None,  # a fork of OpenCV's threads may wait for ever
        worker_init_fn=_one_thread,
        pin_memory=pinned,
    )


def _collated(made: list[tuple[Images, Target]]) -> tuple[Tensor, tuple[Tensor, ...]]:
    return torch.from_numpy(np.stack([image for image, _ in made])), stacked([target for _, target in made])


def _one_thread(number: int) -> None:
    cv2.setNumThreads(1)


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the run.")
@click.option("--epochs", type=click.IntRange(min=1), default=13, show_default=True)
@click.option("--batch", type=click.IntRange(min=1), default=12, show_default=True)
@click.option("--lr", type=click.FloatRange(min=0, min_open=True), default=2e-3, show_default=True)
@click.option("--begin", type=click.Path(path_type=Path), help="A run whose weights to begin with.")
@click.option(
    "--frozen",
    type=click.IntRange(0, BACKBONE_LAYERS),
    default=FROZEN,
    show_default=True,
    help="Layers of the trunk that do not learn.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option(
    "--workers", type=click.IntRange(min=0), default=1, show_default=True, help="That make batches."
)
def main(
    folders: tuple[Path, ...],
    out: Path,
    epochs: int,
    batch: int,
    lr: float,
    seed: int,
    device: str,
    workers: int,
    begin: Path | None,
    frozen: int,
) -> None:
    """Train the detector on the stills in FOLDERS."""
    cv2.setNumThreads(1)
    try:
        with bar() as tick:
            last = fit(
                list(folders),
                out,
                epochs=epochs,
                batch=batch,
                lr=lr,
                seed=seed,
                device=device,
                workers=workers,
                begin=begin,
                frozen=frozen,
                tick=tick,
            )
    except TagclipError as error:
        raise SystemExit(f"error: {error}") from error
    click.echo(f"{out}: found {last['found']:.3f}, boxes {last['boxes']:.3f}; {SIDE_PX} pixels a side")


if __name__ == "__main__":
    sys.exit(main())

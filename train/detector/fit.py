"""Training of the detector: `python -m tagclip.train.detector.fit data/stills --out runs/detector`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import cv2
import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tagclip.runtime.errors import TagclipError, TrainingError
from tagclip.train.checkpoint import write_json, write_tensors
from tagclip.train.detector.model import PersonNet
from tagclip.train.detector.pictures import SIDE_PX, Images, Still, read, read_stills, varied
from tagclip.train.detector.targets import Target, loss_of
from tagclip.train.progress import Tick, bar

AVERAGE = 0.99  # decay of the averaged weights, which are what is kept
WARM_UP = 0.05  # share of the steps
CLIP_NORM = 5.0


def fit(
    folder: Path,
    out: Path,
    *,
    epochs: int = 13,
    batch: int = 12,
    lr: float = 2e-3,
    weight_decay: float = 0.02,
    seed: int = 0,
    device: str = "cpu",
    tick: Tick = lambda what, done, total, note: None,
) -> dict[str, float]:
    """Train on the stills of `folder` that are not held out; writes model.safetensors and metrics.json into `out`.

    Returns:
        the losses of the last epoch, and its seconds.

    Raises:
        DataError: no stills. TrainingError: the loss is no longer finite. OutputError: `out` cannot be written.
    """
    train, _ = read_stills(folder)
    pictures: list[Images] = []
    for still in train:
        pictures.append(read(still))
        tick("load", len(pictures), len(train), "")
    torch.manual_seed(seed)
    net = PersonNet().to(device)
    decayed = [p for p in net.parameters() if p.ndim > 1]
    plain = [p for p in net.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}], lr=lr
    )
    steps = epochs * (len(train) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, max(steps, 2), pct_start=WARM_UP)
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(AVERAGE), use_buffers=True)  # type: ignore[no-untyped-call]
    sums = np.zeros(2)
    history: list[dict[str, float]] = []
    net.train()
    for step, (images, targets) in enumerate(_batches(pictures, train, epochs, batch, seed), 1):
        logits, sides = net(torch.from_numpy(images).to(device))
        found, boxes = loss_of(logits, sides, targets)
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
        if step % (len(train) // batch) == 0:
            history.append({"step": step, "found": float(shown[0]), "boxes": float(shown[1])})
            write_tensors(out / "model.safetensors", average.module.state_dict())
            write_json(out / "metrics.json", {"stills": len(train), "history": history})
    return history[-1]


def _batches(
    pictures: list[Images], stills: list[Still], epochs: int, batch: int, seed: int
) -> Iterator[tuple[Images, list[Target]]]:
    """Whole batches of every epoch; the next one is made while the network works on the last."""

    def make(epoch: int, chosen: np.ndarray) -> tuple[Images, list[Target]]:
        made = [varied(pictures[k], stills[k], np.random.default_rng([seed, epoch, k])) for k in chosen]
        return np.stack([image for image, _ in made]), [target for _, target in made]

    orders = (np.random.default_rng([seed, epoch]).permutation(len(stills)) for epoch in range(epochs))
    jobs = [
        (epoch, order[k : k + batch])
        for epoch, order in enumerate(orders)
        for k in range(0, len(order) - batch + 1, batch)
    ]
    with ThreadPoolExecutor(1) as pool:
        coming = [pool.submit(make, *job) for job in jobs[:2]]
        for k in range(len(jobs)):
            if k + 2 < len(jobs):
                coming.append(pool.submit(make, *jobs[k + 2]))
            yield coming[k].result()
            coming[k] = None  # type: ignore[call-overload]


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the run.")
@click.option("--epochs", type=click.IntRange(min=1), default=13, show_default=True)
@click.option("--batch", type=click.IntRange(min=1), default=12, show_default=True)
@click.option("--lr", type=click.FloatRange(min=0, min_open=True), default=2e-3, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--device", default="cpu", show_default=True)
def main(folder: Path, out: Path, epochs: int, batch: int, lr: float, seed: int, device: str) -> None:
    """Train the detector on the stills in FOLDER."""
    cv2.setNumThreads(1)
    try:
        with bar() as tick:
            last = fit(folder, out, epochs=epochs, batch=batch, lr=lr, seed=seed, device=device, tick=tick)
    except TagclipError as error:
        raise SystemExit(f"error: {error}") from error
    click.echo(f"{out}: found {last['found']:.3f}, boxes {last['boxes']:.3f}; {SIDE_PX} pixels a side")


if __name__ == "__main__":
    sys.exit(main())

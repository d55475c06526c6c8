"""Speed and memory of our training step against plain open_clip fine-tuning, in the same run.

    python -m tagclip.train.throughput CONFIG [--against ViT-B-16-quickgelu] [--json]

Both take steps in turn on random images and texts, with the same batch, precision, optimiser and device; medians count.
Theirs is open_clip's model and ClipLoss and nothing else. Ours is everything that `tagclip train` does in a step once
the batch stands on the device. Texts have the lengths of captions, 39 words on average; open_clip pads them to 77
tokens, we to the longest of the batch. Utilisation is the arithmetic of a step, counted by torch, over its time, as a
share of what this device reaches in a plain matrix product of that precision, or of --peak-tflops from a data sheet.
What gradient caching computes twice counts twice; with train.micro_batch=0 nothing is.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tagclip.runtime.cli import run
from tagclip.runtime.errors import ConfigError
from tagclip.train.attributes import GROUPS
from tagclip.train.batches import Batch, Labels
from tagclip.train.clip_models import context_length
from tagclip.train.clip_words import words_of
from tagclip.train.config import Config, load_config
from tagclip.train.embed import AUTOCAST
from tagclip.train.engine import Engine
from tagclip.train.model import TagClip
from tagclip.train.optimiser import make_optimiser
from tagclip.train.split import trim
from tagclip.train.step import backward

IDENTITIES = 4840  # of TAG-PEDES' training split: the size of the identity classifier
TOKENS_OF_CLIP = 77
CAPTION_TOKENS = (46, 9)  # mean and deviation: TAG-PEDES has 39 words a caption (arXiv 2511.08369)


def measure(config: Config, against: str, steps: int, rounds: int, peak_tflops: float) -> dict[str, Any]:
    """Median step of both, taken in turn.

    Args:
        against: a model of open_clip, built with random weights.
        steps, rounds: each round has `steps` of ours, then as many of theirs; one round before does not count.
        peak_tflops: of the device, 10^12 operations a second; 0 measures a matrix product.

    Returns:
        device, batch, precision, peak_tflops, `ours`, `theirs` (each images_per_s, step_s, tflop_per_step,
        utilisation 0..1, peak_memory_gb or None on CPU) and `ratio`, our images/s over theirs.

    Raises:
        ConfigError: there is no such model or device.
    """
    engine = Engine(config.train)
    if engine.world > 1:
        raise ConfigError(
            f"throughput is measured in one process, found {engine.world}; start it without torchrun"
        )
    contestants = {"ours": our_step(engine, config), "theirs": their_step(engine, config, against)}
    # Arithmetic first; it is also the warm-up, and fills the optimiser's state before memory is looked at.
    flops = {name: _flops(step) for name, step in contestants.items()}
    times: dict[str, list[float]] = {name: [] for name in contestants}
    memory: dict[str, float | None] = dict.fromkeys(contestants)
    for round_number in range(rounds + 1):
        for name, step in contestants.items():
            if engine.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            for _ in range(steps):
                seconds = _timed(step, engine.device)
                if round_number:
                    times[name].append(seconds)
            if engine.device.type == "cuda":
                memory[name] = torch.cuda.max_memory_allocated() / 1e9
    peak = peak_tflops or matmul_tflops(engine.device, engine.precision)
    result: dict[str, Any] = {
        "device": engine.describe(),
        "batch": config.train.batch,
        "against": against,
        "peak_tflops": peak,
        "peak_is": "given" if peak_tflops else "measured matrix product",
    }
    for name in contestants:
        median = statistics.median(times[name])
        result[name] = {
            "images_per_s": config.train.batch / median,
            "step_s": median,
            "tflop_per_step": flops[name] / 1e12,
            "utilisation": flops[name] / 1e12 / median / peak,
            "peak_memory_gb": memory[name],
        }
    return result | {"ratio": result["ours"]["images_per_s"] / result["theirs"]["images_per_s"]}


def our_step(engine: Engine, config: Config) -> Callable[[], Tensor]:
    """A function that takes one step of our training and returns the norm of its gradient."""
    settings, shape = config.train, config.model
    words = words_of(shape, ["a person in a red jacket"])
    attributes = sum(map(len, GROUPS.values())) if settings.weight_attributes else 0
    model = TagClip(shape, words.vocabulary, IDENTITIES if settings.weight_id else 0, attributes)
    prepared, _ = engine.prepare(model.train())
    assert isinstance(prepared, TagClip)
    optimiser = engine.fabric.setup_optimizers(make_optimiser(prepared, settings))
    assert not isinstance(optimiser, tuple)
    rng = np.random.default_rng(0)
    size, device = settings.batch, engine.device
    unknown = torch.full((size, len(GROUPS)), -1, device=device)
    labels = Labels(
        np.arange(size),
        torch.from_numpy(rng.integers(0, IDENTITIES, size)).to(device),
        torch.arange(size, device=device) % 2,
        unknown,
        unknown,
    )
    crops = (
        torch.from_numpy(rng.random((size, shape.height_px, shape.width_px, 3), np.float32)).to(device) * 255
    )
    texts = [
        _texts(size, context_length(shape), words.vocabulary, bool(shape.clip), rng)
        for _ in range(settings.captions)
    ]
    batch = Batch(crops, [trim(text).to(device) for text in texts], labels)
    norm = settings.clip_norm or float("inf")

    def step() -> Tensor:
        optimiser.zero_grad(set_to_none=True)
        terms = backward(engine, prepared, batch, settings, settings.soft_targets, (0, 0, 0))
        clipped = engine.fabric.clip_gradients(prepared, optimiser, max_norm=norm, error_if_nonfinite=False)
        assert clipped is not None
        torch.stack([*terms.values(), clipped]).tolist()  # the loop looks at them before it goes on
        optimiser.step()
        return clipped

    return step


def their_step(engine: Engine, config: Config, name: str) -> Callable[[], Tensor]:
    """The same for open_clip's model `name` with its ClipLoss.

    Raises:
        ConfigError: open_clip has no such model.
    """
    import open_clip

    if name not in open_clip.list_models():
        raise ConfigError(f"--against: expected a model of open_clip.list_models(), found {name!r}")
    model = open_clip.create_model(name, pretrained=None, device=engine.device)
    assert isinstance(model, open_clip.CLIP)
    model.train()
    optimiser = engine.fabric.setup_optimizers(make_optimiser(model, config.train))
    assert not isinstance(optimiser, tuple)
    size, device = config.train.batch, engine.device
    side = model.visual.image_size
    height, width = side if isinstance(side, (tuple, list)) else (side, side)
    images = torch.rand(size, 3, height, width, device=device)
    texts = torch.from_numpy(
        _texts(size, TOKENS_OF_CLIP, model.vocab_size, True, np.random.default_rng(0))
    ).to(device)
    loss = open_clip.ClipLoss()
    norm = config.train.clip_norm or float("inf")

    def step() -> Tensor:
        optimiser.zero_grad(set_to_none=True)
        with engine.fabric.autocast():
            features, text_features, scale = model(images, texts)[:3]
            value = loss(features, text_features, scale)
        engine.fabric.backward(value)
        clipped = engine.fabric.clip_gradients(model, optimiser, max_norm=norm, error_if_nonfinite=False)
        optimiser.step()
        assert clipped is not None
        return clipped

    return step


def _texts(
    count: int, context: int, vocabulary: int, framed: bool, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Random token ids (count, context) with the lengths of captions; `framed` by CLIP's first and last token."""
    texts = np.zeros((count, context), np.int64)
    lengths = np.clip(rng.normal(*CAPTION_TOKENS, count), 8, context).astype(int)
    for row, length in zip(texts, lengths, strict=True):
        row[:length] = rng.integers(2, vocabulary - 2, length)
        if framed:  # the last two of its vocabulary
            row[0], row[length - 1] = vocabulary - 2, vocabulary - 1
    return texts


def matmul_tflops(device: torch.device, precision: str) -> float:
    """10^12 operations a second of the best of five products of square matrices."""
    size = 8192 if device.type == "cuda" else 2048
    matrix = torch.rand(size, size, device=device, dtype=AUTOCAST.get(precision, torch.float32))
    return 2 * size**3 / min(_timed(lambda: matrix @ matrix, device) for _ in range(6)) / 1e12


def _flops(step: Callable[[], Tensor]) -> int:
    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def _timed(step: Callable[[], Tensor], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def as_text(result: dict[str, Any]) -> str:
    """The measurement for reading."""
    lines = [
        f"{result['device']}, batch {result['batch']}; peak {result['peak_tflops']:.3f} TFLOP/s ({result['peak_is']})",
        f"{'':24} {'images/s':>9} {'step, s':>8} {'TFLOP':>8} {'of peak':>8} {'memory, GB':>11}",
    ]
    for name, title in (("ours", "ours"), ("theirs", result["against"])):
        row = result[name]
        memory = "-" if row["peak_memory_gb"] is None else f"{row['peak_memory_gb']:.2f}"
        lines.append(
            f"{title:24} {row['images_per_s']:9.2f} {row['step_s']:8.3f} {row['tflop_per_step']:8.4f} "
            f"{row['utilisation']:8.1%} {memory:>11}"
        )
    return "\n".join([*lines, f"ratio {result['ratio']:.3f}"])


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1)
@click.option("--against", default="ViT-B-16-quickgelu", show_default=True, help="A model of open_clip.")
@click.option("--steps", type=click.IntRange(min=1), default=5, show_default=True, help="Of each, a round.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option(
    "--peak-tflops", type=click.FloatRange(min=0), default=0.0, help="Of the device; default measured."
)
@click.option("--json", "as_json", is_flag=True)
def main(
    config: Path,
    overrides: tuple[str, ...],
    against: str,
    steps: int,
    rounds: int,
    peak_tflops: float,
    as_json: bool,
) -> None:
    """Images/s, memory and utilisation of the step of CONFIG against plain open_clip fine-tuning."""
    result = measure(load_config(config, list(overrides)), against, steps, rounds, peak_tflops)
    click.echo(json.dumps(result) if as_json else as_text(result))


if __name__ == "__main__":
    run(main, "python -m tagclip.train.throughput")

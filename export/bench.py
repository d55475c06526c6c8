"""Latency of every kind of image tower on this machine's CPU, in one run: PyTorch, and the graphs that are exported.

    python -m tagclip.export.bench CONFIG [--batch 1 --batch 8] [--rounds 7] [--json]

The model has random weights, which change no time. "plain" is the same tower without experts, in PyTorch as open_clip
computes it (eager, fp32) and as a graph; "exact" and "merged" are specialists, "universal" finds the view out. Each
round times every contestant once; medians count, and ratios are to plain PyTorch.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from tagclip.calibration.ranges import by_minmax
from tagclip.export.images import gflop, image_graph, routes_by_view, specialist
from tagclip.export.merge import mean_gates, merge
from tagclip.export.quantise import layers, observe, quantise
from tagclip.export.specialist import ImageSpecialist
from tagclip.runtime.cli import run
from tagclip.runtime.errors import ConfigError
from tagclip.runtime.providers import exact_options
from tagclip.runtime.views import AERIAL, UNIVERSAL
from tagclip.train.clip_models import VOCABULARY
from tagclip.train.config import ModelConfig, load_config
from tagclip.train.data import input_spec
from tagclip.train.model import TagClip

PAUSE_S = 0.2
WORDS = 1000  # of a small text tower, which is not timed
Contestant = Callable[[NDArray[np.uint8]], object]


def measure(config: ModelConfig, batches: tuple[int, ...], rounds: int) -> list[dict[str, Any]]:
    """One row a contestant: name, parameters, gflop of one crop, and per batch the median milliseconds and ratio.

    Raises:
        ConfigError: the model does not route by view.
    """
    torch.manual_seed(0)
    words = VOCABULARY if config.clip else WORDS
    model = TagClip(config, words).eval()
    if not routes_by_view(model):
        raise ConfigError(
            "expected a model that routes by view, found none of its blocks in model.moe_layers"
        )
    plain = TagClip(dataclasses.replace(config, moe_layers=(), tse_ratio=0.0), words).eval()
    spec = input_spec(config)
    crops = np.random.default_rng(0).integers(
        0, 256, (max(batches), spec.height_px, spec.width_px, 3), dtype=np.uint8
    )
    crop = torch.from_numpy(crops[:1])
    exact = specialist(model, AERIAL)
    modules = {
        "plain": specialist(plain, UNIVERSAL),
        "merged": merge(exact, mean_gates(exact, crops)),
        "exact": exact,
        "universal": specialist(model, UNIVERSAL),
    }
    rows = [_row("plain, PyTorch", modules["plain"], _eager(modules["plain"]), crop)]
    for name, module in modules.items():
        graph = image_graph(module, crops.shape[1:3])
        rows.append(_row(f"{name}, fp32", module, _session(graph), crop))
        rows.append(_row(f"{name}, int8", module, _session(_int8(graph, crops)), crop))
    for batch in batches:
        times: dict[str, list[float]] = {row["name"]: [] for row in rows}
        for _ in range(rounds):
            for row in rows:
                times[row["name"]].append(_seconds(row["run"], crops[:batch]))
        base = statistics.median(times["plain, PyTorch"])
        for row in rows:
            seconds = statistics.median(times[row["name"]])
            row[f"batch {batch}"] = {
                "ms": 1000 * seconds,
                "ratio": base / seconds,
                "crops_per_s": batch / seconds,
            }
    return [{key: value for key, value in row.items() if key != "run"} for row in rows]


def _seconds(contestant: Contestant, crops: NDArray[np.uint8]) -> float:
    """One call, after one that warms up and a pause in which the threads of the one before stop spinning."""
    time.sleep(PAUSE_S)
    contestant(crops)
    start = time.perf_counter()
    contestant(crops)
    return time.perf_counter() - start


def _row(name: str, module: ImageSpecialist, contestant: Contestant, crop: torch.Tensor) -> dict[str, Any]:
    parameters = sum(p.numel() for p in module.parameters())
    return {"name": name, "parameters": parameters, "gflop": gflop(module, crop), "run": contestant}


def _eager(module: ImageSpecialist) -> Contestant:
    def contestant(crops: NDArray[np.uint8]) -> object:
        with torch.no_grad():
            return module(torch.from_numpy(crops))

    return contestant


def _session(graph: onnx.ModelProto) -> Contestant:
    data = graph.SerializeToString()
    session = ort.InferenceSession(data, exact_options(data), providers=["CPUExecutionProvider"])
    return lambda crops: session.run(None, {"crops": crops})


def _int8(graph: onnx.ModelProto, crops: NDArray[np.uint8]) -> onnx.ModelProto:
    found = layers(graph)
    seen = observe(graph, [name for layer in found for name in layer.watched], [crops])
    return quantise(graph, found, {name: by_minmax(histogram) for name, histogram in seen.items()})


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "--batch", "batches", type=click.IntRange(min=1), multiple=True, default=(1, 8), show_default=True
)
@click.option("--rounds", type=click.IntRange(min=1), default=7, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(config: Path, batches: tuple[int, ...], rounds: int, as_json: bool) -> None:
    """Time the image towers of CONFIG."""
    rows = measure(load_config(config, []).model, batches, rounds)
    if as_json:
        click.echo(json.dumps(rows))
        return
    titles = "".join(f"{f'ms, batch {b}':>14}{'ratio':>8}" for b in batches)
    click.echo(f"{'tower':<18}{'parameters':>13}{'GFLOP':>8}{titles}")
    for row in rows:
        cells = "".join(
            f"{row[f'batch {b}']['ms']:>14.1f}{row[f'batch {b}']['ratio']:>8.2f}" for b in batches
        )
        click.echo(f"{row['name']:<18}{row['parameters']:>13,}{row['gflop']:>8.2f}{cells}")


if __name__ == "__main__":
    run(main, "python -m tagclip.export.bench")

"""Where a run stands, as one file that is whole or absent: last.safetensors.

Weights, optimiser and weight average are its tensors; epoch, step, history and configuration stand in its header. A
run that is killed at any moment goes on from the last such file, and since all chance comes from (seed, epoch, step),
to the same numbers as one that was not killed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from tagclip.runtime.errors import CheckpointError
from tagclip.runtime.files import write_atomic
from tagclip.train.checkpoint import read_tensors

FILE = "last.safetensors"
KEY = "tagclip_state"


@dataclass
class Progress:
    """Numbers of a run that are not tensors.

    Attributes:
        epoch, step: finished epochs, and finished steps of the next one.
        total: finished steps of all epochs.
        best: mAP of the best validation so far, percent; -1 before the first.
        seconds, sums: of the unfinished epoch: time, and summed losses.
        history: a row for each finished epoch.
        world: processes that made it.
        scaler: of fp16's loss scaling.
        config: the run's, as JSON.
    """

    epoch: int = 0
    step: int = 0
    total: int = 0
    best: float = -1.0
    seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    world: int = 1
    scaler: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)


def save_state(
    folder: Path,
    progress: Progress,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: nn.Module | None,
) -> None:
    """Write the whole state as one file.

    Raises:
        OutputError: the folder cannot be written or is full; the state before stays.
    """
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    if average is not None:
        tensors |= {f"average.{k}": v for k, v in average.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, value in optimiser.state.get(parameter, {}).items():
            tensors[f"adamw.{key}.{name}"] = value
    ready = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    write_atomic(folder / FILE, save(ready, {KEY: json.dumps(vars(progress))}))


def read_progress(folder: Path, config: dict[str, Any]) -> Progress:
    """The numbers of the state in `folder`.

    Raises:
        CheckpointError: there is none, it is damaged, or it was made with another configuration.
    """
    path = folder / FILE
    if not path.exists():
        raise CheckpointError(
            f"expected {path}, found none: no epoch of this run was finished; start it again without --resume"
        )
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(KEY)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is damaged: {error}; start again with another --out") from error
    if text is None:
        raise CheckpointError(f"{path} has no state of a run in it; it comes from another version of tagclip")
    progress = Progress(**json.loads(text))
    if progress.config != json.loads(json.dumps(config)):
        raise CheckpointError(
            f"{folder}: the configuration is not the one that this run began with; "
            f"give the same one, or another --out ({_difference(progress.config, config)})"
        )
    return progress


def load_state(
    folder: Path, model: nn.Module, optimiser: torch.optim.Optimizer, average: nn.Module | None
) -> None:
    """Put the tensors of the state in `folder` into the run's own.

    Raises:
        CheckpointError: the file is damaged or does not fit the model.
    """
    tensors = read_tensors(folder / FILE)
    try:
        model.load_state_dict(_below(tensors, "model."))
        if average is not None:
            average.load_state_dict(_below(tensors, "average."))
    except RuntimeError as error:
        raise CheckpointError(f"{folder / FILE} does not fit the data or the model: {error}") from error
    trained = {id(p) for group in optimiser.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        # Absent where it never had a gradient: the view token of a model without HR-MoE blocks.
        if id(parameter) in trained and f"adamw.step.{name}" in tensors:
            optimiser.state[parameter] = {
                "step": tensors[f"adamw.step.{name}"],
                # In the parameter's own memory order: vectorised sums depend on it.
                **{
                    key: torch.zeros_like(parameter).copy_(tensors[f"adamw.{key}.{name}"])
                    for key in ("exp_avg", "exp_avg_sq")
                },
            }


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}


def _difference(old: dict[str, Any], new: dict[str, Any], path: str = "") -> str:
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            if found := _difference(before, after, f"{path}{key}."):
                return found
        elif json.dumps(before) != json.dumps(after):
            return f"{path}{key} was {before!r}, is {after!r}"
    return ""

"""Checkpoints: a folder of safetensors and JSON, never pickle.

model.safetensors   weights of the best epoch by validation
tokenizer.json      what the text tower reads
config.json         the run's configuration
metrics.json        the best epoch, its validation, and the history; written at the end
log.jsonl           one line an epoch: seconds, losses, validation
last.safetensors    weights and optimiser of the last epoch, for --resume
state.json          where the run stands, for --resume
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from tagclip.runtime.errors import CheckpointError, ConfigError
from tagclip.runtime.files import write_atomic
from tagclip.train.config import Config
from tagclip.train.model import TagClip

_TABLES = ("text.table.codes", "text.table.weight", "text.token_embedding.weight")


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Tensors to a safetensors file, atomically."""
    write_atomic(path, save({k: v.detach().contiguous().cpu() for k, v in tensors.items()}))


def write_json(path: Path, value: Any) -> None:
    """JSON for people and programs, atomically."""
    write_atomic(path, (json.dumps(value, indent=1) + "\n").encode())


def read_json(path: Path) -> Any:
    """Raises: CheckpointError when the file is missing or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"expected {path}, found none; give the folder that `tagclip train` wrote"
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Raises: CheckpointError when the file is missing or damaged."""
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"expected {path}, found none; the checkpoint is incomplete") from error
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is damaged: {error}; copy it again") from error


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder looks like a checkpoint (a bundle has no model.safetensors)."""
    return (folder / "model.safetensors").exists() and (folder / "config.json").exists()


def load_checkpoint(folder: Path) -> tuple[TagClip, str, Config]:
    """The model in evaluation mode without its training-only classifiers, the tokenizer's JSON, and the config.

    Raises:
        CheckpointError: something is missing, damaged, or does not fit the config.
    """
    try:
        config = Config.from_json(read_json(folder / "config.json"))
    except ConfigError as error:
        raise CheckpointError(f"{folder / 'config.json'}: {error}") from error
    tokenizer_path = folder / "tokenizer.json"
    if not tokenizer_path.exists():
        raise CheckpointError(f"expected {tokenizer_path}, found none; the checkpoint is incomplete")
    tensors = {
        k: v
        for k, v in read_tensors(folder / "model.safetensors").items()
        if not k.startswith(("classifier.", "attributes."))
    }
    table = next((tensors[name] for name in _TABLES if name in tensors), None)
    if table is None:
        raise CheckpointError(f"{folder}: model.safetensors has no text.table; it is not a tagclip model")
    try:
        model = TagClip(config.model, table.shape[0])
    except ConfigError as error:
        raise CheckpointError(f"{folder / 'config.json'}: {error}") from error
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{folder}: the weights do not fit config.json: {error}") from error
    return model.eval(), tokenizer_path.read_text(encoding="utf-8"), config

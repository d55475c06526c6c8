"""Pretrained weights from a local file into open_clip towers. Nothing is downloaded, no code of the file is run.

Two formats: safetensors with open_clip's names, and what OpenAI published, a TorchScript archive. Of an archive only
the tensors are read; the program that it also holds is left alone.
"""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from tagclip.runtime.errors import CheckpointError
from tagclip.train.clip import ClipImage
from tagclip.train.clip_models import native_grid
from tagclip.train.model import TagClip

# Facts that OpenAI's file keeps among its weights, and a mask that is not one.
_NOT_WEIGHTS = {"input_resolution", "context_length", "vocab_size", "attn_mask", "logit_bias"}
# Parts that no pretrained model has; they keep their initial values.
_OURS = re.compile(
    r"(classifier|attributes)\.|.*\.(view_token|tse|image_router|token_router)(\.|$)|image\.view_token$"
)


def load_pretrained(model: TagClip, path: Path) -> None:
    """Fill the towers of `model` with the weights of an open_clip model of the same architecture.

    Every expert begins as a copy of its block's feed-forward network ("upcycling"). The positional embedding is
    resized to the model's crops, bilinearly. Routers, view token and TSE keep their initial values.

    Args:
        model: one with `config.clip`.
        path: a `.safetensors` file in open_clip's format, or OpenAI's `.pt` file.

    Raises:
        CheckpointError: no such file, neither of the two formats, or the weights of another architecture; the message
            names the weight.
    """
    found = _rename(read_weights(path), model)
    wanted = model.state_dict()
    name = model.config.clip
    position = "image.positional_embedding"
    if position in found:
        found[position] = _resize(found[position], model, path)
    for key, tensor in wanted.items():
        if key not in found:
            if not _OURS.match(key):
                raise CheckpointError(
                    f"{path}: expected the weights of {name}, found no {key}; give its own file"
                )
        elif found[key].shape != tensor.shape:
            raise CheckpointError(
                f"{path}: expected the weights of {name}, whose {key} is {list(tensor.shape)}, "
                f"found {list(found[key].shape)}; give its own file or set model.clip"
            )
    unknown = sorted(set(found) - set(wanted))
    if unknown:
        raise CheckpointError(
            f"{path}: {name} has no weight {unknown[0]}; give its own file or set model.clip"
        )
    model.load_state_dict({key: tensor.float() for key, tensor in found.items()}, strict=False)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, as they are stored.

    Raises:
        CheckpointError: no such file, or neither safetensors nor a TorchScript archive.
    """
    if not path.is_file():
        raise CheckpointError(f"expected pretrained weights at {path}, found no file; nothing is downloaded")
    try:
        if not zipfile.is_zipfile(path):
            return load_file(path)
        return _of_archive(path)
    except Exception as error:  # of the zip, the pickle or safetensors: a malformed file raises anything
        raise CheckpointError(
            f"{path}: expected safetensors with open_clip's names or OpenAI's TorchScript archive, "
            f"and it cannot be read as one: {str(error).splitlines()[0]}"
        ) from error


class _Module:
    """Stands for every module of an archive: holds what the archive says of it, and can do nothing."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def _of_archive(path: Path) -> dict[str, Tensor]:
    """Tensors of a TorchScript archive by `torch.load` with weights_only, to which it must not look like one.

    An archive is a zip whose data.pkl names the classes of its own program. They are declared as `_Module`; any
    other class that torch does not hold for safe is refused by `torch.load`.
    """
    stripped = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(stripped, "w") as kept:
        names = archive.namelist()
        (root,) = {name.partition("/")[0] for name in names}
        for name in names:
            part = name.partition("/")[2]
            if part in ("data.pkl", "byteorder", "version") or part.startswith("data/"):
                kept.writestr(name, archive.read(name))
        pickled = archive.read(f"{root}/data.pkl")
    classes = {
        ".".join(str(value).split())
        for opcode, value, _ in pickletools.genops(pickled)
        if opcode.name == "GLOBAL" and str(value).startswith("__torch__.")
    }
    stripped.seek(0)
    with torch.serialization.safe_globals([(_Module, name) for name in classes]):
        root_module = torch.load(stripped, map_location="cpu", weights_only=True)
    if not isinstance(root_module, _Module):
        raise ValueError("it holds no module")
    found: dict[str, Tensor] = {}
    _collect(root_module, "", found)
    return found


def _collect(module: _Module, prefix: str, found: dict[str, Tensor]) -> None:
    for name, value in vars(module).items():
        if isinstance(value, _Module):
            _collect(value, f"{prefix}{name}.", found)
        elif isinstance(value, Tensor):
            found[prefix + name] = value


def _rename(tensors: dict[str, Tensor], model: TagClip) -> dict[str, Tensor]:
    """open_clip's names to ours, a mixture's feed-forward network once for each expert."""
    found: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        if key in _NOT_WEIGHTS:
            continue
        if key == "logit_scale":
            found["log_scale"] = tensor.reshape(())
            continue
        tower, name = ("image", key[7:]) if key.startswith("visual.") else ("text", key.removeprefix("text."))
        name = name.removeprefix("transformer.")
        mixed = re.fullmatch(r"(resblocks\.(\d+)\.mlp\.)(.+)", name)
        if tower == "image" and mixed and int(mixed[2]) in model.config.moe_layers:
            for k in range(model.config.experts):
                found[f"image.{mixed[1]}experts.{k}.{mixed[3]}"] = tensor
        else:
            found[f"{tower}.{name}"] = tensor
    return found


def _resize(position: Tensor, model: TagClip, path: Path) -> Tensor:
    """Positional embedding (1 + rows * columns, W) of the pretrained grid, for the patches of our crops."""
    config = model.config
    rows, columns = native_grid(config.clip)
    if position.ndim != 2 or len(position) != 1 + rows * columns:
        raise CheckpointError(
            f"{path}: expected the weights of {config.clip} with {rows}x{columns} patches, found "
            f"visual.positional_embedding of shape {list(position.shape)}; give its own file or set model.clip"
        )
    assert isinstance(model.image, ClipImage)
    patch = int(model.image.conv1.kernel_size[0])
    size = config.height_px // patch, config.width_px // patch
    if size == (rows, columns):
        return position
    grid = position[1:].float().view(1, rows, columns, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size, mode="bilinear", align_corners=False)
    return torch.cat([position[:1].float(), grid.flatten(2)[0].T])

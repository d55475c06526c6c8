"""AdamW over groups of parameters, and the learning rate of a moment."""

from __future__ import annotations

import math
import re
from typing import Any

import torch
from torch import nn

from tagclip.train.config import TrainConfig

BLOCK = re.compile(r"^(.*?\b(?:blocks|resblocks))\.(\d+)\.")
# What lies before the first block of a tower, in the small towers and in open_clip's.
ENTRANCE = re.compile(
    r"\b(stem|conv1|cls|class_embedding|view_token|position|positional_embedding|norm_pre|ln_pre|table|"
    r"token_embedding|enter)\b"
)
NEW = re.compile(r"\btse\b")


def make_optimiser(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW with the release's betas; a group for each (decay or none, factor of the learning rate)."""
    return torch.optim.AdamW(parameter_groups(model, config), lr=config.lr, betas=(0.9, 0.98))


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Groups with `params`, `weight_decay`, and `factor` of the learning rate.

    Only matrices decay: not biases, norms, tokens, positions or the temperature. Of a tower with L blocks, block k
    (0-based) has the factor lr_layer_decay ** (L - k), what lies before the blocks L + 1, what lies behind them 0.
    """
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    depth: dict[str, int] = {}
    for name, _ in trained:
        if found := BLOCK.match(name):
            depth[found[1]] = max(depth.get(found[1], 0), int(found[2]) + 1)
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in trained:
        decays = parameter.ndim >= 2 and "position" not in name
        if NEW.search(name):
            factor = config.lr_new
        else:
            factor = config.lr_layer_decay ** _from_output(name, depth)
        groups.setdefault((decays, factor), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": config.weight_decay if decays else 0.0, "factor": factor}
        for (decays, factor), parameters in groups.items()
    ]


def _from_output(name: str, depth: dict[str, int]) -> int:
    """Blocks between a parameter and the output of its tower."""
    if found := BLOCK.match(name):
        return depth[found[1]] - int(found[2])
    if ENTRANCE.search(name):
        tower = name.partition(".")[0]
        return 1 + max((layers for prefix, layers in depth.items() if prefix.startswith(tower)), default=0)
    return 0


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its learning rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["factor"]


def learning_rate(config: TrainConfig, progress: float) -> float:
    """Rate after `progress` epochs: linear warm-up, then cosine."""
    if progress < config.warmup:
        return config.lr * max(progress, 0.01) / config.warmup
    share = (progress - config.warmup) / max(1e-9, config.epochs - config.warmup)
    return config.lr_end + (config.lr - config.lr_end) * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))

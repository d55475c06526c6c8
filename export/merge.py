"""Merged specialists: each mixture becomes one feed-forward network, and a specialist costs what plain CLIP costs."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tagclip.export.specialist import ImageSpecialist
from tagclip.train.moe import FixedMoe

BATCH = 96
Crops = NDArray[np.uint8]


class Single(nn.Module):
    """One feed-forward network where a mixture stood; it answers as a mixture does."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, h: Tensor, view: Tensor | None = None) -> tuple[Tensor, None]:
        """(B, T, W) -> (B, T, W)."""
        return self.network(h), None


@torch.no_grad()
def mean_gates(specialist: ImageSpecialist, crops: Crops) -> dict[str, Tensor]:
    """How much each expert has to say: name of a FixedMoe -> (E,) mean weights over all tokens, summing to 1.

    Args:
        crops: (N, H, W, 3) uint8 of the specialist's view.
    """
    sums: dict[str, Tensor] = {}
    hooks = []
    for name, module in specialist.named_modules():
        if isinstance(module, FixedMoe):

            def count(moe: FixedMoe, inputs: tuple[Tensor, ...], name: str = name) -> None:
                weights = moe.weights(inputs[0])
                sums[name] = sums.get(name, 0.0) + weights.flatten(0, 1).sum(0)

            hooks.append(module.register_forward_pre_hook(count))
    for k in range(0, len(crops), BATCH):
        specialist(torch.from_numpy(crops[k : k + BATCH]))
    for hook in hooks:
        hook.remove()
    return {name: total / total.sum() for name, total in sums.items()}


def merge(specialist: ImageSpecialist, gates: dict[str, Tensor]) -> ImageSpecialist:
    """A copy whose mixtures are single networks: the experts' weights averaged by `gates`, see `mean_gates`.

    Experts that began as copies of one network ("upcycled") are near each other and average well. Those trained from
    scratch are not: `distil` afterwards.
    """
    merged = copy.deepcopy(specialist)
    for name, shares in gates.items():
        moe = merged.get_submodule(name)
        assert isinstance(moe, FixedMoe)
        states = [expert.state_dict() for expert in moe.experts]
        single = copy.deepcopy(moe.experts[0])
        single.load_state_dict(
            {
                key: sum(share * state[key] for share, state in zip(shares, states, strict=True))
                for key in states[0]
            }
        )
        parent, _, child = name.rpartition(".")
        setattr(merged.get_submodule(parent), child, Single(single))
    return merged


def distil(
    student: ImageSpecialist,
    teacher: ImageSpecialist,
    crops: Crops,
    steps: int,
    lr: float = 5e-4,
    seed: int = 0,
    tick: Callable[[int], None] = lambda step: None,
) -> None:
    """Teach a merged specialist, in place, to give the exact one's vectors: mean of 1 - cosine, AdamW, cosine decay.

    Args:
        student, teacher: on one device.
        crops: (N, H, W, 3) uint8 of the view; no labels are needed.
        tick: called with the number of steps done.
    """
    rng = np.random.default_rng(seed)
    device = next(student.parameters()).device
    optimiser = torch.optim.AdamW(student.parameters(), lr=lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=steps, pct_start=0.05)
    for step in range(steps):
        chosen = rng.choice(len(crops), min(BATCH, len(crops)), replace=False)
        batch = torch.from_numpy(crops[chosen]).to(device)
        with torch.no_grad():
            wanted = teacher(batch)
        loss = 1 - (student(batch) * wanted).sum(-1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        tick(step + 1)

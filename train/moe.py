"""Mixtures of experts in place of a feed-forward network (arXiv 2511.08369, section "HR-MoE", and its release).

`HrMoe` routes twice: the image picks a group of experts by its view, each token weighs the experts of the group.
An expert runs on what is routed to it and on nothing else. `FixedMoe` is the same mixture for one known
view, `DenseMoe` the same for a graph that has to find out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

AERIAL_INDEX, GROUND_INDEX = 0, 1
VIEW = "view"  # ModelConfig.router: HR-MoE; any other is the vanilla mixture
NOISE = 0.01  # standard deviation of the release's noise on the token logits


@dataclass
class Routing:
    """What the HR-MoE blocks of one forward pass say about the view, one entry a block; empty without view router.

    Attributes:
        view_logits: (B, 2) image-level router (eq. 3).
        cls, view: (B, W) CLS and view token at the block's input, after LN2.
    """

    view_logits: list[Tensor] = field(default_factory=list)
    cls: list[Tensor] = field(default_factory=list)
    view: list[Tensor] = field(default_factory=list)

    def note(self, h: Tensor, logits: Tensor | None) -> None:
        """Keep what a block's mixture saw: h (B, T, W), the view token last, and its logits (B, 2) or None."""
        if logits is not None:
            self.view_logits.append(logits)
            self.cls.append(h[:, 0])
            self.view.append(h[:, -1])


def group(experts: int, view: int) -> list[int]:
    """Experts that a view may use: all but the other view's own (eq. 7)."""
    return list(range(experts - 1)) if view == AERIAL_INDEX else list(range(1, experts))


def top_k_softmax(scores: Tensor, selected: int) -> Tensor:
    """Softmax over the experts of which only the `selected` largest stay, summing to 1 (eq. 6 and 8); -inf is 0."""
    if selected < scores.shape[-1]:
        least = scores.topk(selected, dim=-1).values[..., -1:]
        scores = scores.masked_fill(scores < least, float("-inf"))
    return scores.float().softmax(-1)


class HrMoe(nn.Module):
    """Hierarchically-routed mixture of experts (eq. 3-8); with `router` "token" the vanilla mixture.

    Where it differs from the release: evaluation routes by the arg max. The release draws Gumbel noise there too,
    so that the same picture may get another vector on the next day, and an index could not be compared with it.

    Attributes:
        selected: how many of its experts a token keeps (Top-K).
    """

    def __init__(
        self,
        width: int,
        experts: Iterable[nn.Module],
        selected: int,
        router: str = VIEW,
        noise: bool = False,
        gumbel: bool = False,
    ):
        """Args: noise, gumbel: as ModelConfig's `router_noise` and `gumbel`, both in training only."""
        super().__init__()
        self.selected, self.noise, self.gumbel = selected, noise, gumbel
        self.image_router = nn.Linear(width, 2) if router == VIEW else None
        self.experts = nn.ModuleList(experts)
        count = len(self.experts)
        self.token_router = nn.Linear(width, count)
        for linear in (self.image_router, self.token_router):
            if linear is not None:
                nn.init.normal_(linear.weight, std=1e-3)
                nn.init.zeros_(linear.bias)
        allowed = torch.zeros(2, count, dtype=torch.bool)
        for view in (AERIAL_INDEX, GROUND_INDEX):
            allowed[view, group(count, view)] = True
        self.register_buffer("allowed", allowed, persistent=False)
        self.allowed: Tensor

    def forward(self, h: Tensor, view: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Mix the experts.

        Args:
            h: (B, T, W) tokens after LN2; with a view router, the view token last.
            view: (B,) int64 to route by a known view; None routes by the prediction, as the paper does.

        Returns:
            (B, T, W) mixture, and (B, 2) image-level logits or None without a view router.
        """
        scores = self.token_router(h)
        if self.noise and self.training:
            scores = scores + NOISE * torch.randn_like(scores)
        if self.image_router is None:
            return self._by_token(h, top_k_softmax(scores, self.selected)), None
        logits = self.image_router(h[:, -1])
        chosen = self._view(logits) if view is None else view
        scores = scores.masked_fill(~self.allowed[chosen][:, None], float("-inf"))
        weights = top_k_softmax(scores, self.selected)
        if self.selected < len(self.experts) - 1:
            return self._by_token(h, weights), logits
        return self._by_view(h, weights, chosen), logits

    def _view(self, logits: Tensor) -> Tensor:
        """(B, 2) logits -> (B,) views. No gradient passes (eq. 4): the router learns from the view loss alone."""
        if self.gumbel and self.training:
            logits = logits - torch.empty_like(logits, dtype=torch.float32).exponential_().log()
        return logits.argmax(-1)

    def _by_view(self, h: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        """Every token keeps all of its group: an expert runs on the images of the views that it serves."""
        rows = [(chosen == view).nonzero()[:, 0] for view in (AERIAL_INDEX, GROUND_INDEX)]
        mixed = torch.zeros_like(h)
        for k, expert in enumerate(self.experts):
            served = [view for view in (AERIAL_INDEX, GROUND_INDEX) if k in group(len(self.experts), view)]
            count = sum(len(rows[view]) for view in served)
            if count == len(h):  # all of the batch: nothing to gather
                mixed = mixed + weights[..., k : k + 1].to(h.dtype) * expert(h)
            elif count:
                mine = rows[served[0]]
                part = weights[mine, :, k : k + 1].to(h.dtype) * expert(h[mine])
                mixed = mixed.index_add(0, mine, part.to(mixed.dtype))
        return mixed

    def _by_token(self, h: Tensor, weights: Tensor) -> Tensor:
        """A token keeps some of its group: an expert runs on the tokens that keep it."""
        flat, of_token = h.flatten(0, 1), weights.flatten(0, 1)
        mixed = torch.zeros_like(flat)
        for k, expert in enumerate(self.experts):
            mine = of_token[:, k].nonzero()[:, 0]
            if len(mine):
                part = of_token[mine, k : k + 1].to(h.dtype) * expert(flat[mine])
                mixed = mixed.index_add(0, mine, part.to(mixed.dtype))
        return mixed.view_as(h)


class FixedMoe(nn.Module):
    """An HrMoe whose view is known: the other view's expert and the image-level router are gone (exact).

    It shares the experts with `moe`. Nothing in it depends on the data, so it can be exported as a graph.
    """

    def __init__(self, moe: HrMoe, view: int):
        super().__init__()
        count = len(moe.experts)
        members = group(count, view) if moe.image_router is not None else list(range(count))
        self.selected = moe.selected
        self.experts = nn.ModuleList(moe.experts[k] for k in members)
        self.token_router = nn.Linear(moe.token_router.in_features, len(members))
        self.token_router.weight = nn.Parameter(moe.token_router.weight[members].detach().clone())
        self.token_router.bias = nn.Parameter(moe.token_router.bias[members].detach().clone())

    def forward(self, h: Tensor, view: Tensor | None = None) -> tuple[Tensor, None]:
        """(B, T, W) -> (B, T, W) mixture; `view` is not asked, and there are no logits."""
        return _mixture(self.experts, self.weights(h), h), None

    def weights(self, h: Tensor) -> Tensor:
        """(B, T, W) -> (B, T, E) shares of the experts, summing to 1."""
        return top_k_softmax(self.token_router(h), self.selected)


class DenseMoe(nn.Module):
    """An HrMoe that computes all experts on all tokens and weighs them: no shape depends on the data.

    A graph needs it, to route by the view that it predicts. It shares everything with `moe`.
    """

    def __init__(self, moe: HrMoe):
        super().__init__()
        self.selected, self.experts = moe.selected, moe.experts
        self.image_router, self.token_router = moe.image_router, moe.token_router
        self.register_buffer("closed", (~moe.allowed).float() * -1e4, persistent=False)
        self.closed: Tensor

    def forward(self, h: Tensor, view: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """h (B, T, W), with a view router the view token last -> (B, T, W), (B, 2) logits; `view` is not asked."""
        scores, logits = self.token_router(h), None
        if self.image_router is not None:
            logits = self.image_router(h[:, -1])
            scores = scores + self.closed[logits.argmax(-1)][:, None]
        return _mixture(self.experts, top_k_softmax(scores, self.selected), h), logits


def _mixture(experts: nn.ModuleList, weights: Tensor, h: Tensor) -> Tensor:
    """Every expert on every token: experts E, weights (B, T, E), h (B, T, W) -> (B, T, W)."""
    mixed = weights[..., :1] * experts[0](h)
    for k, expert in enumerate(experts):
        if k:
            mixed = mixed + weights[..., k : k + 1] * expert(h)
    return mixed


def replace_moe(blocks: Iterable[nn.Module], make: Callable[[HrMoe], nn.Module]) -> None:
    """Replace each HrMoe that is a child of one of `blocks` by what `make` makes of it, in place."""
    for block in blocks:
        for name, child in list(block.named_children()):
            if isinstance(child, HrMoe):
                setattr(block, name, make(child))


class Mlp(nn.Module):
    """Feed-forward network of the small towers; also one expert."""

    def __init__(self, width: int, ratio: float):
        super().__init__()
        self.up = nn.Linear(width, int(width * ratio))
        self.down = nn.Linear(int(width * ratio), width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., W) -> (..., W)."""
        out: Tensor = self.down(F.gelu(self.up(x)))
        return out

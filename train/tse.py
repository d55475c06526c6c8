"""What a tower gives: a global feature and, with token selection embedding, a local one (arXiv 2511.08369, after RDE).

The tokens that the global token attends to most in the last block are embedded and max-pooled.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Encoded(NamedTuple):
    """Features of a batch, not normalised: `whole` (B, D), and `part` (B, L), None without TSE."""

    whole: Tensor
    part: Tensor | None


def unit(encoded: Encoded) -> Tensor:
    """One unit vector (B, D), or (B, D + L) with TSE.

    The dot product of two of them is the mean of the global and the TSE cosine, the score of eq. 14.
    """
    whole = F.normalize(encoded.whole, dim=-1)
    if encoded.part is None:
        return whole
    return torch.cat([whole, F.normalize(encoded.part, dim=-1)], -1) / 2**0.5


def selected_count(tokens: int, ratio: float) -> int:
    """How many of `tokens` are selected at most: the share `ratio`, at least one."""
    return max(1, int(tokens * ratio))


class Tse(nn.Module):
    """Token selection embedding: top-k tokens by attention, two branches, max pool."""

    def __init__(self, inputs: int, outputs: int, count: int):
        """Args: inputs: size of a token; outputs: L; count: tokens to select at most."""
        super().__init__()
        self.count = count
        hidden = outputs // 2
        self.linear = nn.Linear(inputs, outputs)
        self.up = nn.Linear(inputs, hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.down = nn.Linear(hidden, outputs)

    def forward(self, tokens: Tensor, attention: Tensor, counts: Tensor | None = None) -> Tensor:
        """Embed the selected tokens.

        Args:
            tokens: (B, T, D) projected tokens of the last block.
            attention: (B, T) head-averaged attention of the global token to each; no gradient passes the selection.
            counts: (B, T) bool, True where a token may be selected, at least one a row; None for all. Rows with
                fewer than `count` are pooled over those that they have.

        Returns:
            (B, L), not normalised.
        """
        if counts is not None:
            attention = attention.masked_fill(~counts, -1.0)  # less than any attention
        found = attention.topk(min(self.count, tokens.shape[1]), dim=1).indices
        x = F.normalize(tokens.gather(1, found[..., None].expand(-1, -1, tokens.shape[2])), dim=-1)
        if counts is None:
            return self._embed(x).amax(1)
        kept = counts.gather(1, found)
        if self.training:  # padding must not enter the statistics of the batch norm
            embedded = self._embed(x[kept])
            y = embedded.new_full((*kept.shape, embedded.shape[-1]), float("-inf"))
            y = y.masked_scatter(kept[..., None], embedded)
        else:
            y = self._embed(x).masked_fill(~kept[..., None], float("-inf"))
        return y.amax(1)

    def _embed(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., L)."""
        hidden = self.up(x)
        hidden = F.relu(self.norm(hidden.flatten(0, -2)).view_as(hidden))
        out: Tensor = self.linear(x) + self.down(hidden)
        return out

"""The losses of TAG-CLIP as pure functions (METHOD sections 2-3; arXiv 2511.08369)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def same_identity_targets(ids: Tensor) -> Tensor:
    """(B, B) rows that sum to 1, equal on the pairs of one identity (the q of METHOD 3). ids: (B,)."""
    same = (ids[:, None] == ids[None]).float()
    return same / same.sum(1, keepdim=True)


def n_itc(similarity: Tensor, targets: Tensor, soft: float) -> Tensor:
    """Normalised image-text contrastive loss with softened targets, mean of both directions.

    Args:
        similarity: (B, B) scaled cosines, images in rows.
        targets: (B, B) rows that sum to 1.
        soft: share of the model's own (detached) prediction in the target, 0..1.
    """

    def one_way(logits: Tensor, wanted: Tensor) -> Tensor:
        mixed = soft * logits.detach().softmax(1) + (1 - soft) * wanted
        return -(mixed * logits.log_softmax(1)).sum(1).mean()

    return (one_way(similarity, targets) + one_way(similarity.T, targets.T)) / 2


def r_itc(similarity: Tensor, targets: Tensor, epsilon: float = 0.01) -> Tensor:
    """Reversed contrastive loss KL(prediction || targets + epsilon), mean of both directions.

    Args:
        similarity: (B, B) scaled cosines.
        targets: (B, B) rows that sum to 1.
        epsilon: keeps log 0 away.
    """

    def one_way(logits: Tensor, wanted: Tensor) -> Tensor:
        log_p = logits.log_softmax(1)
        return (log_p.exp() * (log_p - (wanted + epsilon).log())).sum(1).mean()

    return (one_way(similarity, targets) + one_way(similarity.T, targets.T)) / 2


def view_loss(view_logits: list[Tensor], view: Tensor) -> Tensor:
    """Cross-entropy of the image-level routers (eq. 9), mean over blocks. view_logits: (B, 2) each; view: (B,)."""
    if not view_logits:
        return torch.zeros(())
    return torch.stack([F.cross_entropy(logits.float(), view) for logits in view_logits]).mean()


def orthogonal_loss(cls: list[Tensor], view: list[Tensor], alpha: float) -> Tensor:
    """Hinge max(|cos(CLS, view token)| - alpha, 0), mean over images and blocks.

    Equation 10 prints min(|cos|, alpha), which has no gradient where the paper's prose wants one; this is the
    reading that fits the prose and the released code.

    Args:
        cls, view: (B, W) per block.
        alpha: cosine that is allowed, 0..1.
    """
    if not cls:
        return torch.zeros(())
    cosines = [F.cosine_similarity(c.float(), v.float(), dim=-1) for c, v in zip(cls, view, strict=True)]
    return torch.stack([(cosine.abs() - alpha).clamp(min=0).mean() for cosine in cosines]).mean()


def attribute_loss(logits: Tensor, labels: Tensor, sizes: Sequence[int]) -> Tensor:
    """Mean over groups of the cross-entropy of each group's classes; 0 where a batch has no label at all.

    Args:
        logits: (B, sum of sizes), the groups side by side.
        labels: (B, number of groups) classes, -1 for unknown.
        sizes: classes of each group.
    """
    parts = [
        F.cross_entropy(part[known], wanted[known])
        for part, wanted in zip(torch.split(logits, list(sizes), 1), labels.T, strict=True)
        if (known := wanted >= 0).any()
    ]
    return torch.stack(parts).mean() if parts else logits.sum() * 0.0


def identity_loss(logits_image: Tensor, logits_text: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of the shared identity classifier on both towers; logits (B, C), labels (B,)."""
    return (F.cross_entropy(logits_image, labels) + F.cross_entropy(logits_text, labels)) / 2

"""The losses of TAG-CLIP as pure functions (arXiv 2511.08369, and its release where that says more)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def same_identity_targets(ids: Tensor) -> Tensor:
    """(B, B) rows that sum to 1, equal on the pairs of one identity (the target q). ids: (B,)."""
    same = (ids[:, None] == ids[None]).float()
    return same / same.sum(1, keepdim=True)


def n_itc(similarity: Tensor, targets: Tensor, soft: float) -> Tensor:
    """N-ITC, the normalised image-text contrastive loss with softened targets (of eq. 1 and 2).

    Args:
        similarity: (B, B) cosines times the scale, images in rows.
        targets: (B, B) rows that sum to 1.
        soft: share of the model's own (detached) prediction in the target, 0..1.

    Returns:
        cross-entropy, mean over rows and both directions.
    """

    def one_way(logits: Tensor, wanted: Tensor) -> Tensor:
        mixed = soft * logits.detach().softmax(1) + (1 - soft) * wanted
        return -(mixed * logits.log_softmax(1)).sum(1).mean()

    return (one_way(similarity, targets) + one_way(similarity.T, targets.T)) / 2


def r_itc(similarity: Tensor, targets: Tensor, epsilon: float = 0.01) -> Tensor:
    """R-ITC, the reversed contrastive loss KL(prediction || targets + epsilon) (of eq. 1 and 2).

    Args:
        similarity: (B, B) cosines times the scale, images in rows.
        targets: (B, B) rows that sum to 1.
        epsilon: keeps log 0 away.

    Returns:
        mean over rows and both directions.
    """

    def one_way(logits: Tensor, wanted: Tensor) -> Tensor:
        log_p = logits.log_softmax(1)
        return (log_p.exp() * (log_p - (wanted + epsilon).log())).sum(1).mean()

    return (one_way(similarity, targets) + one_way(similarity.T, targets.T)) / 2


def sdm(cosine: Tensor, targets: Tensor, temperature: float = 0.02) -> Tensor:
    """Similarity distribution matching of IRRA (arXiv 2303.12501): R-ITC at a fixed scale, both directions summed.

    Args:
        cosine: (B, B) in -1..1, images in rows.
        targets: (B, B) rows that sum to 1.
        temperature: what the cosines are divided by.
    """
    return 2 * r_itc(cosine / temperature, targets, 1e-8)


def tal(cosine: Tensor, ids: Tensor, temperature: float = 0.015, margin: float = 0.1) -> Tensor:
    """Triplet alignment loss of RDE (arXiv 2308.09911), sum over rows and both directions.

    A row gives [margin - weighted mean of its positives + temperature * log sum of exp(negatives / temperature)]_+,
    the weights being the (detached) softmax over the positives. A row without negatives gives 0.

    Args:
        cosine: (B, B) in -1..1, images in rows.
        ids: (B,) identities.
        temperature, margin: RDE's 0.015 and 0.1.
    """
    same = ids[:, None] == ids[None]

    def one_way(scores: Tensor) -> Tensor:
        scaled = scores / temperature
        weights = scaled.detach().masked_fill(~same, float("-inf")).softmax(1)
        # Not -inf: the logarithm of an empty sum would have NaN for a gradient.
        hardest = temperature * scaled.masked_fill(same, -1e9).logsumexp(1)
        return (margin - (weights * scores).sum(1) + hardest).clamp(min=0).sum()

    return one_way(cosine) + one_way(cosine.T)


def contrast(
    kind: str, images: Tensor, texts: Tensor, ids: Tensor, scale: Tensor, soft: float
) -> dict[str, Tensor]:
    """The contrastive losses of one level: L_GA of the global features, L_LA of those of TSE (eq. 11 and 12).

    Args:
        kind: TrainConfig.contrast.
        images, texts: (B, D) features of the pairs, not normalised, float32.
        ids: (B,) identities.
        scale: () factor of the cosines; SDM and TAL have their own.
        soft: as in `n_itc`.

    Returns:
        name -> loss ().
    """
    cosine = F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T
    if kind == "tal":
        return {"tal": tal(cosine, ids)}
    targets = same_identity_targets(ids)
    if kind == "sdm":
        return {"sdm": sdm(cosine, targets)}
    return {"n_itc": n_itc(scale * cosine, targets, soft), "r_itc": r_itc(scale * cosine, targets)}


def view_loss(view_logits: list[Tensor], view: Tensor) -> Tensor:
    """Cross-entropy of the image-level routers (eq. 9), mean over blocks; 0 without any.

    Args:
        view_logits: (B, 2) of each block.
        view: (B,) int64, 0 aerial, 1 ground.
    """
    if not view_logits:
        return torch.zeros((), device=view.device)
    return torch.stack([F.cross_entropy(logits.float(), view) for logits in view_logits]).mean()


def orthogonal_loss(cls: list[Tensor], view: list[Tensor], alpha: float) -> Tensor:
    """Hinge max(|cos(CLS, view token)| - alpha, 0), mean over images and blocks; 0 without any.

    Equation 10 prints min(|cos|, alpha), which has no gradient where the paper's prose wants one; this is the
    reading that fits the prose and the released code. TrainConfig.ortho has both pairs of alpha and weight.

    Args:
        cls, view: (B, W) per block.
        alpha: cosine that is allowed, 0..1.
    """
    if not cls:
        return torch.zeros(())
    cosines = [F.cosine_similarity(c.float(), v.float(), dim=-1) for c, v in zip(cls, view, strict=True)]
    return torch.stack([(cosine.abs() - alpha).clamp(min=0).mean() for cosine in cosines]).mean()


def ground_teacher_loss(images: Tensor, ids: Tensor, view: Tensor) -> Tensor:
    """1 - cosine of each aerial picture to the (detached) mean of the ground pictures of its person in the batch.

    Args:
        images: (B, D) features, not normalised.
        ids: (B,) identities.
        view: (B,) 0 aerial, 1 ground.

    Returns:
        mean over the aerial pictures that have such a ground picture, 0 without any.
    """
    rows = F.normalize(images, dim=-1)
    teaches = (ids[:, None] == ids[None]) & (view == 1)[None] & (view == 0)[:, None]
    taught = teaches.any(1)
    if not taught.any():
        return images.sum() * 0.0
    teachers = teaches[taught].float() @ rows.detach()
    return 1 - F.cosine_similarity(rows[taught], teachers, dim=-1).mean()


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
    """L_id: mean cross-entropy of the shared identity classifier on both towers (of eq. 13).

    Args:
        logits_image, logits_text: (B, C) of the global features, not normalised.
        labels: (B,) int64 classes.
    """
    return (F.cross_entropy(logits_image, labels) + F.cross_entropy(logits_text, labels)) / 2

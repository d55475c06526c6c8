"""What a step computes from the model: features of the pairs, and the weighted losses of the whole batch's features.

The only file of the trainer that knows what the model returns. Features and losses are apart because the losses want
the features of all processes and of all micro batches at once (step.py).
"""

from __future__ import annotations

import torch
from torch import Tensor

from tagclip.train.attributes import GROUPS
from tagclip.train.batches import Labels
from tagclip.train.config import TrainConfig
from tagclip.train.losses import (
    attribute_loss,
    contrast,
    ground_teacher_loss,
    identity_loss,
    orthogonal_loss,
    view_loss,
)
from tagclip.train.model import Encoded, TagClip

Features = dict[str, Tensor]


def encode_pairs(model: TagClip, crops: Tensor, tokens: list[Tensor]) -> Features:
    """Everything that the losses need of b pairs, each tensor (b, ...) float32.

    Args:
        crops: (b, H, W, 3), 0..255.
        tokens: (b, T) int64, one entry for each caption of an image.
    """
    image, routing = model.image(crops)
    features = _levels("image", image)
    for k, each in enumerate(tokens):
        features |= _levels(f"text{k}", model.text(each))
    for k, (logits, cls, view) in enumerate(zip(routing.view_logits, routing.cls, routing.view, strict=True)):
        features |= {f"view_logits{k}": logits, f"cls{k}": cls, f"view{k}": view}
    return {name: feature.float() for name, feature in features.items()}


def _levels(name: str, encoded: Encoded) -> Features:
    """The global feature and, with TSE, the local one."""
    return {name: encoded.whole} | ({} if encoded.part is None else {f"part_{name}": encoded.part})


def weighted_losses(
    model: TagClip, features: Features, labels: Labels, config: TrainConfig, soft: float
) -> dict[str, Tensor]:
    """The terms whose sum is the loss, by name.

    Args:
        features: those of `encode_pairs` for the whole batch, (B, ...).
        labels: of the same B pairs.
        soft: share of the model's own prediction in the N-ITC target, 0..1.
    """
    captions = sum(name.startswith("text") for name in features)
    blocks = sum(name.startswith("cls") for name in features)
    image, texts = features["image"], [features[f"text{k}"] for k in range(captions)]
    logits, cls, view = (
        [features[f"{name}{k}"] for k in range(blocks)] for name in ("view_logits", "cls", "view")
    )
    parts: dict[str, Tensor] = {}
    for prefix, suffix in (("", ""), ("part_", "_part")):  # L_GA and, with TSE, L_LA (eq. 11)
        if f"{prefix}image" not in features:
            continue
        each = [
            contrast(
                config.contrast,
                features[f"{prefix}image"],
                features[f"{prefix}text{k}"],
                labels.identity,
                model.scale(),
                soft,
            )
            for k in range(captions)
        ]
        parts |= {name + suffix: torch.stack([terms[name] for terms in each]).mean() for name in each[0]}
    if blocks:  # none without an HR-MoE
        alpha, weight = config.orthogonal()
        parts["view"] = config.weight_view * view_loss(logits, labels.view)
        parts["ortho"] = weight * orthogonal_loss(cls, view, alpha)
    if config.weight_ground:
        parts["ground"] = config.weight_ground * ground_teacher_loss(image, labels.identity, labels.view)
    if model.classifier is not None:
        both = model.classifier(image), model.classifier(texts[0])
        parts["id"] = config.weight_id * identity_loss(*both, labels.identity)
    if model.attributes is not None:
        sizes = [len(classes) for classes in GROUPS.values()]
        of_image = attribute_loss(model.attributes(image), labels.image_attributes, sizes)
        of_text = attribute_loss(model.attributes(texts[0]), labels.text_attributes, sizes)
        parts["attributes"] = config.weight_attributes * (of_image + of_text) / 2
    return parts

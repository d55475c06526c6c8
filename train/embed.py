"""A split to vectors, and its retrieval metrics."""

from __future__ import annotations

import torch
from torch import Tensor

from tagclip.train.evaluate import Retrieval, by_view
from tagclip.train.model import Encoded, TagClip, unit
from tagclip.train.split import Split, trim

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@torch.no_grad()
def embed_split(
    model: TagClip, split: Split, precision: str = "fp32", known_view: bool = False
) -> tuple[Tensor, Tensor]:
    """Unit vectors of all images (N, D) and of all captions (C, D), as `unit` makes them.

    Args:
        precision: "fp32", "bf16" or "fp16".
        known_view: route each image by its label, as specialists do; else by the predicted view, as the paper does.
    """
    model.eval()
    device = next(model.parameters()).device
    with torch.autocast(device.type, AUTOCAST.get(precision), enabled=precision in AUTOCAST):
        images = [
            _vectors(
                model.image(
                    torch.from_numpy(split.images[k : k + 256]).to(device),
                    torch.from_numpy(split.view[k : k + 256]).to(device) if known_view else None,
                )[0]
            )
            for k in range(0, len(split.images), 256)
        ]
        texts = [
            _vectors(model.text(trim(split.tokens[k : k + 512]).to(device)))
            for k in range(0, len(split.tokens), 512)
        ]
    return torch.cat(images), torch.cat(texts)


def _vectors(encoded: Encoded) -> Tensor:
    part = None if encoded.part is None else encoded.part.float()
    return unit(Encoded(encoded.whole.float(), part)).cpu()


def evaluate_split(
    model: TagClip, split: Split, precision: str = "fp32", known_view: bool = False
) -> dict[str, Retrieval]:
    """Retrieval metrics of a model on a split, see `evaluate.by_view`; arguments as in `embed_split`."""
    images, texts = embed_split(model, split, precision, known_view)
    return by_view(texts.numpy(), images.numpy(), split.identity[split.owner], split.identity, split.view)

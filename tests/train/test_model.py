"""TagClip as others use it: lengths, the one unit vector, the temperature."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F

from tagclip.runtime.errors import ConfigError
from tagclip.train.config import ModelConfig
from tagclip.train.model import TagClip, unit


def model(toy_model: dict[str, Any], **changes: Any) -> TagClip:
    lists = {k: tuple(v) if isinstance(v, list) else v for k, v in (toy_model | changes).items()}
    torch.manual_seed(1)
    return TagClip(ModelConfig(**lists), 20).eval()


@torch.no_grad()
@pytest.mark.parametrize("ratio", [0.0, 0.3])
def test_one_dot_product_is_the_mean_of_both_cosines(toy_model: dict[str, Any], ratio: float) -> None:
    made = model(toy_model, tse_ratio=ratio, tse_dim=24)
    crops = torch.randint(0, 256, (5, 32, 16, 3), dtype=torch.uint8)
    images, _ = made.image(crops)
    texts = made.text(torch.randint(1, 20, (4, 12)))
    score = F.cosine_similarity(images.whole[:, None], texts.whole[None], dim=-1)
    if ratio:  # eq. 14
        assert images.part.shape == (5, 24) and texts.part.shape == (4, 24)
        score = (score + F.cosine_similarity(images.part[:, None], texts.part[None], dim=-1)) / 2
    else:
        assert images.part is None and texts.part is None
    torch.testing.assert_close(unit(images) @ unit(texts).T, score)
    torch.testing.assert_close(unit(images).norm(dim=1), torch.ones(5))
    assert unit(images).shape == (5, made.dim)


def test_a_clip_tower_takes_its_own_tokenizer_only(tiny_clip: str) -> None:
    with pytest.raises(ConfigError, match="expected CLIP's tokenizer of 49408 tokens, found one of 20"):
        TagClip(ModelConfig(clip=tiny_clip, height_px=32, width_px=16, moe_layers=()), 20)


def test_scale_is_capped(toy_model: dict[str, Any]) -> None:
    made = model(toy_model)
    assert made.scale().item() == pytest.approx(10)
    with torch.no_grad():
        made.log_scale.fill_(9)
    assert made.scale() == 100

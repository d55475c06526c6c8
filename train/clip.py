"""Towers of open_clip with HR-MoE, view token and token selection (arXiv 2511.08369 and its release).

What is taken from open_clip: the parts of a ViT and of its text transformer with their initial weights. The forward
pass is ours, since the view token enters and leaves on the way and the last block's attention is looked at.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagclip.runtime.errors import ConfigError
from tagclip.train.clip_models import open_clip_config
from tagclip.train.config import ModelConfig
from tagclip.train.moe import VIEW, HrMoe, Routing
from tagclip.train.tse import Encoded, Tse, selected_count

MEAN_STD = {
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def build_towers(config: ModelConfig) -> tuple[ClipImage, ClipText, float]:
    """Both towers with open_clip's initial weights, and the logarithm of its initial temperature.

    Raises:
        ConfigError: as `open_clip_config`, or the crops or blocks do not fit the model.
    """
    import open_clip

    values = open_clip_config(config.clip)
    vision = dict(values["vision_cfg"])
    patch, layers = vision.get("patch_size", 16), vision.get("layers", 12)
    if config.height_px % patch or config.width_px % patch:
        raise ConfigError(
            f"model.height_px and width_px must be multiples of the {patch} pixels of {config.clip}'s patches, "
            f"found {config.height_px}x{config.width_px}"
        )
    if not all(0 <= k < layers for k in config.moe_layers):
        raise ConfigError(
            f"model.moe_layers must lie in 0..{layers - 1} for {config.clip}, found {list(config.moe_layers)}"
        )
    vision["image_size"] = (config.height_px, config.width_px)
    clip = open_clip.CLIP(
        values["embed_dim"], vision, values["text_cfg"], quick_gelu=values.get("quick_gelu", False)
    )
    return ClipImage(config, clip.visual), ClipText(config, clip), float(clip.logit_scale.detach())


def attend(
    attention: nn.MultiheadAttention, h: Tensor, causal: bool, mask: Tensor | None, drop: float
) -> Tensor:
    """What `attention(h, h, h)` gives, by the fused kernel.

    Args:
        h: (B, T, W).
        causal: a token sees those before it and itself only.
        mask: bool, broadcast to (B, heads, T, T), True where a query may look; None for everywhere.
        drop: dropout of the attention, 0..1.

    Returns:
        (B, T, W).
    """
    batch, tokens, width = h.shape
    heads = attention.num_heads
    qkv = F.linear(h, attention.in_proj_weight, attention.in_proj_bias)
    q, k, v = qkv.view(batch, tokens, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=drop, is_causal=causal)
    out: Tensor = attention.out_proj(y.transpose(1, 2).reshape(batch, tokens, width))
    return out


def looks_at(attention: nn.MultiheadAttention, h: Tensor, queries: Tensor, mask: Tensor | None) -> Tensor:
    """Head-averaged attention of one token of each row to all of them.

    Args:
        h: (B, T, W).
        queries: (B, W) the rows of h that look.
        mask: (B, T) bool, True where they may look; None for everywhere.

    Returns:
        (B, T) float32, rows sum to 1.
    """
    batch, tokens, width = h.shape
    heads = attention.num_heads
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    q = F.linear(queries, weight[:width], bias[:width]).view(batch, heads, 1, width // heads)
    k = F.linear(h, weight[width : 2 * width], bias[width : 2 * width])
    k = k.view(batch, tokens, heads, width // heads).permute(0, 2, 3, 1)
    scores = ((q * (width // heads) ** -0.5) @ k).float()
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None], float("-inf"))
    return scores.softmax(-1).mean(1)[:, 0]


class ClipImage(nn.Module):
    """Crops to features, by the ViT of an open_clip model. Names of weights are open_clip's.

    The patch embedding `conv1` is never trained, as in the release.

    Attributes:
        blind: no token sees the view token but itself. The features are then those of a model without one, which
            is how its share can be measured; for tests and analysis.
    """

    def __init__(self, config: ModelConfig, visual: Any):
        super().__init__()
        self.conv1 = visual.conv1.requires_grad_(False)
        self.class_embedding: nn.Parameter = visual.class_embedding
        self.positional_embedding: nn.Parameter = visual.positional_embedding
        self.ln_pre: nn.Module = visual.ln_pre
        self.resblocks: nn.ModuleList = visual.transformer.resblocks
        self.ln_post: nn.Module = visual.ln_post
        self.proj: nn.Parameter = visual.proj
        width, outputs = self.proj.shape
        self.moe_layers = config.moe_layers
        self.last_moe = max(config.moe_layers, default=-1)
        for k in config.moe_layers:
            block: Any = self.resblocks[k]
            block.mlp = HrMoe(
                width,
                (copy.deepcopy(block.mlp) for _ in range(config.experts)),
                config.selected,
                config.router,
                config.router_noise,
                config.gumbel,
            )
        routed = self.last_moe >= 0 and config.router == VIEW
        self.view_token = nn.Parameter(torch.randn(width) * width**-0.5) if routed else None
        patches = len(self.positional_embedding) - 1
        self.tse = (
            Tse(outputs, config.tse_dim, selected_count(patches, config.tse_ratio))
            if config.tse_ratio
            else None
        )
        for name, values in zip(("mean", "std"), MEAN_STD[config.normalise], strict=True):
            self.register_buffer(name, torch.tensor(values) * 255, persistent=False)
        self.mean: Tensor
        self.std: Tensor
        self.blind = False

    def forward(self, crops: Tensor, view: Tensor | None = None) -> tuple[Encoded, Routing]:
        """Embed crops.

        Args:
            crops: (B, H, W, 3) RGB, 0..255, any dtype.
            view: (B,) int64 known views, or None to route by the predicted view.

        Returns:
            features, not normalised, and the routing.
        """
        x = ((crops.float() - self.mean) / self.std).permute(0, 3, 1, 2)
        x = self.conv1(x).flatten(2).transpose(1, 2)
        batch, patches = x.shape[:2]
        x = (
            torch.cat([self.class_embedding.expand(batch, 1, -1).to(x.dtype), x], 1)
            + self.positional_embedding
        )
        if self.view_token is not None:  # after the positions: it has none
            x = torch.cat([x, self.view_token.expand(batch, 1, -1).to(x.dtype)], 1)
        x = self.ln_pre(x)
        routing, attention = Routing(), None
        for k in range(len(self.resblocks)):
            block: Any = self.resblocks[k]
            mask = self._mask(x, patches)
            h = block.ln_1(x)
            if self.tse is not None and k == len(self.resblocks) - 1:
                seen = None if mask is None else mask[0].expand(batch, -1)
                attention = looks_at(block.attn, h, h[:, 0], seen)[:, 1 : patches + 1]
            x = x + block.ls_1(attend(block.attn, h, False, mask, 0.0))
            h = block.ln_2(x)
            if k in self.moe_layers:
                mixed, logits = block.mlp(h, view)
                routing.note(h, logits)
            else:
                mixed = block.mlp(h)
            x = x + block.ls_2(mixed)
            if k == self.last_moe:
                x = x[:, : patches + 1]
        if self.tse is None or attention is None:
            return Encoded(self.ln_post(x[:, 0]) @ self.proj, None), routing
        x = self.ln_post(x) @ self.proj
        return Encoded(x[:, 0], self.tse(x[:, 1:], attention)), routing

    def _mask(self, x: Tensor, patches: int) -> Tensor | None:
        """(T, T) where the view token is there and must not be seen, else None."""
        if not self.blind or x.shape[1] == patches + 1:
            return None
        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device)
        mask[:-1, -1] = False
        return mask


class ClipText(nn.Module):
    """Token ids to features, by the text transformer of an open_clip model. Names of weights are open_clip's."""

    def __init__(self, config: ModelConfig, clip: Any):
        super().__init__()
        self.token_embedding: nn.Embedding = clip.token_embedding
        self.positional_embedding: nn.Parameter = clip.positional_embedding
        self.resblocks: nn.ModuleList = clip.transformer.resblocks
        self.ln_final: nn.Module = clip.ln_final
        self.text_projection: nn.Parameter = clip.text_projection
        self.dropout = config.text_dropout
        words = len(self.positional_embedding) - 2  # all but the start and the end of the text
        outputs = self.text_projection.shape[1]
        self.tse = (
            Tse(outputs, config.tse_dim, selected_count(words, config.tse_ratio))
            if config.tse_ratio
            else None
        )

    def forward(self, tokens: Tensor) -> Encoded:
        """Embed texts.

        Args:
            tokens: (B, T) int64: start, words, end (the largest id), 0 for padding; T at most the context length.
                Columns that are padding in every row may be left out: no token sees what follows it, so the
                features stay the same.

        Returns:
            features, not normalised.
        """
        x = self.token_embedding(tokens) + self.positional_embedding[: tokens.shape[1]]
        end = tokens.argmax(-1)
        position = torch.arange(tokens.shape[1], device=tokens.device)[None]
        attention = None
        drop = self.dropout if self.training else 0.0
        for k in range(len(self.resblocks)):
            block: Any = self.resblocks[k]
            h = block.ln_1(x)
            if self.tse is not None and k == len(self.resblocks) - 1:
                attention = looks_at(block.attn, h, _row(h, end), position <= end[:, None])
            x = x + block.ls_1(attend(block.attn, h, True, None, drop))
            x = x + block.ls_2(block.mlp(block.ln_2(x)))
        if self.tse is None or attention is None:
            return Encoded(self.ln_final(_row(x, end)) @ self.text_projection, None)
        x = self.ln_final(x) @ self.text_projection
        words = (position > 0) & (position < end[:, None])
        # A text without a word has its end only.
        words = words | ((position == end[:, None]) & (end[:, None] <= 1))
        return Encoded(_row(x, end), self.tse(x, attention, words))


def _row(x: Tensor, index: Tensor) -> Tensor:
    """x (B, T, W), index (B,) -> (B, W)."""
    return x.gather(1, index[:, None, None].expand(-1, 1, x.shape[2]))[:, 0]

"""TAG-CLIP: a two-tower model whose image tower routes by viewpoint (arXiv 2511.08369, AAAI-26; "eq." below).

This file has the small model that is trained from scratch: a convolution stem instead of patches of 16 pixels, a few
blocks, the same HR-MoE, view token, view loss and orthogonal loss. Views: 0 aerial, 1 ground.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagclip.train.config import ModelConfig
from tagclip.train.words import VECTOR_DIM

AERIAL_INDEX, GROUND_INDEX = 0, 1


@dataclass
class Routing:
    """What the HR-MoE blocks of one forward pass say about the view, one entry a block.

    Attributes:
        view_logits: (B, 2) image-level router (eq. 3).
        cls, view: (B, W) CLS and view token at the block's input, after LN2.
    """

    view_logits: list[Tensor]
    cls: list[Tensor]
    view: list[Tensor]


class Attention(nn.Module):
    """Multi-head self-attention with an optional padding mask."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        """x (B, T, W); padding (B, T) bool, True where a token counts -> (B, T, W)."""
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        # Written out: on some dozens of tokens the fused kernel's backward pass costs a third of a CPU's step.
        scores = (q * (width // self.heads) ** -0.5) @ k.transpose(-2, -1)
        if padding is not None:
            scores = scores.masked_fill(~padding[:, None, None, :], -1e4)
        y = scores.softmax(-1).to(v.dtype) @ v
        out: Tensor = self.out(y.transpose(1, 2).reshape(batch, tokens, width))
        return out


class Mlp(nn.Module):
    """Feed-forward network; also one expert."""

    def __init__(self, width: int, ratio: float):
        super().__init__()
        self.up = nn.Linear(width, int(width * ratio))
        self.down = nn.Linear(int(width * ratio), width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., W) -> (..., W)."""
        out: Tensor = self.down(F.gelu(self.up(x)))
        return out


def group(experts: int, view: int) -> list[int]:
    """Experts that a view may use: all but the other view's own (eq. 7)."""
    return list(range(experts - 1)) if view == AERIAL_INDEX else list(range(1, experts))


class HrMoe(nn.Module):
    """Hierarchically-routed mixture of experts: the image picks a group, each token weighs its experts (eq. 3-8).

    `fixed_view` makes a specialist: the group is constant and the image-level router is not asked.
    """

    def __init__(self, width: int, ratio: float, experts: int, selected: int):
        super().__init__()
        self.selected = selected
        self.image_router = nn.Linear(width, 2)
        self.token_router = nn.Linear(width, experts)
        self.experts = nn.ModuleList(Mlp(width, ratio) for _ in range(experts))
        for router in (self.image_router, self.token_router):
            nn.init.normal_(router.weight, std=1e-3)
            nn.init.zeros_(router.bias)
        allowed = torch.zeros(2, experts, dtype=torch.bool)
        for view in (AERIAL_INDEX, GROUND_INDEX):
            allowed[view, group(experts, view)] = True
        self.register_buffer("allowed", allowed, persistent=False)
        self.allowed: Tensor

    def forward(self, h: Tensor, view: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mix the experts.

        Args:
            h: (B, T, W) tokens after LN2, the view token last.
            view: (B,) int64 to route by a known view; None routes by the prediction, as the paper does. Without
                Gumbel noise, so that evaluation is deterministic (the released code draws it even there).

        Returns:
            (B, T, W) mixture and (B, 2) image-level logits.
        """
        logits = self.image_router(h[:, -1])
        chosen = logits.argmax(-1) if view is None else view
        scores = self.token_router(h).masked_fill(~self.allowed[chosen][:, None], float("-inf"))
        weights = top_k_softmax(scores, self.selected)
        mixed = torch.zeros_like(h)
        for k, expert in enumerate(self.experts):
            mixed = mixed + weights[..., k : k + 1].to(h.dtype) * expert(h)
        return mixed, logits


def top_k_softmax(scores: Tensor, selected: int) -> Tensor:
    """Softmax over the experts of which only the `selected` largest stay, summing to 1 (eq. 6 and 8); -inf is 0."""
    if selected < scores.shape[-1]:
        least = scores.topk(selected, dim=-1).values[..., -1:]
        scores = scores.masked_fill(scores < least, float("-inf"))
    return scores.float().softmax(-1)


class Block(nn.Module):
    """Pre-norm transformer block; `moe` makes its feed-forward network an HR-MoE."""

    def __init__(self, width: int, heads: int, ffn: nn.Module):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.ffn = ffn

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        """(B, T, W) -> (B, T, W), for plain feed-forward networks."""
        x = x + self.attention(self.norm1(x), padding)
        out: Tensor = x + self.ffn(self.norm2(x))
        return out


class ConvStage(nn.Module):
    """Halves the resolution: convolution 3x3 of stride 2, batch norm, ReLU (both cheap, and fused by engines)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, outputs, H/2, W/2)."""
        return F.relu(self.norm(self.conv(x)))


class ConvBlock(nn.Module):
    """Keeps the resolution: x + batch norm of a convolution 3x3, then ReLU."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return F.relu(x + self.norm(self.conv(x)))


def conv_stem(config: ModelConfig) -> nn.Sequential:
    """Stages of stride 2, each followed by its blocks."""
    layers: list[nn.Module] = []
    channels = (3, *config.stem)
    blocks = config.stem_blocks or (0,) * len(config.stem)
    for k, count in enumerate(blocks):
        layers.append(ConvStage(channels[k], channels[k + 1]))
        layers += [ConvBlock(channels[k + 1]) for _ in range(count)]
    return nn.Sequential(*layers)


class ImageTower(nn.Module):
    """Crops to embeddings."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        width = config.stem[-1]
        self.stem = conv_stem(config)
        tokens = config.height_px * config.width_px // 4 ** len(config.stem)
        self.cls = nn.Parameter(torch.randn(width) * width**-0.5)
        self.view_token = nn.Parameter(torch.randn(width) * width**-0.5)
        self.position = nn.Parameter(torch.randn(1 + tokens, width) * 0.02)
        self.norm_pre = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(
            Block(
                width,
                config.heads,
                HrMoe(width, config.mlp_ratio, config.experts, config.selected)
                if k in config.moe_layers
                else Mlp(width, config.mlp_ratio),
            )
            for k in range(config.layers)
        )
        # The view token leaves after the last HR-MoE block (METHOD 2.2); without one it never enters.
        self.last_moe = max(config.moe_layers, default=-1)
        self.norm_post = nn.LayerNorm(width)
        self.project = nn.Linear(width, config.embedding_dim, bias=False)

    def forward(self, crops: Tensor, view: Tensor | None = None) -> tuple[Tensor, Routing]:
        """Embed crops.

        Args:
            crops: (B, H, W, 3) RGB, 0..255, any dtype.
            view: (B,) int64 known views, or None to route by the predicted view.

        Returns:
            (B, D) embeddings, not normalised, and the routing.
        """
        x = crops.float().permute(0, 3, 1, 2) / 127.5 - 1
        x = self.stem(x).flatten(2).transpose(1, 2)
        batch = x.shape[0]
        x = torch.cat([self.cls.expand(batch, 1, -1).to(x.dtype), x], 1) + self.position
        if self.last_moe >= 0:
            x = torch.cat([x, self.view_token.expand(batch, 1, -1).to(x.dtype)], 1)
        x = self.norm_pre(x)
        routing = Routing([], [], [])
        for k, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            if isinstance(block.ffn, HrMoe):
                x = x + block.attention(block.norm1(x))
                h = block.norm2(x)
                mixed, logits = block.ffn(h, view)
                x = x + mixed
                routing.view_logits.append(logits)
                routing.cls.append(h[:, 0])
                routing.view.append(h[:, -1])
            else:
                x = block(x)
            if k == self.last_moe:
                x = x[:, :-1]
        out: Tensor = self.project(self.norm_post(x[:, 0]))
        return out, routing


class WordTable(nn.Module):
    """Frozen word vectors: int8 codes (V, S) times a scale (V, 1).

    Frozen, so that words that no caption holds keep their place beside those that some do.
    """

    def __init__(self, vocabulary: int, size: int):
        super().__init__()
        self.register_buffer("codes", torch.zeros(vocabulary, size, dtype=torch.int8))
        self.register_buffer("scales", torch.ones(vocabulary, 1))
        self.codes: Tensor
        self.scales: Tensor

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, S) float32."""
        return self.codes[tokens].float() * self.scales[tokens]


class TextTower(nn.Module):
    """Token ids to embeddings."""

    def __init__(self, config: ModelConfig, vocabulary: int):
        super().__init__()
        width = config.text_width
        frozen = config.word_vectors == "minilm"
        size = VECTOR_DIM if frozen else width
        self.table: nn.Module = WordTable(vocabulary, size) if frozen else nn.Embedding(vocabulary, size)
        self.enter = nn.Linear(size, width)
        self.cls = nn.Parameter(torch.randn(width) * 0.02)
        self.position = nn.Parameter(torch.randn(1 + config.context_length, width) * 0.02)
        self.blocks = nn.ModuleList(
            Block(width, config.text_heads, Mlp(width, 4.0)) for _ in range(config.text_layers)
        )
        self.norm_post = nn.LayerNorm(width)
        self.project = nn.Linear(width, config.embedding_dim, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) int64 ids, 0 for padding -> (B, D), not normalised."""
        batch = tokens.shape[0]
        x = self.enter(self.table(tokens))
        x = (
            torch.cat([self.cls.expand(batch, 1, -1).to(x.dtype), x], 1)
            + self.position[: tokens.shape[1] + 1]
        )
        counts = torch.cat([torch.ones_like(tokens[:, :1], dtype=torch.bool), tokens != 0], 1)
        for block in self.blocks:
            x = block(x, counts)
        out: Tensor = self.project(self.norm_post(x[:, 0]))
        return out


class TagClip(nn.Module):
    """Both towers and the temperature."""

    def __init__(self, config: ModelConfig, vocabulary: int, identities: int = 0, attributes: int = 0):
        """Args: identities, attributes: sizes of the training-only classifiers, 0 for none."""
        super().__init__()
        self.config = config
        self.image = ImageTower(config)
        self.text = TextTower(config, vocabulary)
        self.log_scale = nn.Parameter(torch.tensor(10.0).log())
        self.classifier = nn.Linear(config.embedding_dim, identities) if identities else None
        self.attributes = nn.Linear(config.embedding_dim, attributes) if attributes else None

    def scale(self) -> Tensor:
        """Factor of the cosines in the losses, at most 100."""
        return self.log_scale.exp().clamp(max=100)

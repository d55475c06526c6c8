"""The small towers that are trained from scratch: a convolution stem instead of patches of 16 pixels, a few blocks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagclip.train.backbone import CHANNELS, Trunk
from tagclip.train.config import ModelConfig
from tagclip.train.moe import VIEW, HrMoe, Mlp, Routing
from tagclip.train.tse import Encoded, Tse, selected_count
from tagclip.train.word_vectors import VECTOR_DIM


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

    def of_first(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        """Head-averaged attention of the first token to all: arguments as in `forward` -> (B, T), rows sum to 1."""
        batch, tokens, width = x.shape
        size = width // self.heads
        q = F.linear(x[:, 0], self.qkv.weight[:width], self.qkv.bias[:width]).view(batch, self.heads, 1, size)
        k = F.linear(x, self.qkv.weight[width : 2 * width], self.qkv.bias[width : 2 * width])
        scores = (q * size**-0.5) @ k.view(batch, tokens, self.heads, size).permute(0, 2, 3, 1)
        if padding is not None:
            scores = scores.masked_fill(~padding[:, None, None, :], -1e4)
        return scores.float().softmax(-1).mean(1)[:, 0]


class Block(nn.Module):
    """Pre-norm transformer block; `ffn` is a feed-forward network, in the image tower it may be an HrMoe."""

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
    """Stages of stride 2, each followed by its blocks; or the trunk that has seen photographs."""
    if config.backbone:
        return nn.Sequential(Trunk(), nn.Conv2d(CHANNELS, config.stem[-1], 1))
    layers: list[nn.Module] = []
    channels = (3, *config.stem)
    blocks = config.stem_blocks or (0,) * len(config.stem)
    for k, count in enumerate(blocks):
        layers.append(ConvStage(channels[k], channels[k + 1]))
        layers += [ConvBlock(channels[k + 1]) for _ in range(count)]
    return nn.Sequential(*layers)


class ImageTower(nn.Module):
    """Crops to features."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        width = config.stem[-1]
        self.stem = conv_stem(config)
        tokens = config.height_px * config.width_px // config.stride_px**2
        self.cls = nn.Parameter(torch.randn(width) * width**-0.5)
        # The view token leaves after the last HR-MoE block (as in the release); without one it never enters.
        self.last_moe = max(config.moe_layers, default=-1)
        routed = self.last_moe >= 0 and config.router == VIEW
        self.view_token = nn.Parameter(torch.randn(width) * width**-0.5) if routed else None
        self.position = nn.Parameter(torch.randn(1 + tokens, width) * 0.02)
        self.norm_pre = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(
            Block(
                width,
                config.heads,
                HrMoe(
                    width,
                    (Mlp(width, config.mlp_ratio) for _ in range(config.experts)),
                    config.selected,
                    config.router,
                    config.router_noise,
                    config.gumbel,
                )
                if k in config.moe_layers
                else Mlp(width, config.mlp_ratio),
            )
            for k in range(config.layers)
        )
        self.moe_layers = config.moe_layers
        self.norm_post = nn.LayerNorm(width)
        self.project = nn.Linear(width, config.embedding_dim, bias=False)
        self.tse = (
            Tse(config.embedding_dim, config.tse_dim, selected_count(tokens, config.tse_ratio))
            if config.tse_ratio
            else None
        )

    def forward(self, crops: Tensor, view: Tensor | None = None) -> tuple[Encoded, Routing]:
        """Embed crops.

        Args:
            crops: (B, H, W, 3) RGB, 0..255, any dtype.
            view: (B,) int64 known views, or None to route by the predicted view.

        Returns:
            features, not normalised, and the routing.
        """
        x = crops.float().permute(0, 3, 1, 2) / 127.5 - 1
        x = self.stem(x).flatten(2).transpose(1, 2)
        batch, patches = x.shape[:2]
        x = torch.cat([self.cls.expand(batch, 1, -1).to(x.dtype), x], 1) + self.position
        if self.view_token is not None:
            x = torch.cat([x, self.view_token.expand(batch, 1, -1).to(x.dtype)], 1)
        x = self.norm_pre(x)
        routing, attention = Routing(), None
        for k, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            if self.tse is not None and k == len(self.blocks) - 1:
                attention = block.attention.of_first(block.norm1(x))[:, 1 : patches + 1]
            if k in self.moe_layers:
                x = x + block.attention(block.norm1(x))
                h = block.norm2(x)
                mixed, logits = block.ffn(h, view)
                x = x + mixed
                routing.note(h, logits)
            else:
                x = block(x)
            if k == self.last_moe and self.view_token is not None:
                x = x[:, :-1]
        if self.tse is None or attention is None:
            return Encoded(self.project(self.norm_post(x[:, 0])), None), routing
        x = self.project(self.norm_post(x))
        return Encoded(x[:, 0], self.tse(x[:, 1:], attention)), routing


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
    """Token ids to features."""

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
        self.tse = (
            Tse(config.embedding_dim, config.tse_dim, selected_count(config.context_length, config.tse_ratio))
            if config.tse_ratio
            else None
        )

    def forward(self, tokens: Tensor) -> Encoded:
        """(B, T) int64 ids, 0 for padding -> features, not normalised."""
        batch = tokens.shape[0]
        x = self.enter(self.table(tokens))
        x = (
            torch.cat([self.cls.expand(batch, 1, -1).to(x.dtype), x], 1)
            + self.position[: tokens.shape[1] + 1]
        )
        words = tokens != 0
        counts = torch.cat([torch.ones_like(words[:, :1]), words], 1)
        attention = None
        for k, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            if self.tse is not None and k == len(self.blocks) - 1:
                attention = block.attention.of_first(block.norm1(x), counts)
            x = block(x, counts)
        if self.tse is None or attention is None:
            return Encoded(self.project(self.norm_post(x[:, 0])), None)
        x = self.project(self.norm_post(x))
        # A text without a word has its own CLS only.
        counts = torch.cat([~words.any(1, keepdim=True), words], 1)
        return Encoded(x[:, 0], self.tse(x, attention, counts))

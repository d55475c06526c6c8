"""Graph-ready modules: a specialist image tower for one view, and the text tower, with unit outputs."""

from __future__ import annotations

import copy

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tagclip.train.model import (
    Block,
    ConvBlock,
    ConvStage,
    HrMoe,
    ImageTower,
    TagClip,
    WordTable,
    group,
    top_k_softmax,
)


class FixedMoe(nn.Module):
    """An HR-MoE whose view is known: the other view's expert and the image-level router are gone (exact)."""

    def __init__(self, moe: HrMoe, view: int):
        super().__init__()
        members = group(len(moe.experts), view)
        self.selected = moe.selected
        self.experts = nn.ModuleList(moe.experts[k] for k in members)
        self.token_router = nn.Linear(moe.token_router.in_features, len(members))
        self.token_router.weight = nn.Parameter(moe.token_router.weight[members].clone())
        self.token_router.bias = nn.Parameter(moe.token_router.bias[members].clone())

    def forward(self, h: Tensor) -> Tensor:
        """(N, T, W) -> (N, T, W)."""
        weights = top_k_softmax(self.token_router(h), self.selected)
        mixed = weights[..., :1] * self.experts[0](h)
        for k, expert in enumerate(self.experts):
            if k:
                mixed = mixed + weights[..., k : k + 1] * expert(h)
        return mixed


class Fused(nn.Module):
    """A ConvStage or ConvBlock with its batch norm folded into the convolution."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        assert isinstance(layer, (ConvStage, ConvBlock))
        self.residual = isinstance(layer, ConvBlock)
        self.conv = fuse_conv_bn_eval(layer.conv, layer.norm)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> what the layer gives."""
        y = self.conv(x)
        return F.relu(x + y if self.residual else y)


class ImageSpecialist(nn.Module):
    """uint8 RGB crops (N, H, W, 3) -> unit vectors (N, D) float32, for one view."""

    def __init__(self, tower: ImageTower, view: int):
        super().__init__()
        tower = copy.deepcopy(tower).eval()
        self.stem = nn.Sequential(*(Fused(layer) for layer in tower.stem))
        self.blocks = nn.ModuleList(tower.blocks)
        for block in self.blocks:
            assert isinstance(block, Block)
            if isinstance(block.ffn, HrMoe):
                block.ffn = FixedMoe(block.ffn, view)
        self.last_moe = tower.last_moe
        self.norm_pre, self.norm_post, self.project = tower.norm_pre, tower.norm_post, tower.project
        # CLS with its position, and the view token: both are constants of the graph.
        self.cls = nn.Parameter((tower.cls + tower.position[0]).detach().clone())
        self.position = nn.Parameter(tower.position[1:].detach().clone())
        self.view_token = nn.Parameter(tower.view_token.detach().clone())

    def forward(self, crops: Tensor) -> Tensor:
        """Same arithmetic as ImageTower.forward with a known view, then L2 normalisation."""
        x = crops.float() / 127.5 - 1
        x = self.stem(x.permute(0, 3, 1, 2)).flatten(2).transpose(1, 2) + self.position
        batch = x.shape[0]
        tokens = [self.cls.expand(batch, 1, -1), x]
        if self.last_moe >= 0:
            tokens.append(self.view_token.expand(batch, 1, -1))
        x = self.norm_pre(torch.cat(tokens, 1))
        for k, block in enumerate(self.blocks):
            x = block(x)
            if k == self.last_moe:
                x = x[:, :-1]
        return F.normalize(self.project(self.norm_post(x[:, 0])), dim=-1)


class FloatTable(nn.Module):
    """A WordTable as one float table; `to_onnx` stores it in 8 bits again, see `TextGraph.int8`."""

    def __init__(self, table: WordTable):
        super().__init__()
        self.register_buffer("words", table.codes.float() * table.scales)
        self.words: Tensor

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, S) float32."""
        return F.embedding(tokens, self.words)


class TextGraph(nn.Module):
    """Token ids (N, T) int64 -> unit vectors (N, D) float32.

    Attributes:
        int8: buffer name -> int8 codes (V, S) and float32 scales (V,) that it is the product of.
    """

    def __init__(self, model: TagClip):
        super().__init__()
        self.tower = copy.deepcopy(model.text).eval()
        self.int8: dict[str, tuple[NDArray[np.int8], NDArray[np.float32]]] = {}
        table = self.tower.table
        if isinstance(table, WordTable):
            self.int8["tower.table.words"] = (table.codes.numpy(), table.scales[:, 0].numpy())
            self.tower.table = FloatTable(table)

    def forward(self, tokens: Tensor) -> Tensor:
        """The text tower, then L2 normalisation."""
        return F.normalize(self.tower(tokens), dim=-1)

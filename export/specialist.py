"""Graph-ready modules: an image tower for one view or for any, and the text tower, with unit outputs."""

from __future__ import annotations

import copy

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tagclip.train.clip import ClipImage
from tagclip.train.model import TagClip, unit
from tagclip.train.moe import DenseMoe, FixedMoe, replace_moe
from tagclip.train.towers import ImageTower, WordTable


def fold_norms(stem: nn.Module) -> None:
    """Fold each batch norm into the convolution before it; only what it did after that, its activation, stays."""
    convolution = ""
    for name, module in list(stem.named_modules()):
        if isinstance(module, nn.Conv2d):
            convolution = name
        elif isinstance(module, nn.BatchNorm2d):
            before = stem.get_submodule(convolution)
            assert isinstance(before, nn.Conv2d)
            fused = fuse_conv_bn_eval(before, module)
            stem.set_submodule(convolution, fused)
            stem.set_submodule(name, getattr(module, "act", nn.Identity()))  # timm's norms activate


class ImageSpecialist(nn.Module):
    """uint8 RGB crops (N, H, W, 3) -> unit vectors (N, D) float32.

    Args:
        view: 0 aerial, 1 ground: each mixture keeps the experts of this view, and its routing by view is gone. None for
            the universal tower, which predicts the view inside.
    """

    def __init__(self, tower: ImageTower | ClipImage, view: int | None):
        super().__init__()
        self.tower = copy.deepcopy(tower).eval()
        if isinstance(self.tower, ImageTower):
            fold_norms(self.tower.stem)
            blocks = self.tower.blocks
        else:
            blocks = self.tower.resblocks
        replace_moe(blocks, lambda moe: DenseMoe(moe) if view is None else FixedMoe(moe, view))

    def forward(self, crops: Tensor) -> Tensor:
        """The image tower, then the one unit vector."""
        return unit(self.tower(crops)[0])


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
        table = getattr(self.tower, "table", None)
        if isinstance(table, WordTable):
            self.int8["tower.table.words"] = (table.codes.numpy(), table.scales[:, 0].numpy())
            self.tower.table = FloatTable(table)

    def forward(self, tokens: Tensor) -> Tensor:
        """The text tower, then the one unit vector."""
        return unit(self.tower(tokens))

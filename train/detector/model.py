"""Where are people? A convolutional network that points at the middle of each, as CenterNet (arXiv 1904.07850).

Its trunk has seen photographs (train/backbone.py), so that rendered people need not teach it what a picture is. It sees
four strides and answers at stride 4, where somebody 20 pixels tall still has five cells: a map of how much each cell is
somebody's middle, and from there the distances to the sides of the box.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagclip.runtime.errors import CheckpointError
from tagclip.train.backbone import Trunk
from tagclip.train.checkpoint import read_tensors
from tagclip.train.towers import ConvBlock

STRIDE_PX = 4
MULTIPLE_PX = 32  # of a frame's height and width
TRUNK = {3: 24, 4: 40, 6: 112}  # layers up to strides 4, 8 and 16, and the channels there
WIDTHS = (32, 64, 96, 128)  # our own channels at strides 4, 8, 16, 32
PRIOR = 0.01  # of a cell to be a middle, before training
FARTHEST = 6.0  # log of a distance in cells: 1,600 pixels, so that nothing overflows in half precision


def _conv(inputs: int, outputs: int, stride: int = 1, size: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class PersonNet(nn.Module):
    """Frames to a map of middles and distances.

    Raises:
        MissingExtraError: timm is not installed.
    """

    def __init__(self) -> None:
        super().__init__()
        s4, s8, s16, s32 = WIDTHS
        self.trunk = Trunk()
        self.at32 = nn.Sequential(_conv(TRUNK[6], s32, 2), ConvBlock(s32), ConvBlock(s32))
        self.from4, self.from8, self.from16 = (
            _conv(inputs, outputs, size=1)
            for inputs, outputs in zip(TRUNK.values(), (s4, s8, s16), strict=True)
        )
        self.down16 = _conv(s32, s16, size=1)
        self.down8 = _conv(s16, s8, size=1)
        self.down4 = _conv(s8, s4, size=1)
        self.join16, self.join8, self.join4 = ConvBlock(s16), ConvBlock(s8), ConvBlock(s4)
        self.neck = _conv(s4, 48)
        self.heat = nn.Conv2d(48, 1, 1)
        self.sides = nn.Conv2d(48, 4, 1)
        nn.init.constant_(self.heat.bias, float(torch.tensor(PRIOR).logit()))  # type: ignore[arg-type]
        nn.init.constant_(self.sides.bias, 1.0)  # type: ignore[arg-type]

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Look at frames.

        Args:
            frames: (B, H, W, 3) RGB 0..255, any dtype; H and W multiples of 32.

        Returns:
            logits (B, 1, H/4, W/4) of a cell to hold a middle, and (B, 4, H/4, W/4) the distances in pixels from the
            cell's own middle to the left, top, right and bottom side.
        """
        x = frames.float().permute(0, 3, 1, 2) / 127.5 - 1
        seen = []
        for number, layer in enumerate(self.trunk, 1):
            x = layer(x)
            if number in TRUNK:
                seen.append(x)
        at4, at8, at16 = seen
        x = self.join16(self.from16(at16) + _twice(self.down16(self.at32(at16))))
        x = self.join8(self.from8(at8) + _twice(self.down8(x)))
        x = self.neck(self.join4(self.from4(at4) + _twice(self.down4(x))))
        return self.heat(x), self.sides(x).clamp(-FARTHEST, FARTHEST).exp() * STRIDE_PX


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class Peaks(nn.Module):
    """What is exported: the network, its map as 0..1 with only the tops of its hills left."""

    def __init__(self, net: PersonNet):
        super().__init__()
        self.net = net

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (B, H, W, 3) -> heat (B, 1, H/4, W/4), 0 but for the tops, and sides (B, 4, H/4, W/4) in pixels."""
        logits, sides = self.net(frames)
        heat = logits.sigmoid()
        return heat * (heat == F.max_pool2d(heat, 3, 1, 1)), sides


def load(net: PersonNet, run: Path) -> None:
    """Give `net` the weights of a run of `tagclip.train.detector.fit`.

    Raises:
        CheckpointError: there are none, or of another network.
    """
    path = run / "model.safetensors"
    try:
        net.load_state_dict(read_tensors(path))
    except RuntimeError as error:  # names or shapes
        raise CheckpointError(f"{path} holds another network; train this one anew ({error})") from error

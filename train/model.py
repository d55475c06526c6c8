"""TAG-CLIP: an image and a text tower for one space, the image tower routed by viewpoint (arXiv 2511.08369, AAAI-26).

The towers are small ones that are trained from scratch (towers.py) or those of an open_clip model (clip.py).
Views: 0 aerial, 1 ground.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tagclip.runtime.errors import ConfigError
from tagclip.train.clip import ClipImage, ClipText, build_towers
from tagclip.train.clip_models import VOCABULARY, context_length
from tagclip.train.config import ModelConfig
from tagclip.train.moe import Routing
from tagclip.train.towers import ImageTower, TextTower
from tagclip.train.tse import Encoded, unit

__all__ = ["Encoded", "Routing", "TagClip", "unit"]


class TagClip(nn.Module):
    """Both towers and the temperature.

    `image(crops, view=None)` takes (B, H, W, 3) RGB 0..255 and the known views (B,) or None, and gives features
    (Encoded) and Routing; `text(tokens)` takes (B, T) int64 and gives features. `unit` makes them one vector.

    Attributes:
        dim: length of that vector.
        context_length: most tokens of a text.
    """

    def __init__(self, config: ModelConfig, vocabulary: int, identities: int = 0, attributes: int = 0):
        """Make a model with random weights.

        Args:
            vocabulary: number of token ids.
            identities, attributes: sizes of the training-only classifiers, 0 for none.

        Raises:
            ConfigError: open_clip has no such model or one that does not work here, or the vocabulary is not its.
        """
        super().__init__()
        self.config = config
        self.context_length = context_length(config)
        self.image: ImageTower | ClipImage
        self.text: TextTower | ClipText
        log_scale = torch.tensor(10.0).log()
        if config.clip:
            if vocabulary != VOCABULARY:
                raise ConfigError(
                    f"model.clip: expected CLIP's tokenizer of {VOCABULARY} tokens, found one of {vocabulary}"
                )
            self.image, self.text, initial = build_towers(config)
            log_scale = torch.tensor(initial)
            whole = int(self.image.proj.shape[1])
        else:
            self.image, self.text = ImageTower(config), TextTower(config, vocabulary)
            whole = config.embedding_dim
        self.dim = whole + (config.tse_dim if config.tse_ratio else 0)
        self.log_scale = nn.Parameter(log_scale)
        self.classifier = nn.Linear(whole, identities) if identities else None
        self.attributes = nn.Linear(whole, attributes) if attributes else None

    def scale(self) -> Tensor:
        """Factor of the cosines in the losses, at most 100."""
        return self.log_scale.exp().clamp(max=100)

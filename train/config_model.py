"""The shape of a model, validated."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from tagclip.runtime.errors import ConfigError

# The trunk of train/backbone.py; here, so that a configuration is read without torch.
BACKBONE, BACKBONE_STRIDE_PX, BACKBONE_LAYERS = "efficientnet_lite0", 16, 6
_SMALL_TOWERS = (
    *("stem", "stem_blocks", "backbone", "layers", "heads", "mlp_ratio"),
    *("text_width", "text_layers", "text_heads", "context_length", "embedding_dim", "word_vectors"),
)


@dataclass(frozen=True)
class ModelConfig:
    """Shape of the model.

    Attributes:
        height_px, width_px: size of the crops that go in.
        stem: channels after each convolution stage of stride 2; the last is the width of the transformer.
        stem_blocks: residual convolutions after each stage; empty for none anywhere.
        backbone: "efficientnet_lite0" takes a trunk that was trained on photographs (backbone.py) in place of the
            stages; `stem` then names the width of the transformer alone.
        layers, heads: of the image transformer.
        mlp_ratio: hidden size of a feed-forward network over the width.
        moe_layers: blocks whose feed-forward network is an HR-MoE, 0-based.
        experts: experts of each; the first is aerial only, the last ground only, the rest are shared.
        selected: how many of its view's experts a token keeps (Top-K); at most experts - 1.
        text_width, text_layers, text_heads: the text transformer.
        context_length: tokens of a description.
        embedding_dim: of the common space.
        word_vectors: "minilm" has frozen vectors from all-MiniLM-L6-v2 (see words.py), "none" learns a table.
        clip: name of an open_clip model, such as "ViT-B-16-quickgelu", whose towers are taken; empty for the small
            towers. With a name, what describes the small towers (stem to mlp_ratio, text_width to word_vectors) must
            be left at its default. Plain CLIP is `moe_layers: []`.
        normalise: mean and deviation of the pixels that go into an open_clip tower: "clip" its own, "imagenet" as
            TAG-CLIP. The small towers scale to -1..1 in any case.
        text_dropout: of the attention of an open_clip text tower, in training (the release: 0.05).
        router: "view" is the HR-MoE. "token" is the vanilla mixture: each token weighs all experts, `selected` may be
            `experts`, there are no groups and no view token, and the view and orthogonal losses are 0.
        router_noise: adds the release's noise N(0, 0.01^2) to the token router's logits in training.
        gumbel: in training draws the view that routes with Gumbel noise, as the release. Evaluation always takes the
            arg max; the release draws there too, which makes its vectors differ from run to run.
        tse_ratio: share of the tokens that token selection keeps, 0..1; 0 for no TSE (the paper: 0.3).
        tse_dim: length of the local feature.
    """

    height_px: int = 128
    width_px: int = 64
    stem: tuple[int, ...] = (32, 64, 128, 192)
    stem_blocks: tuple[int, ...] = ()
    backbone: str = ""
    layers: int = 4
    heads: int = 6
    mlp_ratio: float = 2.0
    moe_layers: tuple[int, ...] = (1, 2)
    experts: int = 4
    selected: int = 3
    text_width: int = 128
    text_layers: int = 2
    text_heads: int = 4
    context_length: int = 80
    embedding_dim: int = 128
    word_vectors: str = "minilm"
    clip: str = ""
    normalise: str = "clip"
    text_dropout: float = 0.0
    router: str = "view"
    router_noise: bool = False
    gumbel: bool = False
    tse_ratio: float = 0.0
    tse_dim: int = 1024

    def __post_init__(self) -> None:
        self._check_mixture()
        require(0 <= self.tse_ratio <= 1, f"model.tse_ratio must lie in 0..1, found {self.tse_ratio}")
        require(
            self.tse_dim >= 2 and self.tse_dim % 2 == 0,
            f"model.tse_dim must be even and at least 2, found {self.tse_dim}",
        )
        require(
            self.normalise in ("clip", "imagenet"),
            f"model.normalise must be clip or imagenet, found {self.normalise!r}",
        )
        require(0 <= self.text_dropout < 1, f"model.text_dropout must lie in 0..1, found {self.text_dropout}")
        if self.clip:
            self._refuse(_SMALL_TOWERS, f"describes the small towers, and model.clip is {self.clip!r}")
        else:
            self._refuse(("normalise", "text_dropout"), "is for open_clip towers, and model.clip is empty")
            self._check_small_towers()

    @property
    def stride_px(self) -> int:
        """Pixels of a crop that one patch of the small image tower stands for, each way."""
        return BACKBONE_STRIDE_PX if self.backbone else 2 ** len(self.stem)

    def _refuse(self, names: tuple[str, ...], why: str) -> None:
        for f in dataclasses.fields(self):
            if f.name in names:
                require(
                    getattr(self, f.name) == f.default,
                    f"model.{f.name} {why}; leave it out, found {getattr(self, f.name)!r}",
                )

    def _check_mixture(self) -> None:
        require(
            self.router in ("view", "token"), f"model.router must be view or token, found {self.router!r}"
        )
        by_view = self.router == "view"
        least, most = (3, self.experts - 1) if by_view else (2, self.experts)
        require(
            self.experts >= least,
            f"model.experts must be at least {least}{' (aerial, shared, ground)' if by_view else ''}, "
            f"found {self.experts}",
        )
        require(1 <= self.selected <= most, f"model.selected must lie in 1..{most}, found {self.selected}")
        require(
            all(k >= 0 for k in self.moe_layers) and len(set(self.moe_layers)) == len(self.moe_layers),
            f"model.moe_layers must be block numbers from 0, each once, found {list(self.moe_layers)}",
        )

    def _check_small_towers(self) -> None:
        require(
            self.backbone in ("", BACKBONE),
            f"model.backbone must be {BACKBONE} or empty, found {self.backbone!r}",
        )
        require(
            not self.backbone or (len(self.stem) == 1 and not self.stem_blocks),
            f"with model.backbone, model.stem must be the width alone and stem_blocks be left out, found "
            f"{list(self.stem)} and {list(self.stem_blocks)}",
        )
        scale = self.stride_px
        require(
            self.height_px % scale == 0 and self.width_px % scale == 0,
            f"model.height_px and width_px must be multiples of {scale}, found {self.height_px}x{self.width_px}",
        )
        require(
            len(self.stem_blocks) in (0, len(self.stem)),
            f"model.stem_blocks must name each of the {len(self.stem)} stages, found {list(self.stem_blocks)}",
        )
        require(
            self.stem[-1] % self.heads == 0,
            f"model.heads must divide the width {self.stem[-1]}, found {self.heads}",
        )
        require(
            self.text_width % self.text_heads == 0,
            f"model.text_heads must divide text_width {self.text_width}, found {self.text_heads}",
        )
        require(
            all(0 <= k < self.layers for k in self.moe_layers),
            f"model.moe_layers must lie in 0..{self.layers - 1}, found {list(self.moe_layers)}",
        )
        require(
            self.word_vectors in ("minilm", "none"),
            f"model.word_vectors must be minilm or none, found {self.word_vectors!r}",
        )


def require(condition: bool, message: str) -> None:
    """Raises ConfigError with `message` unless `condition`."""
    if not condition:
        raise ConfigError(message)

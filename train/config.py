"""What a training run is made of: validated, saved as JSON beside what it produced."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tagclip.runtime.errors import ConfigError
from tagclip.train.config_model import BACKBONE_LAYERS, require
from tagclip.train.config_model import ModelConfig as ModelConfig

# The orthogonal loss (eq. 10): cosine that is allowed, weight. The paper prints alpha 0.1 and no weight.
_ORTHO = {"paper": (0.1, 1.0), "released": (0.001, 100.0)}


@dataclass(frozen=True)
class TrainConfig:
    """How it is trained.

    Attributes:
        epochs: passes over the training images; each shows every image once, with one of its captions.
        batch: image-caption pairs of a step, over all processes.
        micro_batch: pairs that a process holds activations of at a time; 0 for all of its share. The step stays that
            of the whole batch (gradient caching, step.py).
        lr, lr_end: peak and final learning rate; linear warm-up over `warmup` epochs, then a cosine.
        lr_layer_decay: factor of the rate per transformer block, from the output down; 1 is the same rate everywhere.
        frozen: layers of model.backbone's six, from the pixels on, that keep the weights of photographs.
        lr_new: factor of the rate of the TSE layers, which come from no pretraining (the release: 10).
        weight_decay: AdamW's, on matrices only.
        clip_norm: largest norm of the whole gradient; 0 never clips, as the paper.
        ema: decay of a running average of the weights, which is then what is evaluated and saved; 0 is off.
        sampler: "random", or "pk": batch / images_per_identity identities with images_per_identity images each.
        images_per_identity: the K of "pk".
        view_balanced: as many aerial as ground images in every batch, as far as the data allow.
        cross_caption: chance that a pair takes the caption of another image of the same identity, 0..1.
        augment: "light" (crop, mirror, light, erasing) or "released" (that of the released TAG-CLIP), augment.py.
        soft_targets: share `a` of the model's own prediction in the N-ITC target, ramped up in epoch 1.
        weight_id, weight_view, weight_ortho: of the identity, view and orthogonal losses.
        weight_attributes: of the attribute loss (attributes.py), for data that has them.
        weight_ground: of the loss that pulls an aerial picture to its person's ground pictures in the batch ("pk").
        captions: of an image in one step; each makes its own batch of pairs.
        ortho_alpha: |cos| up to which CLS and view token may agree (the paper's alpha).
        ortho: "paper" (alpha 0.1, weight 1) or "released" (alpha 0.001, weight 100, what the authors' code has)
            instead of ortho_alpha and weight_ortho; "custom" takes these two.
        contrast: the contrastive losses: "tag" is N-ITC and R-ITC, "sdm" that of IRRA, "tal" that of RDE.
        pretrained: what a run begins with: with model.clip a file of open_clip weights (pretrained.py), for small
            towers a bundle (from_bundle.py); empty for random weights.
        word_dropout: share of a caption's tokens that become the unknown token.
        eval_every: epochs between validations.
        save_every_steps: steps between saved states, besides the one after every epoch; 0 for none.
        seed: of weights, order and augmentation.
        precision: "fp32", or "bf16" or "fp16" mixed precision (autocast; fp16 with loss scaling); "auto" for bf16 where
            the device computes in it, else fp32.
        accelerator: "cpu", "cuda", or "auto" for CUDA where there is one.
        devices: processes of a machine, each with its own device; 0 takes what torchrun started, or one.
        memory_share: share of the free memory that the images of a split may take; beyond it they are read from disk.
    """

    epochs: int = 30
    batch: int = 256
    micro_batch: int = 0
    lr: float = 1e-3
    lr_end: float = 1e-5
    warmup: float = 1.0
    lr_layer_decay: float = 1.0
    frozen: int = 0
    lr_new: float = 1.0
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    ema: float = 0.0
    sampler: str = "random"
    images_per_identity: int = 4
    view_balanced: bool = False
    cross_caption: float = 0.0
    augment: str = "light"
    soft_targets: float = 0.2
    weight_id: float = 0.0
    weight_view: float = 0.5
    weight_ortho: float = 1.0
    weight_attributes: float = 0.0
    weight_ground: float = 0.0
    captions: int = 1
    ortho_alpha: float = 0.1
    ortho: str = "custom"
    contrast: str = "tag"
    pretrained: str = ""
    word_dropout: float = 0.05
    eval_every: int = 2
    save_every_steps: int = 0
    seed: int = 0
    precision: str = "auto"
    accelerator: str = "auto"
    devices: int = 0
    memory_share: float = 0.5

    def __post_init__(self) -> None:
        require(
            self.epochs >= 1 and self.batch >= 2, "train.epochs must be at least 1 and train.batch at least 2"
        )
        require(0 <= self.soft_targets < 1, f"train.soft_targets must lie in 0..1, found {self.soft_targets}")
        for name, least in (
            ("captions", 1),
            ("eval_every", 1),
            ("images_per_identity", 2),
            *(
                (name, 0)
                for name in ("micro_batch", "save_every_steps", "devices", "seed", "warmup", "clip_norm")
            ),
        ):
            value = getattr(self, name)
            require(value >= least, f"train.{name} must be at least {least}, found {value}")
        for name in ("cross_caption", "word_dropout", "memory_share"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"train.{name} must lie in 0..1, found {value}")
        require(0 <= self.ema < 1, f"train.ema must be at least 0 and under 1, found {self.ema}")
        require(
            0 < self.lr_layer_decay <= 1,
            f"train.lr_layer_decay must be over 0 and at most 1, found {self.lr_layer_decay}",
        )
        require(
            0 <= self.frozen <= BACKBONE_LAYERS,
            f"train.frozen must lie in 0..{BACKBONE_LAYERS}, found {self.frozen}",
        )
        require(self.lr_new > 0, f"train.lr_new must be over 0, found {self.lr_new}")
        for name, known in (
            ("precision", ("auto", "fp32", "bf16", "fp16")),
            ("accelerator", ("auto", "cpu", "cuda")),
            ("sampler", ("random", "pk")),
            ("augment", ("light", "released")),
        ):
            value = getattr(self, name)
            require(
                value in known,
                f"train.{name} must be {', '.join(known[:-1])} or {known[-1]}, found {value!r}",
            )
        k = self.images_per_identity
        require(
            self.sampler == "random" or self.batch % k == 0,
            f"train.batch must be a multiple of images_per_identity {k} for the sampler pk, found {self.batch}",
        )
        require(
            not self.view_balanced or (self.batch % 2 == 0 and (self.sampler == "random" or k % 2 == 0)),
            "train.view_balanced needs an even train.batch, and an even images_per_identity for the sampler pk, "
            f"found {self.batch} and {k}",
        )
        require(
            self.contrast in ("tag", "sdm", "tal"),
            f"train.contrast must be tag, sdm or tal, found {self.contrast!r}",
        )
        require(
            self.ortho in ("custom", *_ORTHO),
            f"train.ortho must be paper, released or custom, found {self.ortho!r}",
        )
        require(
            self.ortho == "custom"
            or (self.ortho_alpha, self.weight_ortho) == (TrainConfig.ortho_alpha, TrainConfig.weight_ortho),
            f"train.ortho_alpha and train.weight_ortho are for train.ortho: custom, found {self.ortho!r}",
        )

    def orthogonal(self) -> tuple[float, float]:
        """Alpha and weight of the orthogonal loss (eq. 10)."""
        return _ORTHO.get(self.ortho, (self.ortho_alpha, self.weight_ortho))


@dataclass(frozen=True)
class Config:
    """A whole run: `data` is the folder with the annotations."""

    name: str = "nano"
    data: str = "data/nano"
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        require(
            not self.model.clip or self.train.word_dropout == 0,
            "train.word_dropout must be 0 with model.clip: CLIP has no token for an unknown word",
        )

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary of all values."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(values: Any) -> Config:
        """Inverse of `to_json`; absent keys keep their defaults.

        Raises:
            ConfigError: a key is unknown or a value has the wrong type or range.
        """
        return _build(Config, values, "")


def load_config(path: Path, overrides: list[str]) -> Config:
    """Config from a YAML file and `key=value` overrides such as `train.epochs=3`.

    Raises:
        ConfigError: the file cannot be read or says something unknown.
    """
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror}; give a YAML file such as configs/nano.yaml"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold keys and values, found {type(values).__name__}")
    for item in overrides:
        key, equals, text = item.partition("=")
        if not equals:
            raise ConfigError(f"expected key=value, found {item!r}; for example train.epochs=3")
        target = values
        *parents, last = key.split(".")
        for parent in parents:
            target = target.setdefault(parent, {})
            if not isinstance(target, dict):
                raise ConfigError(f"{key}: {parent} is not a section; `tagclip train --help` shows the way")
        try:
            target[last] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"{item}: the value is not YAML: {error}") from error
    return Config.from_json(values)


def _build(cls: Any, values: Any, path: str) -> Any:
    if not isinstance(values, dict):
        raise ConfigError(f"{path or 'the config'} must be a section of keys, found {type(values).__name__}")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        where = f"{path}{key}"
        if key not in fields:
            raise ConfigError(f"unknown key {where}; known keys here: {', '.join(fields)}")
        if key in ("model", "train") and not path:
            arguments[key] = _build(ModelConfig if key == "model" else TrainConfig, value, f"{key}.")
            continue
        arguments[key] = _convert(where, value, fields[key].default)
    return cls(**arguments)


def _convert(where: str, value: Any, default: Any) -> Any:
    if isinstance(default, tuple):
        if not (isinstance(value, (list, tuple)) and all(type(v) is int for v in value)):
            raise ConfigError(f"{where} must be a list of whole numbers, found {value!r}")
        return tuple(value)
    if isinstance(default, float) and type(value) in (int, float):
        return float(value)
    if isinstance(default, float) and isinstance(value, str):  # YAML reads 1e-3 as text
        try:
            return float(value)
        except ValueError:
            pass
    if type(value) is not type(default):
        raise ConfigError(f"{where} must be {type(default).__name__}, found {value!r}")
    return value

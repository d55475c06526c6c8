"""What can be exported: a checkpoint of ours, or the weights of an open_clip model that never saw tagclip."""

from __future__ import annotations

from pathlib import Path

from tagclip.runtime.errors import CheckpointError
from tagclip.train.checkpoint import load_checkpoint
from tagclip.train.clip_models import VOCABULARY, native_size
from tagclip.train.clip_words import clip_words
from tagclip.train.config import Config, ModelConfig, TrainConfig
from tagclip.train.model import TagClip
from tagclip.train.pretrained import load_pretrained


def load_source(path: Path, clip: str = "") -> tuple[TagClip, str, Config]:
    """The model in evaluation mode, the tokenizer's JSON, and the configuration.

    Args:
        path: a folder that `tagclip train` wrote; with `clip` a file of weights, see `load_pretrained`.
        clip: name of the open_clip model that the file belongs to. It is exported as it is: no experts, its own size of
            crops.

    Raises:
        CheckpointError: nothing there, damaged, or the weights of another model.
        ConfigError: open_clip has no such model, or one that does not work here.
    """
    if not clip:
        if path.is_file():
            raise CheckpointError(
                f"{path} is a file, expected the folder of a checkpoint; for weights of open_clip name their model: "
                "--clip ViT-B-16"
            )
        return load_checkpoint(path)
    height_px, width_px = native_size(clip)
    config = Config(
        name=path.stem,
        data="",
        model=ModelConfig(clip=clip, height_px=height_px, width_px=width_px, moe_layers=()),
        train=TrainConfig(word_dropout=0),
    )
    model = TagClip(config.model, VOCABULARY)
    load_pretrained(model, path)
    return model.eval(), clip_words().tokenizer_json, config

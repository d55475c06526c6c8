"""Which models of open_clip work here, and what they need."""

from __future__ import annotations

from typing import Any

from tagclip.runtime.errors import ConfigError, MissingExtraError
from tagclip.train.config import ModelConfig

VOCABULARY = 49408  # of CLIP's own tokenizer, see clip_words.py

# What our forward pass knows; any other key of an open_clip configuration asks for something that it does not do.
_KNOWN = {
    "vision_cfg": {"image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio", "ls_init_value"},
    "text_cfg": {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "ls_init_value"},
    "": {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg"},
}


def open_clip_config(name: str) -> dict[str, Any]:
    """The configuration of an open_clip model, as open_clip keeps it.

    Raises:
        ConfigError: no such model, or one of another make: a ResNet, a tower of timm or Hugging Face, CoCa, a model
            that pools otherwise or has another tokenizer.
        MissingExtraError: open_clip is not installed.
    """
    try:
        import open_clip
    except ImportError as error:
        raise MissingExtraError(
            "model.clip needs the package open_clip_torch; pip install 'tagclip[train]'"
        ) from error
    # Only what it lists: other names ("hf-hub:...") would be looked up on the network.
    if name not in open_clip.list_models():
        raise ConfigError(f"model.clip: open_clip has no model {name!r}; these work: {_working()}")
    config = open_clip.get_model_config(name)
    assert config is not None
    reason = _refusal(config)
    if reason:
        raise ConfigError(f"model.clip: {name} {reason}; these work: {_working()}")
    return config


def _refusal(config: dict[str, Any]) -> str:
    """Why a model cannot be taken, or nothing."""
    for section, known in _KNOWN.items():
        values = config[section] if section else config
        for key in values:
            if key not in known:
                return f"has {section + '.' if section else ''}{key}, which these towers do not do"
    if not isinstance(config["vision_cfg"].get("layers", 12), int):
        return "has a ResNet as image tower, not a ViT with residual blocks"
    vocabulary = config["text_cfg"].get("vocab_size", VOCABULARY)
    return "" if vocabulary == VOCABULARY else f"has a vocabulary of {vocabulary}, not CLIP's {VOCABULARY}"


def _working() -> str:
    import open_clip

    return ", ".join(
        name for name in open_clip.list_models() if not _refusal(open_clip.get_model_config(name))
    )


def native_grid(name: str) -> tuple[int, int]:
    """Rows and columns of patches that the weights of an open_clip model were trained with."""
    patch = open_clip_config(name)["vision_cfg"].get("patch_size", 16)
    height_px, width_px = native_size(name)
    return height_px // patch, width_px // patch


def native_size(name: str) -> tuple[int, int]:
    """Height and width in pixels of the pictures that an open_clip model was trained with."""
    size = open_clip_config(name)["vision_cfg"].get("image_size", 224)
    height_px, width_px = size if isinstance(size, (list, tuple)) else (size, size)
    return height_px, width_px


def context_length(config: ModelConfig) -> int:
    """Tokens of a description: of an open_clip model its own, else the configuration's.

    Raises:
        ConfigError: as `open_clip_config`.
    """
    if not config.clip:
        return config.context_length
    return int(open_clip_config(config.clip)["text_cfg"].get("context_length", 77))

"""Rates of a moment, and which parameter gets which."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from tagclip.train.config import Config, TrainConfig
from tagclip.train.model import TagClip
from tagclip.train.optimiser import learning_rate, make_optimiser, parameter_groups, set_rate


def test_learning_rate_warms_up_and_falls() -> None:
    config = TrainConfig(epochs=11, lr=1.0, lr_end=0.1, warmup=1.0)
    rates = [learning_rate(config, progress) for progress in (0.0, 0.5, 1.0, 6.0, 11.0, 12.0)]
    assert rates == pytest.approx([0.01, 0.5, 1.0, 0.55, 0.1, 0.1])


def by_name(model: Any, config: TrainConfig) -> dict[str, tuple[float, float]]:
    """(factor, weight decay) of each parameter."""
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        names[id(p)]: (group["factor"], group["weight_decay"])
        for group in parameter_groups(model, config)
        for p in group["params"]
    }


def test_every_parameter_is_in_one_group_and_only_matrices_decay(toy_model: dict[str, Any]) -> None:
    model = TagClip(Config.from_json({"model": toy_model}).model, 9, 4)
    found = by_name(model, TrainConfig(weight_decay=0.3))
    assert sorted(found) == sorted(name for name, _ in model.named_parameters())
    assert {factor for factor, _ in found.values()} == {1.0}
    for name in (
        "image.project.weight",
        "image.stem.0.conv.weight",
        "text.table.weight",
        "classifier.weight",
    ):
        assert found[name][1] == 0.3, name
    for name in (
        "image.position",
        "image.cls",
        "image.blocks.0.norm1.weight",
        "log_scale",
        "classifier.bias",
    ):
        assert found[name][1] == 0.0, name


def test_rates_fall_block_by_block_from_the_output(toy_model: dict[str, Any]) -> None:
    """Three image blocks and one text block; the towers are counted apart."""
    model = TagClip(Config.from_json({"model": toy_model}).model, 9, 4)
    found = by_name(model, TrainConfig(lr_layer_decay=0.5))
    assert {name: found[name][0] for name in found if name.count("norm1.weight")} == {
        "image.blocks.0.norm1.weight": 0.125,
        "image.blocks.1.norm1.weight": 0.25,
        "image.blocks.2.norm1.weight": 0.5,
        "text.blocks.0.norm1.weight": 0.5,
    }
    for name in ("image.stem.0.conv.weight", "image.position", "image.view_token", "image.norm_pre.bias"):
        assert found[name][0] == 0.0625, name
    for name in ("text.table.weight", "text.enter.weight", "text.cls"):
        assert found[name][0] == 0.25, name
    for name in ("image.project.weight", "image.norm_post.weight", "text.project.weight", "log_scale"):
        assert found[name][0] == 1.0, name
    assert found["image.blocks.0.ffn.experts.2.up.weight"][0] == 0.125


def test_names_of_open_clip() -> None:
    """The real tower's parameters; only what pretraining left out is `tse`."""
    open_clip = pytest.importorskip("open_clip")
    clip = open_clip.CLIP(
        embed_dim=8,
        vision_cfg={"image_size": 16, "layers": 2, "width": 8, "head_width": 4, "patch_size": 8},
        text_cfg={"context_length": 8, "vocab_size": 16, "width": 8, "heads": 2, "layers": 3},
    )
    model = torch.nn.ModuleDict(
        {"image": clip.visual, "text": clip.transformer, "tse": torch.nn.Linear(3, 3)}
    )
    found = by_name(model, TrainConfig(lr_layer_decay=0.5, lr_new=10.0))
    factors = {name: factor for name, (factor, _) in found.items()}
    assert (
        factors["image.conv1.weight"]
        == factors["image.class_embedding"]
        == factors["image.ln_pre.bias"]
        == 0.125
    )
    assert factors["image.positional_embedding"] == 0.125 and found["image.positional_embedding"][1] == 0.0
    assert factors["image.transformer.resblocks.0.mlp.c_fc.weight"] == 0.25
    assert factors["image.transformer.resblocks.1.mlp.c_fc.weight"] == 0.5
    assert factors["text.resblocks.0.ln_1.weight"] == 0.125
    assert factors["image.proj"] == factors["image.ln_post.weight"] == 1.0
    assert factors["tse.weight"] == factors["tse.bias"] == 10.0


def test_set_rate_multiplies() -> None:
    model = torch.nn.ModuleDict({"tse": torch.nn.Linear(2, 2), "rest": torch.nn.Linear(2, 2)})
    optimiser = make_optimiser(model, TrainConfig(lr_new=10.0))
    set_rate(optimiser, 0.5)
    assert sorted({group["lr"] for group in optimiser.param_groups}) == [0.5, 5.0]
    assert all(group["betas"] == (0.9, 0.98) for group in optimiser.param_groups)

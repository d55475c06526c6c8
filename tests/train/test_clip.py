"""The open_clip towers against open_clip's own encode_image and encode_text, and what is ours in them."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
open_clip = pytest.importorskip("open_clip")

import torch.nn.functional as F

from tagclip.runtime.errors import ConfigError
from tagclip.train.clip import MEAN_STD, attend, looks_at
from tagclip.train.clip_models import VOCABULARY, context_length, open_clip_config
from tagclip.train.config import ModelConfig
from tagclip.train.model import TagClip
from tagclip.train.moe import HrMoe

SENTENCES = ["a man in a red jacket", "woman with a black backpack and blue jeans", "guy"]


def build(name: str, **changes: Any) -> tuple[TagClip, Any]:
    """Our model, and open_clip's of the same seed: building ours draws open_clip's weights first."""
    values: dict[str, Any] = {"clip": name, "height_px": 32, "width_px": 32, "moe_layers": (1,), "experts": 4}
    config = ModelConfig(**values | changes)
    torch.manual_seed(0)
    ours = TagClip(config, VOCABULARY).eval()
    raw = open_clip_config(name)
    raw["vision_cfg"]["image_size"] = (config.height_px, config.width_px)
    torch.manual_seed(0)
    return ours, open_clip.CLIP(**raw).eval()


def decide(model: TagClip) -> None:
    """Routers with weights that decide, instead of the near zeros of a new model."""
    for module in model.modules():
        if isinstance(module, HrMoe):
            for linear in (module.image_router, module.token_router):
                if linear is not None:
                    torch.nn.init.normal_(linear.weight)


def crops(count: int, height: int = 32, width: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, height, width, 3), generator=generator, dtype=torch.uint8)


def pixels(images: torch.Tensor, normalise: str) -> torch.Tensor:
    """What torchvision's ToTensor and Normalize make of them."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in MEAN_STD[normalise])
    return (images.permute(0, 3, 1, 2).float() / 255 - mean) / std


@torch.no_grad()
def test_vit_b_16_with_equal_experts_and_a_blind_view_token_is_open_clip() -> None:
    ours, theirs = build(
        "ViT-B-16-quickgelu",
        height_px=224,
        width_px=224,
        moe_layers=(6, 7, 8),
        experts=6,
        selected=5,
        normalise="imagenet",
    )
    decide(ours)
    ours.image.blind = True
    images = crops(2, 224, 224)
    (found, part), routing = ours.image(images)
    wanted = theirs.encode_image(pixels(images, "imagenet"))
    assert part is None and len(routing.view_logits) == 3 and wanted.abs().mean() > 0.1
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    tokens = open_clip.tokenize(SENTENCES)
    torch.testing.assert_close(ours.text(tokens).whole, theirs.encode_text(tokens), atol=1e-5, rtol=0)
    ours.image.blind = False
    assert (ours.image(images)[0].whole - wanted).abs().max() > 1e-3, "the view token does change something"


@torch.no_grad()
def test_without_moe_it_is_plain_clip(tiny_clip: str) -> None:
    ours, theirs = build(tiny_clip, moe_layers=())
    images = crops(3)
    assert ours.image.view_token is None
    (found, _), routing = ours.image(images)
    torch.testing.assert_close(found, theirs.encode_image(pixels(images, "clip")), atol=1e-5, rtol=0)
    assert routing.view_logits == []
    assert ours.scale().item() == pytest.approx(1 / 0.07, rel=1e-5)


def test_normalisation_constants_are_open_clips() -> None:
    from open_clip import constants

    assert MEAN_STD["clip"] == (constants.OPENAI_DATASET_MEAN, constants.OPENAI_DATASET_STD)
    assert MEAN_STD["imagenet"] == (constants.IMAGENET_MEAN, constants.IMAGENET_STD)


@torch.no_grad()
def test_layer_scale_is_applied(tmp_path: Any, tiny_clip: str) -> None:
    import json

    config = open_clip_config(tiny_clip)
    config["vision_cfg"]["ls_init_value"] = config["text_cfg"]["ls_init_value"] = 0.3
    (tmp_path / "tiny-scaled.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny-scaled.json")
    ours, theirs = build("tiny-scaled", selected=3)
    ours.image.blind = True
    images, tokens = crops(3), open_clip.tokenize(SENTENCES)
    wanted = theirs.encode_image(pixels(images, "clip"))
    torch.testing.assert_close(ours.image(images)[0].whole, wanted, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.text(tokens).whole, theirs.encode_text(tokens), atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("tse", [0.0, 0.3])
def test_columns_of_padding_may_be_left_out(tiny_clip: str, tse: float) -> None:
    ours, _ = build(tiny_clip, tse_ratio=tse, tse_dim=8)
    tokens = open_clip.tokenize([*SENTENCES, ""])
    full, trimmed = ours.text(tokens), ours.text(tokens[:, :10])
    torch.testing.assert_close(trimmed.whole, full.whole, atol=1e-5, rtol=0)
    if tse:
        torch.testing.assert_close(trimmed.part, full.part, atol=1e-5, rtol=0)
        assert full.part.isfinite().all()  # also of a text without a word


@torch.no_grad()
def test_the_view_token_enters_last_and_leaves_after_the_last_moe(tiny_clip: str) -> None:
    ours, _ = build(tiny_clip, moe_layers=(0, 1))
    seen: list[int] = []
    for block in ours.image.resblocks:
        block.ln_1.register_forward_hook(lambda module, args, out: seen.append(out.shape[1]))
    entered: list[torch.Tensor] = []
    ours.image.ln_pre.register_forward_pre_hook(lambda module, args: entered.append(args[0]))
    _, routing = ours.image(crops(2))
    assert seen == [18, 18, 17]  # CLS + 4 x 4 + view token
    torch.testing.assert_close(entered[0][:, -1], ours.image.view_token.expand(2, -1))
    assert [len(part) for part in (routing.view_logits, routing.cls, routing.view)] == [2, 2, 2]


@torch.no_grad()
def test_a_token_router_has_no_view_token(tiny_clip: str) -> None:
    ours, theirs = build(tiny_clip, router="token", selected=4)
    decide(ours)
    images = crops(3)
    (found, _), routing = ours.image(images, torch.tensor([0, 1, 0]))
    assert ours.image.view_token is None and routing.cls == []
    torch.testing.assert_close(found, theirs.encode_image(pixels(images, "clip")), atol=1e-5, rtol=0)


def test_experts_begin_as_copies_of_their_own(tiny_clip: str) -> None:
    ours, theirs = build(tiny_clip)
    for expert in ours.image.resblocks[1].mlp.experts:
        for found, wanted in zip(
            expert.parameters(), theirs.visual.transformer.resblocks[1].mlp.parameters(), strict=True
        ):
            assert torch.equal(found, wanted)
    with torch.no_grad():
        ours.image.resblocks[1].mlp.experts[0].c_fc.weight.zero_()
    assert ours.image.resblocks[1].mlp.experts[1].c_fc.weight.any()


@torch.no_grad()
def test_other_sizes_than_square(tiny_clip: str) -> None:
    ours, theirs = build(tiny_clip, height_px=48, width_px=16, moe_layers=())
    images = crops(2, 48, 16)
    wanted = theirs.encode_image(pixels(images, "clip"))
    torch.testing.assert_close(ours.image(images)[0].whole, wanted, atol=1e-5, rtol=0)


def test_attention_is_that_of_torch() -> None:
    torch.manual_seed(0)
    theirs, h = torch.nn.MultiheadAttention(12, 3, batch_first=True), torch.randn(2, 5, 12)
    torch.nn.init.normal_(theirs.in_proj_bias)
    banned = torch.ones(5, 5, dtype=torch.bool).triu(1)
    wanted, weights = theirs(h, h, h, attn_mask=banned)
    torch.testing.assert_close(attend(theirs, h, True, None, 0.0), wanted)
    mask = ~torch.tensor([[False] * 4 + [True]]).expand(5, 5)
    torch.testing.assert_close(attend(theirs, h, False, mask, 0.0), theirs(h, h, h, attn_mask=~mask)[0])
    torch.testing.assert_close(looks_at(theirs, h, h[:, 3], ~banned[3].expand(2, -1)), weights[:, 3])
    torch.testing.assert_close(looks_at(theirs, h, h[:, 0], None), theirs(h, h, h)[1][:, 0])


def test_dropout_of_the_text_is_in_training_only(tiny_clip: str) -> None:
    ours, _ = build(tiny_clip, text_dropout=0.5)
    tokens = open_clip.tokenize(SENTENCES)
    assert torch.equal(ours.text(tokens).whole, ours.text(tokens).whole)
    ours.train()
    assert not torch.equal(ours.text(tokens).whole, ours.text(tokens).whole)


def test_everything_learns_but_the_patch_embedding(tiny_clip: str) -> None:
    ours, _ = build(tiny_clip, moe_layers=(0, 1), selected=3, tse_ratio=0.3, tse_dim=8)
    ours.train()
    (whole, part), routing = ours.image(crops(4), torch.tensor([0, 1, 0, 1]))
    text = ours.text(open_clip.tokenize([*SENTENCES, "two people"]))
    loss = sum(x.square().sum() for x in (whole, part, *text, *routing.view_logits)) * ours.scale()
    loss.backward()
    still = {n for n, p in ours.named_parameters() if p.grad is None or not p.grad.any()}
    # A bias before a batch norm is taken out by its mean.
    assert {n for n in still if not n.endswith("tse.up.bias")} == {"image.conv1.weight"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-B-17", "open_clip has no model 'ViT-B-17'; these work: .*ViT-B-16-quickgelu"),
        ("hf-hub:someone/something", "open_clip has no model"),  # nothing is looked up on the network
        ("RN50", "RN50 has a ResNet as image tower"),
        ("EVA02-B-16", "vision_cfg.timm_model_name, which these towers do not do; these work: .*ViT-L-14"),
        ("ViT-B-16-SigLIP", "these towers do not do"),
        ("coca_ViT-B-32", "these towers do not do"),
        ("roberta-ViT-B-32", "text_cfg.hf_model_name, which these towers do not do"),
        ("ViT-H-14-CLIPA", "these towers do not do"),
        ("ViT-bigG-14-worldwide", "text_cfg.hf_tokenizer_name"),
    ],
)
def test_models_of_another_make_are_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        context_length(ModelConfig(clip=name))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height_px": 36}, "multiples of the 8 pixels of tiny-vit's patches, found 36x32"),
        ({"moe_layers": (3,)}, r"model.moe_layers must lie in 0..2 for tiny-vit, found \[3\]"),
    ],
)
def test_what_does_not_fit_the_model_is_named(tiny_clip: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(tiny_clip, **changes)


@torch.no_grad()
def test_uint8_and_float_crops_are_the_same_picture(tiny_clip: str) -> None:
    ours, _ = build(tiny_clip)
    assert torch.equal(ours.image(crops(2))[0].whole, ours.image(crops(2).float())[0].whole)


@torch.no_grad()
def test_known_views_route(tiny_clip: str) -> None:
    ours, _ = build(tiny_clip, selected=3)
    for k in (0, -1):
        torch.nn.init.normal_(ours.image.resblocks[1].mlp.experts[k].c_fc.weight)
    views = [ours.image(crops(3), torch.full((3,), v))[0].whole for v in (0, 1)]
    mixed = ours.image(crops(3), torch.tensor([0, 1, 0]))[0].whole
    torch.testing.assert_close(mixed, torch.stack([views[0][0], views[1][1], views[0][2]]), atol=1e-5, rtol=0)
    assert F.cosine_similarity(*views).max() < 0.999


@pytest.mark.parametrize(
    "mixture",
    [
        {"selected": 3},
        {"selected": 2},
        {"selected": 2, "router": "token"},
        {"selected": 3, "gumbel": True, "router_noise": True},
    ],
)
def test_a_step_in_bf16_is_near_that_in_fp32(tiny_clip: str, mixture: dict[str, Any]) -> None:
    ours, _ = build(tiny_clip, tse_ratio=0.3, tse_dim=8, **mixture)
    ours.train()
    tokens, view = open_clip.tokenize([*SENTENCES, "two people"]), torch.tensor([0, 1, 0, 1])
    results = []
    for enabled in (False, True):
        ours.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            (whole, part), _ = ours.image(crops(4), view)
            text = ours.text(tokens)
        (whole.float().square().sum() + part.float().square().sum() + text.part.float().sum()).backward()
        results.append(
            (whole.float().detach(), ours.image.resblocks[1].mlp.experts[1].c_fc.weight.grad.clone())
        )
    assert F.cosine_similarity(results[0][0], results[1][0]).min() > 0.99
    assert F.cosine_similarity(results[0][1].flatten(), results[1][1].flatten(), dim=0) > 0.9

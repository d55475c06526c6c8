"""The small towers: attention against torch's, and what an embedding must not depend on."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F

from tagclip.train.config import ModelConfig
from tagclip.train.model import TagClip
from tagclip.train.moe import HrMoe
from tagclip.train.towers import Attention, ImageTower, TextTower, WordTable


def config(toy_model: dict[str, Any], **changes: Any) -> ModelConfig:
    lists = {k: tuple(v) if isinstance(v, list) else v for k, v in (toy_model | changes).items()}
    return ModelConfig(**lists)


def model(toy_model: dict[str, Any], **changes: Any) -> TagClip:
    torch.manual_seed(1)
    made = TagClip(config(toy_model, **changes), 20).eval()
    for module in made.modules():
        if isinstance(module, HrMoe):
            torch.nn.init.normal_(module.image_router.weight)
            torch.nn.init.normal_(module.token_router.weight)
    return made


def crops(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 32, 16, 3), generator=generator, dtype=torch.uint8)


def test_attention_is_that_of_torch() -> None:
    torch.manual_seed(0)
    ours, x = Attention(12, 3), torch.randn(2, 5, 12)
    counts = torch.tensor([[True] * 5, [True, True, True, False, False]])
    theirs = torch.nn.MultiheadAttention(12, 3, batch_first=True)
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.qkv.weight,
            "in_proj_bias": ours.qkv.bias,
            "out_proj.weight": ours.out.weight,
            "out_proj.bias": ours.out.bias,
        }
    )
    torch.testing.assert_close(ours(x), theirs(x, x, x)[0])
    torch.testing.assert_close(ours(x, counts), theirs(x, x, x, key_padding_mask=~counts)[0])
    torch.testing.assert_close(ours.of_first(x), theirs(x, x, x)[1][:, 0])
    masked = theirs(x, x, x, key_padding_mask=~counts)[1]
    torch.testing.assert_close(ours.of_first(x, counts), masked[:, 0])


def test_the_view_token_leaves_after_the_last_moe(toy_model: dict[str, Any]) -> None:
    tower = model(toy_model).image
    seen: list[int] = []
    for block in tower.blocks:
        block.attention.register_forward_hook(lambda module, args, out: seen.append(out.shape[1]))
    _, routing = tower(crops(2))
    assert seen == [34, 34, 33]  # CLS + 8 x 4 + view token in blocks 0 and 1, the HR-MoEs
    assert [len(part) for part in (routing.view_logits, routing.cls, routing.view)] == [2, 2, 2]


def test_without_moe_there_is_no_view_token(toy_model: dict[str, Any]) -> None:
    tower = model(toy_model, moe_layers=[]).image
    _, routing = tower(crops(2))
    assert routing.view_logits == [] and tower.view_token is None
    assert tower(crops(2))[0].whole.shape == (2, 16)


@torch.no_grad()
def test_a_known_view_routes_where_the_prediction_would(toy_model: dict[str, Any]) -> None:
    """A known view holds in every block; equal to the prediction where all blocks predict it."""
    tower = model(toy_model).image
    images = crops(64)
    for k in (0, 1):  # routers that call half of the images aerial
        logits = tower(images)[1].view_logits[k]
        tower.blocks[k].ffn.image_router.bias.copy_(-logits.median(0).values)
    (free, _), routing = tower(images)
    predicted = torch.stack([logits.argmax(-1) for logits in routing.view_logits])
    agreed = predicted[0] == predicted[1]
    assert agreed.any() and not agreed.all(), "the case must hold both"
    known = tower(images, predicted[0])[0].whole
    same = torch.isclose(known, free, atol=1e-6).all(1)
    assert same[agreed].all() and not same[~agreed].any()
    other = tower(images, 1 - predicted[0])[0].whole
    assert not torch.isclose(other, free, atol=1e-6).all(1)[agreed].any()


@torch.no_grad()
def test_an_embedding_does_not_depend_on_its_batch(toy_model: dict[str, Any]) -> None:
    tower = model(toy_model).image
    images = crops(7)
    together = tower(images)[0].whole
    order = torch.tensor([4, 2, 6, 0, 1, 5, 3])
    torch.testing.assert_close(tower(images[order])[0].whole, together[order])
    torch.testing.assert_close(torch.cat([tower(image[None])[0].whole for image in images]), together)


@torch.no_grad()
def test_pixels_are_scaled_to_one_range(toy_model: dict[str, Any]) -> None:
    """uint8 and float crops are the same picture, and the stem sees -1..1."""
    tower: ImageTower = model(toy_model).image
    seen: list[torch.Tensor] = []
    tower.stem.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    images = crops(2)
    images[0, 0, 0] = torch.tensor([0, 255, 51])
    assert torch.equal(tower(images)[0].whole, tower(images.float())[0].whole)
    torch.testing.assert_close(seen[0][0, :, 0, 0], torch.tensor([-1.0, 1.0, -0.6]))


@torch.no_grad()
def test_more_padding_does_not_change_a_text(toy_model: dict[str, Any]) -> None:
    tower: TextTower = model(toy_model).text
    tokens = torch.tensor([[5, 9, 2], [7, 0, 0]])
    short = tower(tokens).whole
    torch.testing.assert_close(tower(F.pad(tokens, (0, 9))).whole, short)
    torch.testing.assert_close(tower(tokens[1:, :1]).whole, short[1:])
    swapped = tower(torch.tensor([[9, 5, 2], [7, 0, 0]])).whole
    assert not torch.isclose(swapped[0], short[0], atol=1e-4).all(), "word order counts"


def test_word_table_is_codes_times_scales_and_frozen(toy_model: dict[str, Any]) -> None:
    tower = model(toy_model, word_vectors="minilm").text
    table = tower.table
    assert isinstance(table, WordTable)
    table.codes.copy_(torch.randint(-127, 128, table.codes.shape, dtype=torch.int8))
    table.scales.uniform_(0.001, 0.1)
    tokens = torch.tensor([[3, 19, 0], [1, 3, 7]])
    rows = [[table.codes[t].double() * table.scales[t].double() for t in row] for row in tokens.tolist()]
    expected = torch.stack([torch.stack(row) for row in rows])
    found = table(tokens)
    assert found.dtype == torch.float32 and not found.requires_grad
    torch.testing.assert_close(found.double(), expected)
    assert list(table.parameters()) == [] and set(table.state_dict()) == {"codes", "scales"}
    kept = table.codes.clone(), table.scales.clone()
    optimiser = torch.optim.SGD(tower.parameters(), lr=0.1)
    tower(tokens).whole.sum().backward()
    optimiser.step()
    assert torch.equal(table.codes, kept[0]) and torch.equal(table.scales, kept[1])


def test_learned_words_learn(toy_model: dict[str, Any]) -> None:
    tower = model(toy_model).text
    tower(torch.tensor([[3, 0]])).whole.square().sum().backward()
    gradient = tower.table.weight.grad
    assert gradient[3].any() and not gradient[4:].any()


def test_names_of_weights_stay(toy_model: dict[str, Any]) -> None:
    """Checkpoints that exist, runs/nano of First flight among them, have these names."""
    names = set(model(toy_model, word_vectors="minilm").state_dict())
    assert {
        *("image.stem.0.conv.weight", "image.stem.2.norm.running_var", "image.cls", "image.view_token"),
        *("image.position", "image.norm_pre.weight", "image.blocks.0.attention.qkv.weight"),
        *("image.blocks.0.ffn.image_router.bias", "image.blocks.0.ffn.token_router.weight"),
        *("image.blocks.0.ffn.experts.3.down.weight", "image.blocks.2.ffn.up.weight", "image.norm_post.bias"),
        *("image.project.weight", "text.table.codes", "text.table.scales", "text.enter.weight", "text.cls"),
        *("text.blocks.0.ffn.down.bias", "text.project.weight", "log_scale"),
    } <= names
    assert not any("tse" in name or "allowed" in name for name in names)

"""Token selection against a loop over rows and tokens that follows the definition."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F

from tagclip.train.clip_models import VOCABULARY
from tagclip.train.config import ModelConfig
from tagclip.train.model import TagClip
from tagclip.train.tse import Tse, selected_count


def naive(tse: Tse, tokens: torch.Tensor, attention: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Evaluation, one token at a time."""
    out = []
    for b in range(len(tokens)):
        order = [t for t in attention[b].argsort(descending=True).tolist() if counts[b, t]][: tse.count]
        embedded = []
        for t in order:
            f = tokens[b, t] / tokens[b, t].norm()
            hidden = tse.up.weight @ f + tse.up.bias
            norm = tse.norm
            hidden = (hidden - norm.running_mean) / (
                norm.running_var + norm.eps
            ).sqrt() * norm.weight + norm.bias
            embedded.append(
                tse.linear.weight @ f
                + tse.linear.bias
                + tse.down.weight @ hidden.clamp(min=0)
                + tse.down.bias
            )
        out.append(torch.stack(embedded).max(0).values)
    return torch.stack(out)


@pytest.fixture
def tse() -> Tse:
    torch.manual_seed(0)
    made = Tse(6, 10, 3)
    with torch.no_grad():
        for tensor in (made.norm.running_var, made.norm.weight):
            tensor.uniform_(0.5, 2)
        for tensor in (made.norm.running_mean, made.norm.bias):
            tensor.normal_(std=0.3)
    return made


@pytest.fixture
def case() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(4, 7, 6, generator=generator)
    attention = torch.rand(4, 7, generator=generator).softmax(1)
    counts = torch.arange(7)[None] < torch.tensor([7, 4, 2, 1])[:, None]  # two rows are shorter than k
    return tokens, attention, counts


@torch.no_grad()
def test_evaluation(tse: Tse, case: tuple[torch.Tensor, ...]) -> None:
    tokens, attention, counts = case
    tse.eval()
    torch.testing.assert_close(tse(tokens, attention, counts), naive(tse, tokens, attention, counts))
    every = torch.ones_like(counts)
    torch.testing.assert_close(tse(tokens, attention), naive(tse, tokens, attention, every))


def test_padding_does_not_enter_training(tse: Tse, case: tuple[torch.Tensor, ...]) -> None:
    """Neither the output nor the statistics of the batch norm nor a gradient depends on what does not count."""
    tokens, attention, counts = case
    results = []
    for filler in (0.0, 50.0):
        given = torch.where(counts[..., None], tokens, filler).requires_grad_()
        tse.norm.reset_running_stats()
        out = tse.train()(given, attention, counts)
        out.square().sum().backward()
        assert not given.grad[~counts].any() and given.grad[counts].any()
        results.append((out.detach(), tse.norm.running_mean.clone(), tse.norm.running_var.clone()))
    torch.testing.assert_close(results[0], results[1])


def test_no_gradient_through_the_selection(tse: Tse, case: tuple[torch.Tensor, ...]) -> None:
    attention = case[1].requires_grad_()
    out = tse(case[0], attention, case[2])
    out.sum().backward()
    assert attention.grad is None


@pytest.mark.parametrize(("tokens", "count"), [(196, 58), (75, 22), (2, 1)])
def test_counts_are_those_of_the_release(tokens: int, count: int) -> None:
    assert selected_count(tokens, 0.3) == count


@torch.no_grad()
def test_small_towers_select_by_the_last_blocks_attention(toy_model: dict[str, Any]) -> None:
    lists = {k: tuple(v) if isinstance(v, list) else v for k, v in toy_model.items()}
    torch.manual_seed(0)
    made = TagClip(ModelConfig(**lists, tse_ratio=0.3, tse_dim=8), 20).eval()
    assert made.image.tse.count == 9  # of 8 x 4 patches
    given: list[tuple[Any, ...]] = []
    for tower in (made.image, made.text):
        tower.tse.register_forward_pre_hook(lambda module, args: given.append(args))
    last = made.image.blocks[-1]
    inner: list[torch.Tensor] = []
    last.norm1.register_forward_hook(lambda module, args, out: inner.append(out))
    made.image(torch.randint(0, 256, (3, 32, 16, 3), dtype=torch.uint8))
    reference = torch.nn.MultiheadAttention(16, 2, batch_first=True)
    reference.load_state_dict(
        {
            "in_proj_weight": last.attention.qkv.weight,
            "in_proj_bias": last.attention.qkv.bias,
            "out_proj.weight": last.attention.out.weight,
            "out_proj.bias": last.attention.out.bias,
        }
    )
    _, weights = reference(inner[0], inner[0], inner[0])
    torch.testing.assert_close(given[0][1], weights[:, 0, 1:])
    assert given[0][0].shape == (3, 32, 16)
    made.text(torch.tensor([[5, 9, 0], [0, 0, 0]]))
    assert given[1][2].tolist() == [[False, True, True, False], [True, False, False, False]]


@torch.no_grad()
def test_open_clip_towers_select_by_the_last_blocks_attention(tiny_clip: str) -> None:
    open_clip = pytest.importorskip("open_clip")
    config = ModelConfig(
        clip=tiny_clip, height_px=32, width_px=32, moe_layers=(2,), selected=3, tse_ratio=0.3, tse_dim=8
    )
    torch.manual_seed(0)
    made = TagClip(config, VOCABULARY).eval()
    assert (made.image.tse.count, made.text.tse.count) == (4, 22)
    given: list[tuple[Any, ...]] = []
    inner: list[torch.Tensor] = []
    for tower in (made.image, made.text):
        tower.tse.register_forward_pre_hook(lambda module, args: given.append(args))
        tower.resblocks[-1].ln_1.register_forward_hook(lambda module, args, out: inner.append(out))
    made.image(torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8))
    h = inner[0]
    assert h.shape[1] == 18  # CLS, 16 patches and, since the last block is an HR-MoE, the view token
    _, weights = made.image.resblocks[-1].attn(h, h, h)
    torch.testing.assert_close(given[0][1], weights[:, 0, 1:17])
    tokens = open_clip.tokenize(["a man in red", ""])
    made.text(tokens)
    h, causal = inner[1], torch.ones(77, 77, dtype=torch.bool).triu(1)
    _, weights = made.text.resblocks[-1].attn(h, h, h, attn_mask=causal)
    torch.testing.assert_close(given[1][1], torch.stack([weights[0, 5], weights[1, 1]]))
    # The words between start and end; of an empty text its end.
    assert given[1][2].nonzero().tolist() == [[0, 1], [0, 2], [0, 3], [0, 4], [1, 1]]
    local = F.normalize(made.text(tokens).part, dim=-1)
    assert local.isfinite().all()

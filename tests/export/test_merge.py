"""Merged experts: gates and averages by their definition, distillation that learns, and the graph that comes out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from tagclip.export.images import image_graph, specialist
from tagclip.export.merge import Single, distil, mean_gates, merge
from tagclip.export.precision import run_graph
from tagclip.train.checkpoint import load_checkpoint
from tagclip.train.moe import FixedMoe, top_k_softmax

CROPS = np.random.default_rng(4).integers(0, 256, (200, 32, 16, 3), dtype=np.uint8)


@pytest.fixture
def exact(toy_checkpoint: Path) -> torch.nn.Module:
    return specialist(load_checkpoint(toy_checkpoint)[0], "aerial")


def test_gates_are_the_mean_over_tokens(exact: torch.nn.Module) -> None:
    gates = mean_gates(exact, CROPS)
    assert list(gates) == ["tower.blocks.0.ffn", "tower.blocks.1.ffn"]
    kept = []
    moe = exact.tower.blocks[1].ffn
    moe.register_forward_pre_hook(lambda module, given: kept.append(given[0]))
    with torch.no_grad():
        exact(torch.from_numpy(CROPS))
        weights = top_k_softmax(moe.token_router(kept[0]), moe.selected)
    torch.testing.assert_close(gates["tower.blocks.1.ffn"], weights.mean((0, 1)))
    assert gates["tower.blocks.1.ffn"].sum() == pytest.approx(1)


def test_weights_are_averaged(exact: torch.nn.Module) -> None:
    moe = exact.tower.blocks[0].ffn
    shares = torch.tensor([0.2, 0.5, 0.3])
    merged = merge(exact, {"tower.blocks.0.ffn": shares})
    single = merged.tower.blocks[0].ffn
    assert isinstance(single, Single) and isinstance(merged.tower.blocks[1].ffn, FixedMoe)
    expected = sum(s * e.up.weight for s, e in zip(shares, moe.experts, strict=True))
    torch.testing.assert_close(single.network.up.weight, expected)
    assert isinstance(exact.tower.blocks[0].ffn, FixedMoe), "the specialist itself is left alone"


def test_equal_experts_merge_exactly(exact: torch.nn.Module) -> None:
    """What upcycling begins with."""
    for block in exact.tower.blocks[:2]:
        for expert in block.ffn.experts[1:]:
            expert.load_state_dict(block.ffn.experts[0].state_dict())
    merged = merge(exact, mean_gates(exact, CROPS))
    with torch.no_grad():
        given = torch.from_numpy(CROPS)
        torch.testing.assert_close(merged(given), exact(given), atol=1e-5, rtol=0)
    assert sum(p.numel() for p in merged.parameters()) < sum(p.numel() for p in exact.parameters())


def test_distillation_brings_it_back(exact: torch.nn.Module) -> None:
    merged = merge(exact, mean_gates(exact, CROPS))
    given = torch.from_numpy(CROPS[150:])
    with torch.no_grad():
        wanted = exact(given)
        before = 1 - (merged(given) * wanted).sum(-1).mean()
    steps: list[int] = []
    distil(merged, exact, CROPS[:150], 60, lr=2e-3, tick=steps.append)
    with torch.no_grad():
        after = 1 - (merged(given) * wanted).sum(-1).mean()
        torch.testing.assert_close(exact(given), wanted)  # the teacher has not moved
    assert steps == list(range(1, 61)) and before > 1e-3 and after < before / 2
    got = run_graph(image_graph(merged, (32, 16)), CROPS[150:])
    with torch.no_grad():
        assert (got * merged(given).numpy()).sum(1).min() > 0.99999

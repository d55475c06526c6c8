"""Gradients over micro batches are those of the whole batch in one go; test_processes.py has them over processes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning_fabric")

from tagclip.train.attributes import GROUPS
from tagclip.train.batches import Batch, Labels
from tagclip.train.config import Config, TrainConfig
from tagclip.train.engine import Engine
from tagclip.train.model import TagClip
from tagclip.train.objective import encode_pairs, weighted_losses
from tagclip.train.step import backward, still_statistics

SETTINGS: dict[str, Any] = {
    "precision": "fp32",
    "accelerator": "cpu",
    "captions": 2,
    "weight_id": 0.3,
    "weight_attributes": 0.5,
    "ortho_alpha": 0.0,
}


def make(toy_model: dict[str, Any], batch_norm: bool) -> tuple[TagClip, Batch]:
    """A model with routers that decide, and a batch of 12 pairs of 5 people."""
    torch.manual_seed(0)
    sizes = [len(classes) for classes in GROUPS.values()]
    model = TagClip(Config.from_json({"model": toy_model}).model, 20, 5, sum(sizes))
    for name, parameter in model.named_parameters():
        if "router" in name:
            torch.nn.init.normal_(parameter)
    if not batch_norm:
        for stage in model.image.stem:
            stage.norm = torch.nn.Identity()
    tokens = [torch.randint(2, 20, (12, 7)) for _ in range(2)]
    tokens[0][3, 4:] = 0  # padding
    attributes = torch.stack([torch.randint(-1, size, (12,)) for size in sizes], 1)
    labels = Labels(
        np.arange(12), torch.randint(0, 5, (12,)), torch.arange(12) % 2, attributes, attributes.flip(0)
    )
    return model.train(), Batch(torch.rand(12, 32, 16, 3) * 255, tokens, labels)


def reference(model: TagClip, batch: Batch, config: TrainConfig) -> tuple[float, dict[str, Any]]:
    """Loss and gradients by plain back-propagation through everything."""
    model.zero_grad(set_to_none=True)
    terms = weighted_losses(model, encode_pairs(model, batch.crops, batch.tokens), batch.labels, config, 0.2)
    loss = sum(terms.values())
    loss.backward()
    return float(loss.detach()), gradients(model)


def gradients(model: TagClip) -> dict[str, Any]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("micro_batch", [0, 1, 4, 5, 12, 50])
def test_micro_batches_have_the_gradients_of_the_whole(toy_model: dict[str, Any], micro_batch: int) -> None:
    config = TrainConfig(micro_batch=micro_batch, **SETTINGS)
    model, batch = make(toy_model, batch_norm=False)
    loss, wanted = reference(model, batch, config)
    assert {"log_scale", "classifier.weight", "attributes.weight", "image.view_token"} <= set(wanted)
    model.zero_grad(set_to_none=True)
    terms = backward(Engine(config), model, batch, config, 0.2, (0, 0, 0))
    assert float(sum(terms.values())) == pytest.approx(loss, rel=1e-6)
    found = gradients(model)
    assert set(found) == set(wanted)
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_adding_up_parts_would_be_wrong(toy_model: dict[str, Any]) -> None:
    """What the file is for: plain accumulation over micro batches is another gradient, by far."""
    config = TrainConfig(**SETTINGS)
    model, batch = make(toy_model, batch_norm=False)
    _, wanted = reference(model, batch, config)
    model.zero_grad(set_to_none=True)
    for k in range(0, 12, 4):
        labels = Labels(*(getattr(batch.labels, name)[k : k + 4] for name in vars(batch.labels)))
        features = encode_pairs(model, batch.crops[k : k + 4], [t[k : k + 4] for t in batch.tokens])
        (sum(weighted_losses(model, features, labels, config, 0.2).values()) / 3).backward()
    assert (model.image.project.weight.grad - wanted["image.project.weight"]).abs().max() > 1e-3


def test_dropout_is_drawn_alike_both_times(toy_model: dict[str, Any]) -> None:
    """With dropout the gradient is that of the features that the loss saw: checked by a finite difference."""
    config = TrainConfig(micro_batch=4, **SETTINGS | {"weight_attributes": 0.0})
    model, batch = make(toy_model, batch_norm=False)
    model.image.norm_post = torch.nn.Sequential(model.image.norm_post, torch.nn.Dropout(0.5))
    engine, weight = Engine(config), model.image.project.weight

    def total() -> float:
        model.zero_grad(set_to_none=True)
        return float(sum(backward(engine, model, batch, config, 0.0, (0, 1, 2)).values()))

    total()
    direction = weight.grad / weight.grad.norm()
    slope, step = float((weight.grad * direction).sum()), 1e-2
    weight.data += step * direction
    above = total()
    weight.data -= 2 * step * direction
    below = total()
    assert (above - below) / (2 * step) == pytest.approx(slope, rel=1e-2)


def test_running_statistics_move_once(toy_model: dict[str, Any]) -> None:
    """Over micro batches as in one pass over each of them; the gradient is exact for batch norm on micro batches."""
    config = TrainConfig(micro_batch=6, **SETTINGS)
    model, batch = make(toy_model, batch_norm=True)
    backward(Engine(config), model, batch, config, 0.2, (0, 0, 0))
    found = {k: v.clone() for k, v in model.state_dict().items() if "running" in k or "tracked" in k}
    other, _ = make(toy_model, batch_norm=True)
    halves = [slice(0, 6), slice(6, 12)]
    parts = [encode_pairs(other, batch.crops[h], [t[h] for t in batch.tokens]) for h in halves]
    features = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    sum(weighted_losses(other, features, batch.labels, config, 0.2).values()).backward()
    wanted = other.state_dict()
    assert len(found) == 9 and all(torch.equal(wanted[k], v) for k, v in found.items())
    for name, gradient in gradients(other).items():
        torch.testing.assert_close(gradients(model)[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_still_statistics_come_back_after_an_error(toy_model: dict[str, Any]) -> None:
    model, _ = make(toy_model, batch_norm=True)
    with pytest.raises(ZeroDivisionError), still_statistics(model):
        assert not model.image.stem[0].norm.track_running_stats
        raise ZeroDivisionError
    assert model.image.stem[0].norm.track_running_stats

"""Batches come from (seed, epoch, step) alone; processes take slices of the same ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tagclip.runtime.errors import DataError
from tagclip.runtime.preprocess import PreprocessSpec
from tagclip.train.augment import kept_spec
from tagclip.train.batches import Batch, Batches
from tagclip.train.config import TrainConfig
from tagclip.train.data import load_images, load_split
from tagclip.train.split import Split, as_split, trim
from tagclip.train.words import UNKNOWN_ID, build_words

SPEC, CPU = PreprocessSpec(32, 16), torch.device("cpu")


@pytest.fixture(scope="module", params=["light", "released"])
def augment(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def split(toy_data: Path, augment: str) -> Split:
    samples = load_split(toy_data, "train")
    words = build_words("none", [c for s in samples for c in s.captions])
    return as_split(samples, words.tokenizer_json, 12, load_images(samples, kept_spec(SPEC, augment)))


def batches(split: Split, augment: str, rank: int = 0, world: int = 1, **settings: Any) -> Batches:
    config = TrainConfig(**{"batch": 12, "augment": augment, "captions": 2} | settings)
    return Batches(split, config, SPEC, rank, world, CPU)


def tensors(batch: Batch) -> list[Any]:
    labels = batch.labels
    return [batch.crops, *batch.tokens, labels.identity, labels.view, torch.from_numpy(labels.rows)]


def same(one: Iterator[Batch], other: Iterator[Batch]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(torch.equal(a, b) for x, y in pairs for a, b in zip(tensors(x), tensors(y), strict=True))


def test_an_epoch_can_begin_anywhere(split: Split, augment: str) -> None:
    """Steps 2.. of a fresh stream are those of an unbroken one, and another epoch or seed is another."""
    made = batches(split, augment, cross_caption=0.5, word_dropout=0.3)
    order = made.order(3)
    assert len(order) == 6 and all(len(rows) == 12 for rows in order)
    whole = list(made.stream(3, order))
    assert len(whole) == 6 and same(made.stream(3, order, 2), iter(whole[2:]))
    assert not same(iter(whole), made.stream(4, order))
    assert not same(iter(whole), batches(split, augment, seed=1).stream(3, order))
    assert not torch.equal(whole[0].crops, whole[1].crops)


def test_processes_take_slices(split: Split, augment: str) -> None:
    settings = {"cross_caption": 0.5, "word_dropout": 0.3}
    alone = batches(split, augment, **settings)
    order = alone.order(0)
    shares = [batches(split, augment, rank, 3, **settings).stream(0, order) for rank in range(3)]
    for whole, *parts in zip(alone.stream(0, order), *shares, strict=True):
        assert torch.equal(whole.crops, torch.cat([part.crops for part in parts]))
        for k, tokens in enumerate(whole.tokens):
            for rank, part in enumerate(parts):  # a slice may have fewer columns, not other tokens
                mine = tokens[rank * 4 : (rank + 1) * 4]
                width = part.tokens[k].shape[1]
                assert torch.equal(mine[:, :width], part.tokens[k]) and not mine[:, width:].any()
        assert all(torch.equal(part.labels.identity, whole.labels.identity) for part in parts)


def test_two_captions_are_different_ones(split: Split, augment: str) -> None:
    """The toy people have two captions each: every image shows both."""
    made = batches(split, augment, word_dropout=0.0)
    for batch in made.stream(0, made.order(0)):
        assert not any(
            torch.equal(a, b)
            for a, b in zip(trim(batch.tokens[0].numpy()), trim(batch.tokens[1].numpy()), strict=True)
        )


def test_captions_cross_within_a_person(split: Split, augment: str) -> None:
    rows = np.tile(np.arange(72), 200)
    for share in (0.0, 0.3, 1.0):
        source = batches(split, augment, cross_caption=share).caption_source(rows, np.random.default_rng(0))
        assert (split.identity[source] == split.identity[rows]).all()
        assert (source != rows).mean() == pytest.approx(share, abs=0.03)
    others = {int(s) for s in source[rows == 0]}
    assert others == set(np.flatnonzero(split.identity == split.identity[0]).tolist()) - {0}


def test_word_dropout(split: Split, augment: str) -> None:
    made = batches(split, augment, word_dropout=0.25)
    tokens = torch.cat([t for batch in made.stream(0, made.order(0)) for t in map(_wide, batch.tokens)])
    assert (tokens == UNKNOWN_ID).sum() / (tokens != 0).sum() == pytest.approx(0.25, abs=0.06)


def _wide(tokens: Any) -> Any:
    return torch.nn.functional.pad(tokens, (0, 12 - tokens.shape[1]))


@pytest.mark.parametrize("batch", [9, 6400], ids=["odd", "more than there are"])
def test_a_batch_that_processes_cannot_share_is_refused(split: Split, augment: str, batch: int) -> None:
    said = rf"2 processes share a batch evenly: train.batch must be a multiple of 2 .* found {batch}"
    with pytest.raises(DataError, match=said):
        batches(split, augment, world=2, batch=batch)

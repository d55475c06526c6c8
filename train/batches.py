"""The batches of an epoch as tensors, made ahead in threads. All chance comes from (seed, epoch, step)."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tagclip.runtime.errors import DataError
from tagclip.runtime.preprocess import PreprocessSpec
from tagclip.train.augment import LIGHT_DRAWS, Released, Step, light
from tagclip.train.config import TrainConfig
from tagclip.train.sampler import Rows, draw_batches
from tagclip.train.split import Split, trim
from tagclip.train.words import PAD_ID, UNKNOWN_ID


@dataclass(frozen=True)
class Labels:
    """What is known of the whole batch of B pairs, the same in every process.

    Attributes:
        rows: (B,) numbers of the images in the training split.
        identity, view: (B,) int64.
        image_attributes, text_attributes: (B, groups) int64; they differ where the caption is another image's.
    """

    rows: Rows
    identity: Tensor
    view: Tensor
    image_attributes: Tensor
    text_attributes: Tensor


@dataclass(frozen=True)
class Batch:
    """A step's batch: this process's b of the B pairs, and the labels of all.

    Attributes:
        crops: (b, H, W, 3) float32, RGB 0..255.
        tokens: (b, T) int64, one entry for each of the step's captions.
    """

    crops: Tensor
    tokens: list[Tensor]
    labels: Labels


class Batches:
    """Batches of a training split for one of `world` processes, on one device."""

    def __init__(
        self,
        split: Split,
        config: TrainConfig,
        spec: PreprocessSpec,
        rank: int,
        world: int,
        device: torch.device,
    ):
        """Raises: DataError when the processes cannot share the batches evenly."""
        if world > 1 and (config.batch % world or len(split.identity) < config.batch):
            raise DataError(
                f"{world} processes share a batch evenly: train.batch must be a multiple of {world} and at most the "
                f"number of training images {len(split.identity)}, found {config.batch}"
            )
        self.split, self.config, self.spec = split, config, spec
        self.rank, self.world, self.device = rank, world, device
        self.released = Released(spec) if config.augment == "released" else None
        # A CPU has the model to compute beside; with a GPU the CPU's cores are free.
        self.threads = min(4, os.cpu_count() or 1) if device.type == "cuda" else 1
        order = np.argsort(split.identity, kind="stable")
        self.members, self.place = order, np.argsort(order, kind="stable")
        self.people = np.bincount(split.identity)
        self.starts = np.concatenate([[0], self.people.cumsum()[:-1]])

    def order(self, epoch: int) -> list[Rows]:
        """The row numbers (B,) of each step of an epoch."""
        rng = np.random.default_rng([self.config.seed, epoch])
        return draw_batches(self.config, self.split.identity, self.split.view, rng)

    def stream(self, epoch: int, order: list[Rows], first: int = 0) -> Generator[Batch, None, None]:
        """The batches of steps `first`, `first` + 1, ... of an epoch, some of them made ahead.

        Raises:
            DataError: an image cannot be read.
        """
        with ThreadPoolExecutor(self.threads) as pool:
            ahead: deque[Future[Batch]] = deque()
            try:
                for step in range(first, len(order)):
                    ahead.append(self._submit(pool, epoch, step, order[step]))
                    if len(ahead) > self.threads:
                        yield self._placed(ahead.popleft().result())
                while ahead:
                    yield self._placed(ahead.popleft().result())
            finally:
                pool.shutdown(cancel_futures=True)

    def _submit(self, pool: ThreadPoolExecutor, epoch: int, step: int, rows: Rows) -> Future[Batch]:
        rng = np.random.default_rng([self.config.seed, epoch, step])
        drawn = self.released.draw(len(rows), int(rng.integers(2**62))) if self.released else None
        return pool.submit(self._make, rows, rng, drawn)

    def _make(self, rows: Rows, rng: np.random.Generator, drawn: list[list[Step]] | None) -> Batch:
        config, data = self.config, self.split
        share = len(rows) // self.world
        mine = slice(self.rank * share, (self.rank + 1) * share)
        images = data.images[rows[mine]]
        if self.released is not None and drawn is not None:
            crops = self.released(images, drawn[mine])
        else:
            crops = light(images, self.spec, rng.random((len(rows), LIGHT_DRAWS))[mine])
        source = self.caption_source(rows, rng)
        which = rng.integers(0, data.count[source])
        tokens = [self._tokens(source, which + k, rng)[mine] for k in range(config.captions)]
        labels = Labels(
            rows,
            *(
                torch.from_numpy(array)
                for array in (
                    data.identity[rows],
                    data.view[rows],
                    data.attributes[rows],
                    data.attributes[source],
                )
            ),
        )
        batch = Batch(torch.from_numpy(crops), [trim(each) for each in tokens], labels)
        return self._pinned(batch) if self.device.type == "cuda" else batch

    def caption_source(self, rows: Rows, rng: np.random.Generator) -> Rows:
        """(B,) the image whose caption each of `rows` (B,) takes: with chance `cross_caption` another of its person."""
        people = self.split.identity[rows]
        crossed = (rng.random(len(rows)) < self.config.cross_caption) & (self.people[people] > 1)
        onward = 1 + (rng.random(len(rows)) * (self.people[people] - 1)).astype(np.int64)
        place = (self.place[rows] - self.starts[people] + onward) % self.people[people]
        return np.where(crossed, self.members[self.starts[people] + place], rows)

    def _tokens(self, rows: Rows, which: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """Caption number `which` (B,) of each image, counted round, as (B, T) token ids, some words dropped."""
        data = self.split
        tokens = data.tokens[data.first[rows] + which % data.count[rows]]
        dropped = (rng.random(tokens.shape) < self.config.word_dropout) & (tokens != PAD_ID)
        return np.where(dropped, UNKNOWN_ID, tokens)

    def _pinned(self, batch: Batch) -> Batch:
        return Batch(batch.crops.pin_memory(), [t.pin_memory() for t in batch.tokens], batch.labels)

    def _placed(self, batch: Batch) -> Batch:
        def there(x: Tensor) -> Tensor:
            return x.to(self.device, non_blocking=True)

        labels = batch.labels
        return Batch(
            there(batch.crops),
            [there(t) for t in batch.tokens],
            Labels(
                labels.rows,
                there(labels.identity),
                there(labels.view),
                there(labels.image_attributes),
                there(labels.text_attributes),
            ),
        )

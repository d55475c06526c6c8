"""A split of a data set as arrays, ready for batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tagclip.train.attributes import GROUPS, UNKNOWN, labels_of_samples
from tagclip.train.data import Sample
from tagclip.train.images import Images
from tagclip.train.words import PAD_ID, encode


@dataclass(frozen=True)
class Split:
    """A split as arrays.

    Attributes:
        images: (N, H, W, 3) uint8, in memory or read when asked for.
        identity, view: (N,) int64; identities count from 0.
        attributes: (N, groups) int64, see attributes.py.
        tokens: (C, T) int64, all captions; `owner` (C,) says whose image each is.
        first, count: (N,) where an image's captions begin in `tokens`, and how many it has.
    """

    images: Images
    identity: NDArray[np.int64]
    view: NDArray[np.int64]
    attributes: NDArray[np.int64]
    tokens: NDArray[np.int64]
    owner: NDArray[np.int64]
    first: NDArray[np.int64]
    count: NDArray[np.int64]


def as_split(
    samples: list[Sample],
    tokenizer_json: str,
    context: int,
    images: Images,
    with_attributes: bool = False,
) -> Split:
    """Arrays of a split whose images are prepared already.

    Args:
        with_attributes: read the annotation's attributes; off, none is known, whoever wrote them.

    Raises:
        DataError: attributes are asked for and are not synth's.
    """
    count = np.array([len(s.captions) for s in samples])
    captions = [caption for s in samples for caption in s.captions]
    numbers = {identity: k for k, identity in enumerate(sorted({s.identity for s in samples}))}
    return Split(
        images,
        np.array([numbers[s.identity] for s in samples]),
        np.array([s.view for s in samples]),
        labels_of_samples(samples)
        if with_attributes
        else np.full((len(samples), len(GROUPS)), UNKNOWN, np.int64),
        encode(tokenizer_json, captions, context),
        np.repeat(np.arange(len(samples)), count),
        np.concatenate([[0], count.cumsum()[:-1]]),
        count,
    )


def trim(tokens: NDArray[np.int64]) -> Tensor:
    """Drop the columns that are padding in every row; only at the end, since CLIP gives a word the padding's number."""
    used = np.flatnonzero((tokens != PAD_ID).any(0))
    return torch.from_numpy(np.ascontiguousarray(tokens[:, : used[-1] + 1 if len(used) else 1]))

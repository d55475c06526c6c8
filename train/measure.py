"""Evaluation of whatever a path holds: a checkpoint (PyTorch) or a bundle (the graphs that ship)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from tagclip.runtime.bundle import Bundle, open_bundle
from tagclip.runtime.encoder import ImageEncoder, TextEncoder
from tagclip.runtime.errors import CheckpointError
from tagclip.runtime.ranking import Ids, Vectors
from tagclip.runtime.views import VIEWS
from tagclip.train.checkpoint import is_checkpoint, load_checkpoint
from tagclip.train.data import Sample, input_spec, load_images, load_split
from tagclip.train.embed import embed_split
from tagclip.train.evaluate import Retrieval, by_view
from tagclip.train.split import as_split

CHUNK = 128  # images at a time: what is held in memory, and how often progress is told

# Samples to unit rows: (captions, D) in the order of the samples, and (images, D).
Embed = Callable[[list[Sample]], tuple[Vectors, Vectors]]
Tick = Callable[[int, int], None]


def open_model(model: Path) -> Embed:
    """A checkpoint (on the GPU if there is one) or a bundle, ready to embed.

    Raises:
        CheckpointError, BundleError: what is missing or damaged.
    """
    return _of_checkpoint(model) if is_checkpoint(model) else _of_bundle(open_bundle(model))


def embed(
    model: Embed, samples: list[Sample], tick: Tick = lambda done, total: None
) -> tuple[Vectors, Vectors]:
    """Unit rows of all captions (C, D) and of all images (N, D), read and embedded piece by piece.

    Args:
        tick: told images done, and all.

    Raises:
        DataError: an image cannot be read.
        CheckpointError: the weights give no finite vectors.
    """
    texts, images = [], []
    tick(0, len(samples))
    for start in range(0, len(samples), CHUNK):
        chunk = samples[start : start + CHUNK]
        text, image = model(chunk)
        texts.append(text)
        images.append(image)
        tick(start + len(chunk), len(samples))
    return np.concatenate(texts), np.concatenate(images)


def owners(samples: list[Sample]) -> Ids:
    """(C,) the image that each caption was written for."""
    return np.repeat(np.arange(len(samples)), [len(s.captions) for s in samples])


def evaluate_path(model: Path, folder: Path, split: str) -> dict[str, Retrieval]:
    """Metrics of a checkpoint or a bundle on one split of a data folder, see `evaluate.by_view`.

    Raises:
        CheckpointError, BundleError, DataError: what is missing or damaged.
    """
    samples = load_split(folder, split)
    texts, images = embed(open_model(model), samples)
    identity = np.array([s.identity for s in samples])
    return by_view(texts, images, identity[owners(samples)], identity, np.array([s.view for s in samples]))


def _of_checkpoint(folder: Path) -> Embed:
    """Images routed by the view that the model predicts, as in the paper."""
    net, tokenizer_json, config = load_checkpoint(folder)
    net.to("cuda" if torch.cuda.is_available() else "cpu")
    spec = input_spec(config.model)

    def run(samples: list[Sample]) -> tuple[Vectors, Vectors]:
        data = as_split(samples, tokenizer_json, net.context_length, load_images(samples, spec))
        images, texts = (vectors.numpy() for vectors in embed_split(net, data))
        if not (np.isfinite(images).all() and np.isfinite(texts).all()):
            raise CheckpointError(
                f"{folder}: expected finite vectors, found NaN; the training diverged, "
                "take an earlier checkpoint or a lower train.lr"
            )
        return texts, images

    return run


def _of_bundle(bundle: Bundle) -> Embed:
    """Images by the specialist of their labelled view."""
    encoders: dict[int, ImageEncoder] = {}
    text_encoder = TextEncoder(bundle)

    def run(samples: list[Sample]) -> tuple[Vectors, Vectors]:
        crops = load_images(samples, bundle.manifest.preprocess)
        view = np.array([s.view for s in samples])
        images = np.empty((len(samples), bundle.manifest.embedding_dim), np.float32)
        for k, name in enumerate(VIEWS):
            here = np.flatnonzero(view == k)
            if len(here):
                if k not in encoders:
                    encoders[k] = ImageEncoder(bundle, name)
                images[here] = encoders[k].embed(list(crops[here]))
        return text_encoder.embed([c for s in samples for c in s.captions]), images

    return run

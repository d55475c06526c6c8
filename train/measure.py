"""Evaluation of whatever a path holds: a checkpoint (PyTorch) or a bundle (the graphs that ship)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tagclip.runtime.bundle import Bundle, open_bundle
from tagclip.runtime.encoder import ImageEncoder, TextEncoder
from tagclip.runtime.preprocess import PreprocessSpec
from tagclip.runtime.views import VIEWS
from tagclip.train.checkpoint import is_checkpoint, load_checkpoint
from tagclip.train.data import Sample, load_images, load_split
from tagclip.train.evaluate import Retrieval, by_view
from tagclip.train.loop import as_split, evaluate_split


def evaluate_path(model: Path, folder: Path, split: str) -> dict[str, Retrieval]:
    """Metrics of a checkpoint or a bundle on one split of a data folder.

    Raises:
        CheckpointError, BundleError, DataError: what is missing or damaged.
    """
    samples = load_split(folder, split)
    if is_checkpoint(model):
        net, tokenizer_json, config = load_checkpoint(model)
        spec = PreprocessSpec(config.model.height_px, config.model.width_px)
        data = as_split(samples, tokenizer_json, net.context_length, load_images(samples, spec))
        return evaluate_split(net, data)
    return evaluate_bundle(open_bundle(model), samples)


def evaluate_bundle(bundle: Bundle, samples: list[Sample]) -> dict[str, Retrieval]:
    """Metrics of a bundle's graphs, each image by the specialist of its labelled view."""
    images = load_images(samples, bundle.manifest.preprocess)
    view = np.array([s.view for s in samples])
    vectors = np.empty((len(samples), bundle.manifest.embedding_dim), np.float32)
    for k, name in enumerate(VIEWS):
        here = np.flatnonzero(view == k)
        if len(here):
            vectors[here] = ImageEncoder(bundle, name).embed(list(images[here]))
    texts = TextEncoder(bundle).embed([c for s in samples for c in s.captions])
    identity = np.array([s.identity for s in samples])
    owner = np.repeat(identity, [len(s.captions) for s in samples])
    return by_view(texts, vectors, owner, identity, view)

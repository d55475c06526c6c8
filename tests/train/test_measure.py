"""Embedding of checkpoints and bundles, piece by piece."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tagclip.runtime.bundle import Bundle
from tagclip.runtime.encoder import ImageEncoder, TextEncoder
from tagclip.runtime.errors import BundleMissingError, CheckpointError
from tagclip.runtime.preprocess import PreprocessSpec
from tagclip.train import measure
from tagclip.train.checkpoint import load_checkpoint, read_tensors, write_tensors
from tagclip.train.data import load_images, load_split
from tagclip.train.embed import embed_split
from tagclip.train.measure import embed, open_model, owners
from tagclip.train.split import as_split


def test_a_checkpoint_in_pieces_is_a_checkpoint_at_once(
    toy_checkpoint: Path, toy_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = load_split(toy_data, "test")
    net, tokenizer_json, config = load_checkpoint(toy_checkpoint)
    crops = load_images(samples, PreprocessSpec(config.model.height_px, config.model.width_px))
    images, texts = embed_split(net, as_split(samples, tokenizer_json, config.model.context_length, crops))
    monkeypatch.setattr(measure, "CHUNK", 7)
    told: list[tuple[int, int]] = []
    got = embed(open_model(toy_checkpoint), samples, lambda done, total: told.append((done, total)))
    np.testing.assert_allclose(got[0], texts.numpy(), atol=1e-6)
    np.testing.assert_allclose(got[1], images.numpy(), atol=1e-6)
    assert told == [(0, 24), (7, 24), (14, 24), (21, 24), (24, 24)]


def test_a_bundle_takes_the_specialist_of_the_labelled_view(
    tiny_bundle: Bundle, toy_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = load_split(toy_data, "test")
    crops = load_images(samples, tiny_bundle.manifest.preprocess)
    both = [ImageEncoder(tiny_bundle, view).embed(list(crops)) for view in ("aerial", "ground")]
    monkeypatch.setattr(measure, "CHUNK", 5)
    texts, images = embed(open_model(tiny_bundle.path), samples)
    for k, sample in enumerate(samples):
        np.testing.assert_allclose(images[k], both[sample.view][k], atol=1e-6)
        assert np.abs(images[k] - both[1 - sample.view][k]).max() > 1e-4
    captions = [c for s in samples for c in s.captions]
    np.testing.assert_allclose(texts, TextEncoder(tiny_bundle).embed(captions), atol=1e-6)


def test_owners_count_captions(toy_data: Path) -> None:
    assert owners(load_split(toy_data, "test")[:3]).tolist() == [0, 0, 1, 1, 2, 2]


def test_weights_that_are_no_numbers_are_named(toy_checkpoint: Path, toy_data: Path, tmp_path: Path) -> None:
    shutil.copytree(toy_checkpoint, tmp_path / "bad")
    tensors = read_tensors(tmp_path / "bad" / "model.safetensors")
    name = next(n for n in tensors if n.startswith("image.") and tensors[n].is_floating_point())
    tensors[name] = torch.full_like(tensors[name], float("nan"))
    write_tensors(tmp_path / "bad" / "model.safetensors", tensors)
    with pytest.raises(
        CheckpointError, match="bad: expected finite vectors, found NaN; the training diverged"
    ):
        embed(open_model(tmp_path / "bad"), load_split(toy_data, "test"))


def test_a_path_that_holds_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleMissingError):
        open_model(tmp_path / "nothing")

"""From a checkpoint to a bundle: graphs, checks against the checkpoint, probe, scores and report, in one go."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tagclip.calibration.scores import background
from tagclip.export.parity import compare, gate
from tagclip.export.specialist import ImageSpecialist, TextGraph
from tagclip.export.to_onnx import parameters, to_onnx
from tagclip.runtime.bundle import Bundle
from tagclip.runtime.bundle_manifest import TEXT, TowerFacts, image_tower
from tagclip.runtime.bundle_write import write_bundle
from tagclip.runtime.encoder import ImageEncoder, TextEncoder
from tagclip.runtime.preprocess import PreprocessSpec
from tagclip.runtime.views import VIEWS
from tagclip.train.checkpoint import load_checkpoint
from tagclip.train.data import Sample, input_spec, load_images, load_split
from tagclip.train.embed import evaluate_split
from tagclip.train.measure import evaluate_bundle
from tagclip.train.model import TagClip, unit
from tagclip.train.moe import HrMoe
from tagclip.train.split import as_split
from tagclip.train.words import PAD_ID, encode

PROBES = 8


def export_bundle(
    checkpoint: Path,
    out: Path,
    views: tuple[str, ...],
    calib: Path | None,
    tick: Callable[[str], None] = lambda step: None,
) -> tuple[Bundle, dict[str, Any]]:
    """Export, check and write a bundle; nothing is written when a check fails.

    Args:
        checkpoint: folder that `tagclip train` wrote.
        out: bundle folder to make.
        views: specialists to export.
        calib: data folder whose validation split is the yardstick for parity, retrieval and scores; without one,
            parity is measured on noise and the bundle has no scores.json.
        tick: told what happens next.

    Returns:
        the bundle, and report.json.

    Raises:
        CheckpointError, DataError, ParityError, OutputError: what failed.
    """
    model, tokenizer_json, config = load_checkpoint(checkpoint)
    spec = input_spec(config.model)
    half = not config.model.tse_ratio
    graphs = {}
    for view in views:
        tick(f"export {image_tower(view)}")
        example = torch.zeros(2, spec.height_px, spec.width_px, 3, dtype=torch.uint8)
        graphs[image_tower(view)] = to_onnx(
            ImageSpecialist(model.image, VIEWS.index(view)), example, "crops", half=half
        )
    tick("export text")
    tokens = torch.ones(2, model.context_length, dtype=torch.int64)
    text = TextGraph(model)
    graphs[TEXT] = to_onnx(text, tokens, "tokens", text.int8, half)

    samples = load_split(calib, "val") if calib is not None else []
    crops = load_images(samples, spec) if samples else _noise(spec)
    chosen = np.linspace(0, len(crops) - 1, PROBES).astype(int)
    texts = [samples[k].captions[0] for k in chosen] if samples else ["a woman in a red jacket", "a man"]
    probe = _probe(model, tokenizer_json, crops[chosen], texts, views)

    def write(target: Path, extra: dict[str, bytes]) -> Bundle:
        return write_bundle(
            target,
            name=f"tagclip-{config.name}",
            towers={tower: TowerFacts("fp32", parameters(graph)) for tower, graph in graphs.items()},
            graphs=graphs,
            tokenizer_json=tokenizer_json.encode(),
            preprocess=spec,
            embedding_dim=model.dim,
            context_length=model.context_length,
            pad_id=PAD_ID,
            licence="Apache-2.0",
            provenance={
                "config": config.to_json(),
                "experts": "exact",
                "weights_stored_in": "fp16" if half else "fp32",
            },
            extra_files={"probe.npz": _npz(probe), **extra},
        )

    with tempfile.TemporaryDirectory() as folder:  # the artefact itself is measured, then written for good
        tick("check the graphs against the checkpoint")
        trial = write(Path(folder) / "bundle", {})
        report = _report(model, tokenizer_json, trial, samples, crops, probe, views)
        extra = {"report.json": _json(report)}
        if samples:
            extra["scores.json"] = _json(_scores(trial, samples, crops))
    return write(out, extra), report


def _report(
    model: TagClip,
    tokenizer_json: str,
    bundle: Bundle,
    samples: list[Sample],
    crops: NDArray[np.uint8],
    probe: dict[str, NDArray[Any]],
    views: tuple[str, ...],
) -> dict[str, Any]:
    parity = {}
    for view in views:
        sizes = np.array_split(np.arange(min(len(crops), 64)), [1, 3])  # batches of 1, 2 and the rest
        got = np.concatenate([ImageEncoder(bundle, view).embed(list(crops[k])) for k in sizes if len(k)])
        expected = _image_vectors(model, crops[: len(got)], view)
        parity[image_tower(view)] = asdict(compare(image_tower(view), got, expected))
    texts = TextEncoder(bundle).embed([str(t) for t in probe["texts"]])
    parity[TEXT] = asdict(compare(TEXT, texts, probe["vectors_text"]))
    report: dict[str, Any] = {"parity": parity}
    if samples and set(views) == set(VIEWS):
        data = as_split(samples, tokenizer_json, model.context_length, crops)
        # Like with like: a specialist is compared with the model that is told the view.
        before, after = evaluate_split(model, data, known_view=True), evaluate_bundle(bundle, samples)
        gate({k: dict(v) for k, v in before.items()}, {k: dict(v) for k, v in after.items()})  # type: ignore[arg-type,misc,unused-ignore]
        report |= {"split": "val", "checkpoint": before, "retrieval": after}
        report["checkpoint_predicted_view"] = evaluate_split(model, data)
        if any(isinstance(module, HrMoe) and module.image_router for module in model.modules()):
            report["view_accuracy"] = _view_accuracy(model, crops, data.view)
    return report


@torch.no_grad()
def _view_accuracy(model: TagClip, images: NDArray[np.uint8], view: NDArray[np.int64]) -> float:
    """Share of images whose view the last HR-MoE block's router names rightly."""
    right = 0
    for k in range(0, len(images), 256):
        _, routing = model.image(torch.from_numpy(images[k : k + 256]))
        right += int((routing.view_logits[-1].argmax(-1).numpy() == view[k : k + 256]).sum())
    return right / len(images)


@torch.no_grad()
def _image_vectors(model: TagClip, crops: NDArray[np.uint8], view: str) -> NDArray[np.float32]:
    known = torch.full((len(crops),), VIEWS.index(view))
    encoded, _ = model.image(torch.from_numpy(np.ascontiguousarray(crops)), known)
    return unit(encoded).numpy()


@torch.no_grad()
def _probe(
    model: TagClip,
    tokenizer_json: str,
    crops: NDArray[np.uint8],
    texts: list[str],
    views: tuple[str, ...],
) -> dict[str, NDArray[Any]]:
    """The self-test: the checkpoint's own vectors, so that it also guards the export."""
    tokens = torch.from_numpy(encode(tokenizer_json, texts, model.context_length))
    return {
        "crops": crops,
        "texts": np.array(texts),
        "vectors_text": unit(model.text(tokens)).numpy(),
        **{f"vectors_{view}": _image_vectors(model, crops, view) for view in views},
    }


def _scores(bundle: Bundle, samples: list[Sample], crops: NDArray[np.uint8]) -> dict[str, Any]:
    texts = TextEncoder(bundle).embed([s.captions[0] for s in samples])
    identity, view = np.array([s.identity for s in samples]), np.array([s.view for s in samples])
    return {
        "source": "validation split of the training data",
        "views": {
            name: background(
                texts,
                ImageEncoder(bundle, name).embed(list(crops[view == VIEWS.index(name)])),
                identity,
                identity[view == VIEWS.index(name)],
            )
            for name in bundle.manifest.views
        },
    }


def _noise(spec: PreprocessSpec) -> NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (64, spec.height_px, spec.width_px, 3), dtype=np.uint8)


def _npz(arrays: dict[str, NDArray[Any]]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()

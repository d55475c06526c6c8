"""From a checkpoint to a bundle: graphs, checks against the checkpoint, probe, scores and report, in one go."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from tagclip.calibration.scores import background
from tagclip.export.data import CALIBRATION, DISTIL_CROPS, Material, gather
from tagclip.export.gate import Side, check, drop
from tagclip.export.half import as_fp16
from tagclip.export.images import choose_views, gflop, image_graph, merged, routes_by_view, specialist
from tagclip.export.parity import MIN_COSINE, compare
from tagclip.export.precision import Quantised, run_graph, to_int8
from tagclip.export.source import load_source
from tagclip.export.specialist import TextGraph
from tagclip.export.to_onnx import parameters, store, to_onnx
from tagclip.runtime.bundle import Bundle
from tagclip.runtime.bundle_manifest import TEXT, TowerFacts, image_tower
from tagclip.runtime.bundle_write import write_bundle
from tagclip.runtime.encoder import AUTO, ImageEncoder, TextEncoder
from tagclip.runtime.errors import ConfigError
from tagclip.runtime.views import UNIVERSAL, VIEWS
from tagclip.train.config import Config
from tagclip.train.evaluate import Retrieval
from tagclip.train.model import TagClip, unit
from tagclip.train.progress import Tick
from tagclip.train.words import PAD_ID, encode

PROBES = 8


@dataclass(frozen=True)
class Wanted:
    """What to export.

    Attributes:
        views: "aerial", "ground", "universal"; nothing for what the model has, see `images.choose_views`.
        experts: "exact" or "merged".
        precision: "fp32", "fp16" or "int8".
        max_drop: points of R@1 and of mAP that a gallery of the validation split may lose.
        licence: SPDX expression of the weights.
    """

    views: tuple[str, ...] = ()
    experts: str = "exact"
    precision: str = "fp32"
    max_drop: float = 0.5
    licence: str = "NOASSERTION"

    @property
    def same(self) -> bool:
        """Whether the graphs are to give the checkpoint's own vectors."""
        return self.experts == "exact" and self.precision == "fp32"


def export_bundle(
    checkpoint: Path,
    out: Path,
    wanted: Wanted,
    calib: Path | None,
    clip: str = "",
    tick: Tick = lambda what, done, total, note: None,
) -> tuple[Bundle, dict[str, Any]]:
    """Export, check and write a bundle; nothing is written when a check fails.

    Args:
        checkpoint, clip: as `source.load_source`.
        out: bundle folder to make.
        calib: data folder. Its validation split is the yardstick for parity, retrieval and scores, its training split
            gives the inputs on which ranges and gates are measured. Without one, parity is measured on noise.
        tick: told what is done, how much of it, and of how much.

    Returns:
        the bundle, and report.json.

    Raises:
        CheckpointError, ConfigError, DataError, ParityError, OutputError: what failed.
    """
    model, tokenizer_json, config = load_source(checkpoint, clip)
    views = choose_views(model, wanted.views, wanted.experts)
    if calib is None and not wanted.same:
        raise ConfigError(
            f"--experts {wanted.experts} --precision {wanted.precision} change the numbers, so they need labelled "
            "pictures to be measured on: name a data folder with --calib"
        )
    training = 0 if wanted.same else DISTIL_CROPS if wanted.experts == "merged" else CALIBRATION
    material = gather(calib, views, tokenizer_json, model, config, tick, training)
    reference = _reference(model, views, material, tick)
    report: dict[str, Any] = {}
    graphs, facts = _graphs(model, views, wanted, material, reference, report, tick)
    probe = _probe(model, tokenizer_json, views, material, graphs if not wanted.same else None)

    def write(target: Path, extra: dict[str, bytes]) -> Bundle:
        return write_bundle(
            target,
            name=f"tagclip-{config.name}",
            towers=facts,
            graphs=graphs,
            tokenizer_json=tokenizer_json.encode(),
            preprocess=material.spec,
            embedding_dim=model.dim,
            context_length=model.context_length,
            pad_id=PAD_ID,
            licence=wanted.licence,
            provenance=_provenance(config, wanted, clip),
            extra_files={"probe.npz": _npz(probe), **extra},
        )

    with tempfile.TemporaryDirectory() as folder:  # the artefact itself is measured, then written for good
        tick("check against the checkpoint", 0, 1, "")
        trial = write(Path(folder) / "bundle", {})
        found = _of_bundle(trial, views, material)
        report["parity"] = {
            tower: asdict(
                compare(
                    tower,
                    vectors[material.served(tower)],
                    reference.towers[tower][material.served(tower)],
                    MIN_COSINE if wanted.same else -1.0,
                )
            )
            for tower, vectors in found.towers.items()
        }
        extra = {}
        if material.labels is not None:
            worst = {t: row["layers"][0]["layer"] for t, row in report.get("precision", {}).items()}
            report |= {"split": "val", **check(material.labels, reference, found, wanted.max_drop, worst)}
            report |= _predicted(model, material, reference)
            if len(views) > 1:
                unknown = ImageEncoder(trial, AUTO).embed(list(material.crops))
                report["unknown_view"] = material.labels.retrieval(found.towers[TEXT], unknown)
            extra["scores.json"] = _json(_scores(found, views, material))
        tick("check against the checkpoint", 1, 1, "")
    return write(out, {"report.json": _json(report), **extra}), report


def _graphs(
    model: TagClip,
    views: tuple[str, ...],
    wanted: Wanted,
    material: Material,
    reference: Side,
    report: dict[str, Any],
    tick: Tick,
) -> tuple[dict[str, bytes], dict[str, TowerFacts]]:
    """Every tower in the wanted precision; what each is and how it came about goes into `report`."""
    size_px = (material.spec.height_px, material.spec.width_px)
    half = not model.config.tse_ratio
    before = {} if material.labels is None else reference.retrieval(material.labels)
    graphs: dict[str, bytes] = {}
    facts: dict[str, TowerFacts] = {}
    towers: dict[str, dict[str, float]] = {}
    for tower in (*(image_tower(view) for view in views), TEXT):
        tick("export", len(graphs), len(views) + 1, tower)
        cost = _cost(tower, material, reference, before)
        tables: dict[str, tuple[NDArray[np.int8], NDArray[np.float32]]] = {}
        module: torch.nn.Module
        if tower == TEXT:
            text = TextGraph(model)
            module, tables = text, text.int8
            example = torch.ones(2, model.context_length, dtype=torch.int64)
            graph = to_onnx(module, example, "tokens")
        else:
            view = tower.removeprefix("image-")
            image = specialist(model, view)
            if wanted.experts == "merged":
                image, how = merged(
                    image, material.calibration[tower], cost, wanted.max_drop / 2, tower, tick
                )
                report.setdefault("merging", {})[tower] = how.to_json()
            example = torch.zeros(2, *size_px, 3, dtype=torch.uint8)
            module, graph = image, image_graph(image, size_px)
        facts[tower] = TowerFacts(wanted.precision, parameters(graph))
        towers[tower] = {"parameters": facts[tower].parameters, "gflop": gflop(module, example)}
        if wanted.precision == "fp16":
            graph = as_fp16(graph)
        elif wanted.precision == "int8":
            # Half of the budget for each side, since both meet in a score.
            found = to_int8(
                tower, graph, material.calibration[tower][:CALIBRATION], cost, wanted.max_drop / 2, tick
            )
            report.setdefault("precision", {})[tower] = _told(found)
            graph = found.model
        graphs[tower] = store(graph, tables, half)
        towers[tower]["bytes"] = len(graphs[tower])
    tick("export", len(graphs), len(graphs), "")
    report["towers"] = towers
    return graphs, facts


def _cost(
    tower: str, material: Material, reference: Side, before: dict[str, Retrieval]
) -> Callable[[onnx.ModelProto], float]:
    """What a graph costs in points of retrieval when it alone takes the place of the checkpoint's tower.

    Args:
        before: what `reference` retrieves.
    """

    def cost(graph: onnx.ModelProto) -> float:
        assert material.labels is not None  # whoever asks has labelled pictures, see export_bundle
        served = material.served(tower)
        vectors = reference.towers[tower].copy()
        vectors[served] = run_graph(graph, material.inputs(tower)[served])
        return drop(before, Side({**reference.towers, tower: vectors}).retrieval(material.labels))

    return cost


def _told(found: Quantised) -> dict[str, Any]:
    return {
        "rule": found.rule,
        "rules": found.errors,
        "drop": found.drop,
        "layers": [decision.to_json() for decision in found.decisions],
    }


@torch.no_grad()
def _reference(model: TagClip, views: tuple[str, ...], material: Material, tick: Tick) -> Side:
    """The checkpoint's own vectors, routed as each tower routes; rows that a tower does not serve are 0."""
    towers = {}
    for tower in (*(image_tower(view) for view in views), TEXT):
        inputs, served = material.inputs(tower), material.served(tower)
        vectors = np.zeros((len(inputs), model.dim), np.float32)
        for k in range(0, len(served), 128):
            rows = served[k : k + 128]
            vectors[rows] = _vectors(model, tower, inputs[rows])
            tick(f"checkpoint {tower}", k + len(rows), len(served), "")
        towers[tower] = vectors
    return Side(towers)


@torch.no_grad()
def _vectors(model: TagClip, tower: str, inputs: NDArray[Any]) -> NDArray[np.float32]:
    given = torch.from_numpy(np.ascontiguousarray(inputs))
    if tower == TEXT:
        return unit(model.text(given)).numpy()
    view = tower.removeprefix("image-")
    known = None if view == UNIVERSAL else torch.full((len(given),), VIEWS.index(view))
    return unit(model.image(given, known)[0]).numpy()


@torch.no_grad()
def _predicted(model: TagClip, material: Material, reference: Side) -> dict[str, Any]:
    """The checkpoint as `tagclip evaluate` measures it, without knowing the view, and how often it finds the view."""
    labels, right, parts = material.labels, 0, []
    assert labels is not None
    if not routes_by_view(model):
        return {}
    for k in range(0, len(material.crops), 128):
        encoded, routing = model.image(torch.from_numpy(material.crops[k : k + 128]))
        parts.append(unit(encoded).numpy())
        right += int((routing.view_logits[-1].argmax(-1).numpy() == labels.view[k : k + 128]).sum())
    return {
        "checkpoint_predicted_view": labels.retrieval(reference.towers[TEXT], np.concatenate(parts)),
        "view_accuracy": right / len(material.crops),
    }


def _of_bundle(bundle: Bundle, views: tuple[str, ...], material: Material) -> Side:
    """The artefact's vectors; rows that a tower does not serve are 0."""
    towers = {}
    for view in views:
        served = material.served(image_tower(view))
        vectors = np.zeros((len(material.crops), bundle.manifest.embedding_dim), np.float32)
        vectors[served] = ImageEncoder(bundle, view).embed(list(material.crops[served]))
        towers[image_tower(view)] = vectors
    towers[TEXT] = TextEncoder(bundle).embed(material.texts)
    return Side(towers)


def _probe(
    model: TagClip,
    tokenizer_json: str,
    views: tuple[str, ...],
    material: Material,
    graphs: dict[str, bytes] | None,
) -> dict[str, NDArray[Any]]:
    """The self-test: the checkpoint's own vectors, so that it also guards the export; of graphs that are meant to
    differ from it, their own.
    """
    crops = material.crops[np.linspace(0, len(material.crops) - 1, PROBES).astype(int)]
    texts = material.texts[:: max(1, len(material.texts) // PROBES)][:PROBES]
    tokens = encode(tokenizer_json, texts, model.context_length)

    def vectors(tower: str, inputs: NDArray[Any]) -> NDArray[np.float32]:
        if graphs is None:
            return _vectors(model, tower, inputs)
        return run_graph(onnx.load_model_from_string(graphs[tower]), inputs)

    return {
        "crops": crops,
        "texts": np.array(texts),
        "vectors_text": vectors(TEXT, tokens),
        **{f"vectors_{view}": vectors(image_tower(view), crops) for view in views},
    }


def _scores(found: Side, views: tuple[str, ...], material: Material) -> dict[str, Any]:
    labels = material.labels
    assert labels is not None
    # Of each picture its first caption.
    first = np.searchsorted(labels.owner, np.arange(len(labels.identity)))
    texts = found.towers[TEXT][first]
    return {
        "source": "validation split of the training data",
        "views": {
            view: background(
                texts,
                found.towers[image_tower(view)][material.served(image_tower(view))],
                labels.identity,
                labels.identity[material.served(image_tower(view))],
            )
            for view in views
        },
    }


def _provenance(config: Config, wanted: Wanted, clip: str) -> dict[str, Any]:
    stored = "fp32" if config.model.tse_ratio else "fp16"
    made = {"config": config.to_json()} if not clip else {"open_clip": clip}
    return {**made, "experts": wanted.experts, "weights_stored_in": stored}


def _npz(arrays: dict[str, NDArray[Any]]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()

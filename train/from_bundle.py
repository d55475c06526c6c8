"""A run that begins with a bundle: its graphs hold the weights, and who was given a bundle has no checkpoint.

So the model that ships can be trained on with a site's own pictures. Graphs are what `tagclip export` makes of a small
model: fp32, exact experts, one graph for each view. What a graph does not hold keeps its initial values: the
image-level router, the temperature and the classifiers of training; and, when a model on a trunk (backbone.py) begins
with a bundle without one, the image tower's stem. Afterwards the model has to give the vectors of the
bundle's probe.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tagclip.runtime.bundle import Bundle, open_bundle
from tagclip.runtime.bundle_manifest import TEXT, image_tower
from tagclip.runtime.errors import BundleError, CheckpointError, MissingExtraError
from tagclip.runtime.probe import tower_cosine
from tagclip.runtime.views import VIEWS
from tagclip.train.backbone import trunk_of
from tagclip.train.model import TagClip, unit
from tagclip.train.moe import HrMoe, group
from tagclip.train.towers import ImageTower

_TRUNK = "stem.0.0."  # how the names of a trunk's weights begin (backbone.py)

Weights = dict[str, NDArray[np.float32]]


def load_bundle(model: TagClip, tokenizer_json: str, path: Path, crops: NDArray[np.uint8]) -> None:
    """Fill the towers of `model` with the weights of a bundle's graphs.

    Args:
        model: of the configuration that the bundle was trained with, small towers and an HR-MoE; left in the mode in
            which it was.
        tokenizer_json: of the model's words, which have to be the bundle's.
        path: the bundle's folder.
        crops: (N, H, W, 3) RGB, a few hundred of those that training will see. The graphs' convolutions hold their
            batch norms; these are made anew with the crops' statistics, so that training begins where the graph is.

    Raises:
        BundleError: no bundle, or a damaged one.
        CheckpointError: its graphs are not of such a model, or the model does not give the probe's vectors.
        MissingExtraError: onnx is not installed.
    """
    bundle = open_bundle(path)
    image = model.image
    if not isinstance(image, ImageTower):
        raise CheckpointError(f"{path}: expected a model of small towers to fill, found one with model.clip")
    if json.loads(bundle.read_file(bundle.manifest.tokenizer.file)) != json.loads(tokenizer_json):
        raise CheckpointError(
            f"{path}: expected the words of the model to train, found others; with model.word_vectors: none they are "
            "those of the training captions, and only the same captions give the same words"
        )
    of_views = {view: _weights(bundle, image_tower(view)) for view in VIEWS}
    kept = trunk_of(image) is None or any(name.startswith(_TRUNK) for name in of_views[VIEWS[0]])
    if not kept:
        of_views = {
            view: {name: value for name, value in weights.items() if not name.startswith("stem.")}
            for view, weights in of_views.items()
        }
    parts = {
        f"the graph for the view {view}": _stretched(weights, model, index)
        for index, (view, weights) in enumerate(of_views.items())
    }
    parts["the text graph"] = {f"text.{name}": value for name, value in _weights(bundle, TEXT).items()}
    for name, weights in parts.items():
        _fill(model, weights, f"{path}: {name}")
    filled = {name for weights in parts.values() for name in weights}
    ours = {
        f"image.{name}.{part}"
        for name, module in image.named_modules()
        if isinstance(module, nn.BatchNorm2d) or (name.startswith("stem") and not kept)
        for part, _ in module.named_parameters()
    }
    missing = sorted(
        name
        for name, _ in model.named_parameters()
        if not name.startswith(("classifier.", "attributes.", "log_scale"))
        and ".image_router." not in name
        and name not in ours
        and name not in filled
    )
    if missing:
        raise CheckpointError(
            f"{path}: expected graphs of the model that is to be trained, found none with {missing[0]}; "
            "give a bundle of the same `model` section, exported with exact experts at fp32"
        )
    trains = model.training
    model.eval()
    with torch.no_grad():
        if kept:
            biases = {name: value for name, value in of_views[VIEWS[0]].items() if name.startswith("stem.")}
            _unfold_norms(image.stem, biases, torch.tensor(crops))
        _prove(model, bundle, VIEWS if kept else ())
    model.train(trains)


def _weights(bundle: Bundle, tower: str) -> Weights:
    """Names of parameters, without the tower's own, to their values.

    Biases, norms and convolutions keep their names in a graph. The matrix of a linear layer does not: it is what is
    multiplied before the bias of its layer is added, transposed.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise MissingExtraError(
            "a run that begins with a bundle reads its graphs with onnx; pip install 'tagclip[export]'"
        ) from error
    if tower not in bundle.manifest.towers:
        raise CheckpointError(
            f"{bundle.path}: expected a graph {tower}, found {', '.join(bundle.manifest.towers)}; "
            "training needs a bundle with a graph for each view"
        )
    graph = onnx.load_from_string(bundle.read_file(bundle.manifest.towers[tower].file)).graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Cast" and node.input[0] in values:  # weights that are kept in half precision
            values[node.output[0]] = values[node.input[0]].astype(np.float32)
    products = {
        node.output[0]: values[node.input[1]]
        for node in graph.node
        if node.op_type == "MatMul" and node.input[1] in values
    }
    found = {name: value for name, value in values.items() if name.startswith("tower.")}
    joined = {node.output[0] for node in graph.node if node.op_type == "Concat"}
    for node in graph.node:
        if node.op_type == "Add" and node.input[0] in products and node.input[1].endswith(".bias"):
            found[node.input[1].removesuffix("bias") + "weight"] = products[node.input[0]].T
        elif node.op_type == "Add" and node.input[0] in joined and node.input[1] in values:
            found["tower.position"] = values[
                node.input[1]
            ]  # a small one is cut to length, and has another name
    return {
        name.removeprefix("tower."): np.ascontiguousarray(value, np.float32)
        for name, value in found.items()
        if not name.endswith(".fp16") and not name.startswith("tower.table.words")  # frozen, and known
    }


def _stretched(weights: Weights, model: TagClip, view: int) -> dict[str, Any]:
    """A view's weights under the model's names: its experts and rows of the router go where the view's own are."""
    moved: dict[str, Any] = {}
    modules, parameters = dict(model.image.named_modules()), dict(model.image.named_parameters())
    for name, value in weights.items():
        if name.startswith("stem.") and name not in parameters:
            continue  # the bias of a batch norm that was folded
        moe, _, rest = name.partition(".ffn.")
        module = modules.get(f"{moe}.ffn") if rest else None
        if isinstance(module, HrMoe):
            members = group(len(module.experts), view)
            part, _, inner = rest.partition(".")
            if part == "experts":
                number, _, inner = inner.partition(".")
                if int(number) < len(members):
                    moved[f"image.{moe}.ffn.experts.{members[int(number)]}.{inner}"] = value
            elif part == "token_router":
                moved[f"image.{name}"] = (members, value)
            continue
        moved[f"image.{name}"] = value
    return moved


def _fill(model: TagClip, weights: dict[str, Any], where: str) -> None:
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in weights.items():
            rows, value = value if isinstance(value, tuple) else (slice(None), value)
            target = parameters.get(name)
            if target is None or target[rows].shape != value.shape:
                shape = "none" if target is None else str(list(target[rows].shape))
                raise CheckpointError(
                    f"{where} has {name} of shape {list(value.shape)}, the model to train {shape}; "
                    "give a bundle of the same `model` section"
                )
            target[rows] = torch.tensor(value, dtype=target.dtype, device=target.device)


def _unfold_norms(stem: nn.Module, biases: Weights, crops: Tensor) -> None:
    """Give each batch norm the statistics of `crops`, and the scale and shift that take them back."""
    convolution = ""
    waiting: list[Any] = []
    for name, module in stem.named_modules():
        if isinstance(module, nn.Conv2d):
            convolution = name
        elif isinstance(module, nn.BatchNorm2d):  # comes after its convolution
            bias = torch.tensor(biases[f"stem.{convolution}.bias"])
            waiting.append(module.register_forward_pre_hook(partial(_unfold, bias)))
    stem(crops.float().permute(0, 3, 1, 2) / 127.5 - 1)
    for hook in waiting:
        hook.remove()


def _unfold(bias: Tensor, norm: nn.Module, given: tuple[Tensor]) -> None:
    assert isinstance(norm, nn.BatchNorm2d)
    variance, mean = torch.var_mean(given[0], (0, 2, 3), correction=0)
    norm.running_mean.copy_(mean)  # type: ignore[union-attr]
    norm.running_var.copy_(variance)  # type: ignore[union-attr]
    norm.weight.copy_((variance + norm.eps).sqrt())
    norm.bias.copy_(bias + mean)


def _prove(model: TagClip, bundle: Bundle, views: tuple[str, ...]) -> None:
    device = next(model.parameters()).device

    def text(tokens: NDArray[Any]) -> NDArray[np.float32]:
        return unit(model.text(torch.tensor(tokens, device=device))).cpu().numpy()

    try:
        tower_cosine(bundle, bundle.manifest.towers[TEXT], text, "the model filled with it")
        for index, view in enumerate(views):

            def image(crops: NDArray[Any], known: int = index) -> NDArray[np.float32]:
                given = torch.tensor(crops, device=device)
                views = torch.full((len(given),), known, device=device)
                return unit(model.image(given, views)[0]).cpu().numpy()

            tower_cosine(bundle, bundle.manifest.towers[image_tower(view)], image, "the model filled with it")
    except BundleError as error:
        raise CheckpointError(
            f"{bundle.path}: the model that is to be trained does not give the bundle's vectors ({error}); "
            "give a bundle of the same `model` section"
        ) from error

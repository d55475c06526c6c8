"""What others run on the same crops: an image encoder of open_clip, eager in PyTorch, or exported and on an engine.

All are the same network with the same random weights, which change no time, and get their crops through open_clip's own
preprocessing. Each runs with one thread or with one a core, whichever serves it best. `tagclip bench --against` times
them beside the encoder of a bundle.
"""

from __future__ import annotations

import functools
import importlib
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tagclip.export.to_onnx import to_onnx
from tagclip.runtime.bench_machine import own_cores
from tagclip.runtime.errors import ConfigError, MissingExtraError

MODEL = "ViT-B-32"  # the smallest of those that people take from open_clip
TRIES = 3  # of each number of threads

Crops = Sequence[NDArray[np.uint8]]
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Rival:
    """One of them.

    Attributes:
        facts: model, weights, engine, precision, threads, input_px and parameters, for the report.
        dim: D, of its vectors.
        embed: takes crops RGB uint8 (h, w, 3), gives float32 (N, D), unit rows; (0, D) for no crops.
    """

    facts: dict[str, Any]
    dim: int
    embed: Callable[[Crops], Vectors] = field(repr=False)


def build(names: Sequence[str], model: str = MODEL) -> dict[str, Rival]:
    """The rivals of these names, of NAMES.

    Args:
        model: of open_clip.

    Raises:
        ConfigError: no such name, or open_clip has no such model.
        MissingExtraError: openvino was asked for and is not installed.
    """
    import open_clip

    if unknown := [name for name in names if name not in NAMES]:
        raise ConfigError(f"--against {unknown[0]}: expected one of {', '.join(NAMES)}")
    if model not in open_clip.list_models():
        raise ConfigError(f"expected a model of open_clip.list_models(), found {model!r}")
    torch.manual_seed(0)
    logging.disable(logging.WARNING)  # open_clip warns of random weights, which are meant
    try:
        whole = open_clip.create_model(model, pretrained=None, load_weights=False).eval()
    finally:
        logging.disable(logging.NOTSET)
    assert isinstance(whole, open_clip.CLIP)
    visual, side = whole.visual, whole.visual.image_size
    height_px, width_px = side if isinstance(side, (tuple, list)) else (side, side)
    transform = open_clip.image_transform((height_px, width_px), is_train=False)
    example = torch.zeros(2, 3, height_px, width_px)
    graph = functools.cache(lambda: to_onnx(visual, example, "pixels").SerializeToString())
    facts = {
        "model": f"{model}, image encoder",
        "weights": "random",
        "precision": "fp32",
        "input_px": [width_px, height_px],
        "parameters": sum(p.numel() for p in visual.parameters()),
    }

    def pixels(crops: Crops) -> torch.Tensor:
        from PIL import Image

        return torch.stack([transform(Image.fromarray(crop)) for crop in crops])

    def rival(name: str) -> Rival:
        starts = {threads: NAMES[name](visual, graph, threads) for threads in sorted({1, own_cores()})}
        threads = _quickest({count: run for count, (_, run) in starts.items()}, example)
        engine, run = starts[threads]
        dim = run(example).shape[1]

        def embed(crops: Crops) -> Vectors:
            if not crops:
                return np.empty((0, dim), np.float32)
            vectors = run(pixels(crops))
            return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

        return Rival(facts | {"engine": engine, "threads": threads}, dim, embed)

    return {name: rival(name) for name in names}


Run = Callable[[torch.Tensor], Vectors]
Graph = Callable[[], bytes]


def _quickest(runs: dict[int, Run], example: torch.Tensor) -> int:
    """The number of threads that serves it best here and now: on cores that others use too, one may beat all."""
    times: dict[int, list[float]] = {threads: [] for threads in runs}
    for _ in range(TRIES):
        for threads, run in runs.items():
            run(example)
            begun_s = time.perf_counter()
            run(example)
            times[threads].append(time.perf_counter() - begun_s)
    return min(times, key=lambda threads: min(times[threads]))


def _eager(visual: torch.nn.Module, _graph: Graph, threads: int) -> tuple[str, Run]:
    def run(pixels: torch.Tensor) -> Vectors:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            return visual(pixels).numpy()

    return f"PyTorch {torch.__version__}, eager", run


def _onnxruntime(_visual: torch.nn.Module, graph: Graph, threads: int) -> tuple[str, Run]:
    """As a first program would: no option but the number of threads."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(graph(), options, providers=["CPUExecutionProvider"])
    return f"ONNX Runtime {ort.__version__}, CPU", lambda pixels: session.run(
        None, {"pixels": pixels.numpy()}
    )[0]


def _openvino(_visual: torch.nn.Module, graph: Graph, threads: int) -> tuple[str, Run]:
    # At its import it reports to its maker, where this package is. Without it a stub of its own does nothing.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        openvino: Any = importlib.import_module("openvino")  # it has no types
    except ImportError as error:
        raise MissingExtraError(
            "openvino is not installed; this needs: pip install 'tagclip[bench]'"
        ) from error

    core = openvino.Core()
    options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(core.read_model(graph()), "CPU", options)
    version = openvino.__version__.partition("-")[0]
    return f"OpenVINO {version}, CPU", lambda pixels: compiled(pixels.numpy())[0].copy()


NAMES: dict[str, Callable[[torch.nn.Module, Graph, int], tuple[str, Run]]] = {
    "open_clip": _eager,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}

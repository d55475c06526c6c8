"""The image towers of a bundle as modules: exact, merged or universal, with what each one weighs and computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from tagclip.export.merge import distil, mean_gates, merge
from tagclip.export.specialist import ImageSpecialist
from tagclip.export.to_onnx import to_onnx
from tagclip.runtime.errors import ConfigError
from tagclip.runtime.views import UNIVERSAL, VIEWS
from tagclip.train.model import TagClip
from tagclip.train.moe import HrMoe
from tagclip.train.progress import Tick

GATE_CROPS = 512  # on which gates are averaged; a share of two experts is then known to a percent
DISTIL_STEPS = 400
Crops = NDArray[np.uint8]


@dataclass(frozen=True)
class Merging:
    """How mixtures became single networks.

    Attributes:
        gates: name of a mixture -> share of each expert.
        drop_averaged: points of R@1 or mAP that averaging alone cost, on the validation split.
        steps: of distillation; 0 where averaging was enough.
    """

    gates: dict[str, list[float]]
    drop_averaged: float
    steps: int

    def to_json(self) -> dict[str, Any]:
        """The form that report.json holds."""
        return asdict(self)


def routes_by_view(model: TagClip) -> bool:
    """Whether the model has an HR-MoE, so that views have specialists of their own."""
    return any(isinstance(m, HrMoe) and m.image_router is not None for m in model.image.modules())


def choose_views(model: TagClip, asked: tuple[str, ...], experts: str) -> tuple[str, ...]:
    """Which image towers to export, in the order of a bundle.

    Args:
        asked: what the user named; nothing for both specialists, or the one tower of a model that knows no views.

    Raises:
        ConfigError: specialists or merged experts of a model that has none, or a merged universal tower.
    """
    routed = routes_by_view(model)
    views = asked or (VIEWS if routed else (UNIVERSAL,))
    if not routed and (views != (UNIVERSAL,) or experts == "merged"):
        raise ConfigError(
            f"this model does not route by view: expected --view {UNIVERSAL} and --experts exact, found "
            f"{', '.join(views)} and {experts}"
        )
    if experts == "merged" and UNIVERSAL in views:
        raise ConfigError(
            f"--experts merged leaves nothing to route, so there is no merged {UNIVERSAL} tower; name "
            f"--view {VIEWS[0]} --view {VIEWS[1]}"
        )
    return tuple(view for view in (*VIEWS, UNIVERSAL) if view in views)


def specialist(model: TagClip, view: str) -> ImageSpecialist:
    """The exact tower of a view, or the universal one."""
    return ImageSpecialist(model.image, None if view == UNIVERSAL else VIEWS.index(view)).eval()


def merged(
    exact: ImageSpecialist,
    crops: Crops,
    drop: Callable[[onnx.ModelProto], float],
    budget: float,
    what: str,
    tick: Tick,
) -> tuple[ImageSpecialist, Merging]:
    """The specialist with single networks, distilled when averaging costs more than the budget.

    Args:
        crops: (N, H, W, 3) uint8 of the view, from the training split.
        drop: points of retrieval that a graph costs in the place of the exact one.
        budget: how many points averaging may cost.
        what: name of the tower, for the progress.
    """
    gates = mean_gates(exact, crops[:GATE_CROPS])
    result = merge(exact, gates)
    cost, steps = drop(image_graph(result, crops.shape[1:3])), 0
    if cost > budget:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        steps = DISTIL_STEPS
        distil(
            result.to(device),
            exact.to(device),
            crops,
            steps,
            tick=lambda k: tick(f"{what}: distil", k, steps, ""),
        )
        result.to("cpu")
        exact.to("cpu")
    return result, Merging({name: shares.tolist() for name, shares in gates.items()}, cost, steps)


def image_graph(module: ImageSpecialist, size_px: tuple[int, ...]) -> onnx.ModelProto:
    """The fp32 graph of an image tower for crops of (height, width)."""
    return to_onnx(module, torch.zeros(2, *size_px, 3, dtype=torch.uint8), "crops")


def gflop(module: torch.nn.Module, example: torch.Tensor) -> float:
    """Billions of floating-point operations for one input, a multiplication and an addition being two."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(example[:1])
    return counter.get_total_flops() / 1e9

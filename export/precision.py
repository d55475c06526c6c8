"""Which layers of a graph count in eight bits: ranges from real inputs, each layer's error, fewest exceptions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from tagclip.calibration.ranges import RULES
from tagclip.export.quantise import layers, observe, quantise
from tagclip.runtime.errors import ParityError
from tagclip.runtime.providers import exact_options
from tagclip.runtime.ranking import Vectors
from tagclip.train.progress import Tick

BATCH = 32


@dataclass(frozen=True)
class Decision:
    """One line of the table: a layer, 1 - cosine that it alone costs (mean over the inputs), what it counts in."""

    layer: str
    op: str
    weights: int
    error: float
    precision: str  # "int8" or "fp32"

    def to_json(self) -> dict[str, Any]:
        """The form that report.json holds."""
        return dict(vars(self))


@dataclass(frozen=True)
class Quantised:
    """A graph in eight bits.

    Attributes:
        model: the graph.
        rule: of `calibration.ranges`, the best of four by `errors`.
        errors: rule -> 1 - cosine with all layers in eight bits, mean over the calibration inputs.
        decisions: the layers, the costliest first.
        drop: points of retrieval that it costs, measured alone; see `to_int8`.
    """

    model: onnx.ModelProto
    rule: str
    errors: dict[str, float]
    decisions: list[Decision]
    drop: float


def run_graph(model: onnx.ModelProto, inputs: NDArray[Any]) -> Vectors:
    """Unit rows (N, D) float32 of a graph on the CPU."""
    data = model.SerializeToString()
    session = ort.InferenceSession(data, exact_options(data), providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0].name
    parts = [session.run(None, {given: inputs[k : k + BATCH]})[0] for k in range(0, len(inputs), BATCH)]
    rows = np.concatenate(parts)
    # In 16 bits the graph's own lengths are a little off.
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def to_int8(
    name: str,
    model: onnx.ModelProto,
    inputs: NDArray[Any],
    drop: Callable[[onnx.ModelProto], float],
    budget: float,
    tick: Tick = lambda what, done, total, note: None,
) -> Quantised:
    """Put as many layers as the budget allows into eight bits.

    All layers first, with the range rule that errs least. If that costs too much, the layer that alone costs most stays
    in fp32, then the next: the smallest number that meets the budget, found by halving (it takes more layers in fp32
    to cost less).

    Args:
        name: of the tower, for messages.
        model: a graph of fp32.
        inputs: (N, ...) real inputs, not those that `drop` measures.
        drop: points of retrieval that a graph costs when it replaces this one.
        budget: how many points it may cost.

    Raises:
        ParityError: not even one layer in eight bits meets the budget; the message names the layer.
    """
    found = layers(model)
    count = (len(inputs) + BATCH - 1) // BATCH
    done = [0]

    def counted() -> None:
        done[0] += 1
        tick(f"{name}: ranges", done[0], count, "")

    batches = (inputs[k : k + BATCH] for k in range(0, len(inputs), BATCH))
    seen = observe(model, [tensor for layer in found for tensor in layer.watched], batches, counted)
    wanted = run_graph(model, inputs)

    def error(changed: onnx.ModelProto) -> float:
        return float(1 - (run_graph(changed, inputs) * wanted).sum(1, dtype=np.float64).mean())

    ranges = {rule: {tensor: choose(h) for tensor, h in seen.items()} for rule, choose in RULES.items()}
    errors = {}
    for k, rule in enumerate(RULES):
        errors[rule] = error(quantise(model, found, ranges[rule]))
        tick(f"{name}: rules", k + 1, len(RULES), "")
    best = min(errors, key=errors.__getitem__)
    alone = {}
    for k, layer in enumerate(found):
        alone[layer.node] = error(quantise(model, [layer], ranges[best]))
        tick(f"{name}: layers", k + 1, len(found), layer.name)
    order = sorted(found, key=lambda layer: -alone[layer.node])

    def attempt(kept: int) -> tuple[onnx.ModelProto, float]:
        changed = quantise(model, order[kept:], ranges[best])
        return changed, drop(changed)

    kept, (changed, cost) = 0, attempt(0)
    if cost > budget:
        low, high, passing = 1, len(order) - 1, None
        while low <= high:
            middle = (low + high) // 2
            changed, cost = attempt(middle)
            tick(f"{name}: layers in fp32", middle, len(order), f"{cost:+.2f} points")
            if cost <= budget:
                passing, kept, high = (changed, cost), middle, middle - 1
            else:
                low = middle + 1
        if passing is None:
            worst = order[0].name if order else "none"
            raise ParityError(
                f"{name}: expected eight bits to cost at most {budget:g} points of R@1 and mAP, found {cost:.2f} with "
                f"a single layer left in them; {worst} errs most. Take --precision fp16, or a larger --max-drop"
            )
        changed, cost = passing
    decisions = [
        Decision(layer.name, layer.op, layer.weights, alone[layer.node], "fp32" if k < kept else "int8")
        for k, layer in enumerate(order)
    ]
    return Quantised(changed, best, errors, decisions, cost)

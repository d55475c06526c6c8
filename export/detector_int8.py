"""The detector in eight bits for the CPU, which multiplies them half again as fast; scored before it is written.

python -m tagclip.export.detector_int8 person.onnx data/stills

NVIDIA's engines want other eight bits (symmetric, see quantise.py) and are fast without: they keep the graph itself.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

from tagclip.runtime.detector_contract import contract_path, read_contract
from tagclip.runtime.errors import OutputError, ParityError, TagclipError
from tagclip.runtime.files import write_atomic
from tagclip.train.detector.model import MULTIPLE_PX
from tagclip.train.detector.pictures import Still, read, read_stills
from tagclip.train.detector.score import score_all
from tagclip.train.progress import Tick, bar

STILLS = 100  # whose values say what eight bits have to cover
BAND = "24 and more"
MOST_LOSS = 0.02  # of AP50 of people of BAND


def to_int8(graph: Path, folder: Path, tick: Tick = lambda *_: None) -> tuple[float, float]:
    """Write `person-int8.onnx` beside `person.onnx`, and name it in the contract as what the CPU runs.

    Args:
        graph: as `tagclip.export.detector` wrote it.
        folder: of `tagclip synth stills`: those to train on say how large values are, on the held-out ones is scored.

    Returns:
        AP50 of people of BAND before and after, 0 to 1.

    Raises:
        OutputError: there is one. DataError: no stills. ConfigError, EngineError: of the graph.
        ParityError: it would find fewer people, by more than MOST_LOSS.
    """
    out = graph.with_name(f"{graph.stem}-int8.onnx")
    if out.exists() or read_contract(graph).cpu_graph:
        raise OutputError(f"{out}, or a cpu_graph in {contract_path(graph)}, exists; remove both first")
    train, _ = read_stills(folder)
    chosen = np.random.default_rng(0).permutation(len(train))[:STILLS]
    before = score_all(graph, [folder], tick)[BAND]["ap50"]
    with tempfile.TemporaryDirectory() as place:
        tried = Path(place) / out.name
        _quantise(graph, tried, [train[k] for k in chosen], tick)
        shutil.copy(contract_path(graph), contract_path(tried))
        after = score_all(tried, [folder], tick)[BAND]["ap50"]
        if before - after > MOST_LOSS:
            raise ParityError(
                f"{graph}: expected AP50 {before:.3f} to lose at most {MOST_LOSS} in eight bits, found {after:.3f}; "
                "leave the CPU the graph as it is"
            )
        write_atomic(out, tried.read_bytes())
    contract = json.loads(contract_path(graph).read_text()) | {"cpu_graph": out.name}
    write_atomic(contract_path(graph), (json.dumps(contract, indent=1) + "\n").encode())
    return before, after


def _quantise(graph: Path, out: Path, stills: list[Still], tick: Tick) -> None:
    """Convolutions with what follows them in eight bits, activations from 0 to 255, the last ones left in float.

    Weights have 7 bits: on processors without VNNI, products of 8 add up beyond what 16 bits hold.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Stills(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def __init__(self, name: str) -> None:
            self._next = self._frames(name)

        def get_next(self) -> dict[str, Any] | None:
            return next(self._next, None)

        def _frames(self, name: str) -> Iterator[dict[str, Any]]:
            for k, still in enumerate(stills):
                image = read(still)
                height, width = (side - side % MULTIPLE_PX for side in image.shape[:2])
                yield {name: image[None, :height, :width]}
                tick("ranges", k + 1, len(stills), "")

    prepared = out.with_name("prepared.onnx")
    quant_pre_process(graph, prepared, skip_symbolic_shape=True)
    model = onnx.load(prepared)
    # The map and the distances: a hundredth of the work, and what is read off.
    last = [node.name for node in model.graph.node if node.op_type == "Conv"][-2:]
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # a warning for each channel whose weights are all but nothing
    try:
        quantize_static(
            prepared,
            out,
            Stills(model.graph.input[0].name),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Add", "Clip", "Relu", "Resize"],
            nodes_to_exclude=last,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={
                "CalibMovingAverage": True
            },  # one odd still does not make all others coarse: docs/log.md
        )
    finally:
        root.setLevel(level)


@click.command()
@click.argument("graph", type=click.Path(path_type=Path))
@click.argument("stills", type=click.Path(path_type=Path))
def main(graph: Path, stills: Path) -> None:
    """Write the detector GRAPH in eight bits beside it, with the values of STILLS."""
    try:
        with bar() as tick:
            before, after = to_int8(graph, stills, tick)
    except TagclipError as error:
        raise SystemExit(f"error: {error}") from error
    click.echo(f"AP50 of {BAND} pixels {before:.3f}, in eight bits {after:.3f}")


if __name__ == "__main__":
    sys.exit(main())

"""The trained detector as a graph with its contract beside it, compared with PyTorch before it is written.

python -m tagclip.export.detector runs/detector --out person.onnx
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import torch

from tagclip.export.to_onnx import exported, store
from tagclip.runtime.detector_contract import (
    DEFAULT_OVERLAP,
    FORMAT,
    TAGCLIP,
    contract_path,
    read_contract,
)
from tagclip.runtime.errors import OutputError, ParityError, TagclipError
from tagclip.runtime.files import write_atomic
from tagclip.train.detector.model import MULTIPLE_PX, Peaks, PersonNet, load

LARGEST_PX = (960, 736)  # of one look; larger frames are tiled
MIN_SCORE = 0.4
SAME_PERSON_IOU = 0.5
MOST_DIFFERENCE = 5e-3  # of the map, 0..1, which 16 bits a weight and other sums make


def graph_of(net: PersonNet) -> onnx.ModelProto:
    """One picture of any size in multiples of 32: uint8 NHWC `frames` to `heat` and `ltrb`."""
    rows, columns = torch.export.Dim("rows", min=2, max=128), torch.export.Dim("columns", min=2, max=128)
    frame = torch.zeros(1, 96, 128, 3, dtype=torch.uint8)
    free = {1: MULTIPLE_PX * rows, 2: MULTIPLE_PX * columns}
    return exported(Peaks(net), (frame,), ["frames"], ["heat", "ltrb"], (free,))


def contract(licence: str) -> dict[str, Any]:
    """What stands beside the graph, see docs/detectors.md."""
    return {
        "format": FORMAT,
        "family": TAGCLIP,
        "person_class": 0,
        "input": {
            "width_px": LARGEST_PX[0],
            "height_px": LARGEST_PX[1],
            "layout": "NHWC",
            "dtype": "uint8",
            "scale": 1,
            "mean": [0, 0, 0],
            "std": [1, 1, 1],
            "colour": "RGB",
            "resize": "letterbox",
            "pad_value": 114,
        },
        "min_score": MIN_SCORE,
        "iou": SAME_PERSON_IOU,
        "tile_overlap": DEFAULT_OVERLAP,
        "licence": licence,
    }


def export_detector(run: Path, out: Path, licence: str) -> float:
    """Write `out` and the contract beside it; the largest difference of the map to PyTorch's, 0..1.

    Raises:
        CheckpointError: `run` holds no detector. ParityError: the graph computes something else. OutputError.
    """
    import onnxruntime

    for path in (out, contract_path(out)):
        if path.exists():
            raise OutputError(f"{path} exists; remove it or choose another name")
    net = PersonNet().eval()
    load(net, run)
    data = store(graph_of(net))
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    worst = 0.0
    rng = np.random.default_rng(0)
    for height, width in ((96, 160), (320, 320), (576, 768)):
        frame = rng.integers(0, 256, (1, height, width, 3), dtype=np.uint8)
        with torch.no_grad():
            wanted = net(torch.from_numpy(frame))[0].sigmoid().numpy()
        heat = session.run(None, {"frames": frame})[0]
        worst = max(worst, float(np.abs(np.where(heat > 0, heat - wanted, 0)).max()))
    if worst > MOST_DIFFERENCE:
        raise ParityError(
            f"the graph's map differs from PyTorch's by {worst:.4f}, expected {MOST_DIFFERENCE:g}"
        )
    write_atomic(out, data)
    write_atomic(contract_path(out), (json.dumps(contract(licence), indent=1) + "\n").encode())
    read_contract(out)
    return worst


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="The graph, a name that ends in .onnx."
)
@click.option("--licence", default="NOASSERTION", show_default=True, help="SPDX expression of the weights.")
def main(run: Path, out: Path, licence: str) -> None:
    """Export the detector that was trained in RUN."""
    try:
        worst = export_detector(run, out, licence)
    except TagclipError as error:
        raise SystemExit(f"error: {error}") from error
    click.echo(f"{out}: {out.stat().st_size / 1e6:.2f} MB, its map within {worst:.4f} of PyTorch's")


if __name__ == "__main__":
    sys.exit(main())

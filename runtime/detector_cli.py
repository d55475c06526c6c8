"""`tagclip detector`: whether a detector of one's own fits its contract."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click


@click.group()
def detector() -> None:
    """Check a detector of your own, an ONNX graph with its contract."""


@detector.command()
@click.argument("path", metavar="FILE.onnx|person")
@click.argument("image", metavar="[IMAGE]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--engine", default="cpu", show_default=True, metavar="NAME", help="cpu, cuda, openvino or auto."
)
@click.option("--out", type=click.Path(path_type=Path), help="IMAGE with the boxes drawn, *.png or *.jpg.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def verify(path: str, image: Path | None, engine: str, out: Path | None, as_json: bool) -> None:
    """Check FILE.onnx, or the one that ships, against the contract beside it, FILE.json, and let it look at IMAGE.

    Look at the boxes yourself: a wrong colour order or scale fits every contract, and finds nobody.
    """
    if out is not None and image is None:
        raise click.UsageError("--out draws into IMAGE; name one")

    from tagclip.runtime.detector_check import check_detector
    from tagclip.runtime.detectors import graph_of

    graph = graph_of(path)
    if graph is None:
        raise click.UsageError("motion is no graph; name person or a file named *.onnx")
    facts = check_detector(graph, image, engine=engine, out=out)
    click.echo(json.dumps(facts, indent=2) if as_json else "\n".join(_lines(facts, image is not None)))
    if out is not None:
        click.echo(f"written: {out}", err=True)


def _lines(facts: dict[str, Any], looked: bool) -> list[str]:
    width, height = facts["input_px"]
    wide, high = facts["frame_px"]
    runs = facts["runs_per_frame"]
    classes = f", class {facts['person_class']} of {facts['classes']} is a person" if facts["classes"] else ""
    lines = [
        f"family   {facts['family']}{classes}",
        f"input    {width}x{height}{' at most, follows the frame' if facts['any_size'] else ''}",
        f"licence  {facts['licence']}",
        f"engine   {facts['engine']}, {facts['graph']}",
        f"cost     {facts['ms_per_frame']} ms for a frame of {wide}x{high}: "
        + (f"the whole and {runs - 1} tiles" if runs > 1 else "the whole, no tiles"),
    ]
    if looked:
        lines.append(f"people   {len(facts['people'])}")
        lines += [
            f"         {person['score']:.2f} at " + ",".join(f"{value:g}" for value in person["box_xywh_px"])
            for person in facts["people"]
        ]
    return lines

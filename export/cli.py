"""The command export: parse, one library call, print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Bundle folder to make.")
@click.option(
    "--view",
    "views",
    type=click.Choice(["aerial", "ground", "universal"]),
    multiple=True,
    help="Image towers: specialists of a view, or one that finds the view out.  [default: both specialists]",
)
@click.option(
    "--experts",
    type=click.Choice(["exact", "merged"]),
    default="exact",
    show_default=True,
    help="Merged: one network in place of each mixture, at the cost of plain CLIP.",
)
@click.option("--precision", type=click.Choice(["fp32", "fp16", "int8"]), default="fp32", show_default=True)
@click.option(
    "--calib",
    type=click.Path(path_type=Path),
    help="Data folder: its validation split measures the bundle, its training split chooses ranges and gates.",
)
@click.option(
    "--max-drop",
    type=click.FloatRange(min=0),
    default=0.5,
    show_default=True,
    help="Points of R@1 and of mAP that a gallery may lose.",
)
@click.option("--clip", default="", help="CHECKPOINT is a file of weights of this open_clip model.")
@click.option(
    "--licence",
    default="NOASSERTION",
    show_default=True,
    help="SPDX expression of the weights, for the manifest; whoever owns them says it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def export(
    checkpoint: Path,
    out: Path,
    views: tuple[str, ...],
    experts: str,
    precision: str,
    calib: Path | None,
    max_drop: float,
    clip: str,
    licence: str,
    as_json: bool,
) -> None:
    """Make a bundle of CHECKPOINT: ONNX image towers, a text tower, and what a device needs.

    The graphs are measured against the checkpoint, and nothing is written when they cost too much. CHECKPOINT is a
    folder of `tagclip train`, or with --clip a file of open_clip weights (safetensors, or OpenAI's .pt).
    """
    from tagclip.export.pack import Wanted, export_bundle
    from tagclip.runtime.errors import OutputError
    from tagclip.train.progress import bar

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} exists and is not empty; remove it or choose another name")
    with bar() as tick:
        bundle, report = export_bundle(
            checkpoint, out, Wanted(views, experts, precision, max_drop, licence), calib, clip, tick
        )
    if as_json:
        click.echo(json.dumps(report))
        return
    size = sum(p.stat().st_size for p in out.iterdir())
    click.echo(f"{out}: {bundle.encoder_id}, {size / 1e6:.1f} MB")
    click.echo("\n".join(_lines(report)))


def _lines(report: dict[str, Any]) -> list[str]:
    lines = ["", f"{'tower':<16}{'parameters':>12}{'GFLOP':>8}{'MB':>7}  cosine to PyTorch, least"]
    for tower, row in report["towers"].items():
        lines.append(
            f"{tower:<16}{row['parameters']:>12,}{row['gflop']:>8.2f}{row['bytes'] / 1e6:>7.2f}"
            f"  {report['parity'][tower]['min_cosine']:.6f}"
        )
    for tower, row in report.get("merging", {}).items():
        how = f"then {row['steps']} steps of distillation" if row["steps"] else "that was enough"
        lines.append(f"{tower}: experts averaged at {row['drop_averaged']:+.2f} points, {how}")
    for tower, row in report.get("precision", {}).items():
        lines += ["", *_layers(tower, row)]
    if "retrieval" in report:
        lines += ["", f"{'validation':<12}{'R@1':>7}{'was':>7}{'mAP':>8}{'was':>7}"]
        for gallery, row in report["retrieval"].items():
            was = report["checkpoint"][gallery]
            lines.append(
                f"{gallery:<12}{row['r1']:>7.2f}{was['r1']:>7.2f}{row['map']:>8.2f}{was['map']:>7.2f}"
            )
        same = report["agreement"]
        lines.append(
            f"the same first picture for {100 * same['same_first']:.1f} % of captions, "
            f"{100 * same['same_of_first_10']:.1f} % of the first ten"
        )
    return lines


def _layers(tower: str, row: dict[str, Any]) -> list[str]:
    kept = sum(layer["precision"] != "int8" for layer in row["layers"])
    rules = ", ".join(f"{rule} {error:.1e}" for rule, error in row["rules"].items())
    lines = [
        f"{tower}: {len(row['layers']) - kept} of {len(row['layers'])} layers in int8 at {row['drop']:+.2f} points; "
        f"ranges by {row['rule']} (1 - cosine: {rules})",
        f"  {'layer':<40}{'op':<8}{'weights':>10}{'alone costs':>13}  decision",
    ]
    for layer in row["layers"]:
        start = f"  {layer['layer']:<40}{layer['op']:<8}{layer['weights']:>10,}"
        lines.append(f"{start}{layer['error']:>13.1e}  {layer['precision']}")
    return lines

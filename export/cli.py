"""The command export: parse, one library call, print."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Bundle folder to make.")
@click.option(
    "--view",
    "views",
    type=click.Choice(["aerial", "ground"]),
    multiple=True,
    help="Specialists; default both.",
)
@click.option(
    "--calib",
    type=click.Path(path_type=Path),
    help="Data folder; its validation split measures retrieval and score background.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def export(checkpoint: Path, out: Path, views: tuple[str, ...], calib: Path | None, as_json: bool) -> None:
    """Make a bundle of CHECKPOINT: one ONNX image tower a view, a text tower, and what a device needs.

    The numbers are compared with PyTorch before anything is written.
    """
    from tagclip.export.pack import export_bundle
    from tagclip.runtime.errors import OutputError
    from tagclip.runtime.views import VIEWS

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} exists and is not empty; remove it or choose another name")
    chosen = tuple(v for v in VIEWS if not views or v in views)
    bundle, report = export_bundle(checkpoint, out, chosen, calib, lambda step: click.echo(step, err=True))
    if as_json:
        click.echo(json.dumps(report))
        return
    size = sum(p.stat().st_size for p in out.iterdir())
    click.echo(f"{out}: {bundle.encoder_id}, {size / 1e6:.1f} MB")
    for tower, parity in report["parity"].items():
        click.echo(
            f"  {tower:13} cosine to PyTorch at least {parity['min_cosine']:.6f}, "
            f"largest difference {parity['max_abs_diff']:.1e}"
        )
    for name in ("checkpoint", "retrieval"):
        if name in report:
            row = report[name]["all"]
            what = "PyTorch" if name == "checkpoint" else "bundle"
            click.echo(f"  {what:13} R@1 {row['r1']:.2f}  mAP {row['map']:.2f}  (validation)")

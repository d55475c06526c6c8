"""`tagclip bundle`: what a bundle is, and whether it can be trusted on this machine."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tagclip.runtime.bundle import Bundle


@click.group()
def bundle() -> None:
    """Look into bundles, verify, sign, compare and install them."""


# Sub-commands in modules of their own, which like this one import only click at their top.
for _name, _module in {
    "sign": "sign_cli",
    "diff": "diff_cli",
    "install": "slots_cli",
    "rollback": "slots_cli",
    "build": "engine_cli",
}.items():
    bundle.add_command(getattr(importlib.import_module(f"tagclip.runtime.{_module}"), _name))


@bundle.command()
@click.argument("folder", metavar="[BUNDLE]", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def inspect(folder: Path | None, as_json: bool) -> None:
    """Print what BUNDLE holds: towers, sizes, ids, origin, measured numbers, engines.

    Without BUNDLE, the one that ships with the package.
    """
    from tagclip.runtime.bundle import open_bundle

    facts = _facts(open_bundle(folder))
    click.echo(json.dumps(facts, indent=2) if as_json else "\n".join(_describe(facts)))


@bundle.command()
@click.argument("folder", metavar="[BUNDLE]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--public-key",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Refuse what this Ed25519 key (PEM) did not sign.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def verify(folder: Path | None, public_key: Path | None, as_json: bool) -> None:
    """Check every hash of BUNDLE and run its self-test on this machine.

    The self-test embeds a few crops and texts that lie in the bundle and compares the vectors with the
    expected ones. Without BUNDLE, the one that ships with the package.
    """
    from tagclip.runtime.bundle import open_bundle
    from tagclip.runtime.keys import read_public_key
    from tagclip.runtime.probe import MIN_COSINE
    from tagclip.runtime.selftest import run_probe

    key = None if public_key is None else read_public_key(public_key)
    opened = open_bundle(folder, public_key=key)
    cosines = run_probe(opened)
    if as_json:
        result = {
            "encoder_id": opened.encoder_id,
            "files": len(opened.sha256),
            "signed_by": None if key is None else key.id,  # null: not checked
            "min_cosine": cosines,
        }
        click.echo(json.dumps(result, indent=2))
        return
    if key is not None:
        click.echo(f"signed by key {key.id}")
    click.echo(f"{len(opened.sha256)} files have the SHA-256 they should; encoder id {opened.encoder_id}")
    for tower, cosine in cosines.items():
        click.echo(f"{tower:<14} min cosine {cosine:.6f} (at least {MIN_COSINE})")
    click.echo("the bundle is sound and this machine computes what it was made with")


def _facts(opened: Bundle) -> dict[str, Any]:
    """Everything `inspect` prints, as JSON."""
    from tagclip.runtime.bundle_manifest import SIGNATURE
    from tagclip.runtime.bundle_report import retrieval
    from tagclip.runtime.engine_cli import engine_rows

    manifest = opened.manifest.to_json()
    for tower in manifest["towers"].values():
        tower["bytes"] = (opened.path / tower["file"]).stat().st_size
    return {
        "path": str(opened.path),
        **manifest,
        "signature": "present, not checked" if (opened.path / SIGNATURE).exists() else None,
        "retrieval": retrieval(opened),
        "engines": engine_rows(opened),
    }


def _describe(facts: dict[str, Any]) -> list[str]:
    """The lines for a person."""
    from tagclip.runtime.bundle_report import METRICS
    from tagclip.runtime.engine_cli import engine_lines

    size = facts["preprocess"]
    lines = [
        f"{facts['name']}  ({facts['path']})",
        f"format       {facts['format_version']}",
        f"encoder id   {facts['encoder_id']}",
        f"views        {', '.join(facts['views'])}",
        f"vectors      {facts['embedding_dim']} numbers",
        f"crops        {size['height_px']} x {size['width_px']} px, {size['color']}",
        f"text         {facts['tokenizer']['context_length']} tokens",
        f"licence      {facts['licence']}",
        f"signature    {facts['signature'] or 'none'}",
        "",
        f"{'tower':<14}{'precision':<11}{'parameters':>12}{'MB':>9}  file",
    ]
    for name, tower in facts["towers"].items():
        megabytes = tower["bytes"] / 1e6
        lines.append(
            f"{name:<14}{tower['precision']:<11}{tower['parameters']:>12,}{megabytes:>9.2f}  {tower['file']}"
        )
    lines += engine_lines(facts["engines"])
    if facts["retrieval"]:
        lines += ["", f"{'retrieval':<10}" + "".join(f"{metric:>9}" for metric in METRICS)]
        for view, row in facts["retrieval"].items():
            cells = (f"{row[metric]:>9.5g}" if metric in row else f"{'-':>9}" for metric in METRICS)
            lines.append(f"{view:<10}" + "".join(cells))
    # json.dumps escapes control characters: provenance is free text and goes to a terminal.
    provenance = [
        f"  {json.dumps(key)[1:-1]}: {json.dumps(value)}" for key, value in facts["provenance"].items()
    ]
    return lines + ["", "provenance", *(provenance or ["  none"])]

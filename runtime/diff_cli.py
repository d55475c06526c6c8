"""`tagclip bundle diff`."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("a", metavar="A", type=click.Path(path_type=Path))
@click.argument("b", metavar="B", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def diff(a: Path, b: Path, as_json: bool) -> None:
    """Print what differs between the bundles A and B, and whether their vectors may be compared.

    The exit status is 0 also when they differ.
    """
    from tagclip.runtime.bundle import open_bundle
    from tagclip.runtime.bundle_diff import describe, diff_bundles

    result = diff_bundles(open_bundle(a), open_bundle(b))
    click.echo(json.dumps(result, indent=2) if as_json else "\n".join(describe(result)))

"""`tagclip doctor`: what this machine can run, and why not."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), help="Folder of the encoders.  [default: ours]")
@click.option("--store", type=click.Path(path_type=Path), help="File that people would be kept in.")
@click.option(
    "--engine", default="cpu", show_default=True, help="What the encoders would run on, as in `run`."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def doctor(bundle: Path | None, store: Path | None, engine: str, as_json: bool) -> None:
    """Look at this machine: what works, what does not, and the way out.

    Exits with 1 if there is a problem; warnings are no problems.
    """
    from tagclip.runtime.doctor import OK, PROBLEM, WARNING, examine

    checks = []
    for check in examine(bundle, store, engine):
        checks.append(check)
        if not as_json:
            click.echo(f"{check.state:<8} {check.name:<23} {check.found}")
            if check.advice:
                click.echo(f"{'':<8} {'':<23} -> {check.advice}")
    counts = {state: sum(check.state == state for check in checks) for state in (OK, WARNING, PROBLEM)}
    if as_json:
        rows = [dataclasses.asdict(check) for check in checks]
        click.echo(
            json.dumps({"problems": counts[PROBLEM], "warnings": counts[WARNING], "checks": rows}, indent=2)
        )
    else:
        click.echo(f"{counts[PROBLEM]} problems, {counts[WARNING]} warnings, {counts[OK]} fine")
    if counts[PROBLEM]:
        click.get_current_context().exit(1)

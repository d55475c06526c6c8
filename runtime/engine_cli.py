"""`tagclip bundle build`, and what `tagclip bundle inspect` says of engines."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tagclip.runtime.bundle import Bundle
    from tagclip.runtime.engine_store import Engine


@click.command()
@click.argument("folder", metavar="[BUNDLE]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--engine",
    "runtime",
    type=click.Choice(["tensorrt", "tensorrt-rtx"]),
    help="What to build for: tensorrt (Jetson, servers) or tensorrt-rtx (desktops; builds without a GPU too).",
)
@click.option(
    "--max-batch",
    default=64,
    show_default=True,
    type=click.IntRange(1, 65536),
    help="The largest batch; memory grows with it.",
)
@click.option(
    "--workspace-mb",
    default=1024,
    show_default=True,
    type=click.IntRange(1, 1 << 20),
    help="The most scratch memory of one layer, in MiB.",
)
@click.option(
    "--memory-mb",
    type=click.IntRange(1, 1 << 20),
    help="tensorrt: the most memory for building, in MiB, a power of two.  [default: 3/4 of a Jetson's]",
)
@click.option(
    "--capability",
    type=click.Choice(["sm75", "sm80", "sm86", "sm89", "sm120", "sm121"]),
    help="tensorrt-rtx: another machine's GPU.  [default: this one's]",
)
@click.option("--check", is_flag=True, help="Build nothing; say of every engine there is whether it fits.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def build(
    folder: Path | None,
    runtime: str | None,
    max_batch: int,
    workspace_mb: int,
    memory_mb: int | None,
    capability: str | None,
    check: bool,
    as_json: bool,
) -> None:
    """Build engines from the graphs of BUNDLE, into its folder `engines`, and test them where there is a GPU.

    An engine runs on the runtime version and GPU that it was built for; others are named and not used. Without
    BUNDLE, the one that ships with the package. docs/engines.md has the steps for a Jetson.
    """
    if runtime is None and (capability is not None or not check):
        raise click.UsageError("name the runtime: --engine tensorrt or --engine tensorrt-rtx")
    if runtime == "tensorrt" and capability is not None:
        raise click.UsageError(
            "--capability goes with --engine tensorrt-rtx; tensorrt builds for this machine's GPU"
        )
    if runtime != "tensorrt" and memory_mb is not None:
        raise click.UsageError(
            "--memory-mb goes with --engine tensorrt; tensorrt-rtx tries no kernels while it builds"
        )

    from tagclip.runtime.bundle import open_bundle

    opened = open_bundle(folder)
    if check:
        _check(opened, ("tensorrt", "tensorrt-rtx") if runtime is None else (runtime,), capability, as_json)
        return
    assert runtime is not None
    engine, warnings = _build(opened, runtime, capability, max_batch, workspace_mb, memory_mb)
    if as_json:
        result = {"path": str(engine.path), **engine.facts.to_json(), "warnings": warnings}
        click.echo(json.dumps(result, indent=2))
        return
    for name, tower in engine.facts.towers.items():
        cosine = (engine.facts.self_test or {}).get(name)
        tested = "not tested" if cosine is None else f"min cosine {cosine:.6f}"
        click.echo(f"{name:<14}{tower.bytes / 1e6:>9.2f} MB  batches to {tower.max_batch}  {tested}")
    if engine.facts.self_test_reason is not None:
        click.echo(f"not tested on a GPU: {engine.facts.self_test_reason}")
    click.echo(f"built in {engine.facts.build_s:g} s: {engine.path}")


def engine_rows(opened: Bundle) -> list[dict[str, Any]]:
    """What each engine of a bundle was built for, and why it is not of this bundle (`reason`; None: it is, and sound).

    Whether this machine can run it takes its runtime and its GPU: `tagclip bundle build --check`.
    """
    from tagclip.runtime.engine_store import list_engines, open_engine, read_facts
    from tagclip.runtime.errors import EngineMismatchError

    rows = []
    for path in list_engines(opened):
        row: dict[str, Any] = {"engine": path.name, "gpu": None, "capability": None, "reason": None}
        try:
            target = read_facts(path).target
            row |= {"gpu": target.gpu, "capability": target.capability}
            open_engine(opened, path, target)
        except EngineMismatchError as error:
            row["reason"] = str(error)
        rows.append(row)
    return rows


def engine_lines(rows: list[dict[str, Any]]) -> list[str]:
    """`engine_rows` for a person; no line without engines."""
    lines = ["", "engines"] if rows else []
    for row in rows:
        name = json.dumps(row["engine"])[1:-1]  # a name on disk could rewrite the operator's terminal
        gpu = row["capability"] if row["gpu"] == "none" else f"{row['gpu']} ({row['capability']})"
        lines.append(f"  {name}: " + (row["reason"] or f"for {gpu}, built from this bundle"))
    return lines


def _build(
    opened: Bundle,
    runtime: str,
    capability: str | None,
    max_batch: int,
    workspace_mb: int,
    memory_mb: int | None,
) -> tuple[Engine, list[str]]:
    from tagclip.runtime.engine_build import build_engines, find_target, foreign_engines
    from tagclip.runtime.terminal import Progress

    warnings: list[str] = []

    def warn(text: str) -> None:
        shown.end()
        warnings.append(text)
        click.echo(f"warning: {text}", err=True)

    shown = Progress("building", "percent")
    target, untested = find_target(runtime, capability)
    for error in foreign_engines(opened, target):
        warn(f"not used: {error}")
    doing, start_s = "", time.monotonic()

    def progress(tower: str, part: float) -> None:
        nonlocal doing
        if tower != doing:
            doing = tower
            shown.end()
            click.echo(f"{time.monotonic() - start_s:6.1f} s  building {tower}", err=True)
        shown.update(int(part * 100), 100)

    try:
        engine = build_engines(
            opened,
            target,
            untested=untested,
            max_batch=max_batch,
            workspace_mb=workspace_mb,
            memory_mb=memory_mb,
            progress=progress,
            warn=warn,
        )
    finally:
        shown.end()
    return engine, warnings


def _check(opened: Bundle, runtimes: tuple[str, ...], capability: str | None, as_json: bool) -> None:
    """Print every engine with "fits" or the reason; exit with 1 if none fits."""
    from tagclip.runtime.engine_build import find_target
    from tagclip.runtime.engine_store import list_engines, open_engine, read_facts
    from tagclip.runtime.errors import EngineError, MissingExtraError

    rows: list[dict[str, Any]] = []
    for path in list_engines(opened):
        reason = None
        try:
            found = read_facts(path).target.runtime
            if found in runtimes:
                open_engine(opened, path, find_target(found, capability)[0])
            else:
                reason = f"built for {found}, asked was {runtimes[0]}"
        except (EngineError, MissingExtraError) as error:
            reason = str(error)
        rows.append({"engine": path.name, "fits": reason is None, "reason": reason})
    fits = any(row["fits"] for row in rows)
    if as_json:
        click.echo(json.dumps({"encoder_id": opened.encoder_id, "fits": fits, "engines": rows}, indent=2))
    for row in () if as_json else rows:
        name = json.dumps(row["engine"])[1:-1]  # a name on disk could rewrite the operator's terminal
        click.echo(f"{name}: fits" if row["fits"] else f"{name}: {row['reason']}")
    if not fits:
        click.echo(f"no engine of {opened.path} fits; build one with `tagclip bundle build`", err=True)
        click.get_current_context().exit(1)

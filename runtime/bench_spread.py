"""Do runs of the benchmark agree in what rivals take, as times ours?

    for k in 1 2 3 4 5 6 7 8 9 10; do
      tagclip bench --people 5 --against open_clip --frames 1 --rounds 12 --out run-$k.json; done
    python -m tagclip.runtime.bench_spread run-*.json

Ends with status 1 where a run lies farther from the runs' median than allowed.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tagclip.runtime.bench_page import Raw, read_raw
from tagclip.runtime.bench_report import number
from tagclip.runtime.errors import SourceError
from tagclip.runtime.terminal import aligned

ALLOWED = 0.1  # of the median


def spread(raws: Sequence[Raw]) -> list[dict[str, Any]]:
    """How far runs lie apart in each of their ratios.

    Args:
        raws: as `read_raw` gives them; two or more, of one bundle on one engine, with the same rivals and batches.

    Returns:
        for each batch and rival {"batch", "encoder", "ratios" (of each run), "median", "farthest": of a run from the
        median, relative to it}.

    Raises:
        SourceError: they are runs of different things, or have no ratios.
    """
    if len(raws) < 2:
        raise SourceError(f"expected two runs or more, found {len(raws)}; run `tagclip bench --out` again")
    if len({_what(raw) for raw in raws}) > 1:
        raise SourceError(
            "expected runs of one bundle, engine and machine, with the same rivals and numbers of people; found "
            "different ones: compare them with `python -m tagclip.runtime.bench_page`"
        )
    found: dict[tuple[int, str], list[float]] = {}
    for raw in raws:
        for row in raw["summary"]["encoders"]:
            for name, ratio in row["ratio"].items():
                found.setdefault((row["batch"], name), []).append(ratio)
    if not found:
        raise SourceError("the runs have no ratios; run `tagclip bench` with --against")
    rows = []
    for (batch, name), ratios in found.items():
        median = statistics.median(ratios)
        farthest = max(abs(ratio / median - 1) for ratio in ratios)
        rows.append(
            {"batch": batch, "encoder": name, "ratios": ratios, "median": median, "farthest": farthest}
        )
    return rows


def _what(raw: Raw) -> tuple[Any, ...]:
    artefact, machine = raw["artefact"], raw["machine"]
    batches = tuple(row["batch"] for row in raw["encoders"])
    return artefact["sha256"], artefact["engine"], machine["cpu"], machine["cores"], *raw["rivals"], *batches


def _shown(rows: Sequence[dict[str, Any]]) -> str:
    head = ("crops", "encoder", "times ours", "least", "most", "farthest from it")
    cells = [
        (
            str(row["batch"]),
            row["encoder"],
            *(number(value) for value in (row["median"], min(row["ratios"]), max(row["ratios"]))),
            f"{row['farthest']:.1%}",
        )
        for row in rows
    ]
    return aligned([head, *cells], {1})


def main() -> None:
    """The command line."""
    import json

    import click

    from tagclip.runtime.cli import run

    @click.command()
    @click.argument("raw", nargs=-1, required=True, type=click.Path(path_type=Path))
    @click.option("--within", type=float, default=ALLOWED, show_default=True, help="Of the median.")
    @click.option("--json", "as_json", is_flag=True)
    def command(raw: tuple[Path, ...], within: float, as_json: bool) -> None:
        """How far the RAW files of `tagclip bench --against ... --out` lie apart in their ratios."""
        rows = spread([read_raw(path) for path in raw])
        click.echo(json.dumps(rows) if as_json else _shown(rows))
        worst = max(row["farthest"] for row in rows)
        if worst > within:
            raise SourceError(
                f"the runs lie {worst:.1%} from their median, expected {within:.0%} at most; run them again on an idle "
                "machine, with more --rounds"
            )

    run(command, "python -m tagclip.runtime.bench_spread")


if __name__ == "__main__":
    main()

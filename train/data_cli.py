"""tagclip data check, build: parse, one library call, print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tagclip.train.datasets.check import Report

SHOWN = 20  # problems in the table; --json has all
# The same as datasets.layout.FORMATS and datasets.names.RULES, which --help must not import; a test compares.
FORMATS = ("tagclip", "tag-pedes", "cuhk-pedes", "icfg-pedes", "rstpreid")
FOLDERS = ("ag-reid-v2", "g2aps", "prai-1581", "uav-human", "market-1501")


@click.group()
def data() -> None:
    """Look after training data: check it, build it from public sets."""


@data.command("check")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--format", "name", type=click.Choice([*FORMATS, "shards"]), help="Where FOLDER has several formats."
)
@click.option("--json", "as_json", is_flag=True, help="Print counts and all problems as JSON.")
def check(folder: Path, name: str | None, as_json: bool) -> None:
    """Read every annotation and decode every image in FOLDER; exit status 1 if anything is wrong."""
    from tagclip.train.datasets.check import check_data
    from tagclip.train.progress import bar

    with bar() as tick:
        report = check_data(folder, name, lambda done, total: tick("images", done, total, ""))
    if as_json:
        problems = [vars(problem) for problem in report.problems]
        content = {"folder": str(folder), "format": report.format, "splits": report.splits}
        click.echo(json.dumps(content | {"problems": problems}))
    else:
        _print_report(report)
    if report.problems:
        click.get_current_context().exit(1)


def _print_report(report: Report) -> None:
    from tagclip.train.datasets.check import token_limit

    titles = {
        "captions_over_limit": f"captions over {token_limit()} tokens",
        "mean_caption_words": "words of a caption, mean",
    }
    keys = list(next(iter(report.splits.values())))
    rows = [
        [titles.get(key, key.replace("_", " ")), *(f"{counts[key]:,}" for counts in report.splits.values())]
        for key in keys
    ]
    _print_table(f"{report.folder} ({report.format})", ["", *report.splits], rows)
    if not report.problems:
        click.echo("no problems")
        return
    kinds = ", ".join(f"{count} {kind}" for kind, count in report.by_kind().items())
    click.echo(f"{len(report.problems)} problems: {kinds}")
    for problem in report.problems[:SHOWN]:
        click.echo(f"  {problem.kind}: {problem.where}: {problem.message}")
    if len(report.problems) > SHOWN:
        click.echo(f"  and {len(report.problems) - SHOWN} more; --json lists all")


@data.command("build")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--from", "names", type=click.Choice([*FOLDERS, *FORMATS]), multiple=True, required=True, help="The set."
)
@click.option(
    "--source",
    "folders",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    help="Its folder; one for each --from, in the same order.",
)
@click.option(
    "--captions",
    type=click.Path(path_type=Path),
    multiple=True,
    help="JSON or CSV from picture to captions, for sets without.",
)
@click.option(
    "--val-identities", type=click.IntRange(min=0), help="People of val; default a tenth, at most 200."
)
@click.option(
    "--test-identities",
    type=click.IntRange(min=0),
    help="People of test, from sets without splits; default a tenth, at most 200.",
)
@click.option(
    "--per-view",
    type=click.IntRange(min=1),
    help="At most so many pictures of a person and view, from sets without annotations.",
)
@click.option("--with-wearable", is_flag=True, help="Take the wearable camera of AG-ReID.v2, as ground.")
@click.option(
    "--images",
    type=click.Choice(["link", "copy"]),
    default="link",
    show_default=True,
    help="Hard links or copies.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def build(
    out: Path,
    names: tuple[str, ...],
    folders: tuple[Path, ...],
    captions: tuple[Path, ...],
    val_identities: int | None,
    test_identities: int | None,
    per_view: int | None,
    with_wearable: bool,
    images: str,
    seed: int,
    as_json: bool,
) -> None:
    """Annotations and images in the new folder OUT, from one or several public sets on this disk."""
    from tagclip.train.datasets.build import Plan, build_data
    from tagclip.train.progress import bar

    if len(names) != len(folders):
        raise click.UsageError(f"expected a --source for each --from, found {len(names)} and {len(folders)}")
    plan = Plan(
        tuple(zip(names, folders, strict=True)),
        captions,
        val_identities,
        test_identities,
        per_view,
        with_wearable,
        images == "copy",
        seed,
    )
    with bar() as tick:
        summary = build_data(out, plan, lambda what, done, total: tick(what, done, total, ""))
    if as_json:
        click.echo(json.dumps(summary))
        return
    _print_build(out, summary)


def _print_build(out: Path, summary: dict[str, Any]) -> None:
    sets = summary["sets"]
    reasons = sorted({reason for tally in sets.values() for reason in tally["left_out"]})
    rows = [["files found", *(f"{tally['files']:,}" for tally in sets.values())]]
    rows += [[f"left out: {r}", *(f"{t['left_out'].get(r, 0):,}" for t in sets.values())] for r in reasons]
    rows.append(["images taken", *(f"{tally['taken']:,}" for tally in sets.values())])
    _print_table(f"{out} ({summary['pictures']})", ["", *sets], rows)
    for split, counts in summary["splits"].items():
        click.echo(f"{split}: " + ", ".join(f"{count:,} {key}" for key, count in counts.items()))
    if summary["captions_without_picture"]:
        click.echo(f"captions that name no picture: {summary['captions_without_picture']:,}")
    click.echo(f"seed {summary['seed']}; build.json names every file that was left out")


def _print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", box=SIMPLE)
    for k, column in enumerate(columns):
        table.add_column(column, justify="right" if k else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)

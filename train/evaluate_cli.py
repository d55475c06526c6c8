"""The command evaluate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click


def _png(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    if value is not None and value.suffix.lower() != ".png":
        raise click.BadParameter(f"expected a name that ends in .png, found {value}")
    return value


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--data", "folder", type=click.Path(path_type=Path), required=True, help="Data folder.")
@click.option("--split", type=click.Choice(["train", "val", "test"]), default="test", show_default=True)
@click.option("--view", type=click.Choice(["all", "aerial", "ground"]), help="Only this gallery.")
@click.option("--exclude-own", is_flag=True, help="Without the picture that a caption was written for.")
@click.option("--against", "other", type=click.Path(path_type=Path), help="Compare with another model.")
@click.option(
    "--by", type=click.Choice(["elevation", "height"]), help="Also by camera elevation or image height."
)
@click.option(
    "--picture", type=click.Path(path_type=Path), callback=_png, help="PNG of best and worst queries."
)
@click.option(
    "--wordings", is_flag=True, help="Also in plain words, words in new company and words never seen."
)
@click.option(
    "--expand", type=click.IntRange(min=1), help="Also with each caption's best K pictures joined to it."
)
@click.option("--json", "as_json", is_flag=True)
def evaluate(
    model: Path,
    folder: Path,
    split: str,
    view: str | None,
    exclude_own: bool,
    other: Path | None,
    by: str | None,
    picture: Path | None,
    wordings: bool,
    expand: int | None,
    as_json: bool,
) -> None:
    """Retrieval metrics of MODEL, a checkpoint or a bundle, in percent with 95 % intervals.

    Every caption of the split is a query; "aerial->ground" are the captions of aerial pictures in the gallery of
    ground pictures. A checkpoint routes each image by the view that it predicts; a bundle uses the specialist of
    the image's labelled view. Intervals are over people, since captions of one person are not independent.
    """
    from tagclip.train.compare import as_table as as_comparison
    from tagclip.train.evaluate import as_table
    from tagclip.train.progress import bar
    from tagclip.train.report import evaluation, measured

    with bar() as tick:
        report = evaluation(
            model,
            folder,
            split,
            view=view,
            exclude_own=exclude_own,
            other=other,
            by=by,
            picture=picture,
            wordings=wordings,
            expand=expand or 0,
            tick=tick,
        )
    found = report.wordings
    worded = {} if found is None else {name: measured(row) for name, row in found.lines.items()}
    if as_json:
        result: dict[str, Any] = dict(report.lines)
        if by is not None:
            result["by"] = {by: report.bands}
        if report.differences is not None:
            result["against"] = {"model": str(other), "differences": report.differences}
        if expand is not None:
            result["expand"] = {
                "count": expand,
                "lines": report.expanded,
                "differences": report.expansion,
            }
        if found is not None:
            result["wordings"] = {
                "lines": worded,
                "differences": found.differences,
                "unseen_words": found.unseen_words,
                "examples": found.examples,
            }
        click.echo(json.dumps(result))
        return
    click.echo(as_table(report.lines))
    if report.bands is not None:
        click.echo("\n" + as_table(report.bands, by or ""))
    if report.differences is not None:
        click.echo(f"\nthis: {model}   other: {other}   difference: this - other\n")
        click.echo(as_comparison(report.differences))
    if report.expanded is not None and report.expansion is not None:
        click.echo("\n" + as_table(report.expanded, f"expanded by {expand}"))
        click.echo(f"\nthis: expanded by {expand}   other: the caption alone\n")
        click.echo(as_comparison(report.expansion))
    if found is not None:
        click.echo("\n" + as_table(worded, "wording") + "\n\n" + as_comparison(found.differences))
        click.echo(f"\n{found.unseen_words:.1f} unseen words a text on average; the first of them:")
        for texts in found.examples:
            click.echo("\n".join(f"  {text}" for text in texts) + "\n")
    if picture is not None:
        click.echo(f"\nbest and worst queries: {picture}")

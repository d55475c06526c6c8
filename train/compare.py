"""Two models on the same captions: what differs, and whether it could be chance."""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from tagclip.train.bootstrap import interval
from tagclip.train.evaluate import METRICS, TITLES, Answers, rows


class Difference(TypedDict):
    """One metric of one line, in percent; `difference` is this model minus the other.

    `interval` is paired: the same people are drawn for both models; null with fewer than two people.
    `won`, `lost`: queries whose number is higher, lower than with the other model; the rest are equal.
    """

    this: float
    other: float
    difference: float
    interval: list[float] | None
    won: int
    lost: int


def compare(this: Answers, other: Answers, gallery: str | None = None) -> dict[str, dict[str, Difference]]:
    """Line -> metric -> difference; lines as in `evaluate.rows`.

    Args:
        this, other: of the same captions and pictures in the same order, with the same `exclude_own`.
        gallery: as in `evaluate.rows`.

    Raises:
        ValueError: the captions that count are not the same.
    """
    others = rows(other, gallery)
    result = {}
    for line, mine in rows(this, gallery).items():
        theirs = others[line]
        if not np.array_equal(mine.queries, theirs.queries):
            raise ValueError(f"{line}: expected two models that answered the same captions, found others")
        change = mine.values - theirs.values
        ends = 100 * interval(change, mine.identity)
        result[line] = {
            metric: Difference(
                this=float(100 * mine.values[:, m].mean()),
                other=float(100 * theirs.values[:, m].mean()),
                difference=float(100 * change[:, m].mean()),
                interval=ends[m].tolist() if np.isfinite(ends[m]).all() else None,
                won=int((change[:, m] > 0).sum()),
                lost=int((change[:, m] < 0).sum()),
            )
            for m, metric in enumerate(METRICS)
        }
    return result


def as_table(differences: dict[str, dict[str, Difference]]) -> str:
    """The differences for reading; each line ends with what may be concluded."""
    width = max(map(len, ("gallery", *differences)))
    head = f"{'gallery':{width}}  metric    this   other  {'difference':23}  {'won':>5}  {'lost':>5}  verdict"
    lines = [head]
    for name, row in differences.items():
        for title, metric in zip(TITLES, METRICS, strict=True):
            one = row[metric]
            ends = one["interval"]
            shown = f"{one['difference']:+6.2f} " + (f"[{ends[0]:+.2f}, {ends[1]:+.2f}]" if ends else "")
            lines.append(
                f"{name:{width}}  {title:6} {one['this']:6.2f}  {one['other']:6.2f}  {shown:23}  {one['won']:5d}  "
                f"{one['lost']:5d}  {verdict(one)}"
            )
            name = ""
    return "\n".join(lines)


def verdict(one: Difference) -> str:
    """What may be concluded: better, worse, or nothing because the interval includes 0."""
    ends = one["interval"]
    if ends is None:
        return "no interval: one person only"
    if ends[0] <= 0 <= ends[1]:
        return "equal on every query" if one["won"] == one["lost"] == 0 else "open: the interval includes 0"
    return "better" if ends[0] > 0 else "worse"

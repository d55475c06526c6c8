"""Retrieval metrics of a split, per gallery and from view to view (the protocol of arXiv 2511.08369)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from tagclip.runtime.ranking import Ids, Mask, Numbers, PerQuery, Scores, Vectors, per_query, search
from tagclip.runtime.views import VIEWS
from tagclip.train.expand import expand

METRICS = ("r1", "r5", "r10", "map", "minp")
TITLES = ("R@1", "R@5", "R@10", "mAP", "mINP")
GALLERIES = ("all", *VIEWS)


class Retrieval(TypedDict):
    """Percent, and the sizes of both sides."""

    r1: float
    r5: float
    r10: float
    map: float
    minp: float
    queries: int
    gallery: int


class Measured(Retrieval, total=False):
    """The same with, per metric, the ends of its 95 % interval; null when there are fewer than two people."""

    interval: dict[str, list[float] | None]


@dataclass(frozen=True)
class Row:
    """The queries behind one line of a table; those without a right picture are not among them.

    Attributes:
        values: (N, 5) METRICS of each query, 0..1.
        queries: (N,) their numbers in the split.
        identity: (N,) whom each looks for.
        gallery: number of pictures searched.
    """

    values: Numbers
    queries: Ids
    identity: Ids
    gallery: int


@dataclass(frozen=True)
class Answers:
    """What every caption of a split found in every gallery.

    Attributes:
        found: gallery -> its numbers for all Q captions; a view without pictures is absent.
        gallery: gallery -> number of pictures.
        identity, view: (Q,) the person of each caption, and the view of the picture that it was written for.
    """

    found: dict[str, PerQuery]
    gallery: dict[str, int]
    identity: Ids
    view: Ids


def retrieval(similarity: Scores, query_ids: Ids, gallery_ids: Ids) -> Retrieval:
    """R@1, R@5, R@10, mAP and mINP of text queries against pictures; ties as in `ranking`.

    A hit is any picture of the query's identity, its own included. Queries without a right picture do not count;
    when none counts, `queries` is 0 and so are the metrics.

    Args:
        similarity: (Q, G) finite, larger is more alike.
        query_ids, gallery_ids: (Q,) and (G,) identities.
    """
    everyone = np.ones(len(query_ids), bool)
    return summary(_row(per_query(similarity, query_ids, gallery_ids), everyone, query_ids, len(gallery_ids)))


def by_view(
    texts: Vectors, images: Vectors, text_ids: Ids, image_ids: Ids, view: Ids
) -> dict[str, Retrieval]:
    """Retrieval of every caption in the galleries of all pictures, of the aerial and of the ground ones.

    Args:
        texts, images: (Q, D) and (G, D) unit rows.
        text_ids, image_ids: their identities.
        view: (G,) 0 aerial, 1 ground. A view without pictures is absent in the result.
    """
    everyone = np.ones(len(texts), bool)
    result = {}
    for name in GALLERIES:
        here = _gallery(name, view)
        if here.any():
            found = search(texts, images[here], text_ids, image_ids[here])
            result[name] = summary(_row(found, everyone, text_ids, int(here.sum())))
    return result


def answer(
    texts: Vectors,
    images: Vectors,
    owner: Ids,
    identity: Ids,
    view: Ids,
    exclude_own: bool = False,
    expanded: int = 0,
) -> Answers:
    """Search every gallery for every caption.

    Args:
        texts, images: (Q, D) and (G, D) unit rows.
        owner: (Q,) the picture (0..G-1) that each caption was written for.
        identity, view: (G,) of the pictures; 0 aerial, 1 ground.
        exclude_own: leave that picture out of the caption's gallery. The published protocol leaves it in.
        expanded: how many of its best pictures join a caption in a gallery (`train.expand`), 0 for none.
    """
    found, sizes = {}, {}
    for name in GALLERIES:
        here = _gallery(name, view)
        if not here.any():
            continue
        place = np.full(len(images), -1)
        place[here] = np.arange(here.sum())
        own = place[owner] if exclude_own else None
        asked = expand(texts, images[here], expanded, own) if expanded else texts
        found[name] = search(asked, images[here], identity[owner], identity[here], own)
        sizes[name] = int(here.sum())
    return Answers(found, sizes, identity[owner], view[owner])


def rows(answers: Answers, gallery: str | None = None) -> dict[str, Row]:
    """The lines of the table: every gallery for all captions, then "aerial->ground" and its like.

    In "aerial->ground" the captions were written for aerial pictures and search the ground ones. A line that no caption
    can answer is absent: there are no such pictures, or no person has pictures from both views.

    Args:
        gallery: "all", "aerial" or "ground" for the lines of this gallery only.
    """
    asked = {name: (name, np.ones(len(answers.view), bool)) for name in GALLERIES}
    for k, source in enumerate(VIEWS):
        asked |= {f"{source}->{target}": (target, answers.view == k) for target in VIEWS}
    result = {}
    for line, (name, mask) in asked.items():
        if name in answers.found and gallery in (None, name):
            row = _row(answers.found[name], mask, answers.identity, answers.gallery[name])
            if len(row.queries):
                result[line] = row
    return result


def summary(row: Row) -> Retrieval:
    """The means, in percent; zeros when there are no queries."""
    means = 100 * (row.values.mean(0) if len(row.values) else np.zeros(len(METRICS)))
    return Retrieval(
        r1=float(means[0]),
        r5=float(means[1]),
        r10=float(means[2]),
        map=float(means[3]),
        minp=float(means[4]),
        queries=len(row.queries),
        gallery=row.gallery,
    )


def as_table(result: dict[str, Retrieval] | dict[str, Measured], title: str = "gallery") -> str:
    """The metrics for reading, with their intervals where there are any.

    Args:
        result: a line each.
        title: what stands over the names of the lines.
    """
    cells = [[title, *TITLES, "queries", "images"]]
    for name, row in result.items():
        numbers = [_cell(row, metric) for metric in METRICS]
        cells.append([name, *numbers, str(row["queries"]), str(row["gallery"])])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]
        )
        for line in cells
    )


def _cell(row: Retrieval | Measured, metric: str) -> str:
    value: float = row[metric]  # type: ignore[literal-required]
    ends = row.get("interval", {}).get(metric)  # type: ignore[attr-defined]
    return f"{value:.2f}" if ends is None else f"{value:.1f} [{ends[0]:.1f}, {ends[1]:.1f}]"


def _gallery(name: str, view: Ids) -> Mask:
    return np.ones(len(view), bool) if name == "all" else view == VIEWS.index(name)


def _row(found: PerQuery, mask: Mask, identity: Ids, gallery: int) -> Row:
    queries = np.flatnonzero(mask & ~np.isnan(found.ap))
    return Row(found.metrics()[queries], queries, identity[queries], gallery)

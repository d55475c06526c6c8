"""The picture of the best and the worst queries: what was asked, and what came first."""

from __future__ import annotations

import cv2
import numpy as np

from tagclip.runtime.ranking import Ids, Numbers, Vectors
from tagclip.runtime.sheet import INK, PAPER, SOFT, Colour, ascii_only, place, wrap, write
from tagclip.runtime.source import Image
from tagclip.runtime.views import VIEWS
from tagclip.train.data import Sample
from tagclip.train.datasets.picture import decode
from tagclip.train.evaluate import Answers

EACH = 5  # queries of either kind
SHOWN = 10  # pictures of the gallery
MARGIN_PX, GAP_PX = 24, 10
TEXT_W_PX, OWN_W_PX, CROP_W_PX, CROP_H_PX = 380, 104, 88, 176
TAB_PX = 20  # under a crop: rank, view letter, score
ROW_PX = CROP_H_PX + TAB_PX + 24
HEAD_PX = 40  # over each half
RIGHT, WRONG, OWN, LIGHT = (20, 140, 60), (205, 50, 40), (50, 90, 200), (255, 255, 255)
LEGEND = (
    f"blue: the picture that the caption was written for.  green: the same person.  red: another person.  "
    f"{VIEWS[0][0].upper()} {VIEWS[0]}, {VIEWS[1][0].upper()} {VIEWS[1]}, then the cosine."
)


def choose(ap: Numbers, identity: Ids, count: int = EACH) -> tuple[Ids, Ids]:
    """Numbers of the best and of the worst queries by average precision, at most one a person in each.

    Of equal ones the earlier query goes first, so that the same numbers give the same picture. No query is in both.

    Args:
        ap: (Q,) NaN for queries that do not count.
        identity: (Q,) whom they look for.
    """
    counted = np.flatnonzero(~np.isnan(ap))
    best = _one_each(counted[np.argsort(-ap[counted], kind="stable")], identity, count)
    rest = np.setdiff1d(counted, best)
    return best, _one_each(rest[np.argsort(ap[rest], kind="stable")], identity, count)


def draw_queries(
    samples: list[Sample],
    answers: Answers,
    texts: Vectors,
    images: Vectors,
    gallery: str,
    exclude_own: bool,
    subtitle: str,
) -> bytes:
    """Draw the sheet.

    Args:
        samples: the split.
        answers: of its captions; queries are chosen by their average precision in `gallery`, which it must have.
        texts, images: (Q, D) and (N, D) unit rows, as in `evaluate.answer`.
        gallery: "all", "aerial" or "ground": the pictures that are searched.
        exclude_own: as `answers` was made.
        subtitle: what was measured on what.

    Returns:
        the bytes of a PNG.

    Raises:
        DataError: an image cannot be read.
    """
    here = np.flatnonzero([gallery in ("all", VIEWS[s.view]) for s in samples])
    captions = [(k, caption) for k, s in enumerate(samples) for caption in s.captions]
    ap = answers.found[gallery].ap
    width = 2 * MARGIN_PX + TEXT_W_PX + OWN_W_PX + 3 * GAP_PX + SHOWN * (CROP_W_PX + GAP_PX)
    top = 96
    halves = list(zip(("Best", "Worst"), choose(ap, answers.identity), strict=True))
    height = top + sum(HEAD_PX + ROW_PX * len(chosen) for _, chosen in halves) + MARGIN_PX
    sheet = np.full((height, width, 3), PAPER, np.uint8)
    _text(sheet, f"Best and worst queries, gallery: {gallery}", MARGIN_PX, 40, 0.85, INK, 2)
    _text(sheet, wrap(ascii_only(subtitle), width - 2 * MARGIN_PX, 0.5, 1)[0], MARGIN_PX, 64, 0.5, SOFT)
    _text(sheet, LEGEND, MARGIN_PX, 86, 0.5, SOFT)
    y = top
    for title, chosen in halves:
        _text(sheet, f"{title} by average precision, one a person", MARGIN_PX, y + 28, 0.65, INK, 2)
        y += HEAD_PX
        for query in chosen:
            own, caption = captions[query]
            searched = here[here != own] if exclude_own else here
            scores = images[searched] @ texts[query]
            order = np.argsort(-scores, kind="stable")
            _draw_row(sheet, y, samples, own, caption, float(ap[query]), searched[order], scores[order])
            y += ROW_PX
    return cv2.imencode(".png", sheet[..., ::-1])[1].tobytes()


def _draw_row(
    sheet: Image,
    y: int,
    samples: list[Sample],
    own: int,
    caption: str,
    ap: float,
    ranked: Ids,
    scores: Vectors,
) -> None:
    sheet[y - 4 : y - 3, MARGIN_PX:-MARGIN_PX] = (214, 214, 210)
    identity = samples[own].identity
    right = [rank for rank, k in enumerate(ranked, 1) if samples[k].identity == identity]
    lines = wrap(ascii_only(caption), TEXT_W_PX - 2 * GAP_PX, 0.5, 1)
    if len(lines) > 7:
        lines = [*lines[:6], lines[6][:-4] + " ..."]
    for number, line in enumerate(lines):
        _text(sheet, line, MARGIN_PX, y + 18 + 20 * number, 0.5, INK)
    ranks = ", ".join(map(str, right[:8])) + (", ..." if len(right) > 8 else "")
    below = y + CROP_H_PX + TAB_PX
    place_of_own = np.flatnonzero(ranked == own)
    note = f", own picture at rank {place_of_own[0] + 1}" if len(place_of_own) else ""
    _text(sheet, f"AP {100 * ap:.1f}{note}", MARGIN_PX, below - 24, 0.5, INK)
    _text(sheet, f"person {identity} at {ranks} of {len(ranked)}", MARGIN_PX, below - 4, 0.5, SOFT)
    x = MARGIN_PX + TEXT_W_PX
    _framed(sheet, samples[own], x, y + 4, OWN_W_PX, OWN, f"{_letter(samples[own])} own")
    x += OWN_W_PX + 3 * GAP_PX
    for number, (k, score) in enumerate(zip(ranked[:SHOWN], scores[:SHOWN], strict=True)):
        colour = OWN if k == own else RIGHT if samples[k].identity == identity else WRONG
        _framed(
            sheet, samples[k], x, y + 4, CROP_W_PX, colour, f"{number + 1} {_letter(samples[k])} {score:.2f}"
        )
        x += CROP_W_PX + GAP_PX


def _framed(sheet: Image, sample: Sample, x: int, y: int, width: int, colour: Colour, label: str) -> None:
    """A crop in the middle of a box of `width` x CROP_H_PX, a coloured frame round it and a tab with a label below."""
    image, _ = decode(sample.path)
    inside_w, inside_h = width - 6, CROP_H_PX - 6
    zoom = min(inside_w / image.shape[1], inside_h / image.shape[0])
    left = x + 3 + int(inside_w - image.shape[1] * zoom) // 2
    upper = y + 3 + int(inside_h - image.shape[0] * zoom) // 2
    sheet[y : y + CROP_H_PX, x : x + width] = (228, 228, 226)
    rgb = np.ascontiguousarray(image[..., ::-1], np.uint8)
    place(sheet, rgb, left, upper, x + width - 3 - left, y + CROP_H_PX - 3 - upper)
    cv2.rectangle(sheet, (x + 1, y + 1), (x + width - 2, y + CROP_H_PX - 2), colour, 3)
    sheet[y + CROP_H_PX - 1 : y + CROP_H_PX + TAB_PX, x : x + width] = colour
    _text(sheet, label, x + 6, y + CROP_H_PX + 14, 0.44, LIGHT)


def _letter(sample: Sample) -> str:
    return VIEWS[sample.view][0].upper()


def _one_each(queries: Ids, identity: Ids, count: int) -> Ids:
    """The first `count` queries of different people, in the order given."""
    _, first = np.unique(identity[queries], return_index=True)
    return queries[np.sort(first)[:count]]


def _text(sheet: Image, text: str, x: int, y: int, size: float, colour: Colour, thickness: int = 1) -> None:
    write(sheet, text, x, y, size, colour, thickness)

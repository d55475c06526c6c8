"""`tagclip data check`: counts of a data folder, and everything that is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from tagclip.runtime.errors import DataError
from tagclip.runtime.views import VIEWS
from tagclip.train.config import ModelConfig
from tagclip.train.datasets.layout import Layout, find_layouts, has_split, read_rows
from tagclip.train.datasets.names import view_of_name
from tagclip.train.datasets.picture import Picture, read_pictures
from tagclip.train.datasets.sample import SPLITS, Sample
from tagclip.train.words import PAD_ID, build_words, encode


@dataclass(frozen=True)
class Problem:
    """Something wrong: its kind, the annotation file and row, and a sentence."""

    kind: str
    where: str
    message: str


@dataclass
class Report:
    """What `check_data` found.

    Attributes:
        folder, format: the folder, and the format that was found in it.
        splits: counts of each split, see `_counts`.
        problems: everything wrong, in the order of the checks.
    """

    folder: Path
    format: str
    splits: dict[str, dict[str, float]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def by_kind(self) -> dict[str, int]:
        """How many problems there are of each kind."""
        return dict(Counter(problem.kind for problem in self.problems))


def check_data(
    folder: Path,
    name: str | None = None,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Read every row and decode every image of a data folder.

    Args:
        name: the format; None finds out.
        tick: called with images decoded and images in all.

    Raises:
        DataError: there is no data folder, or nothing that can be read as one. Whatever else is wrong is in the report.
    """
    layouts = find_layouts(folder, name)
    report = Report(folder, "shards" if layouts[0].shards > 1 else layouts[0].name)
    splits: dict[str, list[Sample]] = {}
    for split in SPLITS:
        if split == "val" and not any(_may_have(layout, split) for layout in layouts):
            continue  # TAG-PEDES and ICFG-PEDES have none; training says how to make one
        splits[split] = [s for layout in layouts for s in _rows(layout, split, report.problems)]
        report.splits[split] = _counts(splits[split])
    if layouts[0].first_id is not None:
        report.problems += _gaps(splits["train"], layouts[0].first_id, layouts[0])
    report.problems += _crossing(splits)
    for samples in splits.values():
        report.problems += _wrong_views(samples)
    report.problems += _files(splits, tick)
    return report


def _may_have(layout: Layout, split: str) -> bool:
    try:
        return has_split(layout, split)
    except DataError:
        return True  # reading its rows says what is wrong with the file


def _rows(layout: Layout, split: str, problems: list[Problem]) -> Iterator[Sample]:
    """Samples of the rows that are well; the others become problems."""
    try:
        for where, row in read_rows(layout, split):
            try:
                yield layout.sample(row, where)
            except DataError as error:
                message = str(error).removeprefix(f"{where}: ")
                empty = isinstance(row, dict) and row.get("captions") == []
                problems.append(Problem("no captions" if empty else "bad row", where, message))
    except DataError as error:
        problems.append(Problem("annotations", str(layout.file(split)), str(error)))


def _counts(samples: list[Sample]) -> dict[str, float]:
    """images, identities, captions, aerial and ground images, identities in both views, captions over the default
    model's token limit, mean words of a caption."""
    captions = [caption for s in samples for caption in s.captions]
    views = {v: {s.identity for s in samples if s.view == k} for k, v in enumerate(VIEWS)}
    words = sum(len(caption.split()) for caption in captions)
    return {
        "images": len(samples),
        "identities": len(views["aerial"] | views["ground"]),
        "captions": len(captions),
        "aerial": sum(s.view == 0 for s in samples),
        "ground": sum(s.view == 1 for s in samples),
        "identities_in_both_views": len(views["aerial"] & views["ground"]),
        "captions_over_limit": _too_long(captions),
        "mean_caption_words": round(words / max(1, len(captions)), 1),
    }


def token_limit() -> int:
    """Tokens of a caption that the default model reads; the rest is cut off."""
    return ModelConfig().context_length


@cache
def _tokenizer() -> str:
    return build_words(ModelConfig().word_vectors, ()).tokenizer_json


def _too_long(captions: list[str]) -> int:
    # A token has at least one letter.
    long = [c for c in captions if len(c) > token_limit()]
    if not long:
        return 0
    return int(np.sum(encode(_tokenizer(), long, token_limit() + 1)[:, -1] != PAD_ID))


def _gaps(train: list[Sample], first: int, layout: Layout) -> Iterator[Problem]:
    ids = sorted({s.identity for s in train})
    wanted = range(first, first + len(ids))
    if ids and ids != list(wanted):
        absent = sorted(set(range(first, ids[-1] + 1)) - set(ids))
        shown = ", ".join(map(str, absent[:5])) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
        yield Problem(
            "id gap",
            str(layout.file("train")),
            f"training ids of {layout.name} count up from {first}; found {ids[0]} to {ids[-1]}, absent: "
            f"{shown or 'none'}; other loaders refuse that, ours does not; `tagclip data build` numbers anew",
        )


def _crossing(splits: dict[str, list[Sample]]) -> Iterator[Problem]:
    seen: dict[int, Sample] = {}
    home: dict[int, str] = {}
    told: set[tuple[int, str]] = set()
    for split, samples in splits.items():
        for s in samples:
            first = seen.setdefault(s.identity, s)
            other = home.setdefault(s.identity, split)
            if other != split and (s.identity, split) not in told:
                told.add((s.identity, split))
                yield Problem(
                    "identity in two splits",
                    s.where,
                    f"identity {s.identity} is in {other} ({first.where}) and in {split}; "
                    "identities never cross splits",
                )


def _wrong_views(samples: list[Sample]) -> Iterator[Problem]:
    for s in samples:
        said = view_of_name(s.path.name)
        if said is not None and said != s.view:
            yield Problem(
                "view against file name",
                s.where,
                f"cam_id is {s.view} ({VIEWS[s.view]}), the file name {s.path.name} says {said} ({VIEWS[said]})",
            )


def _files(splits: dict[str, list[Sample]], tick: Callable[[int, int], None]) -> Iterator[Problem]:
    """Files that are absent or broken; files listed twice; the same bytes for two people or in two splits."""
    everyone = [(split, s) for split, samples in splits.items() for s in samples]
    first_row: dict[Path, Sample] = {}
    once: list[tuple[str, Sample]] = []
    for split, s in everyone:
        other = first_row.setdefault(s.path, s)
        if other is s:
            once.append((split, s))
        else:
            yield Problem("duplicate file", s.where, f"{s.path} is listed already in {other.where}")
    content: dict[bytes, tuple[str, Sample]] = {}
    for (split, s), found in zip(once, read_pictures([s.path for _, s in once], tick), strict=True):
        if not isinstance(found, Picture):
            kind, _, message = str(found).partition(": ")
            yield Problem(kind, s.where, message)
            continue
        other_split, twin = content.setdefault(found.digest, (split, s))
        if twin.identity != s.identity or other_split != split:
            yield Problem(
                "duplicate file",
                s.where,
                f"{s.path.name} has the very bytes of {twin.path.name} ({twin.where}), "
                f"which is identity {twin.identity} in {other_split}; this is {s.identity} in {split}",
            )

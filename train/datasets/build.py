"""`tagclip data build`: one data folder of our own form from public sets."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tagclip.runtime.errors import DataError, OutputError
from tagclip.runtime.files import folder_atomic, write_atomic
from tagclip.train.datasets.caption_file import read_captions
from tagclip.train.datasets.names import RULES
from tagclip.train.datasets.picture import read_bytes
from tagclip.train.datasets.sample import SPLITS
from tagclip.train.datasets.sources import Entry, Found, read_annotated, read_folder
from tagclip.train.datasets.tar import split_member

MOST_DRAWN = 200  # identities of val and of test where nobody says how many; a tenth of small sets

Identity = tuple[str, str]  # set, key
Tick = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Plan:
    """What to build.

    Attributes:
        sources: (set, folder), each set once.
        captions: files as in caption_file.py.
        val_identities, test_identities: how many to draw; None for a tenth, at most MOST_DRAWN.
        per_view: keep at most so many pictures of an identity and view (sets without annotations); None keeps all.
        with_wearable: take the wearable camera of AG-ReID.v2, as ground.
        copy: copy the pictures instead of hard-linking them.
        seed: of every draw.
    """

    sources: tuple[tuple[str, Path], ...]
    captions: tuple[Path, ...] = ()
    val_identities: int | None = None
    test_identities: int | None = None
    per_view: int | None = None
    with_wearable: bool = False
    copy: bool = False
    seed: int = 0


def build_data(out: Path, plan: Plan, tick: Tick = lambda what, done, total: None) -> dict[str, Any]:
    """Write annotations, pictures and build.json to the folder `out`.

    Identities are numbered from 0 through train, val and test. The sources are not changed.

    Returns:
        build.json: `sets` with files found, taken and left out by reason, `splits` with counts, and the settings.

    Raises:
        DataError: a source or a captions file is not as it should be, or nothing is left.
        OutputError: `out` exists or cannot be written, or pictures cannot be linked there.
    """
    names = [name for name, _ in plan.sources]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{twice[0]} is given twice; put its pictures below one folder")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} exists and is not empty; remove it or choose another name")
    captions = _all_captions(plan.captions)
    rng = np.random.default_rng(plan.seed)
    found = [_read(plan, name, folder, captions, tick) for name, folder in plan.sources]
    if plan.per_view is not None:
        for one in found:
            _thin(one, plan.per_view, rng)
    entries = [entry for one in found for entry in one.entries]
    if not entries:
        reasons = Counter(reason for one in found for reason in one.left_out.values())
        raise DataError(f"no picture is left of {', '.join(names)}: {dict(reasons)}")
    home = _draw_splits(entries, plan, rng)
    summary: dict[str, Any] = {
        "sets": {one.source: _tally(one) for one in found},
        "splits": {},
        "captions_without_picture": len(captions) - _used(captions, found),
        "pictures": "copies" if plan.copy else "hard links",
        "seed": plan.seed,
    }
    numbers = {who: k for k, who in enumerate(sorted(home, key=lambda who: (SPLITS.index(home[who]), who)))}
    with folder_atomic(out) as work:
        for split in SPLITS:
            mine = [e for e in entries if home[e.source, e.key] == split]
            if not mine:
                continue
            rows = [_row(entry, numbers[entry.source, entry.key]) for entry in mine]
            lines = ",\n".join(json.dumps(row) for row in rows)  # a row a line, for people and for diffs
            write_atomic(work / f"{split}_reid.json", f"[\n{lines}\n]\n".encode())
            summary["splits"][split] = {
                "images": len(rows),
                "identities": len({row["id"] for row in rows}),
                "captions": sum(len(row["captions"]) for row in rows),
                "aerial": sum(row["cam_id"] == 0 for row in rows),
                "ground": sum(row["cam_id"] == 1 for row in rows),
            }
        for done, entry in enumerate(entries, 1):
            _place(entry.sample.path, work / "images" / entry.name, plan.copy)
            if done % 500 == 0 or done == len(entries):
                tick("pictures", done, len(entries))
        left_out = {one.source: one.left_out for one in found}
        write_atomic(work / "build.json", json.dumps(summary | {"left_out": left_out}, indent=1).encode())
    return summary


def _all_captions(files: Sequence[Path]) -> dict[str, tuple[str, ...]]:
    captions: dict[str, tuple[str, ...]] = {}
    for file in files:
        for name, texts in read_captions(file).items():
            if name in captions:
                raise DataError(f"{file}: {name!r} has captions already, in another --captions file")
            captions[name] = texts
    return captions


def _read(plan: Plan, name: str, folder: Path, captions: dict[str, tuple[str, ...]], tick: Tick) -> Found:
    def ticks(done: int, total: int) -> None:
        tick(f"read {name}", done, total)

    if name not in RULES:
        return read_annotated(name, folder, ticks)
    found = read_folder(name, folder, captions, plan.with_wearable, ticks)
    uncaptioned = [path for path, reason in found.left_out.items() if reason == "no caption"]
    if not found.entries and uncaptioned:
        example = next(iter(captions), None)
        raise DataError(
            f"{name} comes without captions and none was found for any of its {len(uncaptioned)} pictures; "
            f"expected --captions FILE with paths such as {uncaptioned[0]!r} or '{name}/{uncaptioned[0]}', "
            + (f"found paths such as {example!r}" if example else "found no --captions")
        )
    return found


def _thin(found: Found, per_view: int, rng: np.random.Generator) -> None:
    """Keep at most `per_view` pictures of an identity and view, drawn; sets with annotations stay whole."""
    groups: dict[tuple[str, int], list[Entry]] = {}
    for entry in found.entries:
        if entry.split is None:
            groups.setdefault((entry.key, entry.sample.view), []).append(entry)
    dropped: set[str] = set()
    for _, group in sorted(groups.items()):
        for k in rng.permutation(len(group))[per_view:]:
            dropped.add(group[k].name)
            found.left_out[group[k].name.partition("/")[2]] = f"beyond {per_view} of a person and view"
    found.entries = [entry for entry in found.entries if entry.name not in dropped]


def _draw_splits(entries: list[Entry], plan: Plan, rng: np.random.Generator) -> dict[Identity, str]:
    """Split of each identity: what its set says, else drawn; val is drawn from train where a set has none."""
    home: dict[Identity, str] = {}
    for entry in entries:
        who, split = (entry.source, entry.key), entry.split or ""
        if home.setdefault(who, split) != split:
            raise DataError(
                f"{entry.sample.where}: identity {entry.key} of {entry.source} is in {home[who]} and in {split}; "
                "identities never cross splits"
            )
    with_val = {source for (source, _), split in home.items() if split == "val"}
    if with_val and plan.val_identities and {source for source, _ in home} == with_val:
        raise DataError(
            f"{' and '.join(sorted(with_val))} has a validation split of its own; leave out --val-identities"
        )
    free = sorted(who for who, split in home.items() if not split)
    for who in _some(free, plan.test_identities, "--test-identities", rng):
        home[who] = "test"
    # Without annotations, or annotated without a validation split.
    free = sorted(who for who, split in home.items() if split in ("", "train") and who[0] not in with_val)
    for who in _some(free, plan.val_identities, "--val-identities", rng):
        home[who] = "val"
    home = {who: split or "train" for who, split in home.items()}
    if "train" not in home.values():
        raise DataError(f"all {len(home)} identities went to val and test; draw fewer of them, or bring more")
    return home


def _some(free: list[Identity], wanted: int | None, option: str, rng: np.random.Generator) -> list[Identity]:
    count = min(MOST_DRAWN, len(free) // 10) if wanted is None else wanted
    if count > len(free):
        raise DataError(f"{option} {count}: only {len(free)} identities can be drawn from; ask for fewer")
    return [free[k] for k in rng.permutation(len(free))[:count]]


def _row(entry: Entry, identity: int) -> dict[str, Any]:
    sample = entry.sample
    row: dict[str, Any] = {
        "file_path": entry.name,
        "id": identity,
        "cam_id": sample.view,
        "captions": list(sample.captions),
        "source": f"{entry.source}/{entry.key}",
    }
    optional = {
        "elevation_deg": sample.elevation_deg,
        "attributes": sample.attributes,
        "visible": sample.visible,
    }
    return row | {key: value for key, value in optional.items() if value is not None}


def _tally(found: Found) -> dict[str, Any]:
    reasons = dict(sorted(Counter(found.left_out.values()).items()))
    return {
        "files": len(found.entries) + len(found.left_out),
        "taken": len(found.entries),
        "left_out": reasons,
    }


def _used(captions: dict[str, tuple[str, ...]], found: list[Found]) -> int:
    paths = {path for one in found for e in one.entries for path in (e.name, e.name.partition("/")[2])}
    paths |= {path for one in found for rest in one.left_out for path in (rest, f"{one.source}/{rest}")}
    return sum(name in paths for name in captions)


def _place(source: Path, target: Path, copy: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if split_member(source) is not None and not copy:
        raise OutputError(f"{source} lies in a tar and cannot be hard-linked; use --images copy")
    try:
        if split_member(source) is not None:
            target.write_bytes(read_bytes(source))
        elif copy:
            shutil.copyfile(source, target)
        else:
            os.link(source.resolve(), target)  # a link to a symbolic link would hang when the source moves
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP) and not copy:
            raise OutputError(
                f"{source} cannot be hard-linked to {target.parent}: {error.strerror}; use --images copy"
            ) from error
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error

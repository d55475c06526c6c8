"""What a public set's folder holds: its pictures with identity, view, captions, and what was left out and why."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tagclip.runtime.errors import DataError
from tagclip.train.data import load_split
from tagclip.train.datasets.layout import FORMATS, find_layouts, has_split
from tagclip.train.datasets.names import RULES, read_name
from tagclip.train.datasets.picture import Picture, read_pictures
from tagclip.train.datasets.sample import SPLITS, Sample

IMAGES = (".jpg", ".jpeg", ".png", ".bmp")
LEAST_PIXELS = 1_000  # width times height; as TAG-PEDES, pictures of that many and fewer are left out
SOURCES = (*RULES, *FORMATS)

Tick = Callable[[int, int], None]


@dataclass(frozen=True)
class Entry:
    """A picture that may go into a data set.

    Attributes:
        sample: path, view and captions; its `identity` is unused where `split` is None.
        name: path below images/ of the new set.
        source, key: the set, and the identity's name in it.
        split: as the set gives it; None where it is to be drawn.
    """

    sample: Sample
    name: str
    source: str
    key: str
    split: str | None = None


@dataclass
class Found:
    """The entries of a source; `left_out` has the reason for every file that is none of them."""

    source: str
    entries: list[Entry] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def read_annotated(source: str, folder: Path, tick: Tick) -> Found:
    """A set that has annotations and splits: all of it is taken.

    Raises:
        DataError: an annotation or a picture is not as it should be.
    """
    layout = find_layouts(folder, source)[0]
    below = folder / layout.images
    found, names = Found(source), set[str]()
    for split in SPLITS:
        if split == "val" and not has_split(layout, split):
            continue
        for s in load_split(folder, split, source):
            name = f"{source}/{s.path.relative_to(below).as_posix()}"
            if name in names:
                raise DataError(
                    f"{s.where}: {s.path} is listed twice; `tagclip data check {folder}` lists all"
                )
            names.add(name)
            found.entries.append(Entry(s, name, source, str(s.identity), split))
    for entry, picture in zip(
        found.entries, read_pictures([e.sample.path for e in found.entries], tick), strict=True
    ):
        if not isinstance(picture, Picture):
            raise DataError(f"{entry.sample.where}: {picture}; `tagclip data check {folder}` lists all")
    return found


def read_folder(
    source: str,
    folder: Path,
    captions: Mapping[str, tuple[str, ...]],
    with_wearable: bool,
    tick: Tick,
) -> Found:
    """A set of pictures whose names say who is shown and from where.

    Args:
        captions: by path relative to `folder`, or by `source`/path.
        with_wearable: take AG-ReID.v2's camera C2, as ground.

    Raises:
        DataError: no folder, or a picture whose name is none of this set.
    """
    if not folder.is_dir():
        raise DataError(f"expected the folder of {source}, found nothing at {folder}")
    found = Found(source)
    seen: dict[str, PurePosixPath] = {}
    candidates: list[Entry] = []
    for path in _files(source, folder, found.left_out):
        shown = read_name(source, path)
        # A picture whose name says who and when is the same picture wherever it lies in its set.
        twin = seen.setdefault(f"{shown.key}/{path.name}", path)
        wearable = shown.left_out is not None and shown.left_out.startswith("wearable")
        if shown.left_out is not None and not (wearable and with_wearable):
            found.left_out[str(path)] = shown.left_out
        elif twin != path:
            found.left_out[str(path)] = "same name in another folder"
        else:
            texts = captions.get(f"{source}/{path}") or captions.get(str(path))
            if not texts:
                found.left_out[str(path)] = "no caption"
                continue
            sample = Sample(folder / path, 0, shown.view, texts)
            candidates.append(Entry(sample, f"{source}/{path}", source, shown.key))
    for entry, picture in zip(
        candidates, read_pictures([e.sample.path for e in candidates], tick), strict=True
    ):
        path_text = entry.name.partition("/")[2]
        if not isinstance(picture, Picture):
            found.left_out[path_text] = str(picture).partition(":")[0]
        elif picture.width_px * picture.height_px <= LEAST_PIXELS:
            found.left_out[path_text] = f"at most {LEAST_PIXELS:,} pixels"
        else:
            found.entries.append(entry)
    return found


def _files(source: str, folder: Path, left_out: dict[str, str]) -> list[PurePosixPath]:
    """Pictures below `folder`, sorted; everything else goes to `left_out`."""
    own = [name for name in RULES[source].folders if (folder / name).is_dir()]
    pictures = []

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be read: {error.strerror or error}") from error

    for where, _, names in os.walk(folder, onerror=refuse, followlinks=True):
        below = Path(where).relative_to(folder)
        for name in names:
            path = PurePosixPath(below.as_posix()) / name
            if own and path.parts[0] not in own:
                left_out[str(path)] = f"outside {', '.join(own)}"
            elif Path(name).suffix.lower() not in IMAGES:
                left_out[str(path)] = "not a picture"
            else:
                pictures.append(path)
    return sorted(pictures)

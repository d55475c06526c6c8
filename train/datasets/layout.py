"""Which data set lies in a folder, and the rows of its annotation files.

tagclip      {train,val,test}_reid.json beside images/; our own
tag-pedes    anno_dir/{train,test}_reid.json beside images/, the same rows
cuhk-pedes   reid_raw.json beside imgs/; each row has its split
icfg-pedes   ICFG-PEDES.json or ICFG_PEDES.json beside imgs/, as cuhk-pedes
rstpreid     data_captions.json beside imgs/, the path under img_path
shards       shards.json, {"shards": ["a", "b"]}: sub-folders of the form tagclip, read as one
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tagclip.runtime.errors import DataError
from tagclip.train.datasets.sample import SPLITS, Sample, checked_path, sample_of

SHARDS = "shards"


@dataclass(frozen=True)
class Layout:
    """Where a format keeps its parts.

    Attributes:
        name: as `--format` takes it.
        annotations: file of each split, relative to the folder; one name for all where rows carry their split.
        images: folder of the pictures.
        path_key: key of the picture's path.
        first_id: training ids have to count up from it without a gap, as the published loaders assert; None: anything.
        folder: where it was found.
        shard, shards: number of this shard, of how many.
    """

    name: str
    annotations: Mapping[str, str]
    images: str
    path_key: str = "file_path"
    first_id: int | None = None
    folder: Path = Path()
    shard: int = 0
    shards: int = 1

    @property
    def rows_have_split(self) -> bool:
        """One file holds all splits."""
        return len(set(self.annotations.values())) == 1

    def file(self, split: str) -> Path:
        """The annotation file of a split."""
        return self.folder / self.annotations[split]

    def sample(self, row: Any, where: str) -> Sample:
        """The image of a row, its id made one that no other shard has.

        Raises:
            DataError: see `sample_of`.
        """
        sample = sample_of(row, self.folder / self.images, self.path_key, where)
        if self.shards == 1:
            return sample
        # Interleaved, so that a split's ids need no look at the other splits.
        return replace(sample, identity=sample.identity * self.shards + self.shard)


def _one_file(name: str) -> dict[str, str]:
    return dict.fromkeys(SPLITS, name)


OWN = Layout("tagclip", {s: f"{s}_reid.json" for s in SPLITS}, "images")
LAYOUTS = (
    OWN,
    Layout("tag-pedes", {s: f"anno_dir/{s}_reid.json" for s in SPLITS}, "images", first_id=0),
    Layout("cuhk-pedes", _one_file("reid_raw.json"), "imgs", first_id=1),
    Layout("icfg-pedes", _one_file("ICFG-PEDES.json"), "imgs", first_id=0),
    Layout("icfg-pedes", _one_file("ICFG_PEDES.json"), "imgs", first_id=0),
    Layout("rstpreid", _one_file("data_captions.json"), "imgs", "img_path", first_id=0),
)
FORMATS = tuple(dict.fromkeys(layout.name for layout in LAYOUTS))


def find_layouts(folder: Path, name: str | None = None) -> list[Layout]:
    """The format of a folder; several layouts where it is a set of shards.

    Args:
        name: the format to take where there are several (one of FORMATS, or "shards"); None finds out.

    Raises:
        DataError: no folder, no annotations, or those of several formats.
    """
    if not folder.is_dir():
        raise DataError(f"expected a data folder, found nothing at {folder}")
    found = [x for x in LAYOUTS if any((folder / file).exists() for file in x.annotations.values())]
    names = [*(x.name for x in found), *([SHARDS] if (folder / "shards.json").exists() else [])]
    if name is not None:
        if name not in names:
            raise DataError(
                f"{folder}: expected annotations of {name}, found those of {' and '.join(names) or 'no format'}"
            )
        names = [name]
        found = [x for x in found if x.name == name]
    if not names:
        files = sorted({file for x in LAYOUTS for file in x.annotations.values()})
        raise DataError(
            f"expected {folder / 'train_reid.json'}, found none, nor any of {', '.join(files)}, shards.json; "
            f"make data with `tagclip synth crops {folder} --identities 1000` or `tagclip data build`"
        )
    if len(set(names)) > 1:
        raise DataError(
            f"{folder} holds annotations of {' and '.join(names)}; `tagclip data check` chooses with "
            f"--format {names[0]}; to train on one, write it to a folder of its own: "
            f"`tagclip data build OUT --from {names[0]} --source {folder}`"
        )
    if len(found) > 1:
        both = " and ".join(x.annotations["train"] for x in found)
        raise DataError(f"{folder} holds {both}; expected one of them, remove the other")
    if names == [SHARDS]:
        return _shards(folder)
    return [replace(found[0], folder=folder)]


def _shards(folder: Path) -> list[Layout]:
    path = folder / "shards.json"
    content = read_json(path)
    listed = content.get("shards") if isinstance(content, dict) else None
    if not isinstance(listed, list) or not listed:
        raise DataError(f'{path}: expected {{"shards": [names of sub-folders]}}, found {str(content)[:80]}')
    for k, name in enumerate(listed):
        checked_path(name, f"{path} shard {k}", folder)
        if Path(name) in map(Path, listed[:k]) or Path(name) == Path():
            raise DataError(f"{path} shard {k}: expected sub-folders, each once, found {name!r} again")
        if not any((folder / name / file).exists() for file in OWN.annotations.values()):
            raise DataError(f"{path} shard {k}: expected {folder / name / 'train_reid.json'}, found none")
    return [replace(OWN, folder=folder / name, shard=k, shards=len(listed)) for k, name in enumerate(listed)]


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        DataError: it is absent or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"expected {path}, found none") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from error


def read_rows(layout: Layout, split: str) -> Iterator[tuple[str, Any]]:
    """(where, row) of every row of a split; where is the file and the row's number from 0.

    Raises:
        DataError: no such split (the message says how to get one), no JSON, or a row whose split is none.
    """
    path = layout.file(split)
    if not path.exists():
        raise DataError(_no_split(layout, split, f"expected {path}, found none"))
    rows = read_json(path)
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{path}: expected a list of at least one image, found {type(rows).__name__}")
    found = False
    for k, row in enumerate(rows):
        where = f"{path} row {k}"
        if layout.rows_have_split and isinstance(row, dict):
            named = row.get("split")
            if not isinstance(named, str) or named.lower() not in SPLITS:
                raise DataError(f"{where}: split must be one of {', '.join(SPLITS)}, found {named!r}")
            if named.lower() != split:
                continue
        found = True
        yield where, row
    if not found:
        raise DataError(_no_split(layout, split, f"{path} has no row whose split is {split}"))


def has_split(layout: Layout, split: str) -> bool:
    """Whether the format's files hold this split at all.

    Raises:
        DataError: the one file of all splits cannot be read.
    """
    if not layout.rows_have_split or not layout.file(split).exists():
        return layout.file(split).exists()
    rows = read_json(layout.file(split))
    named = (r.get("split") for r in rows if isinstance(r, dict)) if isinstance(rows, list) else ()
    return any(isinstance(name, str) and name.lower() == split for name in named)


def _no_split(layout: Layout, split: str, what: str) -> str:
    if split == "val" and layout.shards == 1:
        return (
            f"{what}; the best epoch is chosen on val, so move some identities of train there: "
            f"`tagclip data build OUT --from {layout.name} --source {layout.folder} --val-identities 200`"
        )
    if layout.shards > 1:
        return f"{what}; every shard has the same splits"
    if layout.name == OWN.name:
        return f"{what}; make data with `tagclip synth crops {layout.folder} --identities 1000`"
    return f"{what}; the {layout.name} set comes with one, fetch it again"

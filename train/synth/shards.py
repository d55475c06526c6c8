"""Pictures with their annotations in tar files as WebDataset reads them: KEY.jpg, KEY.json, KEY.jpg, ...

Plain ustar without times and owners, so that the same content is the same bytes.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from tagclip.runtime.errors import DataError
from tagclip.runtime.files import write_atomic
from tagclip.train.datasets.picture import BATCH
from tagclip.train.datasets.sample import SPLITS
from tagclip.train.datasets.tar import scan

CROPS_PER_TAR = 1_000  # or as many as one person has

Row = dict[str, Any]


def row_json(row: Row) -> bytes:
    """An annotation as it is written everywhere."""
    return json.dumps(row, separators=(",", ":")).encode()


def packed(samples: Iterable[tuple[Row, bytes]]) -> bytes:
    """A tar of annotations with their JPEG files, in memory; keys are the file names of the annotations."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for row, picture in samples:
            _add(tar, row, picture)
    return whole.getvalue()


def unpacked(path: Path) -> Iterator[tuple[Row, bytes]]:
    """The samples of a file that `packed` or `TarSplits` made, one at a time.

    Raises:
        DataError: the file is missing, cut off or damaged.
    """
    places = scan(path)
    with open(path, "rb") as file:

        def read(name: str) -> bytes:
            offset, size = places[name]
            file.seek(offset)
            return file.read(size)

        try:
            for name in places:
                if name.endswith(".json"):
                    yield json.loads(read(name)), read(f"{Path(name).stem}.jpg")
        except (KeyError, ValueError, OSError) as error:
            raise DataError(f"broken tar: {path} holds no whole samples ({error}); make it again") from error


def gather(
    parts: Iterable[Path], folder: Path, people_per_tar: int | None, tick: Callable[[int], None]
) -> Iterator[tuple[str, Row]]:
    """Write the annotations and pictures of a data folder from its parts, a picture at a time.

    Args:
        parts: tars of `packed`, people in the order of their numbers and splits one after the other.
        folder: empty.
        people_per_tar: pictures go to tars of so many people; None writes each to a file.
        tick: called with the number of pictures written, now and then.

    Yields:
        split and annotation as they are written.

    Raises:
        DataError: a part is damaged.
        OSError: the folder cannot be written.
    """
    images, done = folder / "images", 0
    for split in SPLITS if people_per_tar is None else ("",):
        (images / split).mkdir(parents=True)
    with ExitStack() as stack:
        files = {s: stack.enter_context(open(folder / f"{s}_reid.json", "wb")) for s in SPLITS}
        begun = dict.fromkeys(SPLITS, b"[")
        tars = stack.enter_context(TarSplits(images, people_per_tar)) if people_per_tar else None
        for part in parts:
            for row, picture in unpacked(part):
                split = row["file_path"].partition("/")[0]
                if tars is None:
                    (images / row["file_path"]).write_bytes(picture)
                else:
                    tars.add(split, row, picture)
                files[split].write(begun[split] + row_json(row))
                begun[split] = b","
                done += 1
                if done % BATCH == 0:
                    tick(done)
                yield split, row
        for split, file in files.items():
            file.write(b"]" if begun[split] == b"," else b"[]")
    tick(done)


class TarSplits:
    """Writes samples to `images/train-000000.tar` and so on, a new tar after so many people of a split."""

    def __init__(self, images: Path, people_per_tar: int):
        self._images, self._limit = images, people_per_tar
        self._people = dict.fromkeys(SPLITS, 0)  # of each split, so far
        self._last: tuple[str, int] | None = None
        self._name = ""
        self._tar: tarfile.TarFile | None = None

    def __enter__(self) -> TarSplits:
        return self

    def add(self, split: str, row: Row, picture: bytes) -> None:
        """Append a sample; `file_path` of `row` becomes its path in the tar. A person's samples come in a row."""
        if self._last != (split, row["id"]):
            self._last = (split, row["id"])
            name = f"{split}-{self._people[split] // self._limit:06d}.tar"
            self._people[split] += 1
            if name != self._name or self._tar is None:
                self._close()
                self._name = name
                self._tar = tarfile.open(self._images / name, "x", format=tarfile.USTAR_FORMAT)
        assert self._tar is not None
        row["file_path"] = f"{self._name}/{Path(row['file_path']).name}"
        _add(self._tar, row, picture)

    def _close(self) -> None:
        if self._tar is not None:
            self._tar.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()


def describe_anew(tar: Path, rows: dict[str, Row]) -> None:
    """Replace the annotations in a tar, atomically.

    Args:
        rows: by key; all that the tar holds.

    Raises:
        DataError: the tar cannot be read, or a sample of it has no annotation.
        OutputError: the tar cannot be written.
    """
    samples = []
    for old, picture in unpacked(tar):
        key = Path(old["file_path"]).stem
        if key not in rows:
            raise DataError(f"{tar} holds {key}, which no annotation names; make the set again")
        samples.append((rows[key], picture))
    write_atomic(tar, packed(samples))


def _add(tar: tarfile.TarFile, row: Row, picture: bytes) -> None:
    key = Path(row["file_path"]).stem
    for name, data in ((f"{key}.jpg", picture), (f"{key}.json", row_json(row))):
        member = tarfile.TarInfo(name)  # mode 0644, time, user and group 0
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))

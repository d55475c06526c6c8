"""Captions for pictures that come without, from a file that maps paths to sentences."""

from __future__ import annotations

import csv
from pathlib import Path, PurePosixPath

from tagclip.runtime.errors import DataError
from tagclip.train.datasets.layout import read_json


def read_captions(path: Path) -> dict[str, tuple[str, ...]]:
    """Captions by picture.

    Args:
        path: JSON `{"path": "sentence"}` or `{"path": ["sentence", ...]}`, or CSV with the columns file_path and
            caption, a line a caption.

    Returns:
        captions by path, the paths in the form `a/b.jpg`.

    Raises:
        DataError: neither form; the message names the entry or line.
    """
    found = _from_csv(path) if path.suffix.lower() == ".csv" else _from_json(path)
    if not found:
        raise DataError(f"{path}: expected captions of at least one picture, found none")
    return {PurePosixPath(name).as_posix(): tuple(captions) for name, captions in found.items()}


def _from_json(path: Path) -> dict[str, list[str]]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise DataError(
            f'{path}: expected an object {{"path": ["sentence", ...]}}, found {type(content).__name__}'
        )
    found = {}
    for name, value in content.items():
        captions = [value] if isinstance(value, str) else value
        if not isinstance(captions, list) or not all(isinstance(c, str) and c.strip() for c in captions):
            raise DataError(f"{path} entry {name!r}: expected sentences, none empty, found {value!r}")
        found[name] = captions
    return {name: captions for name, captions in found.items() if captions}


def _from_csv(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if not {"file_path", "caption"} <= set(reader.fieldnames or ()):
                raise DataError(
                    f"{path} line 1: expected columns file_path,caption, found {reader.fieldnames}"
                )
            for row in reader:
                name, caption = row["file_path"], row["caption"]
                if not name or not caption or not caption.strip() or None in row:
                    raise DataError(
                        f"{path} line {reader.line_num}: expected file_path,caption, found {list(row.values())}"
                    )
                found.setdefault(name, []).append(caption)
    except FileNotFoundError as error:
        raise DataError(f"expected the captions {path}, found none") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}") from error
    return found

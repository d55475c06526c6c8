"""One annotated image, and how a row of an annotation file becomes one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from tagclip.runtime.errors import DataError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Sample:
    """One image: path, identity, view (0 aerial, 1 ground) and its captions (at least one).

    Attributes:
        elevation_deg: of the camera above the person's horizon, 0 from the side, 90 from straight above; None unknown.
        attributes, visible: the annotation's own, unread; attributes.py says what training takes from them.
        where: annotation file and row, for messages.
    """

    path: Path
    identity: int
    view: int
    captions: tuple[str, ...]
    elevation_deg: float | None = None
    attributes: Mapping[str, Any] | None = field(default=None, repr=False, hash=False)
    visible: Mapping[str, Any] | None = field(default=None, repr=False, hash=False)
    where: str = field(default="", repr=False, compare=False)


def sample_of(row: Any, images: Path, path_key: str, where: str) -> Sample:
    """The image that `row` describes.

    Args:
        row: an element of an annotation file, as JSON gives it.
        images: the folder that paths are relative to.
        path_key: the key that holds the path, `file_path` or `img_path`.
        where: file and row, for messages.

    Raises:
        DataError: a field that breaks the contract; the message begins with `where`.
    """
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected an object, found {type(row).__name__}")
    identity, captions = row.get("id"), row.get("captions")
    # A missing cam_id is a ground image: the classic ground-only sets have none.
    view, elevation = row.get("cam_id", 1), row.get("elevation_deg")
    path = checked_path(row.get(path_key), f"{where}: {path_key}", images)
    if type(identity) is not int:
        raise DataError(f"{where}: id must be a whole number, found {identity!r}")
    if type(view) is not int or view not in (0, 1):
        raise DataError(f"{where}: cam_id must be 0 (aerial) or 1 (ground), found {view!r}")
    if (
        not isinstance(captions, list)
        or not captions
        or not all(isinstance(c, str) and c.strip() for c in captions)
    ):
        raise DataError(
            f"{where}: captions must be a list of at least one sentence, none empty, found {captions!r}"
        )
    if elevation is not None and (type(elevation) not in (int, float) or not -90 <= elevation <= 90):
        raise DataError(f"{where}: elevation_deg must be -90 to 90 degrees, found {elevation!r}")
    return Sample(
        images / path,
        identity,
        view,
        tuple(captions),
        None if elevation is None else float(elevation),
        row.get("attributes"),
        row.get("visible"),
        where,
    )


def checked_path(value: Any, what: str, below: Path) -> str:
    """`value` if it is a relative path that stays below the folder `below`.

    Raises:
        DataError: it is not; the message begins with `what`.
    """
    if not isinstance(value, str) or not value:
        raise DataError(f"{what} must be a path below {below.name}/, found {value!r}")
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts or "\0" in value:
        raise DataError(f"{what} must stay below {below.name}/, found {value!r}")
    return value

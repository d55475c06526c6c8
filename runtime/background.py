"""The yardstick of alerts: how people look who are nobody's target, as vectors of the bundle's encoders, view by view.

`background.npz`, in the bundle, beside the one that ships, or of a site: `{view}_one` and `{view}_many`, int8 (N, D):
row k of both is the same person, seen in one picture and as the mean of several; only the direction of a row counts.
Also `encoder_id`, `source`, and how many people an hour passed there.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.bundle import Bundle, shipped_bundle_path
from tagclip.runtime.errors import BackgroundError
from tagclip.runtime.files import write_atomic

BACKGROUND = "background.npz"
UNKNOWN = "unknown"
SETS = ("aerial", "ground", UNKNOWN)  # as `StoredTrack.view`
LEAST_PEOPLE = 50
MOST_BYTES = 256 << 20

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class People:
    """Of one view.

    Attributes:
        one, many: float32 (N, D) unit rows: each person by one picture, and by several.
    """

    one: Floats
    many: Floats


@dataclass(frozen=True)
class Background:
    """What was measured where nobody was looked for.

    Attributes:
        encoder_id: of the bundle that made the vectors.
        source: what the people are, for reading.
        views: by the names of SETS, those that were measured.
        people_per_hour: that pass the camera; None when it is not known, as of people who were drawn.
    """

    encoder_id: str
    source: str
    views: dict[str, People]
    people_per_hour: float | None = None

    def of(self, view: str) -> People:
        """The people of a view. Raises: BackgroundError, it was not measured."""
        if view not in self.views:
            raise BackgroundError(
                f"the background has no people of view {view!r}, it has {', '.join(self.views)}; "
                "name --view, or run `tagclip calibrate` with footage of this view"
            )
        return self.views[view]


def pack(background: Background) -> bytes:
    """The bytes of `background.npz`, the same for the same background."""
    arrays: dict[str, NDArray[np.generic]] = {
        "encoder_id": np.array(background.encoder_id),
        "source": np.array(background.source),
        "people_per_hour": np.array(
            np.nan if background.people_per_hour is None else background.people_per_hour
        ),
    }
    for view, people in background.views.items():
        for name, rows in (("one", people.one), ("many", people.many)):
            largest = np.maximum(np.abs(rows).max(1, keepdims=True), 1e-12)
            arrays[f"{view}_{name}"] = np.rint(rows / largest * 127).astype(np.int8)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(arrays):
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asanyarray(arrays[name]), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), member.getvalue())
    return file.getvalue()


def unpack(data: bytes, name: str) -> Background:
    """The background in the bytes of the file `name`.

    Raises:
        BackgroundError: they are none.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(member.file_size for member in archive.infolist()) > MOST_BYTES:
                raise BackgroundError(
                    f"{name}: over {MOST_BYTES >> 20} MiB unpacked; make it of fewer people"
                )
        arrays = np.load(io.BytesIO(data), allow_pickle=False)
        views = {
            view: People(_rows(arrays[f"{view}_one"]), _rows(arrays[f"{view}_many"]))
            for view in SETS
            if f"{view}_one" in arrays
        }
        encoder_id, source, rate = (arrays[key].item() for key in ("encoder_id", "source", "people_per_hour"))
    except (
        OSError,
        ValueError,
        KeyError,
        EOFError,
        TypeError,
        AttributeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise BackgroundError(f"{name} is no background: {error}; `tagclip calibrate` makes one") from error
    dims = {rows.shape for people in views.values() for rows in (people.one, people.many)}
    if not views or not isinstance(encoder_id, str) or len({shape[1] for shape in dims}) != 1:
        raise BackgroundError(
            f"{name} is no background: its arrays do not fit together; `tagclip calibrate` makes one"
        )
    for view, people in views.items():
        if people.one.shape != people.many.shape or len(people.one) < LEAST_PEOPLE:
            raise BackgroundError(
                f"{name}: expected {LEAST_PEOPLE} people or more of view {view}, in as many rows of both kinds, found "
                f"{len(people.one)} and {len(people.many)}; make it of more footage"
            )
    return Background(encoder_id, str(source), views, None if np.isnan(rate) else float(rate))


def _rows(codes: NDArray[np.generic]) -> Floats:
    if codes.dtype != np.int8 or codes.ndim != 2:
        raise ValueError(f"expected int8 (N, D), found {codes.dtype} {codes.shape}")
    rows = codes.astype(np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if not (norms > 0).all():
        raise ValueError("a row is zero")
    return np.asarray(rows / norms, np.float32)


def read_background(bundle: Bundle, path: Path | None) -> Background:
    """The background of a site's file; without one the bundle's own, or the one that ships, if its encoder is the same.

    Raises:
        BackgroundError: there is none, it is damaged, or another encoder made it.
        BundleIntegrityError: the bundle was changed meanwhile.
    """
    if path is None and bundle.has(BACKGROUND):
        return _of(bundle, unpack(bundle.read_file(BACKGROUND), f"{bundle.path / BACKGROUND}"), BACKGROUND)
    if path is None:
        shipped = shipped_bundle_path().parent / BACKGROUND
        found = unpack(shipped.read_bytes(), str(shipped)) if shipped.is_file() else None
        if found is None or found.encoder_id != bundle.encoder_id:
            raise BackgroundError(
                f"{bundle.path} has no {BACKGROUND}, so scores have no meaning in it; make one: `tagclip calibrate "
                "BUNDLE --background VIDEO`, and name it with --background"
            )
        return found
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BackgroundError(f"{path}: over {MOST_BYTES >> 20} MiB; make it of fewer people")
        data = path.read_bytes()
    except OSError as error:
        raise BackgroundError(
            f"cannot read {path}: {error.strerror}; `tagclip calibrate` makes one"
        ) from error
    return _of(bundle, unpack(data, str(path)), str(path))


def _of(bundle: Bundle, found: Background, name: str) -> Background:
    if found.encoder_id != bundle.encoder_id:
        raise BackgroundError(
            f"{name} was made by encoder {found.encoder_id}, the bundle's is {bundle.encoder_id}; make it again with "
            "`tagclip calibrate`"
        )
    return found


def write_background(path: Path, background: Background) -> None:
    """Write a site's file. Raises: OutputError."""
    write_atomic(path, pack(background))

"""What people decided at the station, as annotations for training: see docs/out.md."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tagclip.runtime.errors import QueryError, StoreError
from tagclip.runtime.files import folder_atomic
from tagclip.runtime.hit import CONFIRMED, REJECTED
from tagclip.runtime.picture_key import PictureKeys, opened
from tagclip.runtime.station.audit import record
from tagclip.runtime.station.database import Database
from tagclip.runtime.station.tracks import owner_of
from tagclip.runtime.terms import parse_terms
from tagclip.runtime.views import VIEWS

SPLITS = ("train", "val", "test")


@dataclass
class Written:
    """How many pictures, tracks and negatives; and decided hits that were left out, by reason."""

    positives: int = 0
    identities: int = 0
    negatives: int = 0
    without_picture: int = 0
    without_view: int = 0
    broken: int = 0
    splits: dict[str, int] = field(default_factory=dict)  # pictures, of `positives`


def write_annotations(
    database: Database,
    keys: PictureKeys | None,
    out: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Written:
    """Make the folder `out`: `*_reid.json` with pictures below `images/`, `negatives.json` with `negatives/`.

    A track's id alone says its split, about eight in ten train: later exports of the same records never move one.
    A split that nobody is in has no file.

    Args:
        progress: called with pictures done and all.

    Raises:
        OutputError: `out` is there and not empty, or cannot be written.
        KeyFileError: the pictures are encrypted, and their key is not among `keys`.
        StoreError: nobody confirmed a hit that can be used, or a picture is damaged. Nothing was written.
    """
    with database.read() as connection:
        decided = connection.execute(
            "SELECT id, device FROM hits WHERE review IN (?, ?) ORDER BY place", (CONFIRMED, REJECTED)
        ).fetchall()
    written = Written()
    ids: dict[str, int] = {}  # of tracks, whole numbers from 0 in the order in which they come
    positives: list[dict[str, Any]] = []
    negatives: list[dict[str, Any]] = []
    with folder_atomic(out) as folder:
        folder.chmod(0o700)  # pictures of people
        (folder / "images").mkdir()
        (folder / "negatives").mkdir()
        for number, (id_, device) in enumerate(decided):
            row = _read(database, id_, device, keys, written)
            progress(number + 1, len(decided))
            if row is None:
                continue
            hit, jpeg = row
            confirmed = hit["review"] == CONFIRMED
            name = f"{id_}.jpg"
            (folder / ("images" if confirmed else "negatives") / name).write_bytes(jpeg)
            facts = {
                "file_path": name,
                "id": ids.setdefault(hit["track_id"], len(ids)),
                "cam_id": VIEWS.index(hit["view"]),
            }
            source = f"station hit {id_}, track {hit['track_id']}"
            (positives if confirmed else negatives).append(
                {**facts, "captions": captions(hit["query"]), "source": source}
            )
        _share(positives)
        written.positives, written.negatives = len(positives), len(negatives)
        written.identities = len({row["id"] for row in positives})
        if not positives:
            raise StoreError(
                "nobody confirmed a hit that has a picture and was seen from the air or the ground; "
                "confirm hits on the station's page first"
            )
        splits = {number: split_of(track) for track, number in ids.items()}
        for split in SPLITS:
            rows = [row for row in positives if splits[row["id"]] == split]
            written.splits[split] = len(rows)
            if rows:
                _write(folder / f"{split}_reid.json", rows)
        _write(folder / "negatives.json", negatives)
        # Before the folder takes its name: no picture leaves the records without a line in the log.
        with database.write() as connection:
            record(
                connection,
                "console",
                "hits.annotations",
                positives=written.positives,
                negatives=written.negatives,
                out=str(out),
            )
    return written


def captions(query: str) -> list[str]:
    """What a query says that somebody is: its positive terms, each a caption."""
    try:
        found = [term.text for term in parse_terms(query) if term.weight > 0]
    except QueryError:  # of a station or a device of before
        found = []
    return list(dict.fromkeys(found)) or [query.strip() or "person"]


def split_of(track_id: str) -> str:
    """One of SPLITS."""
    return {0: "val", 1: "test"}.get(hashlib.sha256(track_id.encode()).digest()[0] % 10, "train")


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="ascii")


def _share(rows: list[dict[str, Any]]) -> None:
    """Give all pictures of an identity every caption that was confirmed of it."""
    said: dict[int, dict[str, None]] = {}
    for row in rows:
        said.setdefault(row["id"], {}).update(dict.fromkeys(row["captions"]))
    for row in rows:
        row["captions"] = list(said[row["id"]])


def _read(
    database: Database, id_: str, device: str, keys: PictureKeys | None, written: Written
) -> tuple[dict[str, Any], bytes] | None:
    """The hit and its JPEG; None, counted, when it cannot be used, or was deleted or undone meanwhile."""
    import cv2
    import numpy as np

    with database.read() as connection:
        found = connection.execute("SELECT document, review FROM hits WHERE id = ?", (id_,)).fetchone()
        picture = connection.execute(
            "SELECT jpeg FROM pictures WHERE hit_id = ? AND device = ?", (id_, device)
        ).fetchone()
    if found is None or found[1] not in (CONFIRMED, REJECTED):
        return None
    hit = {**json.loads(found[0]), "review": found[1]}
    if picture is None:
        written.without_picture += 1
        return None
    if hit["view"] not in VIEWS:
        written.without_view += 1
        return None
    jpeg = opened(bytes(picture[0]), owner_of(id_, device), keys, f"hit {id_}")
    if cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR) is None:
        written.broken += 1
        return None
    return hit, jpeg

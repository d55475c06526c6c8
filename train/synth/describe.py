"""A local model's captions for a folder of `tagclip synth crops`, less what contradicts the truth."""

from __future__ import annotations

import json
import os
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tagclip.runtime.errors import DataError, OutputError
from tagclip.runtime.files import write_atomic
from tagclip.train.datasets.layout import read_json
from tagclip.train.datasets.picture import decode
from tagclip.train.datasets.sample import SPLITS, checked_path
from tagclip.train.synth.appearance import from_json
from tagclip.train.synth.contradict import REASONS, contradiction
from tagclip.train.synth.shards import Row
from tagclip.train.synth.vlm import STYLES, Describer, LocalModel, check_model, clean

CAPTIONS = "vlm_captions.json"
PROGRESS = "vlm_progress.json"
SAVE_EVERY = 200  # pictures


def describe_folder(
    folder: Path,
    model: Path,
    count: int = 1,
    seed: int = 0,
    tick: Callable[[int, int], None] = lambda done, total: None,
    *,
    load: Callable[[Path], Describer] = LocalModel,
) -> dict[str, int]:
    """Write captions that contradict nothing to `vlm_captions.json` in a folder of `tagclip synth crops`.

    The annotations stay as they are. Every SAVE_EVERY pictures what is done is saved, and the same call goes on there.

    Args:
        model: folder of the model.
        count: how often each picture is described, 1 or more.
        seed: of styles and words.
        tick: called with (pictures done, all pictures).
        load: makes the Describer; not called when nothing is left to do.

    Returns:
        number of answers by "accepted", "repeated" and every reason of `contradict.REASONS`; they sum to pictures times
        `count`.

    Raises:
        DataError: annotations or a picture are missing, damaged, or not of `tagclip synth crops`.
        OutputError: the folder cannot be written, or an earlier run in it had other settings.
        ConfigError, MissingExtraError: as in `LocalModel`.
    """
    check_model(model)
    rows = [row for split in SPLITS for row in _rows(folder, split)]
    known = json.dumps([[row["file_path"], row["attributes"], row["visible"]] for row in rows])
    settings = {
        "model": os.path.abspath(model),
        "captions": count,
        "seed": seed,
        "pictures": len(rows),
        "checksum": zlib.crc32(known.encode()),
    }
    done, counts, found = _resumed(folder, settings, rows)
    tick(done, len(rows))
    if done == len(rows):
        return _table(counts)
    describer = load(model)

    def save() -> None:
        # In this order: a kill between the two costs some pictures' time, and they come out the same.
        write_atomic(folder / CAPTIONS, json.dumps(found, indent=0).encode())
        write_atomic(folder / PROGRESS, json.dumps({**settings, "done": done, "counts": counts}).encode())

    try:
        for row in rows[done:]:
            texts, outcomes = _describe(folder, row, describer, count, seed)
            counts.update(outcomes)
            if texts:
                found[row["file_path"]] = texts
            done += 1
            if done % SAVE_EVERY == 0:
                save()
            tick(done, len(rows))
    finally:  # Ctrl-C and a broken picture cost nothing
        save()
    return _table(counts)


def _describe(
    folder: Path, row: Row, describer: Describer, count: int, seed: int
) -> tuple[list[str], list[str]]:
    """The captions of a picture that are accepted, and what became of each answer."""
    image = np.ascontiguousarray(decode(folder / "images" / row["file_path"])[0][..., ::-1])
    who = from_json(row["attributes"])
    rng = np.random.default_rng([seed, zlib.crc32(row["file_path"].encode())])
    texts: list[str] = []
    outcomes: list[str] = []
    for _ in range(count):
        style = STYLES[int(rng.integers(len(STYLES)))]
        text = clean(describer(image, style, int(rng.integers(2**31))))
        wrong = contradiction(text, who, row["visible"])
        repeated = text.lower() in (other.lower() for other in texts)
        outcomes.append(wrong.reason if wrong else "repeated" if repeated else "accepted")
        if not wrong and not repeated:
            texts.append(text)
    return texts, outcomes


def _rows(folder: Path, split: str) -> list[Row]:
    path = folder / f"{split}_reid.json"
    rows = read_json(path)
    try:
        for k, row in enumerate(rows):
            checked_path(row["file_path"], f"{path} row {k}: file_path", folder / "images")
            from_json(row["attributes"])
            if not all(isinstance(share, (int, float)) for share in row["visible"].values()):
                raise TypeError(f"visible of row {k} has shares that are no numbers")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path}: expected attributes and visible as `tagclip synth crops` writes them ({error!r}); other folders "
            "hold no truth to check captions with"
        ) from error
    return list(rows)


def _resumed(
    folder: Path, settings: Mapping[str, Any], rows: list[Row]
) -> tuple[int, Counter[str], dict[str, list[str]]]:
    """How many pictures are done, the answers to them by outcome, and the captions that were accepted."""
    progress, captions = folder / PROGRESS, folder / CAPTIONS
    way_out = f"remove {progress} and {captions} to begin anew"
    if not progress.exists():
        return 0, Counter(), {}  # captions alone: a kill between the first two files
    try:
        state, found = read_json(progress), read_json(captions)
        others = [f"{k} {state.get(k)} (now {v})" for k, v in settings.items() if state.get(k) != v]
        done = 0 if others else int(state["done"])
        counts = Counter[str]({} if others else {str(k): int(n) for k, n in state["counts"].items()})
        kept = {row["file_path"]: found[row["file_path"]] for row in rows[:done] if row["file_path"] in found}
    except (DataError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise OutputError(
            f"what an earlier run left in {folder} cannot be read ({error}); {way_out}"
        ) from error
    if others:
        raise OutputError(f"an earlier run in {folder} had other settings: {', '.join(others)}; {way_out}")
    return done, counts, kept


def _table(counts: Mapping[str, int]) -> dict[str, int]:
    return {key: counts.get(key, 0) for key in ("accepted", "repeated", *REASONS)}

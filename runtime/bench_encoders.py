"""Encoders beside one another on the same crops: every round times each of them once, so that heat and neighbours
meet all alike."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.errors import MissingExtraError

OURS = "ours"
RIVALS = ("open_clip", "onnxruntime", "openvino")
CALLS = 3  # timed in a row, at least; the median of them is the round's
BLOCK_NS = 300_000_000  # and for so long, so that what is quick is not met by one lucky or unlucky moment
PAUSE_S = 0.1  # in which the threads of the one before stop waiting for work

Image = NDArray[np.uint8]
Embed = Callable[[Sequence[Image]], Any]


def load_rivals(names: Sequence[str]) -> dict[str, Any]:
    """What `tagclip.export.rivals.build` gives. A device has none of what they need, so it is looked for only now.

    Raises:
        MissingExtraError: PyTorch, open_clip or the exporter is not installed.
        ConfigError: no such name.
    """
    if not names:
        return {}
    try:
        # By its name, as the table of commands does: the device's parts do not depend on it.
        built: dict[str, Any] = importlib.import_module("tagclip.export.rivals").build(names)
    except ImportError as error:
        raise MissingExtraError(
            f"{error.name or error} is not installed; --against needs: pip install 'tagclip[bench]'"
        ) from error
    return built


def compare(
    encoders: Mapping[str, Embed], crops: Sequence[Image], batches: Sequence[int], rounds: int
) -> list[dict[str, Any]]:
    """Time encoders on the first crops of a list, which is repeated where a batch is larger.

    Args:
        encoders: name -> what embeds RGB uint8 (h, w, 3) of any size, from these bytes to vectors.
        batches: how many crops at a time.
        rounds: that count; one goes before.

    Returns:
        For each batch {"batch", "times_ns": {name: [[its times] of each round]}}.
    """
    rows = []
    for batch in batches:
        given = [crops[k % len(crops)] for k in range(batch)]
        times: dict[str, list[list[int]]] = {name: [] for name in encoders}
        for number in range(rounds + 1):
            for name, embed in encoders.items():
                time.sleep(PAUSE_S if len(encoders) > 1 else 0.0)
                embed(given)  # its weights come back into the caches
                taken = _block(embed, given)
                if number:
                    times[name].append(taken)
        rows.append({"batch": batch, "times_ns": times})
    return rows


def _block(embed: Embed, crops: Sequence[Image]) -> list[int]:
    taken: list[int] = []
    while len(taken) < CALLS or sum(taken) < BLOCK_NS:
        taken.append(_timed(embed, crops))
    return taken


def _timed(embed: Embed, crops: Sequence[Image]) -> int:
    begun = time.perf_counter_ns()
    embed(crops)
    return time.perf_counter_ns() - begun

"""The gate: what the exported graphs find, against what the checkpoint finds, view by view; and who is to blame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.bundle_manifest import TEXT, image_tower
from tagclip.runtime.errors import ParityError
from tagclip.runtime.ranking import Ids, Vectors
from tagclip.runtime.views import UNIVERSAL, VIEWS
from tagclip.train.evaluate import Retrieval, by_view

BUDGET = ("r1", "map")
TOP = 10


@dataclass(frozen=True)
class Labels:
    """Who is on which picture of the split that the gate measures.

    Attributes:
        owner: (C,) the picture that each caption was written for.
        identity, view: (N,) of the pictures; 0 aerial, 1 ground.
    """

    owner: Ids
    identity: Ids
    view: Ids

    def retrieval(self, texts: Vectors, images: Vectors) -> dict[str, Retrieval]:
        """Metrics of unit rows (C, D) and (N, D) per gallery."""
        return by_view(texts, images, self.identity[self.owner], self.identity, self.view)


@dataclass(frozen=True)
class Side:
    """What one side, checkpoint or bundle, made of the split: tower -> unit rows of all its inputs.

    Attributes:
        towers: "text" -> (C, D); "image-aerial", "image-ground", "image-universal" -> (N, D), where they are.
    """

    towers: Mapping[str, Vectors]

    def images(self, labels: Labels) -> Vectors:
        """(N, D): each picture by the specialist of its view, else by the universal tower, else by the only one."""
        own = [image_tower(view) for view in VIEWS]
        others = [name for name in (image_tower(UNIVERSAL), *own) if name in self.towers]
        aerial, ground = (self.towers[name if name in self.towers else others[0]] for name in own)
        return np.where((labels.view == 0)[:, None], aerial, ground)

    def retrieval(self, labels: Labels) -> dict[str, Retrieval]:
        """Metrics per gallery, pictures as in `images`."""
        return labels.retrieval(self.towers[TEXT], self.images(labels))


def drop(before: Mapping[str, Retrieval], after: Mapping[str, Retrieval]) -> float:
    """The most points that R@1 or mAP of a gallery fell; negative when all rose."""
    return max(before[g][m] - after[g][m] for g in before for m in BUDGET)  # type: ignore[literal-required]


def agreement(
    texts: Vectors, images: Vectors, other_texts: Vectors, other_images: Vectors
) -> dict[str, float]:
    """How far two sides rank alike: share of captions with the same first picture, and of the first ten in common."""
    same, common = 0, 0.0
    count = min(TOP, len(images))
    for k in range(0, len(texts), 256):
        ours = _first(texts[k : k + 256], images, count)
        theirs = _first(other_texts[k : k + 256], other_images, count)
        same += int((ours[:, 0] == theirs[:, 0]).sum())
        common += (
            sum(len(set(a) & set(b)) for a, b in zip(ours.tolist(), theirs.tolist(), strict=True)) / count
        )
    return {"same_first": same / len(texts), "same_of_first_10": common / len(texts)}


def _first(texts: Vectors, images: Vectors, count: int) -> NDArray[np.int64]:
    return np.argsort(-(texts @ images.T), axis=1, kind="stable")[:, :count]


def check(
    labels: Labels,
    checkpoint: Side,
    bundle: Side,
    max_drop: float,
    worst_layer: Mapping[str, str],
) -> dict[str, Any]:
    """Compare both sides and refuse what costs too much.

    Args:
        max_drop: points of R@1 and of mAP that a gallery may lose.
        worst_layer: tower -> its layer with the largest error, for the message.

    Returns:
        `checkpoint`, `retrieval` (per gallery), `drop` (points), `agreement`, and with a universal tower `universal`.

    Raises:
        ParityError: a gallery lost more; the message names it and the tower (and layer) that costs most.
    """
    texts, other = bundle.towers[TEXT], checkpoint.towers[TEXT]
    pairs = [("retrieval", checkpoint.images(labels), bundle.images(labels))]
    if image_tower(UNIVERSAL) in bundle.towers and len(bundle.towers) > 2:
        name = image_tower(UNIVERSAL)
        pairs.append(("universal", checkpoint.towers[name], bundle.towers[name]))
    report: dict[str, Any] = {}
    for key, expected, got in pairs:
        before, after = labels.retrieval(other, expected), labels.retrieval(texts, got)
        for gallery, row in before.items():
            for metric in BUDGET:
                lost = row[metric] - after[gallery][metric]  # type: ignore[literal-required]
                if lost > max_drop:
                    raise ParityError(
                        f"{gallery}: {metric} fell from {row[metric]:.2f} to {after[gallery][metric]:.2f}, "  # type: ignore[literal-required]
                        f"more than {max_drop:g} points; {_blame(labels, checkpoint, bundle, worst_layer)}; "
                        "nothing was written"
                    )
        if key == "retrieval":
            report |= {"checkpoint": before, "drop": drop(before, after)}
            report["agreement"] = agreement(texts, got, other, expected)
        report[key] = after
    return report


def _blame(labels: Labels, checkpoint: Side, bundle: Side, worst_layer: Mapping[str, str]) -> str:
    """The tower that costs most when it alone is the bundle's."""
    before = checkpoint.retrieval(labels)
    costs = {
        tower: drop(before, Side({**checkpoint.towers, tower: vectors}).retrieval(labels))
        for tower, vectors in bundle.towers.items()
    }
    worst = max(costs, key=costs.__getitem__)
    layer = f", where {worst_layer[worst]} errs most" if worst in worst_layer else ""
    return f"{worst} alone costs {max(costs[worst], 0):.2f}{layer}"

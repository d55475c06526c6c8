"""What a set of synthetic people consists of, in numbers, counted one annotation after the other.

Attributes are read as they come, see `fields`; named are only the few that are set against each other.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.errors import DataError
from tagclip.runtime.views import VIEWS
from tagclip.train.datasets.sample import SPLITS, Sample
from tagclip.train.synth.fields import ABSENT, Fields, Found, leaves, ordered, percent
from tagclip.train.synth.palette import to_lab

SKIN = "skin_rgb"
# Combinations that are counted: usual ones should be common, and odd ones should occur.
COMBINED = (
    ("top.kind", "bottom.kind", "top.pattern"),
    ("top.kind", "bottom.kind"),
    ("top.rgb", "bottom.rgb"),
)
RARE = 5  # people; a combination that fewer have is rare
GROUPS = ("gender", "age", "build")  # and the skin's lightness
CLOTHES = ("top.rgb", "bottom.rgb")
LIGHTNESS = (26, 42, 58, 74)  # of skin, CIELAB L 0..100; what divides the five bands, which are 16 wide
SHUFFLES = 200

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


def bands(values: Sequence[float] | NDArray[np.float64], edges: Sequence[int]) -> dict[str, int]:
    """How many values lie in each band; an edge belongs to the band above it."""
    names = band_names(edges)
    counts = np.bincount(np.digitize(values, edges), minlength=len(names))
    return {name: int(n) for name, n in zip(names, counts, strict=True)}


def band_names(edges: Sequence[int]) -> list[str]:
    """Such as "under 24", "24 to 48", "48 and more"."""
    inner = [f"{a} to {b}" for a, b in zip(edges, edges[1:], strict=False)]
    return [f"under {edges[0]}", *inner, f"{edges[-1]} and more"]


def combination(fields: Fields, paths: Sequence[str]) -> dict[str, Any]:
    """How many combinations of some fields occur, and how rare they are."""
    columns = [fields.of_people(path) for path in paths]
    counts = np.array(list(Counter(zip(*columns, strict=True)).values()))
    share = counts / counts.sum()
    return {
        "fields": list(paths),
        "seen": len(counts),
        "possible": math.prod(len(set(column)) for column in columns),
        "entropy_bits": round(float(-(share * np.log2(share)).sum()) + 0.0, 2),
        "rare_percent": percent(int((counts < RARE).sum()), len(counts)),
        "people_with_rare_percent": percent(int(counts[counts < RARE].sum()), int(counts.sum())),
    }


def independence(group: Sequence[str], colour: Sequence[str]) -> dict[str, float]:
    """How far a garment's colour tells the group of who wears it.

    Args:
        group, colour: of each person; people without the garment count for nothing.

    Returns:
        bits: mutual information; points: the largest difference between two groups in the share of one colour, in
        percentage points. `by_chance` are the values that 19 in 20 random assignments of the same colours to the same
        people stay below: few people differ by chance.
    """
    worn = np.array([c != ABSENT for c in colour])
    rows, columns = (np.unique(np.array(x)[worn], return_inverse=True)[1] for x in (group, colour))
    found = _dependence(rows, columns)
    rng = np.random.default_rng(0)
    chance = [_dependence(rows, rng.permutation(columns)) for _ in range(SHUFFLES)]
    bits, points = np.quantile(chance, 0.95, axis=0)
    return {
        "bits": round(found[0], 4),
        "bits_by_chance": round(float(bits), 4),
        "points": round(found[1], 2),
        "points_by_chance": round(float(points), 2),
    }


def _dependence(rows: NDArray[np.intp], columns: NDArray[np.intp]) -> tuple[float, float]:
    if not len(rows):
        return 0.0, 0.0
    width = columns.max() + 1
    counts = np.bincount(rows * width + columns, minlength=(rows.max() + 1) * width).reshape(-1, width)
    joint = counts / counts.sum()
    apart = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    there = joint > 0
    bits = float((joint[there] * np.log2(joint[there] / apart[there])).sum())
    shares = counts / counts.sum(1, keepdims=True)
    return max(0.0, bits), float(100 * np.ptp(shares, axis=0).max())


class Survey:
    """Counts everything that annotations tell, one row at a time; `numbers` at the end."""

    def __init__(self) -> None:
        self._fields = Fields()
        self._splits = {split: Counter[str]() for split in SPLITS}
        self._people: dict[str, set[int]] = {split: set() for split in SPLITS}
        self._words, self._lengths = Counter[str](), Counter[int]()
        self._elevations: dict[str, Counter[float]] = {view: Counter() for view in VIEWS}
        self._showing: dict[str, Counter[str]] = {view: Counter() for view in VIEWS}
        self._shown: dict[str, defaultdict[str, float]] = {view: defaultdict(float) for view in VIEWS}

    def add(self, split: str, sample: Sample) -> None:
        """Count one annotation.

        Raises:
            DataError: it lacks what `tagclip synth crops` writes, or has it in another form.
        """
        found, visible, elevation_deg = _checked(sample)
        view = VIEWS[sample.view]
        self._fields.add(sample.identity, found)
        self._people[split].add(sample.identity)
        captions = [_WORD.findall(caption.lower()) for caption in sample.captions]
        self._words.update(word for words in captions for word in words)
        lengths = [len(words) for words in captions]
        self._lengths.update(lengths)
        self._splits[split].update({"images": 1, "captions": len(lengths), "words": sum(lengths), view: 1})
        self._elevations[view][elevation_deg] += 1
        for part, share in visible.items():
            if share > 0:
                self._showing[view][part] += 1
                self._shown[view][part] += share

    def numbers(self) -> dict[str, Any]:
        """The part of the card that annotations tell. Values in percent have `percent` in their name."""
        shares = self._fields.shares()
        del shares["colours"][SKIN]  # a basic name says little of skin; `_groups` has its lightness
        attributes = shares["attributes"].values()
        return {
            "splits": {
                split: {"images": counts["images"], "people": len(self._people[split])}
                | {key: counts[key] for key in (*VIEWS, "captions", "words")}
                for split, counts in self._splits.items()
            },
            "attribute_values": sum(row["values"] for row in attributes),
            "attribute_fields": sum(row["values"] > 0 for row in attributes),
            "colour_values": sum(len(row["percent_of_having"]) for row in shares["colours"].values()),
            **shares,
            "combinations": [combination(self._fields, paths) for paths in COMBINED],
            "elevation_deg": _tens(self._elevations),
            "visible": self._visible(),
            "captions": self._captions(),
            "people": self._groups(),
        }

    def _visible(self) -> dict[str, dict[str, dict[str, float]]]:
        images = {view: sum(counts.values()) for view, counts in self._elevations.items()}
        return {
            part: {
                view: {
                    "showing_percent": percent(self._showing[view][part], images[view]),
                    "mean_percent": percent(self._shown[view][part], self._showing[view][part]),
                }
                for view in VIEWS
            }
            for part in sorted({part for counts in self._showing.values() for part in counts})
        }

    def _captions(self) -> dict[str, Any]:
        lengths = np.repeat(list(self._lengths), list(self._lengths.values()))
        low, median, most, high = np.percentile(lengths, (0, 50, 90, 100), method="lower").tolist()
        return {
            "words": {
                "shortest": low,
                "mean": round(float(lengths.mean()), 1),
                "median": median,
                "nine_in_ten_up_to": most,
                "longest": high,
            },
            "distinct_words": len(self._words),
            "words_used_once": sum(n == 1 for n in self._words.values()),
        }

    def _groups(self) -> dict[str, Any]:
        rgb = [next(iter(person[SKIN])).value for person in self._fields.people.values()]
        lightness = to_lab(rgb)[:, 0]
        names = np.array(band_names(LIGHTNESS))[np.digitize(lightness, LIGHTNESS)].tolist()
        groups = {"skin lightness": names} | {path: self._fields.of_people(path) for path in GROUPS}
        skin = {band: percent(n, len(lightness)) for band, n in bands(lightness, LIGHTNESS).items()}
        others = {path: ordered(Counter(groups[path]), len(lightness)) for path in GROUPS}
        return {
            "percent": {"skin lightness": skin} | others,
            "independence": {
                clothes: {
                    name: independence(group, self._fields.of_people(clothes))
                    for name, group in groups.items()
                }
                for clothes in CLOTHES
            },
        }


def _tens(by_view: Mapping[str, Counter[float]]) -> dict[str, dict[str, Any]]:
    """Lowest and highest elevation of each view, and how many pictures there are in each ten degrees of all views."""
    lows = {
        view: Counter(math.floor(value / 10) * 10 for value in counts.elements())
        for view, counts in by_view.items()
    }
    every = sorted(set().union(*lows.values()))
    return {
        view: {
            "lowest": min(counts, default=None),
            "highest": max(counts, default=None),
            "images": {
                f"{low} to {low + 10}": lows[view][low] for low in range(every[0], every[-1] + 10, 10)
            },
        }
        for view, counts in by_view.items()
    }


def _checked(sample: Sample) -> tuple[Found, dict[str, float], float]:
    """Values, visible and elevation of a row, of which what is named here is as `synth crops` writes it."""
    attributes, visible, where = sample.attributes, sample.visible, sample.where
    if not isinstance(attributes, dict) or not isinstance(visible, dict) or sample.elevation_deg is None:
        raise DataError(
            f"{where}: expected elevation_deg, attributes and visible; only a folder of `tagclip synth crops` "
            "has them, and a card"
        )
    if not all(type(share) in (int, float) and 0 <= share <= 1 for share in visible.values()):
        raise DataError(f"{where}: visible must be shares from 0 to 1, found {str(visible)[:200]}")
    found = list(leaves(attributes, where))
    kinds = {path: leaf.kind for path, leaf in found if leaf is not None}
    wanted = {SKIN: "colour", "top.rgb": "colour", "top.kind": "text"} | dict.fromkeys(GROUPS, "text")
    for path, kind in wanted.items():
        if kinds.get(path) != kind:
            raise DataError(
                f"{where}: attributes {path} must be a {kind}, as `tagclip synth crops` writes it, found "
                f"{kinds.get(path, 'none')}"
            )
    return found, visible, sample.elevation_deg

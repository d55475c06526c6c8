"""What the file names of the public sets say: who is shown, and from where.

The sets name their files in different ways, and each of these patterns fits one of them only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from tagclip.runtime.errors import DataError

AERIAL, GROUND = 0, 1


@dataclass(frozen=True)
class Shown:
    """Who a file shows: the identity's key within its set, and the view; or why the file is left out."""

    key: str
    view: int
    left_out: str | None = None


@dataclass(frozen=True)
class Rule:
    """How one set names its files.

    Attributes:
        patterns: of the whole file name, each with what it says; `example` is shown when none fits.
        folders: the set's own top folders; where one of them exists, only these are read (the rest are copies).
    """

    patterns: Mapping[str, Callable[[re.Match[str], PurePosixPath], Shown]]
    example: str
    folders: tuple[str, ...] = ()


def _ag_reid(match: re.Match[str], path: PurePosixPath) -> Shown:
    # The same person at another time or altitude is another identity, as in the set's own code.
    key, camera = f"P{match[1]}T{match[2]}A{match[3]}", match[4]
    return Shown(key, AERIAL if camera == "0" else GROUND, "wearable camera (C2)" if camera == "2" else None)


def _g2aps(match: re.Match[str], path: PurePosixPath) -> Shown:
    if not path.parent.name.isdigit():
        raise DataError(
            f"{path}: a G2APS name holds no identity; expected it in a folder named by the person's number, "
            f"such as 0001/{path.name}, or a name of G2APS-ReID, such as 0001_c0v1_000255.jpg"
        )
    return Shown(str(int(path.parent.name)), AERIAL if match[1] == "D" else GROUND)


def _g2aps_reid(match: re.Match[str], path: PurePosixPath) -> Shown:
    return Shown(str(int(match[1])), AERIAL if match[2] == "0" else GROUND)


def _market(match: re.Match[str], path: PurePosixPath) -> Shown:
    left_out = {"0000": "distractor (0000)", "-1": "junk (-1)"}.get(match[1])
    return Shown(match[1], GROUND, left_out)


_SUFFIX = r"\.(?:jpe?g|png|bmp)"
RULES: dict[str, Rule] = {
    "ag-reid-v2": Rule(
        {rf"P(\d+)T(\d+)A([012])C([023])F\d+{_SUFFIX}": _ag_reid},
        "P0001T04041A0C0F31.jpg",
        ("train_all", "query", "gallery"),
    ),
    "g2aps": Rule(
        {
            rf"([DS])\d+_\d+_\d+(?:_\d+_[a-z]+)?{_SUFFIX}": _g2aps,
            rf"(\d+)_c([03])v\d+_\d+{_SUFFIX}": _g2aps_reid,
        },
        "0001/D1_30_000255_1_train.jpg or 0001_c0v1_000255.jpg",
    ),
    "prai-1581": Rule(
        {rf"(\d{{8}})_\d{{4}}_\d{{8}}{_SUFFIX}": lambda m, p: Shown(m[1], AERIAL)},
        "00000978_0001_00000002.jpg",
    ),
    "uav-human": Rule(
        {rf"([PD]\d+S\d+)G\d+B\d+H\d+\w*_bbx{_SUFFIX}": lambda m, p: Shown(m[1], AERIAL)},
        "P000S03G10B00H20UC021000LC021000A018R0_09301543_063_bbx.jpg",
    ),
    "market-1501": Rule(
        {rf"(-1|\d{{4}})_c\ds\d_\d{{6}}_\d{{2}}(?:\.jpg)?{_SUFFIX}": _market},
        "0002_c6s1_073426_00.jpg",
        ("bounding_box_train", "bounding_box_test", "query"),
    ),
}
_SYNTH = re.compile(r"\d{6}_([ag])\d+\.jpg")  # what `tagclip synth crops` writes
_COMPILED = {
    name: [(re.compile(p), read) for p, read in rule.patterns.items()] for name, rule in RULES.items()
}


def read_name(source: str, path: PurePosixPath) -> Shown:
    """What a file of a set shows.

    Args:
        source: one of RULES.
        path: relative to the set's folder.

    Raises:
        DataError: the name fits no pattern of the set.
    """
    for pattern, read in _COMPILED[source]:
        match = pattern.fullmatch(path.name)
        if match:
            return read(match, path)
    raise DataError(
        f"{path}: no file name of {source}; expected one like {RULES[source].example}; "
        "remove the file or give its own set's name"
    )


def view_of_name(name: str) -> int | None:
    """0 aerial or 1 ground if the file name is of a set that says so, else None.

    Args:
        name: the last part of a path.
    """
    synth = _SYNTH.fullmatch(name)
    if synth:
        return AERIAL if synth[1] == "a" else GROUND
    for source, patterns in _COMPILED.items():
        for pattern, read in patterns:
            match = pattern.fullmatch(name)
            if match:  # the folder matters to G2APS's identity only, not to its view
                return read(
                    match, PurePosixPath("0", name) if source == "g2aps" else PurePosixPath(name)
                ).view
    return None

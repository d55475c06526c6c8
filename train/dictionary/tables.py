"""The two tables that `make.py` wrote: colours of words, and meanings of words."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

_FOLDER = Path(__file__).parent


class ColourWord(NamedTuple):
    """What the colour names of a big list say of one word.

    Attributes:
        rgb: sRGB of the name that is this word alone, else the median over all names with it.
        spread: mean distance in CIELAB from there to all names with the word; 0 if there is one only.
        names: how many these are.
        thing: the word alone names a colour, and it is an animal, a food, a plant, a substance or a colour.
    """

    rgb: tuple[int, int, int]
    spread: float
    names: int
    thing: bool


@functools.cache
def colours() -> dict[str, ColourWord]:
    """Word in lower case -> its colour."""
    found = {}
    for word, hex_, spread, names, thing in _rows("colours.tsv"):
        r, g, b = bytes.fromhex(hex_)
        found[word] = ColourWord((r, g, b), float(spread), int(names), bool(thing))
    return found


@functools.cache
def meanings() -> dict[str, str]:
    """Word in lower case -> synonyms, what it is a kind of, definition; parts are divided by semicolons."""
    return {word: text for word, text in _rows("meanings.tsv")}


def _rows(name: str) -> list[list[str]]:
    return [line.split("\t") for line in (_FOLDER / name).read_text(encoding="utf-8").splitlines()]

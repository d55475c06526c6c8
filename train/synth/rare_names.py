"""Colours named after things: "gooseberry", "pecan" and hundreds more, each of them rare, from a dictionary of colours.

Training captions draw them now and then, so that a model learns to use the colour that the dictionary gives a word
(train/word_vectors.py), which it cannot learn from words that it meets often enough to know by heart.
"""

from __future__ import annotations

import functools
import re

import numpy as np

from tagclip.train.dictionary.tables import colours
from tagclip.train.synth import garments, lexicon, palette
from tagclip.train.synth.colour_names import says_a_colour

_NEAR = 9.0  # CIE94
_WITH_BASIC = 0.25  # share of "gooseberry green" among them, for "gooseberry"


def rare_name(rgb: palette.RGB, rng: np.random.Generator) -> str | None:
    """A rare name for a colour that training may use, or None where no thing has that colour."""
    near = _near((int(rgb[0]), int(rgb[1]), int(rgb[2])))
    if not near:
        return None
    text = near[int(rng.integers(len(near)))]
    return f"{text} {palette.basic_name(rgb)}" if rng.random() < _WITH_BASIC else text


@functools.lru_cache(65536)
def _near(rgb: palette.RGB) -> tuple[str, ...]:
    names, lab = _table()
    return tuple(names[k] for k in np.flatnonzero(palette.delta_e(palette.to_lab(rgb), lab) < _NEAR))


@functools.cache
def _table() -> tuple[list[str], palette.Floats]:
    rows = [names.usual + names.other for names in garments.NAMES.values()]
    rows += [*lexicon.PERSON.values(), *lexicon.BUILD.values(), *lexicon.HAIR_COLOURS.values()]
    texts = " ".join([*palette.all_names(), *(text for row in rows for text in row)])
    taken = lexicon.CORE.union(lexicon.template_words(), re.findall("[a-z]+", texts))
    names = [
        word
        for word, colour in colours().items()
        if colour.thing and word not in taken and says_a_colour(word) and not lexicon.held_out(word)
    ]
    return names, palette.to_lab([colours()[word].rgb for word in names])

"""Slips: near the word that was meant, in long words only, the same for the same seed."""

import difflib

import numpy as np

from tagclip.train.synth.slips import MISSPELT, slip

TEXT = "A tall man in a navy jacket and blue jeans"


def test_one_or_two_long_words_change_a_little() -> None:
    rng = np.random.default_rng(0)
    changed = set()
    for _ in range(300):
        words, spoilt = TEXT.split(), slip("x " + TEXT, rng)[2:].split(" ")
        different = [(a, b) for a, b in zip(words, spoilt, strict=False) if a != b]
        if len(words) != len(spoilt):
            continue  # "back pack": one word became two
        assert len(different) <= 2
        for meant, typed in different:
            assert len(meant) >= 4 and meant[0] == typed[0]
            assert difflib.SequenceMatcher(None, meant, typed).ratio() > 0.6 or typed in MISSPELT[meant]
        changed |= {meant for meant, _ in different}
    assert changed == {"tall", "navy", "jacket", "blue", "jeans"}


def test_short_words_stay() -> None:
    rng = np.random.default_rng(1)
    assert {slip("a red hat", rng) for _ in range(50)} == {"a red hat"}


def test_same_seed_same_slip() -> None:
    assert slip(TEXT, np.random.default_rng(3)) == slip(TEXT, np.random.default_rng(3))

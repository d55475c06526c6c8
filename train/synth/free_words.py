"""The free-words benchmark: the same things said of the same people in plain, newly combined and unseen words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tagclip.train.synth.annotate import describe
from tagclip.train.synth.captions import Wording
from tagclip.train.synth.lexicon import held_out

WORDINGS: tuple[Wording, ...] = ("plain", "company", "unseen")
LEAST_UNSEEN = 2  # key words that no training caption holds, in each unseen phrasing


@dataclass(frozen=True)
class Phrasing:
    """What three operators say of one picture.

    Attributes:
        row: index of the picture's annotation.
        texts: by wording, see `captions.Wording`.
        unseen: the held-out words in the unseen text.
    """

    row: int
    texts: dict[Wording, str]
    unseen: tuple[str, ...]


def phrasings(rows: Sequence[dict[str, Any]], count: int = 200, seed: int = 0) -> list[Phrasing]:
    """The first `count` people of whom the unseen wording has enough unseen words, one picture each.

    Args:
        rows: annotations of `tagclip synth crops`, complete pictures of many identities.
        seed: of what is said; another gives other pictures and sentences.
    """
    by_identity: dict[int, list[int]] = {}
    for k, row in enumerate(rows):
        by_identity.setdefault(row["id"], []).append(k)
    found: list[Phrasing] = []
    most = max(map(len, by_identity.values()), default=0)
    for turn in range(most):  # one picture of each person first, then another
        for pictures in by_identity.values():
            k = pictures[(turn + seed + pictures[0]) % len(pictures)]
            texts = {w: describe(rows[k], seed, 1, wording=w, complete=True)[0] for w in WORDINGS}
            unseen = tuple(held_out(texts["unseen"]))
            if len(unseen) >= LEAST_UNSEEN:
                found.append(Phrasing(k, texts, unseen))
            if len(found) == count:
                return found
    return found

"""What counts as a description that can be searched for."""

from __future__ import annotations

import unicodedata

from tagclip.runtime.errors import QueryError

MAX_WORDS = 77

_WAY_OUT = 'describe clothing and carried things, for example "a woman in a red jacket with a black backpack"'


def check_query(text: str) -> str:
    """Return `text` without the space around it.

    Raises:
        QueryError: empty, without a letter, with control characters, or longer than 77 words.
    """
    text = text.strip()
    if not text:
        raise QueryError(f"the description is empty; {_WAY_OUT}")
    for character in text:
        # Cc: control; Cs: what is left of bytes that were not text in the terminal's encoding.
        if unicodedata.category(character) in ("Cc", "Cs"):
            raise QueryError(f"the description holds the control character U+{ord(character):04X}; remove it")
    if not any(character.isalpha() for character in text):
        raise QueryError(f"the description {text[:40]!r} holds no word; {_WAY_OUT}")
    words = len(text.split())
    if words > MAX_WORDS:
        raise QueryError(f"the description has {words} words, the limit is {MAX_WORDS}; shorten it")
    return text


def unknown_words(text: str) -> QueryError:
    """The error for a text of which the vocabulary knows no word."""
    return QueryError(f"no word of {text[:80]!r} is in this bundle's vocabulary; {_WAY_OUT}")

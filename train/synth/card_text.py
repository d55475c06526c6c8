"""The numbers of a data folder as a page of Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tagclip.runtime.errors import one_line
from tagclip.runtime.views import VIEWS
from tagclip.train.synth.fields import ABSENT
from tagclip.train.synth.palette import TABLE
from tagclip.train.synth.statistics import RARE, SHUFFLES

# Options of the commands that make a folder, and the key of synth.json that each is kept under.
OPTIONS = {
    "--identities": "identities",
    "--images-per-view": "images_per_view",
    "--captions": "captions",
    "--seed": "seed",
    "--device": "device",
}
AGAIN = {"--captions": "captions", "--seed": "captions_seed", "--wording": "wording"}


def markdown(card: Mapping[str, Any]) -> str:
    """The page; `card` is what `write_card` returns."""
    parts = (_head, _sheets, _attributes, _colours, _combinations, _pictures, _captions, _people)
    return "\n".join(line for part in parts for line in part(card)) + "\n"


def _head(card: Mapping[str, Any]) -> Iterator[str]:
    yield "# Dataset card: synthetic people"
    yield ""
    yield "Rendered people, seen from the ground and from the air, with descriptions. Nobody in it exists."
    yield "`tagclip synth card` made this page of the annotations and the pictures."
    yield ""
    yield "## How it was made"
    for made in card["made"]:
        yield from _commands(made, card["in_tars"])
    yield ""
    yield "## How much"
    keys = ("people", "images", *VIEWS, "captions", "words")
    counts = card["splits"]
    rows = [[split, *(f"{row[key]:,}" for key in keys)] for split, row in counts.items()]
    rows.append(["all", *(f"{sum(row[key] for row in counts.values()):,}" for key in keys)])
    yield from table(["split", *keys], rows)


def _commands(made: Mapping[str, Any] | None, in_tars: bool) -> Iterator[str]:
    if made is None:
        yield "The folder has no `synth.json`, so the command is not known."
        return
    given = [f"{option} {one_line(str(made[key]))}" for option, key in OPTIONS.items() if key in made]
    given += [f"--without {part}" for part in one_line(str(made.get("without", ""))).split()]
    given += ["--shifted"] * (made.get("shifted") == 1)
    yield ""
    yield "    tagclip synth crops DIR " + " ".join(given + ["--tar"] * in_tars)
    if "captions_seed" in made:
        again = (f"{key} {one_line(str(made[name]))}" for key, name in AGAIN.items() if name in made)
        yield "    tagclip synth captions DIR " + " ".join(again)
    yield ""
    version = plain(made.get("generator", "unknown"))
    yield f"with version {version} of the generator, `GENERATOR` in `train/synth/crops.py`."
    yield "The same command and version make the same bytes."


def _sheets(card: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield "## What it looks like"
    yield "By elevation of the camera above the person's horizon: 0 degrees is from the side, 90 from straight above."
    yield "Each crop of a sheet shows another person; which, is drawn by lot. Small crops are enlarged."
    for sheet in card["sheets"]:
        title = f"{sheet['view']}, {sheet['elevation_deg']} degrees"
        yield from ("", f"**{title[0].upper()}{title[1:]}**", "", f"![{title}]({sheet['file']})")


def _attributes(card: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield "## Attributes"
    values, fields, colours = (card[key] for key in ("attribute_values", "attribute_fields", "colour_values"))
    yield f"**{values} values** in {fields} fields, and {colours} colours of things, counted for each thing."
    yield "Only names count as values, and each yes-or-no field as one; how many bags there are does not."
    yield ""
    yield "Shares are in percent of people, or of pictures where these differ between the pictures of one person."
    yield f"{ABSENT} stands for those without the thing. Who has two bags counts twice where the name has `[]`."
    yield ""
    rows = [
        [plain(path), row["of"], ", ".join(f"{plain(name)} {share(p)}" for name, p in row["percent"].items())]
        for path, row in card["attributes"].items()
    ]
    yield from table(["field", "of", "values with their shares, %"], rows)
    if card["numbers"]:
        yield ""
        cells = [
            [plain(path), row["of"], *(f"{row[key]:g}" for key in ("lowest", "mean", "highest"))]
            for path, row in card["numbers"].items()
        ]
        yield from table(["number", "of", "lowest", "mean", "highest"], cells)


def _colours(card: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield "## Colours"
    yield "By basic name (`train/synth/palette.py`), in percent of those who have the thing, and how many have it."
    yield ""
    seen = {name for row in card["colours"].values() for name in row["percent_of_having"]}
    names = [name for name in TABLE if name in seen]
    rows = [
        [
            plain(path),
            share(row["having_percent"]),
            *(share(row["percent_of_having"].get(name, 0.0)) for name in names),
        ]
        for path, row in card["colours"].items()
    ]
    yield from table(["field", "have it", *names], rows)


def _combinations(card: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield "## Combinations"
    yield "Possible is the product of how many values occur, with some that nobody can wear: a dress and jeans."
    yield f"A combination is rare if fewer than {RARE} people have it."
    yield ""
    rows = [
        [" + ".join(row["fields"]), f"{row['seen']:,}", f"{row['possible']:,}", f"{row['entropy_bits']:.2f}"]
        + [share(row[key]) for key in ("rare_percent", "people_with_rare_percent")]
        for row in card["combinations"]
    ]
    yield from table(
        ["of", "seen", "possible", "entropy, bits", "rare, %", "people with a rare one, %"], rows
    )


def _pictures(card: Mapping[str, Any]) -> Iterator[str]:
    yield from ("", "## Pictures", "Height of a picture in pixels:", "")
    yield from _by_view(card["height_px"])
    yield from ("", "Elevation of the camera in degrees:", "")
    yield from _by_view({view: row["images"] for view, row in card["elevation_deg"].items()})
    yield ""
    ranges = {v: r for v, r in card["elevation_deg"].items() if r["lowest"] is not None}
    yield "; ".join(f"{v}: from {r['lowest']:g} to {r['highest']:g} degrees" for v, r in ranges.items()) + "."
    yield ""
    yield "What is seen of a person: in how many pictures a part shows, and its mean share of the pixels there."
    yield ""
    head = ["part", *(f"{view}: {what}, %" for view in VIEWS for what in ("shows in", "mean share"))]
    keys = ("showing_percent", "mean_percent")
    rows = [
        [plain(part), *(share(row[view][key]) for view in VIEWS for key in keys)]
        for part, row in card["visible"].items()
    ]
    yield from table(head, rows)


def _by_view(counts: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    """A row for each band, for each view how many pictures and how many in percent."""
    names = {name: None for row in counts.values() for name in row}
    rows = []
    for name in names:
        cells = [name]
        for row in counts.values():
            n, total = row.get(name, 0), sum(row.values())
            cells += [f"{n:,}", share(100 * n / total if total else 0.0)]
        rows.append(cells)
    yield from table(["", *(text for view in counts for text in (view, "%"))], rows)


def _captions(card: Mapping[str, Any]) -> Iterator[str]:
    captions = card["captions"]
    yield from ("", "## Captions")
    words = ", ".join(f"{name.replace('_', ' ')} {n:g}" for name, n in captions["words"].items())
    yield f"Words in a caption: {words}."
    yield f"{captions['distinct_words']:,} different words, {captions['words_used_once']:,} of them used once."
    yield "Of the training split, drawn at random:"
    yield ""
    yield from (f"* {plain(text)}" for text in captions["examples"])


def _people(card: Mapping[str, Any]) -> Iterator[str]:
    people = card["people"]
    yield from (
        "",
        "## Who is in it",
        "In percent of people. Skin is by its CIELAB lightness, 0 black to 100 white.",
        "",
    )
    rows = [
        [group, ", ".join(f"{plain(name)}: {share(p)}" for name, p in row.items())]
        for group, row in people["percent"].items()
    ]
    yield from table(["", "shares, %"], rows)
    yield ""
    yield "Do some people wear other colours than others? Mutual information of group and basic colour in bits, and"
    yield "the largest difference between two groups in the share of one colour, in percentage points. In brackets is"
    yield f"what 19 of 20 random assignments of these colours to these people stay below ({SHUFFLES} tried)."
    yield ""
    rows = [
        [group, clothes]
        + [
            f"{row[key]:{how}} ({row[key + '_by_chance']:{how}})"
            for key, how in (("bits", ".4f"), ("points", ".1f"))
        ]
        for clothes, groups in people["independence"].items()
        for group, row in groups.items()
    ]
    yield from table(["group", "colour", "bits", "points"], rows)
    yield from ("", "## What it does not cover")
    yield "What is in no table above is not in the set; `docs/data.md` lists what the generator cannot draw."


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """The lines of a table; cells are Markdown."""
    yield "| " + " | ".join(head) + " |"
    yield "|---" * len(head) + "|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def plain(value: Any) -> str:
    """Text out of a file, so that Markdown shows it as it is."""
    return re.sub(r"([\\|<>*`\[\]])", r"\\\1", one_line(str(value)))


def share(value: float) -> str:
    """A share in percent with one decimal; what is there but would round to nothing is "<0.1"."""
    return "0" if value == 0 else f"{value:.1f}" if value >= 0.05 else "<0.1"

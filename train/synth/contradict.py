"""Does a caption that somebody else wrote contradict what was drawn? By the words of our lexicon, lenient in doubt.

What the lexicon does not know is not judged.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tagclip.train.synth import garments, lexicon, palette
from tagclip.train.synth.appearance import Appearance
from tagclip.train.synth.colour_names import MORE_NAMES, SHADES

Reason = Literal["empty", "protected", "gender", "age", "thing", "unseen", "colour"]
REASONS: tuple[Reason, ...] = ("empty", "protected", "gender", "age", "thing", "unseen", "colour")

# CIE94 from all that a name of a colour stands for. Terms that border on each other are taken for one another more
# readily, yet not from end to end: navy and white are no shades of one colour, although blue borders on white.
_FAR, _FAR_BETWEEN_NEIGHBOURS = 16.0, 28.0


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Kinds that people take for one another, most of all from far or from above. A kind may be in several rows.
_CONFUSED: tuple[tuple[str, ...], ...] = (
    ("t-shirt", "shirt", "polo", "tank top", "sweater", "inner"),
    ("shirt", "sweater", "cardigan", "hoodie", "jacket"),
    ("jacket", "hooded jacket", "puffer jacket", "hi-vis jacket", "blazer", "coat", "cardigan", "hoodie"),
    ("coat", "long coat", "hooded jacket", "puffer jacket"),
    ("vest", "hi-vis vest", "tank top"),
    ("vest", "hi-vis vest", "hi-vis jacket", "puffer jacket", "jacket"),
    ("dress", "long dress", "skirt", "long skirt"),
    ("jeans", "trousers", "wide trousers", "sweatpants", "leggings"),
    ("shoes", "sneakers", "boots", "sandals"),
    ("shoulder bag", "handbag", "plastic bag"),
    ("cap", "hat", "beanie", "helmet"),
    ("beanie", "hood"),
)
_TOPS = (
    "t-shirt, shirt, polo, sweater, cardigan, hoodie, jacket, hooded jacket, puffer jacket, hi-vis jacket, blazer, "
    "coat, vest, hi-vis vest, tank top, inner"
)
# Words that mean more kinds than garments.py gives them, or that it lacks.
_WIDER = {
    "top": _TOPS,
    "shirt": "t-shirt, shirt, polo, sweater, tank top, inner",
    "tshirt": "t-shirt",
    "jumper": "sweater, hoodie",
    "suit": "blazer",
    "gown": "dress, long dress",
    "pant": "trousers",
    "jean": "jeans",
    "shoe": "shoes",
    "sneaker": "sneakers",
    "boot": "boots",
    "hat": "hat, cap, beanie",
    "hard hat": "helmet",
    "hood": "hood",
    "bag": "backpack, shoulder bag, handbag, plastic bag, suitcase",
    "bags": "backpack, shoulder bag, handbag, plastic bag, suitcase",
    "luggage": "suitcase",
    "hair": "hair",
    "haired": "hair",
    "ponytail": "hair",
    "bun": "hair",
    "curls": "hair",
    "top knot": "hair",
    "topknot": "hair",
    "bald": "bald",
    "shaved head": "bald",
    "shaven head": "bald",
} | dict.fromkeys(
    _words("glasses sunglasses gloves tie necktie apron jumpsuit overalls robe socks"), "never drawn"
)
# Names that mean something else as well.
_AMBIGUOUS = _words(
    """mini maxi shift shell carrier case pack clutch slides sliders runners kicks flats trunks container packet package
    trolley tank mac mack trench duster pumps sweats combats cords mules derbies waterproof crossbody shopper oxford
    oxfords panama layer bomber harrington jersey"""
)
# What may stand between a colour and its noun.
_BETWEEN = SHADES | _words(
    """
    striped pinstriped lumberjack stripy stripey checked check plaid chequered checkered tartan gingham flannel
    printed patterned floral spotted dotted polka dot camouflage camo two tone toned coloured colored leather
    denim cotton wool woollen knitted knit linen nylon long short sleeved sleeve sleeveless hooded collared
    button up zip quilted padded puffy heavy thick thin light large small big baggy loose tight fitted wide leg
    high low top ankle knee length oversized casual sports sport winter summer plain solid horizontal vertical
    horizontally vertically pair of
    """
)
_LINKS = _words("and & / or")
# Between a thing and a colour that is said of it: "a shirt that is red".
_SAYS = _words("that which is are was were in coloured colored")
_NEGATIONS = _words("no without not nor")
_FEMALE, _MALE = (
    frozenset(
        word for (g, _), row in lexicon.PERSON.items() if g == gender for t in row for word in t.split()
    )
    for gender in ("woman", "man")
)
_ONLY_FEMALE = (_FEMALE - _MALE) | _words("women ladies girls she her hers herself")
_ONLY_MALE = (_MALE - _FEMALE) | _words("men boys guys he him his himself")
_PEOPLE = _words("person people individual pedestrian figure subject adult adults child kid citizen") | (
    _ONLY_FEMALE | _ONLY_MALE
) - _words("her his she he him hers himself herself")
# Age words -> the ages that they may be said of; neighbours are nobody's fault.
_AGES: tuple[tuple[frozenset[str], frozenset[str]], ...] = (
    (_words("child kid kids children schoolgirl schoolboy toddler baby infant"), _words("child")),
    (
        _words("boy girl boys girls lad lass youngster youth teen teens teenager teenage teenaged"),
        _words("child young"),
    ),
    (_words("elderly senior pensioner grandmother grandfather"), _words("old")),
    (_words("middle"), _words("adult old")),
)
# The same, said of a person only if one is named right behind.
_AGES_BEFORE: tuple[tuple[frozenset[str], frozenset[str]], ...] = (
    (_words("old"), _words("old")),
    (_words("aged"), _words("adult old")),
    (_words("older"), _words("adult old")),
    (_words("young younger"), _words("child young adult")),
    (_words("little"), _words("child")),
    (_words("adult grown"), _words("young adult old")),
)
_PROTECTED = re.compile(
    r"\b(faces?|facial|eyes?(?! out)|eyed|nose|mouth|smil\w+|beard(?:ed)?|mou?stache|expression|make ?up"
    r"|skin(?:ned)?|complexion"
    r"|rac(?:e|ial)|ethnic\w*|caucasian|africans?|afro american|asians?|hispanic|latin[oax]s?|arab\w*|oriental|indians?"
    r"|chinese|japanese|korean|mexican|american|european|british|german|french|russian|turkish|nationality|immigrant"
    r"|foreign\w*|refugee|muslims?|islamic|christian|jew(?:ish)?|hindu|sikh|buddhist|religi\w+|hijab|niqab|burqa|turban"
    r"|yarmulke|kippah|disabled|disability|handicapped|pregnan\w+|gay|lesbian|homosexual|trans(?:gender|sexual))\b"
)


@dataclass(frozen=True)
class Contradiction:
    """Why a caption is not accepted.

    Attributes:
        reason: the class of the contradiction; "empty" is a caption that names nothing a person may wear or carry.
        words: those of the caption that say it, in lower case.
    """

    reason: Reason
    words: str


@dataclass(frozen=True)
class _Thing:
    """Something that a person has: its kind, whether the picture shows it, and every colour that is drawn on it."""

    kind: str
    shown: bool
    colours: tuple[palette.RGB, ...]


def contradiction(caption: str, who: Appearance, visible: Mapping[str, float]) -> Contradiction | None:
    """What in a caption cannot be true of a person in one picture; None if nothing is found.

    Args:
        caption: English, of one person.
        visible: part (see `appearance.PARTS`) -> share of the person's pixels, 0..1; absent means unseen.

    Returns:
        the first that is found, in the order of REASONS.
    """
    tokens, colours = _read(caption)
    spans = [(a, b, kinds) for a, b, kinds in _spans(tokens) if tokens[b : b + 1] != [":"]]  # "shoes: none"
    if not spans:
        return Contradiction("empty", " ".join(caption.lower().split()[:6]))
    rest = list(tokens)
    for start, end, _ in spans:
        rest[start:end] = [""] * (end - start)
    return (
        _protected(rest, colours)
        or _gender(rest, who)
        or _age(rest, who)
        or _things(tokens, colours, spans, who, visible)
    )


def _protected(rest: list[str], colours: Mapping[int, list[str]]) -> Contradiction | None:
    if found := _PROTECTED.search(" ".join(rest)):
        return Contradiction("protected", found[0])
    for k, word in enumerate(rest):  # "a black man" is no colour of clothes
        if word in _PEOPLE and colours.get(k):
            return Contradiction("protected", f"{colours[k][-1]} {word}")
    return None


def _gender(rest: list[str], who: Appearance) -> Contradiction | None:
    wrong = _ONLY_MALE if who.gender == "woman" else _ONLY_FEMALE
    return next((Contradiction("gender", word) for word in rest if word in wrong), None)


def _age(rest: list[str], who: Appearance) -> Contradiction | None:
    for k, word in enumerate(rest):
        ages = [a for words, a in _AGES if word in words]
        if k == 0 or rest[k - 1] not in ("year", "years"):
            behind = _PEOPLE.intersection(rest[k + 1 : k + 3])
            ages += [a for words, a in _AGES_BEFORE if word in words and behind]
        if ages and not any(who.age in a for a in ages):
            return Contradiction("age", word)
    return None


def _things(
    tokens: list[str],
    colours: Mapping[int, list[str]],
    spans: list[tuple[int, int, frozenset[str]]],
    who: Appearance,
    visible: Mapping[str, float],
) -> Contradiction | None:
    has, found = _has(who, visible), []
    for start, end, kinds in spans:
        before = " ".join(tokens[max(0, start - 3) : start])
        if _NEGATIONS.intersection(re.split("[.,;:]", before)[-1].split()):
            continue
        name = " ".join(tokens[start:end])
        if "trousers" in kinds and "short" in _adjectives(tokens, start):
            kinds = kinds | {"shorts"}
        meant = [t for t in has if kinds & _taken_for(t.kind)]
        shown = [t for t in meant if t.shown]
        if not shown:
            found.append(Contradiction("unseen" if meant else "thing", name))
            continue
        # Over a white shirt a jacket is no white jacket: what goes by the very name counts first.
        drawn = [rgb for t in [t for t in shown if t.kind in kinds] or shown for rgb in t.colours]
        for colour in _said_of(tokens, colours, start, end):
            if drawn and all(_differs(colour, rgb) for rgb in drawn):
                found.append(Contradiction("colour", f"{colour} {name}"))
    return min(found, key=lambda c: REASONS.index(c.reason), default=None)


def _has(who: Appearance, visible: Mapping[str, float]) -> list[_Thing]:
    """All that a person has on, in the hands and on the head."""

    def seen(*parts: str) -> bool:
        return any(visible.get(part, 0.0) > 0 for part in parts)

    top = who.top
    sleeves = None if "vest" in top.kind else top.sleeve_rgb  # a vest's are those of the garment under it
    tops = tuple(c for c in (top.rgb, top.rgb2, sleeves) if c is not None)
    top_seen = seen("top", "sleeves", "top_pattern")
    things = [_Thing(top.kind, top_seen, tops), _Thing(who.shoes.kind, seen("shoes"), (who.shoes.rgb,))]
    if top.inner_rgb is not None:
        shown = seen("inner", "sleeves") if "vest" in top.kind else seen("inner")
        things.append(_Thing("inner", shown, (top.inner_rgb,)))
    if top.has_hood or top.kind in ("hoodie", "hooded jacket"):
        things.append(_Thing("hood", top_seen, tops))
    if who.bottom:
        legs = (who.bottom.rgb, who.bottom.rgb2) if who.bottom.rgb2 else (who.bottom.rgb,)
        things.append(_Thing(who.bottom.kind, seen("bottom"), legs))
    if who.headwear:
        things.append(_Thing(who.headwear.kind, seen("headwear"), (who.headwear.rgb,)))
    things += [_Thing(bag.kind, seen(f"bag{i}"), (bag.rgb,)) for i, bag in enumerate(who.bags)]
    if who.scarf:
        things.append(_Thing("scarf", seen("scarf"), (who.scarf,)))
    bald = who.hair.length == "bald"
    things.append(_Thing("bald", seen("skin"), ()) if bald else _Thing("hair", seen("hair"), (who.hair.rgb,)))
    return things


def _said_of(tokens: list[str], colours: Mapping[int, list[str]], start: int, end: int) -> list[str]:
    """The colours of a thing: in front ("red and blue shirt": both), within ("long red coat"), behind ("is red")."""
    said = [c for k in range(start, end) for c in colours.get(k, [])]
    k = start
    while not colours.get(k) and k > 0 and tokens[k - 1] in _BETWEEN:
        k -= 1
    said += colours.get(k, []) if k < start else []
    while k > 0 and colours.get(k) and colours.get(k - 1) and tokens[k - 1] in _LINKS:
        k -= 1
        said += colours[k]
    k = end
    while k < len(tokens) and tokens[k] in _SAYS and not colours.get(k):
        k += 1
    # "in red boots" tells of the boots.
    if k > end and (k == len(tokens) or tokens[k] in (".", ",", ";", "and")):
        said += colours.get(k, [])
    return said


def _adjectives(tokens: list[str], start: int) -> list[str]:
    """The words of _BETWEEN, and links among them, that stand in front of a thing."""
    k = start
    while k > 0 and tokens[k - 1] in _BETWEEN | {"and"}:
        k -= 1
    return tokens[k:start]


def _differs(colour: str, rgb: palette.RGB) -> bool:
    """Whether nobody would give `rgb` this name of a colour."""
    table = _colours()
    families, lab = table[colour] if colour in table else table[colour.partition(" ")[2]]
    if colour not in table:  # a shade of a name that is no basic term: anything of its family
        lab = np.concatenate([lab, *(table[family][1] for family in sorted(families))])
    basic = palette.basic_name(rgb)
    near = any(palette.neighbours(family, basic) for family in families)
    limit = _FAR_BETWEEN_NEIGHBOURS if near else _FAR
    return float(palette.delta_e(palette.to_lab(rgb), lab).min()) > limit


def _read(caption: str) -> tuple[list[str], dict[int, list[str]]]:
    """The words and marks of a caption without its colours, and the colours by the number of the word behind them."""
    text = caption.lower().replace("\u2019", "'")
    for one, other in (("gray", "grey"), ("british racing green", "racing green")):
        text = text.replace(one, other)
    raw = re.findall(r"[a-z']+|[.,;:&/]", text)
    tokens: list[str] = []
    colours: dict[int, list[str]] = {}
    k = 0
    while k < len(raw):
        for n in (3, 2, 1):
            name = " ".join(raw[k : k + n])
            if name in _colours() and len(raw) >= k + n:
                # Of "violet red" the last counts; a "pale teal" may be far from teal.
                shade = tokens[-1] if tokens and (tokens[-1] in SHADES or tokens[-1].endswith("ish")) else ""
                colours[len(tokens)] = [f"{shade} {name}" if shade and name not in palette.TABLE else name]
                k += n
                break
        else:
            tokens.append(raw[k])
            k += 1
    return tokens, colours


def _spans(tokens: list[str]) -> Iterator[tuple[int, int, frozenset[str]]]:
    """(start, end, kinds) of every thing that is named, the longest name first."""
    names, k = _names(), 0
    while k < len(tokens):
        for n in range(min(7, len(tokens) - k), 0, -1):
            kinds = names.get(" ".join(tokens[k : k + n]))
            if kinds:
                yield k, k + n, kinds
                k += n
                break
        else:
            k += 1


def _plain(text: str) -> str:
    return " ".join(re.findall(r"[a-z']+", text.lower().replace("{c}", " ")))


@functools.cache
def _names() -> dict[str, frozenset[str]]:
    """Name of a thing, without its colour -> the kinds that it may mean."""
    found: dict[str, set[str]] = {}
    for kind, names in garments.NAMES.items():
        for text in names.usual + names.other:
            if _plain(text) not in _AMBIGUOUS:
                found.setdefault(_plain(text), set()).add(kind)
    for text, kinds in _WIDER.items():
        found.setdefault(text, set()).update(kinds.split(", "))
    return {text: frozenset(kinds) for text, kinds in found.items()}


@functools.cache
def _taken_for(kind: str) -> frozenset[str]:
    """The kinds by which a kind may honestly be called."""
    return frozenset({kind}.union(*(row for row in _CONFUSED if kind in row)))


@functools.cache
def _colours() -> dict[str, tuple[frozenset[str], palette.Floats]]:
    """Name of a colour -> its basic terms, and CIELAB (N, 3) of what it stands for."""
    taken = _BETWEEN.union({"cashmere", "hemp", "burlap", "flax"}, *(name.split() for name in _names()))
    found = {}
    for family, row in palette.TABLE.items():
        codes = re.findall(r" ([0-9a-f]{6})(?:,|$)", row)
        found[family] = (frozenset({family}), _labs(codes))
    for text, code in re.findall(r"([a-z][a-z -]*?) ([0-9a-f]{6})(?:,|$)", _rows()):
        words = _plain(text).split()
        if len(words) > 1 or not taken.intersection(words):
            family = palette.basic_name((int(code[:2], 16), int(code[2:4], 16), int(code[4:], 16)))
            last = {words[-1]} & palette.TABLE.keys()
            found.setdefault(" ".join(words), (frozenset({family} | last), _labs([code])))
    return found


def _rows() -> str:
    """Every name with its code in one text; the anchors of the palette, which have none, are left out."""
    named = re.sub(r"\[[a-z]*\] [0-9a-f]{6}(, |$)", "", ", ".join(palette.TABLE.values()) + ", ")
    return named + " ".join(MORE_NAMES.split())


def _labs(codes: list[str]) -> palette.Floats:
    return palette.to_lab([[int(code[k : k + 2], 16) for k in (0, 2, 4)] for code in codes])

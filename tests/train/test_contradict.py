"""The check of captions: true ones pass, another person's do not, and each kind of contradiction is named."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from tagclip.train.synth import palette
from tagclip.train.synth.appearance import Appearance, Bag, Bottom, Hair, Headwear, Shoes, Top
from tagclip.train.synth.captions import captions
from tagclip.train.synth.contradict import contradiction
from tagclip.train.synth.people import sample_appearance

RED, NAVY, BLACK, WHITE, YELLOW = (200, 30, 35), (27, 37, 71), (14, 14, 16), (245, 245, 244), (240, 210, 30)
WOMAN = Appearance(
    gender="woman",
    age="adult",
    build="average",
    height="average",
    skin_rgb=(150, 110, 90),
    hair=Hair("long", (70, 45, 30), "brown"),
    headwear=None,
    top=Top("jacket", "long", RED),
    bottom=Bottom("jeans", NAVY),
    shoes=Shoes("boots", BLACK),
    bags=(Bag("backpack", YELLOW, "left"),),
    scarf=None,
)
OPEN = replace(WOMAN, top=Top("jacket", "long", RED, open=True, inner_rgb=WHITE))
DRESSED = replace(
    WOMAN, top=Top("dress", "short", RED), bottom=None, bags=(), headwear=Headwear("hat", BLACK)
)
OLD_MAN = replace(WOMAN, gender="man", age="old", hair=Hair("bald", BLACK, "black"))


def all_visible(person: Appearance) -> dict[str, float]:
    visible = {"hair": 0.05, "top": 0.3, "shoes": 0.04, "skin": 0.06, "sleeves": 0.1}
    visible |= {"bottom": 0.25} if person.bottom else {}
    visible |= {"headwear": 0.03} if person.headwear else {}
    visible |= {"inner": 0.05} if person.top.inner_rgb else {}
    visible |= {"top_pattern": 0.05} if person.top.rgb2 else {}
    visible |= {"scarf": 0.03} if person.scarf else {}
    return visible | {f"bag{i}": 0.05 for i in range(len(person.bags))}


def reason(text: str, who: Appearance = WOMAN, **hidden: float) -> str | None:
    found = contradiction(text, who, all_visible(who) | hidden)
    return found.reason if found else None


@pytest.fixture(scope="module")
def told() -> list[tuple[str, Appearance]]:
    """True captions of 300 people, with the person."""
    rng = np.random.default_rng(7)
    people = [sample_appearance(rng) for _ in range(300)]
    return [
        (text, who)
        for who in people
        for text in captions(who, all_visible(who), float(rng.uniform(0, 90)), rng, complete=True)
    ]


def test_true_captions_pass(told: list[tuple[str, Appearance]]) -> None:
    refused = [(text, reason(text, who)) for text, who in told if reason(text, who)]
    assert len(refused) <= 0.01 * len(told), refused


def test_captions_of_somebody_else_do_not(told: list[tuple[str, Appearance]]) -> None:
    rows = [
        {"t-shirt", "shirt", "polo", "tank top", "sweater"},
        {
            "jacket",
            "hooded jacket",
            "puffer jacket",
            "hi-vis jacket",
            "blazer",
            "coat",
            "long coat",
            "hoodie",
            "cardigan",
        },
        {"vest", "hi-vis vest"},
        {"dress", "long dress"},
    ]

    def family(who: Appearance) -> int:
        return next(k for k, row in enumerate(rows) if who.top.kind in row)

    def differ(a: Appearance, b: Appearance) -> bool:
        pairs = [(a.top.rgb, b.top.rgb)] + ([(a.bottom.rgb, b.bottom.rgb)] if a.bottom and b.bottom else [])
        alike = [palette.neighbours(palette.basic_name(x), palette.basic_name(y)) for x, y in pairs]
        return a.gender != b.gender and family(a) != family(b) and not any(alike)

    people = [who for _, who in told[::2]]
    pairs = [(text, [q for q in people if differ(who, q)][:1]) for text, who in told]
    outcomes = [reason(text, others[0]) for text, others in pairs if others]
    assert len(outcomes) > 400
    assert sum(o is not None for o in outcomes) >= 0.9 * len(outcomes)
    assert {"gender", "age", "thing"} <= set(outcomes)


def other_gender(who: Appearance) -> Appearance:
    return replace(who, gender="man" if who.gender == "woman" else "woman")


def in_skirt(who: Appearance) -> Appearance | None:
    if who.bottom is None or "skirt" in who.bottom.kind:
        return None
    return replace(who, bottom=replace(who.bottom, kind="skirt"))


def inside_out(who: Appearance) -> Appearance | None:
    """The colours of jacket and shirt change places; None where they are alike or there are more."""
    top = who.top
    if top.inner_rgb is None or top.rgb2 or top.sleeve_rgb:
        return None
    if palette.neighbours(palette.basic_name(top.rgb), palette.basic_name(top.inner_rgb)):
        return None
    return replace(who, top=replace(top, rgb=top.inner_rgb, inner_rgb=top.rgb))


@pytest.mark.parametrize(
    ("words", "changed", "hidden", "expected"),
    [
        (r"wom[ae]n|lady|female|man|male|guy|gentleman|s?he", other_gender, {}, "gender"),
        (r"jeans|trousers|pants|slacks|shorts|leggings|joggers|sweatpants", in_skirt, {}, "thing"),
        (
            r"jeans|trousers|pants|slacks|shorts|leggings|joggers|skirt",
            lambda w: w,
            {"bottom": 0.0},
            "unseen",
        ),
        (r"bag|backpack|rucksack|suitcase|umbrella|box", lambda w: replace(w, bags=()), {}, "thing"),
        (r"hat|cap|beanie|helmet", lambda w: replace(w, headwear=None), {}, "thing"),
        (r"scarf", lambda w: replace(w, scarf=None), {}, "thing"),
        (r"shoes|boots|sneakers|sandals|trainers", lambda w: w, {"shoes": 0.0}, "unseen"),
        (r"over an? .*", inside_out, {}, "colour"),
    ],
)
def test_one_thing_changed_is_enough(
    told: list[tuple[str, Appearance]],
    words: str,
    changed: Callable[[Appearance], Appearance | None],
    hidden: dict[str, float],
    expected: str,
) -> None:
    named = [(text, changed(who)) for text, who in told if re.search(rf"\b({words})\b", text.lower())]
    found = [reason(text, other, **hidden) for text, other in named if other is not None]
    assert len(found) > 15
    assert sum(f == expected for f in found) >= 0.9 * len(found), found


def test_wrong_colours_are_found_without_any_other_hint() -> None:
    """Plain captions of people whose clothes were all dyed another colour afterwards."""
    rng = np.random.default_rng(3)
    refused = []
    for _ in range(150):
        who = sample_appearance(rng)
        if who.top.rgb2 or who.top.inner_rgb or who.top.sleeve_rgb:
            continue
        basic = palette.basic_name(who.top.rgb)
        far = next(
            c for c in (RED, (33, 88, 181), YELLOW) if not palette.neighbours(basic, palette.basic_name(c))
        )
        text = captions(who, {"top": 0.4}, 0.0, rng, 1, wording="plain", complete=True)[0]
        dyed = replace(who, top=replace(who.top, rgb=far))
        assert reason(text, who) is None, text
        refused.append(reason(text, dyed) == "colour")
    assert len(refused) > 30
    assert sum(refused) >= 0.9 * len(refused)


@pytest.mark.parametrize(
    "text",
    [
        "woman, crimson coat, navy trousers, black shoes, no hat",
        "The lady wears a red hoodie and blue pants.",
        "The person has a bag. She is not wearing a hat, nor glasses.",
        "A young woman with long brown hair in a red and pink jacket, looking away from the camera.",
        "A woman in a burgundy leather jacket stands on a grey street beside a green car.",
        "gender: female; headwear: none; top: red jacket; bottom: jeans",
        "The jacket is red and the boots are black. She has a jacket in crimson, jeans in navy.",
        "A woman with a backpack in black boots.",
        "A woman who is in jeans, in a red jacket and in black boots.",
    ],
)
def test_what_may_be_said(text: str) -> None:
    assert reason(text) is None


@pytest.mark.parametrize(
    ("text", "who", "expected"),
    [
        ("A man in a red jacket.", WOMAN, "gender"),
        ("A person in a red jacket. He carries a backpack.", WOMAN, "gender"),
        ("A woman in a red jacket.", OLD_MAN, "gender"),
        ("An elderly person in a red jacket.", WOMAN, "age"),
        ("A little girl in a red jacket.", WOMAN, "age"),
        ("A young man in a red jacket.", OLD_MAN, "age"),
        ("A woman in a green jacket.", WOMAN, "colour"),
        ("A woman in a red jacket and orange jeans.", WOMAN, "colour"),
        ("A woman in a hooded green cotton jacket.", WOMAN, "colour"),
        ("A woman in a red jacket with a purple backpack.", WOMAN, "colour"),
        ("A woman with blue hair in a red jacket.", WOMAN, "colour"),
        ("A person in a red and green jacket.", WOMAN, "colour"),
        (
            "A woman in a red jacket and white jeans.",
            WOMAN,
            "colour",
        ),  # navy: blue and white border, these do not
        ("A woman wears a jacket that is green, and jeans.", WOMAN, "colour"),
        ("Her jacket is red. The boots are white.", WOMAN, "colour"),
        ("A woman in a red jacket and a blue skirt.", WOMAN, "thing"),
        ("A woman in red jacket and shorts.", WOMAN, "thing"),
        ("A woman in a red dress.", WOMAN, "thing"),
        ("A woman in a red jacket and a hat.", WOMAN, "thing"),
        ("A woman in a red jacket with an umbrella.", WOMAN, "thing"),
        ("A man with long hair in a red jacket.", OLD_MAN, "thing"),
        ("A woman in a red jacket and sunglasses.", WOMAN, "thing"),
        ("A bald woman in a red jacket.", WOMAN, "thing"),
        ("A woman in a red dress with a backpack.", DRESSED, "thing"),
        ("A woman in jeans and a red top.", DRESSED, "thing"),
        ("An Asian woman in a red jacket.", WOMAN, "protected"),
        ("A black woman in a red jacket.", WOMAN, "protected"),
        ("A smiling woman in a red jacket.", WOMAN, "protected"),
        ("A Muslim woman in a red jacket.", WOMAN, "protected"),
        ("A person on the street.", WOMAN, "empty"),
        (" . ", WOMAN, "empty"),
        ("", WOMAN, "empty"),
    ],
)
def test_what_may_not(text: str, who: Appearance, expected: str) -> None:
    assert reason(text, who) == expected


def test_what_shows_below_an_open_jacket() -> None:
    text = "A woman in an open red jacket over a white t-shirt, dark blue jeans, black boots, with a yellow backpack."
    assert reason(text, OPEN) is None
    assert reason(text, OPEN, inner=0.0) == "unseen"
    assert reason(text, WOMAN) == "thing"
    assert reason(text.replace("white", "orange"), OPEN) == "colour"
    assert reason(text.replace("red jacket over a white", "white jacket over a red"), OPEN) == "colour"


def test_a_hidden_part_may_not_be_named() -> None:
    text = "A woman in a red jacket, jeans and black boots, with a yellow backpack."
    assert reason(text) is None
    assert reason(text, shoes=0.0) == "unseen"
    assert reason(text, bag0=0.0) == "unseen"
    absent = contradiction("black boots", WOMAN, {"top": 0.3})
    assert absent is not None and absent.reason == "unseen"


def test_the_words_are_named() -> None:
    found = contradiction("A woman in a bright green bomber jacket.", WOMAN, all_visible(WOMAN))
    assert found is not None and found.words == "green bomber jacket"

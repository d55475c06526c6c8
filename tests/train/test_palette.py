"""Colour names must be true: a caption that names a wrong colour teaches the model a wrong word."""

import re

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.colors import XKCD_COLORS

from tagclip.train.synth import palette

KNOWN = [
    ((8, 8, 8), {"black"}),
    ((30, 30, 32), {"black"}),
    ((25, 28, 45), {"black", "blue"}),  # a very dark navy: both are said
    ((250, 250, 248), {"white"}),
    ((128, 128, 128), {"grey"}),
    ((60, 62, 64), {"grey"}),
    ((220, 20, 30), {"red"}),
    ((110, 15, 25), {"red"}),  # maroon
    ((250, 130, 20), {"orange"}),
    ((250, 220, 30), {"yellow"}),
    ((40, 150, 60), {"green"}),
    ((20, 60, 30), {"green"}),
    ((95, 100, 45), {"green"}),  # olive
    ((30, 80, 190), {"blue"}),
    ((27, 37, 71), {"blue"}),  # navy
    ((135, 190, 235), {"blue"}),
    ((110, 40, 150), {"purple"}),
    ((245, 150, 190), {"pink"}),
    ((240, 40, 150), {"pink"}),
    ((100, 60, 30), {"brown"}),
    ((60, 35, 20), {"brown"}),
    ((215, 200, 165), {"beige"}),
    ((195, 160, 115), {"beige"}),  # tan
]


@pytest.mark.parametrize(("rgb", "expected"), KNOWN)
def test_basic_name_of_known_colours(rgb: palette.RGB, expected: set[str]) -> None:
    assert palette.basic_name(rgb) in expected


@pytest.mark.parametrize(
    ("rgb", "wanted"),
    [
        ((27, 37, 71), "navy"),
        ((54, 57, 61), "charcoal"),
        ((107, 21, 41), "burgundy"),
        ((181, 163, 117), "khaki"),
    ]
    + [((201, 154, 31), "mustard"), ((23, 114, 123), "teal"), ((130, 190, 232), "light blue")],
)
def test_everyday_words_are_among_the_names(rgb: palette.RGB, wanted: str) -> None:
    assert wanted in dict(palette.names(rgb))


def test_lab_and_distance_against_published_values() -> None:
    # Lindbloom's calculator: sRGB primaries under D65.
    np.testing.assert_allclose(palette.to_lab((255, 0, 0)), (53.24, 80.09, 67.20), atol=0.1)
    np.testing.assert_allclose(palette.to_lab((0, 0, 255)), (32.30, 79.19, -107.86), atol=0.1)
    np.testing.assert_allclose(palette.to_lab((255, 255, 255)), (100, 0, 0), atol=0.05)
    a, b = np.array([50.0, 0, 0]), np.array([[60.0, 0, 0], [50.0, 0, 0]])
    np.testing.assert_allclose(palette.delta_e(a, b), (10, 0))


def test_agrees_with_the_survey() -> None:
    """The XKCD survey judges: a name that ends in a basic term must be that term or border on it."""
    rows = [(n.removeprefix("xkcd:").split()[-1], str(h)) for n, h in XKCD_COLORS.items()]
    rows = [(word, h) for word, h in rows if word in palette.TABLE]
    basics = [(word, palette.basic_name(_from_hex(h))) for word, h in rows]
    assert len(basics) > 400
    assert np.mean([word == basic for word, basic in basics]) > 0.85
    assert [(w, b) for w, b in basics if not palette.neighbours(w, b)] == []


def test_every_drawn_name_belongs_to_the_colour() -> None:
    """Round trip: the family of a drawn name is that of the colour, or borders on it."""
    rng = np.random.default_rng(7)
    for _ in range(1500):
        r, g, b = (int(v) for v in rng.integers(0, 256, 3))
        drawn = palette.name((r, g, b), rng, plain=0.1)
        last = re.split("[ -]", drawn)[-1]
        if last in palette.TABLE:
            assert palette.neighbours(last, palette.basic_name((r, g, b))), (drawn, (r, g, b))
        if drawn in (named := palette._named()).names:
            distance = palette.delta_e(palette.to_lab((r, g, b)), named.lab[named.names.index(drawn)][None])
            assert distance[0] < 11, (drawn, (r, g, b))


def test_dark_is_dark_and_light_is_light() -> None:
    rng = np.random.default_rng(3)
    for r, g, b in rng.integers(0, 256, (1500, 3)).tolist():
        light = palette.to_lab((r, g, b))[0]
        for text, _ in palette.names((r, g, b)):
            basic = text.split()[-1] in palette.TABLE and len(text.split()) == 2
            assert not (basic and text.startswith("dark ") and light > 72), (text, (r, g, b))
            assert not (basic and text.startswith(("light ", "pale ")) and light < 42), (text, (r, g, b))


def test_weights_words_and_plainness() -> None:
    rng = np.random.default_rng(0)
    rgb = (30, 80, 190)
    assert sum(w for _, w in palette.names(rgb)) == pytest.approx(1)
    assert {palette.name(rgb, rng, plain=1) for _ in range(20)} == {"blue"}
    assert len({palette.name(rgb, rng, plain=0) for _ in range(200)}) >= 5
    assert all(
        "navy" in palette.name((27, 37, 71), rng, 0, prefer=lambda text: "navy" in text) for _ in range(30)
    )
    assert not any(
        "navy" in palette.name((27, 37, 71), rng, 0, without=lambda text: "navy" in text) for _ in range(200)
    )


def test_no_vulgar_or_bodily_name() -> None:
    bad = re.compile(
        "shit|poop|poo|puke|vomit|snot|booger|piss|barf|bile|diarrhea|skin|flesh|nude|ugly|sick|indian"
    )
    assert [n for n in palette._named().names if any(bad.fullmatch(w) for w in n.split())] == []
    assert len(palette._named().names) > 500


def test_clothes_are_often_dark_and_never_of_one_hue() -> None:
    rng = np.random.default_rng(5)
    basics = [palette.basic_name(palette.sample_clothing_rgb("coat", rng)) for _ in range(3000)]
    share = {term: basics.count(term) / 3000 for term in palette.TABLE}
    assert share["black"] > 0.12 and share["grey"] + share["blue"] > 0.2
    assert min(share.values()) > 0.015, share  # rare colours do occur
    jeans = [palette.basic_name(palette.sample_clothing_rgb("jeans", rng)) for _ in range(1000)]
    assert jeans.count("blue") > 700
    assert sum(jeans.count(term) for term in ("blue", "black", "grey")) > 985


def _from_hex(text: str) -> palette.RGB:
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)

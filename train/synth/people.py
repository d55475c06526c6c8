"""Drawing a person: usual combinations are common and odd ones occur."""

from collections.abc import Mapping
from typing import TypeVar

import numpy as np

from tagclip.train.synth.appearance import (
    Age,
    Appearance,
    Bag,
    BagKind,
    Bottom,
    BottomKind,
    Build,
    Gender,
    Hair,
    HairLength,
    HairName,
    Headwear,
    HeadwearKind,
    Height,
    Pattern,
    Shoes,
    ShoesKind,
    Side,
    Sleeve,
    Top,
    TopKind,
)
from tagclip.train.synth.palette import RGB, delta_e, sample_clothing_rgb, to_lab

T = TypeVar("T")

# Weather decides which garments come together: 0 warm, 1 mild, 2 cold.
# fmt: off
_TOPS: tuple[dict[TopKind, float], ...] = (
    {"t-shirt": 8, "shirt": 4, "polo": 3, "tank top": 3, "sweater": 0.6, "hoodie": 0.6, "vest": 0.3,
     "hi-vis vest": 0.8, "cardigan": 0.3, "hi-vis jacket": 0.2},
    {"shirt": 4, "t-shirt": 2, "sweater": 4, "hoodie": 4, "jacket": 6, "hooded jacket": 3, "vest": 1.2,
     "hi-vis vest": 1, "coat": 1, "polo": 0.8, "long coat": 0.5, "puffer jacket": 0.6,
     "cardigan": 2, "blazer": 2.5, "hi-vis jacket": 0.7},
    {"jacket": 5, "hooded jacket": 5, "puffer jacket": 4, "coat": 4, "long coat": 5, "hoodie": 1, "vest": 0.8,
     "sweater": 0.7, "hi-vis vest": 0.6, "cardigan": 0.6, "blazer": 0.6, "hi-vis jacket": 1},
)
# fmt: on
_DRESSES: dict[TopKind, float] = {"dress": 0.6, "long dress": 0.4}
_BOTTOMS: tuple[dict[BottomKind, float], ...] = (
    {"jeans": 5, "trousers": 4, "wide trousers": 2, "shorts": 8, "sweatpants": 1, "leggings": 0.3},
    {"jeans": 9, "trousers": 7, "wide trousers": 2, "shorts": 1.2, "sweatpants": 2.5, "leggings": 0.3},
    {"jeans": 9, "trousers": 8, "wide trousers": 2, "shorts": 0.2, "sweatpants": 2, "leggings": 0.3},
)
_WOMENS_BOTTOMS: dict[BottomKind, float] = {"skirt": 2.5, "long skirt": 2, "leggings": 4}
_SHOES: tuple[dict[ShoesKind, float], ...] = (
    {"sneakers": 5, "shoes": 3, "sandals": 4, "boots": 0.4},
    {"sneakers": 5, "shoes": 4, "sandals": 0.4, "boots": 1.5},
    {"sneakers": 3, "shoes": 3, "boots": 4, "sandals": 0.05},
)
# Shares in the order of _PATTERN_NAMES; garments that are not named have _ANY_PATTERN.
_PATTERN_NAMES: tuple[Pattern, ...] = (
    *(
        "plain",
        "colour block",
        "logo",
        "horizontal stripes",
        "vertical stripes",
        "checks",
        "print",
        "polka dots",
    ),
)
_ANY_PATTERN = (73, 12, 8, 3, 0, 2, 2, 0)
_PATTERNS: dict[TopKind, tuple[int, ...]] = {
    "shirt": (46, 3, 4, 6, 12, 22, 5, 2),
    "t-shirt": (46, 7, 23, 15, 3, 1, 4, 1),
    "polo": (60, 10, 6, 22, 2, 0, 0, 0),
    "sweater": (58, 10, 2, 20, 2, 5, 3, 0),
    "cardigan": (72, 4, 0, 12, 2, 6, 3, 1),
    "hoodie": (60, 12, 21, 4, 0, 0, 3, 0),
    "hi-vis jacket": (10, 15, 0, 75, 0, 0, 0, 0),
    "blazer": (82, 0, 0, 0, 8, 10, 0, 0),
    "coat": (85, 3, 0, 0, 2, 10, 0, 0),
    "long coat": (88, 2, 0, 0, 1, 9, 0, 0),
    "hi-vis vest": (25, 0, 0, 75, 0, 0, 0, 0),
    "tank top": (63, 6, 15, 11, 0, 0, 4, 1),
    "dress": (46, 8, 0, 10, 8, 8, 14, 6),
    "long dress": (47, 8, 0, 8, 9, 7, 16, 5),
}
_HOODED: dict[TopKind, float] = {
    "hoodie": 1,
    "hooded jacket": 1,
    "hi-vis jacket": 0.4,
    "puffer jacket": 0.5,
    "coat": 0.15,
    "long coat": 0.1,
}
_OPENED: dict[TopKind, float] = {
    **{"jacket": 0.35, "hooded jacket": 0.25, "puffer jacket": 0.25, "coat": 0.3, "long coat": 0.35},
    **{"hoodie": 0.12, "shirt": 0.12, "vest": 0.5, "hi-vis vest": 0.4},
    **{"blazer": 0.85, "cardigan": 0.6, "hi-vis jacket": 0.2},
}
_OUTER = frozenset({"jacket", "hooded jacket", "puffer jacket", "blazer", "coat", "long coat", "vest"})
_HI_VIS = frozenset({"hi-vis vest", "hi-vis jacket"})
# Of these, some come with trousers of the same cloth.
_SUITS: dict[TopKind, tuple[float, BottomKind]] = {
    "blazer": (0.5, "trousers"),
    "jacket": (0.1, "sweatpants"),
    "hooded jacket": (0.06, "sweatpants"),
    "hoodie": (0.1, "sweatpants"),
}
_HAIR: dict[HairName, tuple[float, RGB]] = {
    "black": (24, (24, 20, 19)),
    "dark brown": (22, (52, 35, 25)),
    "brown": (14, (92, 62, 40)),
    "light brown": (9, (136, 101, 66)),
    "blond": (17, (212, 182, 124)),
    "grey": (3, (142, 141, 140)),
    "white": (1, (226, 224, 220)),
    "red": (5, (158, 72, 32)),
    "dyed": (2.5, (0, 0, 0)),
}
# From dark to light; any mixture of two neighbours occurs, all equally likely and independent of all else.
_SKIN = np.array(
    (
        (52, 33, 26),
        (84, 55, 40),
        (121, 80, 56),
        (160, 112, 80),
        (196, 148, 114),
        (224, 180, 150),
        (243, 214, 194),
    )
)
_DYES: tuple[RGB, ...] = (
    *((214, 60, 140), (40, 90, 190), (110, 50, 160), (40, 150, 90), (205, 30, 40), (240, 150, 190)),
)


def sample_appearance(rng: np.random.Generator) -> Appearance:
    """Draw a person; usual combinations are common and odd ones occur."""
    genders: dict[Gender, float] = {"woman": 0.5, "man": 0.5}
    gender = _pick(rng, genders)
    ages: dict[Age, float] = {"child": 0.08, "young": 0.27, "adult": 0.47, "old": 0.18}
    age = _pick(rng, ages)
    builds: dict[Build, float] = {"slim": 0.35, "average": 0.42, "heavy": 0.23}
    heights: dict[Height, float] = {"short": 0.25, "average": 0.5, "tall": 0.25}
    weather = int(rng.choice(3, p=[0.33, 0.37, 0.3]))
    top = _sample_top(rng, gender, weather)
    bottom = None if top.kind in _DRESSES else _sample_bottom(rng, gender, _mix(rng, weather))
    share, trousers = _SUITS.get(top.kind, (0.0, "trousers"))
    if rng.random() < share:
        bottom = Bottom(trousers, top.rgb)
    return Appearance(
        gender=gender,
        age=age,
        build=_pick(rng, builds),
        height=_pick(rng, heights),
        skin_rgb=_sample_skin(rng),
        hair=_sample_hair(rng, gender, age),
        headwear=_sample_headwear(rng, top, weather),
        top=top,
        bottom=bottom,
        shoes=Shoes(_pick(rng, _SHOES[_mix(rng, weather)]), sample_clothing_rgb("shoes", rng)),
        bags=_sample_bags(rng, gender, weather),
        scarf=sample_clothing_rgb("top", rng) if rng.random() < (0.01, 0.07, 0.18)[weather] else None,
    )


def _pick(rng: np.random.Generator, weights: Mapping[T, float]) -> T:
    values, p = list(weights), np.array(list(weights.values()))
    return values[int(rng.choice(len(values), p=p / p.sum()))]


def _mix(rng: np.random.Generator, weather: int) -> int:
    """The weather, or for one garment in ten any other: people wear shorts under a winter coat."""
    return weather if rng.random() < 0.9 else int(rng.integers(3))


def _other_colour(rng: np.random.Generator, rgb: RGB, kind: str = "accent") -> RGB:
    """A colour that everybody sees as another one than `rgb`; captions name both."""
    while True:
        other = sample_clothing_rgb(kind, rng)
        if float(delta_e(to_lab(rgb), to_lab(other)[None])[0]) > 25:
            return other


def _sample_skin(rng: np.random.Generator) -> RGB:
    t = rng.uniform(0, len(_SKIN) - 1)
    low = min(int(t), len(_SKIN) - 2)
    mixed = _SKIN[low] + (_SKIN[low + 1] - _SKIN[low]) * (t - low) + rng.normal(0, 5, 3)
    r, g, b = np.clip(np.rint(mixed), 20, 255).astype(int).tolist()
    return r, g, b


def _sample_hair(rng: np.random.Generator, gender: Gender, age: Age) -> Hair:
    weights = {name: weight for name, (weight, _) in _HAIR.items()}
    if age == "old":
        weights |= {"grey": 60, "white": 45}
    elif age == "child":
        weights |= {"grey": 0, "white": 0, "dyed": 0.5}
    name = _pick(rng, weights)
    lengths: dict[HairLength, float]
    if gender == "woman":
        lengths = {"short": 17, "curly": 7, "medium": 25, "long": 30, "ponytail": 13, "bun": 8}
    else:
        lengths = {"bald": 8, "short": 70, "curly": 5, "medium": 10, "long": 3.5, "ponytail": 2, "bun": 1.5}
        if age in ("child", "young"):
            lengths["bald"] = 1.5
    length = _pick(rng, lengths)
    base = _DYES[int(rng.integers(len(_DYES)))] if name == "dyed" else _HAIR[name][1]
    mixed = np.array(base) * rng.uniform(0.9, 1.1) + rng.normal(0, 4, 3)
    r, g, b = np.clip(np.rint(mixed), 0, 255).astype(int).tolist()
    return Hair(length, (r, g, b), name)


def _sample_headwear(rng: np.random.Generator, top: Top, weather: int) -> Headwear | None:
    if top.has_hood and rng.random() < (0.06, 0.18, 0.3)[weather]:
        return Headwear("hood", top.rgb)
    if rng.random() < (0.3 if top.kind in _HI_VIS else 0.015):
        kind_rgb = "hi-vis" if rng.random() < 0.5 else "top"
        return Headwear("helmet", sample_clothing_rgb(kind_rgb, rng))
    if rng.random() >= 0.22:
        return None
    kinds: tuple[dict[HeadwearKind, float], ...] = (
        {"cap": 7, "hat": 3, "beanie": 0.3},
        {"cap": 5, "hat": 2, "beanie": 2},
        {"cap": 2, "hat": 1.5, "beanie": 6},
    )
    return Headwear(_pick(rng, kinds[weather]), sample_clothing_rgb("top", rng))


def _sample_top(rng: np.random.Generator, gender: Gender, weather: int) -> Top:
    wears_dress = gender == "woman" and rng.random() < (0.28, 0.12, 0.03)[weather]
    kind = _pick(rng, _DRESSES if wears_dress else _TOPS[_mix(rng, weather)])
    rgb = sample_clothing_rgb("hi-vis" if kind in _HI_VIS else "coat" if kind in _OUTER else "top", rng)
    pattern = _pick(rng, dict(zip(_PATTERN_NAMES, _PATTERNS.get(kind, _ANY_PATTERN), strict=True)))
    rgb2 = _other_colour(rng, rgb) if pattern != "plain" else None
    if kind in _HI_VIS and pattern == "horizontal stripes":
        rgb2 = (198, 202, 206)  # reflective tape
    sleeve = _sample_sleeve(rng, kind, weather)
    worn_open = rng.random() < _OPENED.get(kind, 0)
    inner = _other_colour(rng, rgb, "top") if worn_open else None
    sleeve_rgb = None
    if kind in ("vest", "hi-vis vest"):
        if sleeve != "none":
            sleeve_rgb = inner = inner or _other_colour(rng, rgb, "top")
    elif (sleeve == "long" and rng.random() < 0.12) or (kind == "t-shirt" and rng.random() < 0.05):
        sleeve_rgb = _other_colour(rng, rgb, "accent")
    return Top(
        kind, sleeve, rgb, pattern, rgb2, sleeve_rgb, worn_open, inner, rng.random() < _HOODED.get(kind, 0)
    )


def _sample_sleeve(rng: np.random.Generator, kind: TopKind, weather: int) -> Sleeve:
    weights: dict[Sleeve, float] = {"long": 1}
    if kind == "tank top":
        weights = {"none": 1}
    elif kind == "t-shirt":
        weights = {"short": 0.88, "long": 0.12}
    elif kind == "polo":
        weights = {"short": 0.9, "long": 0.1}
    elif kind == "shirt":
        weights = {"short": (0.55, 0.15, 0.05)[weather], "long": (0.45, 0.85, 0.95)[weather]}
    elif kind in ("dress", "long dress"):
        weights = {"none": 0.3, "short": 0.4, "long": (0.3, 0.8, 2.0)[weather]}
    elif kind in ("vest", "hi-vis vest"):
        weights = {"none": 0.1, "short": (0.8, 0.25, 0.03)[weather], "long": (0.3, 0.7, 0.9)[weather]}
    return _pick(rng, weights)


def _sample_bottom(rng: np.random.Generator, gender: Gender, weather: int) -> Bottom:
    weights = _BOTTOMS[weather] | (_WOMENS_BOTTOMS if gender == "woman" else {})
    kind = _pick(rng, weights)
    rgb = sample_clothing_rgb("jeans" if kind == "jeans" else "bottom", rng)
    patterns: dict[Pattern, float] = {"plain": 100}
    if kind in ("skirt", "long skirt", "shorts", "wide trousers"):
        patterns |= {"checks": 9, "vertical stripes": 5, "horizontal stripes": 5 if "skirt" in kind else 0}
        patterns |= {"print": 7, "polka dots": 4 if "skirt" in kind else 0}
    elif kind in ("sweatpants", "trousers", "leggings"):
        patterns |= {"vertical stripes": 9, "checks": 2, "print": 4}
    pattern = _pick(rng, patterns)
    return Bottom(kind, rgb, pattern, _other_colour(rng, rgb) if pattern != "plain" else None)


def _sample_bags(rng: np.random.Generator, gender: Gender, weather: int) -> tuple[Bag, ...]:
    count = int(rng.choice(3, p=[0.45, 0.48, 0.07]))
    kinds: dict[BagKind, float] = {
        "backpack": 9,
        "shoulder bag": 5,
        "handbag": 1,
        "suitcase": 2,
        "plastic bag": 2.5,
        "umbrella": (0.3, 0.7, 0.9)[weather],
        "box": 0.6,
    }
    if gender == "woman":
        kinds |= {"handbag": 6, "shoulder bag": 6}
    sides: tuple[Side, Side] = ("left", "right")
    first_side = int(rng.integers(2))
    bags = []
    for i in range(count):  # a second bag is of another kind and on the other side
        kind = _pick(rng, kinds)
        kinds.pop(kind)
        if kind == "box":  # takes both arms
            kinds = {k: v for k, v in kinds.items() if k in ("backpack", "shoulder bag")}
        elif kind not in ("backpack", "shoulder bag"):
            kinds.pop("box", None)
        rgb = sample_clothing_rgb("bag", rng)
        if kind == "plastic bag" and rng.random() < 0.6:
            level = int(rng.integers(215, 250))
            rgb = (level, level, level)
        elif kind == "box" and rng.random() < 0.5:  # cardboard
            r, g, b = (np.array((176, 138, 96)) * rng.uniform(0.75, 1.15)).astype(int).tolist()
            rgb = (r, g, b)
        bags.append(Bag(kind, rgb, sides[(first_side + i) % 2]))
    return tuple(bags)

"""Names for colours, and colours for clothes.

A drawn colour is known exactly, so its caption can say it in any of the words people use for it: a basic term
("blue"), a modified one ("dark blue"), an everyday word of clothing ("navy"), or one of the names of the XKCD
colour survey and CSS4 that matplotlib carries. Distances are CIE94 on CIELAB (D65): plain Euclidean CIELAB
would call strong reds and oranges far apart that nobody tells apart.
"""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tagclip.train.synth.colour_names import CSS_NAMES, MORE_NAMES, SHADES, says_a_colour

RGB = tuple[int, int, int]
Floats = npt.NDArray[np.float64]

# The basic terms, each with everyday names and their typical sRGB. A name in [] is an anchor: it says which
# basic term its colour belongs to, but is no name of its own (basic and modified names are made from the
# colour, see _modified).
TABLE: dict[str, str] = {
    "black": (
        "[black] 0c0c0e, [] 1a1a1c, [] 15161d, [] 1d1916, [] 141a16, jet black 060607, off-black 1b1b1e, "
        "[] 1f1416, [] 14181f"
    ),
    "white": (
        "[white] f8f8f7, [] fcfcfc, [] ebebeb, [] e9eef4, [] f3eff2, off-white f1eee5, ivory f5f1e2, "
        "eggshell f0ead8"
    ),
    "grey": (
        "[grey] 828486, [] 5c5e61, [] a3a5a7, [] bfc1c3, [] d6d8d9, [] 323335, [] 2a2b2d, [] 9c968f, "
        "[] 6a6d6a, [] 7b8087, [] 707783, charcoal 36393d, charcoal grey 3f4245, slate grey 5d6770, "
        "ash grey a8aba8, silver c2c5c8, steel grey 6f7f89, graphite 45484c, gunmetal 50575d, "
        "dove grey c6c5c3, pewter 8a8d8f, stone grey a19d95, smoke grey 9a9c9e, anthracite 383b40, "
        "heather grey aeb0b2"
    ),
    "red": (
        "[red] cf1f25, [] e53a3a, [] a5161c, [] ff0000, [] 7a0c12, [] 8c2f33, [] b8484c, [] 560d13, "
        "[] d95a54, burgundy 6b1529, maroon 701a22, wine red 651d32, oxblood 5a1a1c, crimson b3132b, "
        "scarlet d42422, brick red 9c3a2e, cherry red b5122f, ruby red 9b1335, cardinal red a51d30, "
        "pillar-box red d3212d, blood red 8a0f12, claret 7a1c35, raspberry red b3264f, vermilion dd3d23, "
        "tomato red dc4530"
    ),
    "orange": (
        "[orange] f07c1e, [] ff9a3c, [] d9621a, [] ff6a13, [] e8924f, [] c85a1e, [] f2a566, rust c0531f, "
        "burnt orange bb5513, terracotta c4633f, tangerine f28522, pumpkin orange e8721d, apricot f4ac78, "
        "copper b5673c, amber f2a01c, carrot orange ed7b22, fluorescent orange ff6b1c, coral orange f47b55"
    ),
    "yellow": (
        "[yellow] f2d31b, [] ffff00, [] f5e663, [] d9b81a, [] e4cf4e, [] ffe98a, [] c2a51e, [] fff7a8, "
        "[] e8f03c, mustard c99a1f, mustard yellow d4a82a, gold d4a72c, golden yellow f0b51f, "
        "lemon yellow f6e94d, canary yellow fbe838, pale lemon f7f0a0, saffron f0b030, ochre c08a2a, "
        "sunflower yellow f8c81c, fluorescent yellow e3f52f, straw yellow e2cf83"
    ),
    "green": (
        "[green] 2f9a45, [] 00c020, [] 1f6b32, [] 14401f, [] 6dbb55, [] a4d68c, [] 5c7a56, [] 3c4f3a, "
        "[] 8aa583, [] 00ff00, [] 2ab58a, [] 1c2b20, [] b9dbb4, [] a8cf2c, [] 1d7a66, [] 9ab35a, "
        "[] 6f7a3a, olive 63662f, olive green 5f6b35, dark olive 454a26, army green 4f5633, "
        "khaki green 77794a, forest green 1f4a2c, bottle green 12402f, mint a9dfc4, mint green a3dcb8, "
        "sage 9cab8a, sage green 94a681, lime green 93cf35, emerald green 0f8a57, sea green 3c9a78, "
        "moss green 6f7d40, hunter green 274f36, racing green 0f3f2a, pea green 8ba33c, jade green 27a077, "
        "grass green 4c9a32, neon green 7df03a, pistachio b4d18f, teal green 19776a"
    ),
    "blue": (
        "[blue] 2158b5, [] 0000ff, [] 2a3fd0, [] 1e3f8f, [] 3f8fdc, [] 6fa3d8, [] 9cc3ea, [] c3dcf2, "
        "[] 0f1e55, [] 18224a, [] 00a0d8, [] 29506e, [] 4a6078, [] 7c96b2, [] 26384c, [] 20d5ee, "
        "[] a5dfe6, [] 3f4fb0, [] 5b78c9, [] 1b2c3a, [] 8fb6bd, [] 2e7d8a, navy 1b2547, navy blue 1c2a56, "
        "dark navy 141b33, denim blue 46658c, royal blue 2547b0, sky blue 86bfe8, baby blue b0d3ef, "
        "powder blue b3cfe0, teal 17727b, turquoise 2db8b4, aqua 4cc7cc, cyan 22c3dd, petrol blue 1c4f5f, "
        "cobalt blue 1d4aa6, cornflower blue 6a91dc, steel blue 50789c, slate blue 56708d, "
        "midnight blue 131a3a, ice blue cfe6ef, electric blue 1668f5, air force blue 5d7fa0, "
        "indigo 2f2d6b, duck egg blue b5d6d3, cerulean 1f86c0, azure 2b8fe6, peacock blue 0d6478, "
        "ink blue 1a2a44"
    ),
    "purple": (
        "[purple] 6f2c91, [] 9b4fc0, [] 4c2170, [] b58fd6, [] 8a6fb5, [] 341540, [] 8000ff, [] 7b5c86, "
        "[] d2bfe6, [] 8a2a78, [] 5a3a66, [] a070a8, lilac c3a6d8, lavender bfb0e0, violet 7a3fc0, "
        "plum 6a2752, aubergine 42203f, mauve a883a8, grape purple 5b2d6b, royal purple 57289c, "
        "dusty purple 86688f, amethyst 9763c0, mulberry 85305e, heather purple 9a83a5"
    ),
    "pink": (
        "[pink] f08cb4, [] e0559b, [] f8c4d6, [] d83a8a, [] ff00a0, [] c77c92, [] f4a6a6, [] e68aa0, "
        "[] c24d78, [] f9dde4, [] ff00ff, [] d667c0, hot pink f0348c, pale pink f6cfd8, baby pink f4bfd0, "
        "fuchsia d3268f, magenta c9207f, salmon pink f5948a, coral f2715f, coral pink f4857c, "
        "blush pink ecbfbd, dusty pink cf98a0, rose pink df7c93, raspberry pink c63866, candy pink ef70a8, "
        "old rose b87880, bubblegum pink f47fb8, peach f7bd98, cerise cf2a68"
    ),
    "brown": (
        "[brown] 6e4426, [] 8c5a33, [] 4a2d1a, [] 2f1e14, [] a3764f, [] 5a4636, [] 7a6350, [] 3d332b, "
        "[] 94602c, [] 6b3a2a, [] 8a7460, chocolate brown 45291a, dark chocolate 35211a, "
        "chestnut brown 74381f, coffee brown 584030, caramel a66d35, toffee brown 8d5c33, mocha 7d614c, "
        "reddish brown 7a3624, tan brown a0764a, golden brown 96682a, bronze 8c6a35, russet 86401f, "
        "mahogany 57271d, umber 5f4630, sepia 6a4b2e, cognac brown 8f4a22, walnut brown 57402f"
    ),
    "beige": (
        "[beige] d8c6a5, [] e6d9c0, [] c9b38e, [] ecdcb8, [] bba98a, [] d3c3b0, [] c4ab82, [] b0a486, "
        "tan c4a173, cream f0e6c8, khaki b5a375, camel bd935a, sand d3bc8c, stone c3baa6, taupe a19280, "
        "ecru ddd0af, oatmeal d6c9b2, fawn c2a67c, champagne ebdcc0, buff d9c08a, putty b9ac92, "
        "biscuit dcbf93, light khaki cbbd94"
    ),
}

_PAIRS = """black-grey black-blue black-brown black-green black-purple black-red white-grey white-beige
white-yellow white-pink white-blue white-green white-purple grey-blue grey-green grey-beige grey-brown
grey-purple grey-pink red-orange red-pink red-brown red-purple orange-yellow orange-brown orange-pink
orange-beige yellow-green yellow-beige yellow-brown green-blue green-brown green-beige blue-purple purple-pink
purple-brown pink-beige brown-beige pink-brown"""
# Basic terms that border on each other: two people may honestly disagree between them, over no others.
NEIGHBOURS = frozenset(frozenset(pair.split("-")) for pair in _PAIRS.split())


@dataclass(frozen=True)
class _Names:
    names: list[str]
    lab: Floats  # (N, 3)
    families: list[str]
    weights: Floats  # (N,) how usual the source of the name is


def to_lab(rgb: npt.ArrayLike) -> Floats:
    """sRGB 0..255, (..., 3) -> CIELAB under D65, (..., 3)."""
    c = np.asarray(rgb, dtype=np.float64) / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def delta_e(lab: Floats, others: Floats) -> Floats:
    """CIE94 distance of a CIELAB colour (3,) to others (N, 3), symmetric by the mean of the chromas."""
    d = others - lab
    chroma, chroma_others = np.hypot(lab[1], lab[2]), np.hypot(others[:, 1], others[:, 2])
    mean = np.sqrt(chroma * chroma_others)
    dc = chroma_others - chroma
    dh2 = np.maximum(d[:, 1] ** 2 + d[:, 2] ** 2 - dc**2, 0)
    return np.asarray(np.sqrt(d[:, 0] ** 2 + (dc / (1 + 0.045 * mean)) ** 2 + dh2 / (1 + 0.015 * mean) ** 2))


def basic_name(rgb: RGB) -> str:
    """The basic term of a colour, one of the keys of TABLE."""
    return _basic_name((int(rgb[0]), int(rgb[1]), int(rgb[2])))


def names(rgb: RGB) -> list[tuple[str, float]]:
    """Names that people give to `rgb`, with weights that sum to 1.

    A third of the weight each goes to the basic name, to modified ones ("dark blue") and to all others, so
    that the many rare names of a crowded region do not drown the usual ones.
    """
    rgb = (int(rgb[0]), int(rgb[1]), int(rgb[2]))
    return list(_near_names(rgb))


def name(
    rgb: RGB,
    rng: np.random.Generator,
    plain: float,
    *,
    without: Callable[[str], bool] | None = None,
    prefer: Callable[[str], bool] | None = None,
) -> str:
    """Draw a name for `rgb`; with probability `plain` its basic term.

    `without`: names that must not be drawn. `prefer`: names that come first, if one is near.
    """
    if rng.random() < plain:
        return basic_name(rgb)
    pool = [(n, w) for n, w in names(rgb) if not (without and without(n))]
    wanted = [(n, w) for n, w in pool if prefer and prefer(n)]
    weights = np.array([w for _, w in wanted or pool])
    return (wanted or pool)[int(rng.choice(len(weights), p=weights / weights.sum()))][0]


def all_names() -> tuple[str, ...]:
    """Every colour name that is not made by rule."""
    return tuple(_named().names)


def neighbours(a: str, b: str) -> bool:
    """Whether two basic terms are the same or border on each other."""
    return a == b or frozenset((a, b)) in NEIGHBOURS


def sample_clothing_rgb(kind: str, rng: np.random.Generator) -> RGB:
    """Draw the sRGB colour of a garment.

    `kind`: "top", "coat", "bottom", "jeans", "shoes", "bag", "accent" (stripes, logos, sleeves), "hi-vis" or
    any other (drawn as "top"). Dark and neutral colours are as common as on a street; the rest spreads evenly
    over all hues.
    """
    if kind == "hi-vis":
        return _jitter(rng, (222, 240, 45) if rng.random() < 0.6 else (255, 108, 28), 10)
    if kind == "jeans":
        t = rng.random()
        if t < 0.15:  # black and grey jeans
            return _jitter(rng, _grey(rng.uniform(18, 90)), 1.5)
        dark, light = np.array([26, 40, 66]), np.array([150, 180, 208])
        mixed = dark + (light - dark) * rng.beta(1.3, 1.8)
        return _jitter(rng, mixed * rng.uniform(0.9, 1.1), 4)
    black, white, grey, navy, earth = _NEUTRALS.get(kind, _NEUTRALS["top"])
    t = rng.random()
    if (t := t - black) < 0:
        return _jitter(rng, _grey(rng.uniform(8, 32)), 4)
    if (t := t - white) < 0:
        return _jitter(rng, _grey(rng.uniform(226, 250)), 4)
    if (t := t - grey) < 0:
        return _jitter(rng, _grey(rng.uniform(45, 205)), 5)
    if (t := t - navy) < 0:
        return _jitter(rng, np.array([26, 36, 72]) * rng.uniform(0.7, 1.25), 6)
    families = ("brown", "beige") if t - earth < 0 else _HUES
    family = families[int(rng.integers(len(families)))]
    hexes = re.findall(r" ([0-9a-f]{6})(?:,|$)", TABLE[family])
    return _jitter(rng, _from_hex(hexes[int(rng.integers(len(hexes)))]), 14)


_HUES = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "green", "blue", "red")
# Shares of black, white, grey, navy, and brown or beige; the rest is spread over the hues.
_NEUTRALS: dict[str, tuple[float, float, float, float, float]] = {
    "top": (0.12, 0.12, 0.12, 0.07, 0.07),
    "coat": (0.20, 0.03, 0.11, 0.15, 0.13),
    "bottom": (0.27, 0.05, 0.17, 0.11, 0.15),
    "shoes": (0.36, 0.22, 0.12, 0.03, 0.13),
    "bag": (0.28, 0.04, 0.12, 0.08, 0.12),
    "accent": (0.12, 0.26, 0.10, 0.06, 0.03),
}


def _grey(level: float) -> Floats:
    return np.full(3, level)


def _jitter(rng: np.random.Generator, rgb: npt.ArrayLike, sigma: float) -> RGB:
    r, g, b = np.clip(np.rint(np.asarray(rgb) + rng.normal(0, sigma, 3)), 0, 255).astype(int).tolist()
    return r, g, b


def _from_hex(text: str) -> RGB:
    return int(text[0:2], 16), int(text[2:4], 16), int(text[4:6], 16)


@functools.cache
def _anchors() -> tuple[Floats, list[str]]:
    """CIELAB (N, 3) and basic term of every entry of TABLE."""
    rows = [(h, family) for family, row in TABLE.items() for h in re.findall(r" ([0-9a-f]{6})(?:,|$)", row)]
    return to_lab([_from_hex(h) for h, _ in rows]), [family for _, family in rows]


@functools.lru_cache(65536)
def _basic_name(rgb: RGB) -> str:
    lab, families = _anchors()
    return families[int(np.argmin(delta_e(to_lab(rgb), lab)))]


@functools.cache
def _named() -> _Names:
    """All names that are not made by rule: the everyday ones, then XKCD and CSS4 less those that mislead."""
    from matplotlib.colors import CSS4_COLORS, XKCD_COLORS  # here: the train extra, and only captions need it

    found: dict[str, tuple[RGB, str, float]] = {}
    for family, row in TABLE.items():
        for text, hex_ in re.findall(r"([^,\[\]]+?) ([0-9a-f]{6})(?:,|$)", row):
            if text.strip():
                found[text.strip()] = (_from_hex(hex_), family, 1.0)
    more = re.findall(r"([a-z][a-z ]*?) ([0-9a-f]{6})(?:,|$)", " ".join(MORE_NAMES.split()))
    survey = {n.removeprefix("xkcd:"): h[1:] for n, h in XKCD_COLORS.items() if says_a_colour(n[5:])}
    css = {text: CSS4_COLORS[text.replace(" ", "")][1:] for text in re.split(r",\s+", CSS_NAMES.strip())}
    for text, hex_ in [*more, *survey.items(), *css.items()]:
        words = text.split()
        if text in found or text in TABLE:
            continue
        if words[-1] in TABLE and SHADES.issuperset(words[:-1]):
            continue  # _modified makes these, by one measure for all
        rgb = _from_hex(str(hex_).lower())
        family = basic_name(rgb)
        # A name that ends in a basic term must mean that term: "dark green blue" is no plain blue on a
        # jacket.
        if words[-1] in TABLE and not neighbours(words[-1], family):
            continue
        found[text] = (rgb, words[-1] if words[-1] in TABLE else family, 0.5)
    texts = list(found)
    return _Names(
        texts,
        to_lab([found[t][0] for t in texts]),
        [found[t][1] for t in texts],
        np.array([found[t][2] for t in texts]),
    )


def _modified(lab: Floats, family: str) -> list[str]:
    """Basic term with modifiers that hold for the colour, e.g. ["dark blue", "deep blue"]; may be empty."""
    light, chroma = float(lab[0]), float(np.hypot(lab[1], lab[2]))
    if family in ("black", "white"):
        return []
    dark_below, light_above, bright_above = _MODIFIERS[family]
    out = []
    if light < dark_below:
        out += [f"dark {family}", f"dark {family}", *([f"deep {family}"] if chroma > 22 else [])]
        out += [f"very dark {family}"] if light < dark_below - 14 else []
    elif light > light_above:
        out += [f"light {family}", f"light {family}", f"pale {family}"]
        out += [f"pastel {family}"] if 12 < chroma < 45 and family not in ("grey", "beige") else []
    if chroma > bright_above and light >= dark_below:
        out += [f"bright {family}", f"vivid {family}"]
    elif (
        chroma < 0.35 * bright_above
        and dark_below <= light <= light_above
        and family not in ("grey", "beige")
    ):
        out += [f"dull {family}", f"muted {family}"]
    return out


# Lightness under which a basic term is "dark", over which it is "light", and chroma over which it is
# "bright".
_MODIFIERS: dict[str, tuple[float, float, float]] = {
    "grey": (44, 68, 999),
    "red": (33, 999, 66),
    "orange": (56, 74, 72),
    "yellow": (68, 91, 68),
    "green": (38, 68, 58),
    "blue": (33, 64, 52),
    "purple": (30, 62, 58),
    "pink": (50, 76, 52),
    "brown": (30, 47, 999),
    "beige": (70, 84, 999),
}


@functools.lru_cache(65536)
def _near_names(rgb: RGB) -> tuple[tuple[str, float], ...]:
    lab, family, table = to_lab(rgb), basic_name(rgb), _named()
    weights: dict[str, float] = {family: 1 / 3}
    if lab[0] < 15 and family != "black":  # hue hardly shows in what is this dark
        weights["black"] = 1 / 5
    modified = _modified(lab, family)
    for text in modified:
        weights[text] = weights.get(text, 0) + 1 / (3 * len(modified))
    distance = delta_e(lab, table.lab)
    near = [i for i in np.flatnonzero(distance < 11) if neighbours(family, table.families[i])]
    near = [i for i in near if table.names[i] not in weights]
    share = table.weights[near] * np.exp(-((distance[near] / 6) ** 2))
    for i, w in zip(near, share / max(share.sum(), 1e-9) / 3, strict=True):
        weights[table.names[i]] = float(w)
    total = sum(weights.values())
    return tuple((text, w / total) for text, w in weights.items())

"""Who a synthetic person is: body, hair, clothes and bags, as plain values for renderer and captions."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tagclip.train.synth.palette import RGB

# Names of the visible parts that the renderer reports per image, each as a fraction of the person's pixels.
PARTS = (
    "hair",
    "headwear",
    "top",
    "sleeves",
    "inner",
    "top_pattern",
    "bottom",
    "shoes",
    "bag0",
    "bag1",
    "scarf",
    "skin",
    "phone",
)

Gender = Literal["woman", "man"]
Age = Literal["child", "young", "adult", "old"]
Build = Literal["slim", "average", "heavy"]
Height = Literal["short", "average", "tall"]
HairLength = Literal["bald", "short", "curly", "medium", "long", "ponytail", "bun"]
HairName = Literal["black", "dark brown", "brown", "light brown", "blond", "grey", "white", "red", "dyed"]
HeadwearKind = Literal["cap", "beanie", "hat", "helmet", "hood"]
# fmt: off
TopKind = Literal[
    "t-shirt", "shirt", "polo", "sweater", "cardigan", "hoodie", "jacket", "hooded jacket", "puffer jacket",
    "hi-vis jacket", "blazer", "coat", "long coat", "vest", "hi-vis vest", "tank top", "dress", "long dress",
]
# fmt: on
Sleeve = Literal["none", "short", "long"]
# fmt: off
Pattern = Literal[
    "plain", "horizontal stripes", "vertical stripes", "checks", "colour block", "logo", "print", "polka dots",
]
# fmt: on
BottomKind = Literal[
    "jeans", "trousers", "wide trousers", "sweatpants", "leggings", "shorts", "skirt", "long skirt"
]
ShoesKind = Literal["shoes", "sneakers", "boots", "sandals"]
BagKind = Literal["backpack", "shoulder bag", "handbag", "suitcase", "plastic bag", "umbrella", "box"]
Side = Literal["left", "right"]
# fmt: off
Posture = Literal[
    "walking", "running", "standing", "sitting", "crouching", "kneeling", "bending", "lying", "waving", "phoning",
]
# fmt: on


@dataclass(frozen=True)
class Hair:
    length: HairLength
    rgb: RGB  # of what hair there would be when bald
    name: HairName


@dataclass(frozen=True)
class Headwear:
    kind: HeadwearKind  # "hood" only where top.has_hood; its rgb is the top's
    rgb: RGB


@dataclass(frozen=True)
class Top:
    """The outermost garment of the upper body.

    A vest over another garment has that garment's sleeves: `sleeve_rgb == inner_rgb`. An open garment shows
    a strip of `inner_rgb` at the front.
    """

    kind: TopKind
    sleeve: Sleeve
    rgb: RGB
    pattern: Pattern = "plain"
    rgb2: RGB | None = None  # second colour of the pattern; None if and only if plain
    sleeve_rgb: RGB | None = None
    open: bool = False
    inner_rgb: RGB | None = None
    has_hood: bool = False


@dataclass(frozen=True)
class Bottom:
    kind: BottomKind
    rgb: RGB
    pattern: Pattern = "plain"
    rgb2: RGB | None = None


@dataclass(frozen=True)
class Shoes:
    kind: ShoesKind
    rgb: RGB


@dataclass(frozen=True)
class Bag:
    """A bag, or another thing that is carried. An umbrella is open; a box is held in both arms."""

    kind: BagKind
    rgb: RGB
    side: Side  # the hand or shoulder that carries it, from the person's own point of view


@dataclass(frozen=True)
class Appearance:
    gender: Gender
    age: Age
    build: Build
    height: Height  # for their age
    skin_rgb: RGB  # drawn, never described
    hair: Hair
    headwear: Headwear | None
    top: Top
    bottom: Bottom | None  # None under a dress
    shoes: Shoes
    bags: tuple[Bag, ...]  # at most two
    scarf: RGB | None
    posture: Posture = "standing"  # in one picture; all else stays the same


def to_json(appearance: Appearance) -> dict[str, Any]:
    """Plain dicts, lists, strings, numbers and None: what json.dumps takes; colours as [r, g, b]."""
    plain = _to_lists(dataclasses.asdict(appearance))
    assert isinstance(plain, dict)
    return plain


def from_json(data: Mapping[str, Any]) -> Appearance:
    """The inverse of `to_json`; a missing or unknown field is a TypeError or KeyError of that name."""
    d = {key: _to_tuples(value) for key, value in data.items()}
    return Appearance(
        **d
        | {
            "hair": Hair(**d["hair"]),
            "headwear": Headwear(**d["headwear"]) if d["headwear"] else None,
            "top": Top(**d["top"]),
            "bottom": Bottom(**d["bottom"]) if d["bottom"] else None,
            "shoes": Shoes(**d["shoes"]),
            "bags": tuple(Bag(**bag) for bag in d["bags"]),
        }
    )


def _to_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _to_lists(v) for k, v in value.items()}
    return [_to_lists(v) for v in value] if isinstance(value, (tuple, list)) else value


def _to_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _to_tuples(v) for k, v in value.items()}
    return tuple(_to_tuples(v) for v in value) if isinstance(value, (tuple, list)) else value

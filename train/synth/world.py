"""How much of the world is drawn: everything, but for experiments that ask what a part of it is worth."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from tagclip.train.synth.appearance import Appearance
from tagclip.train.synth.palette import RGB, delta_e, to_lab

Part = Literal["geometry", "patterns", "camera"]


@dataclass(frozen=True)
class World:
    """What a set is drawn with.

    Attributes:
        without: left out. "geometry": clothes and hair are painted on bodies that walk or stand, nothing is carried.
            "patterns": all cloth is of one colour. "camera": one distance, a perfect lens, nothing in the way.
        shifted: another palette and another camera than those of any training set: a stand-in for what nobody has seen
            yet, to measure on.
    """

    without: tuple[Part, ...] = ()
    shifted: bool = False

    def to_json(self) -> dict[str, str | int]:
        """Its two fields of synth.json, a text and 0 or 1."""
        return {"without": " ".join(self.without), "shifted": int(self.shifted)}

    def dress(self, person: Appearance, rng: np.random.Generator) -> Appearance:
        """The person as this world has them."""
        if "patterns" in self.without:
            top = replace(person.top, pattern="plain", rgb2=None)
            bottom = replace(person.bottom, pattern="plain", rgb2=None) if person.bottom else None
            person = replace(person, top=top, bottom=bottom)
        if "geometry" in self.without:
            person = replace(person, bags=(), scarf=None)
        return _recoloured(person, rng) if self.shifted else person


EVERYTHING = World()


def _recoloured(person: Appearance, rng: np.random.Generator) -> Appearance:
    """The same clothes in colours that no fashion chose: any hue, any strength."""

    def any_colour() -> RGB:
        hue, saturation, value = rng.random(), rng.random() ** 0.7, rng.uniform(0.08, 1.0)
        r, g, b = (round(255 * v) for v in colorsys.hsv_to_rgb(hue, saturation, value))
        return r, g, b

    def apart(rgb: RGB) -> RGB:
        while True:
            other = any_colour()
            if float(delta_e(to_lab(rgb), to_lab(other)[None])[0]) > 25:
                return other

    main = any_colour()
    top = person.top
    inner = apart(main) if top.inner_rgb else None
    # A vest's sleeves are those of what is worn under it.
    sleeves = (
        inner
        if top.sleeve_rgb and top.sleeve_rgb == top.inner_rgb
        else apart(main)
        if top.sleeve_rgb
        else None
    )
    top = replace(top, rgb=main, rgb2=apart(main) if top.rgb2 else None, inner_rgb=inner, sleeve_rgb=sleeves)
    bottom = person.bottom
    if bottom is not None:
        below = any_colour()
        bottom = replace(bottom, rgb=below, rgb2=apart(below) if bottom.rgb2 else None)
    wear = person.headwear
    if wear is not None:
        wear = replace(wear, rgb=main if wear.kind == "hood" else any_colour())
    return replace(
        person,
        top=top,
        bottom=bottom,
        headwear=wear,
        shoes=replace(person.shoes, rgb=any_colour()),
        bags=tuple(replace(bag, rgb=any_colour()) for bag in person.bags),
        scarf=any_colour() if person.scarf else None,
    )

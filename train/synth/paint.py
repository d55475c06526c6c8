"""Which colour and which visible part every point of a dressed person has."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tagclip.train.synth.appearance import PARTS, Appearance
from tagclip.train.synth.body import SEGMENTS, Array, BodyModel, Rest
from tagclip.train.synth.pieces import COATS, HeadBox
from tagclip.train.synth.places import noise

Bool = NDArray[np.bool_]

# Lower hem of a top and of what is worn below, on the scale of Rest.along (0 ankle, 1 knee, 2 hip, 3 shoulder).
TOP_HEM = {
    "t-shirt": 2.08, "shirt": 2.02, "polo": 2.1, "sweater": 2.1, "hoodie": 2.04, "jacket": 1.98,
    "hooded jacket": 1.88, "puffer jacket": 1.98, "vest": 2.05, "hi-vis vest": 1.98, "tank top": 2.1,
    "cardigan": 2.0, "blazer": 1.92, "hi-vis jacket": 1.95,
}  # fmt: skip
SHORT_SLEEVE, LONG_SLEEVE, NO_SLEEVE = 0.62, 1.95, -0.05
SHORTS_HEM = 1.12
# Thickness of cloth over the skin, metres.
THICKNESS = {
    "t-shirt": 0.010, "shirt": 0.012, "polo": 0.010, "sweater": 0.02, "hoodie": 0.028, "jacket": 0.026,
    "hooded jacket": 0.03, "puffer jacket": 0.055, "cardigan": 0.018, "blazer": 0.02, "hi-vis jacket": 0.035,
    "coat": 0.03, "long coat": 0.03, "vest": 0.03,
    "hi-vis vest": 0.03, "tank top": 0.006, "dress": 0.008, "long dress": 0.008,
    "jeans": 0.010, "trousers": 0.016, "wide trousers": 0.03, "sweatpants": 0.024, "leggings": 0.003,
    "shorts": 0.025, "skirt": 0.0, "long skirt": 0.0,
}  # fmt: skip


class Paint:
    """Answers colour and part for points of one person, given by segment, rest position and place along the limb."""

    def __init__(
        self, person: Appearance, rest: Rest, model: BodyModel, box: HeadBox, rng: np.random.Generator
    ):
        self.person = person
        self.box = box
        self.shoulder_z = float(rest.heads[model.bone("upperarm01.L")][2])
        hip = rest.heads[model.bone("upperleg01.L")]
        self.hip_z, self.hip_y = float(hip[2]), float(hip[1])
        self.seam_x = float(abs(hip[0]))
        self.neck = rest.heads[model.bone("neck01")]
        closed = person.top.kind in (
            "t-shirt",
            "sweater",
            "hi-vis jacket",
            "tank top",
            "dress",
            "long dress",
            "vest",
            "hi-vis vest",
        )
        self.collar_m = float(rng.uniform(-0.05, -0.01) if closed else rng.uniform(0.01, 0.06))
        self.stripe_m = float(rng.uniform(0.05, 0.11))  # period of stripes and checks
        self.open_m = float(rng.uniform(0.03, 0.07))  # half-width of an open front at the chest
        self.block_z = self.hip_z + float(rng.uniform(0.35, 0.7)) * (self.shoulder_z - self.hip_z)
        self.boot_along = float(rng.uniform(0.15, 0.6))
        self.sole_rgb = rng.choice([[235, 235, 235], [30, 30, 30], [120, 100, 80]])
        self.tights = rng.random() < 0.5 and person.gender == "woman"
        self.tights_rgb = (28, 28, 32)

    def body(self, segment: NDArray[np.int64], at: Array, along: Array) -> tuple[Array, NDArray[np.int64]]:
        """Colour (n, 3) sRGB 0..1 and part (n,) index into PARTS of points on the body.

        Args:
            segment: (n,) index into SEGMENTS.
            at: (n, 3) rest positions, metres.
            along: (n, 2) Rest.along at the points.
        """
        arm_scale = np.isin(segment, [SEGMENTS.index(s) for s in ("arm.L", "arm.R", "hand.L", "hand.R")])
        along = np.where(arm_scale, along[:, 1], along[:, 0])
        person = self.person
        rgb = np.empty((len(at), 3), np.float32)
        part = np.empty(len(at), np.int64)

        def put(where: Bool, colour: tuple[int, int, int], name: str) -> None:
            rgb[where] = np.asarray(colour, np.float32) / 255
            part[where] = PARTS.index(name)

        def has(*names: str) -> Bool:
            return np.isin(segment, [SEGMENTS.index(n) for n in names])

        everything = np.ones(len(at), bool)
        put(everything, person.skin_rgb, "skin")
        torso, legs, feet = has("torso"), has("leg.L", "leg.R"), has("foot.L", "foot.R")
        arms, head = has("arm.L", "arm.R"), has("head")
        hands = has("hand.L", "hand.R")
        trunk = torso | legs
        neck = np.hypot(at[:, 0], at[:, 1] - self.neck[1] - 0.01) < 0.085
        collar = (at[:, 2] < self.neck[2] + self.collar_m) | (~neck & (at[:, 2] < self.neck[2] + 0.06))

        if person.bottom is not None:
            kind = person.bottom.kind
            covered = trunk & (along < 2.45) & (along > -0.2)
            if kind == "shorts":
                covered &= along > SHORTS_HEM
            elif kind in ("skirt", "long skirt"):
                covered &= along > 1.9
            put(covered, person.bottom.rgb, "bottom")
            self._bottom_pattern(covered, at, rgb)
        if (person.bottom is None or "skirt" in person.bottom.kind) and self.tights:
            put(legs & (along < 1.9), self.tights_rgb, "skin")
        top = person.top
        hem = TOP_HEM.get(top.kind, 1.9)
        covered = trunk & (along > hem) & collar
        put(covered, top.rgb, "top")
        self._top_pattern(covered, at, rgb, part)
        self._sleeves(arms, hands, at, along, rgb, part)
        if top.open and top.inner_rgb is not None:
            width = self.open_m * (0.6 + 0.8 * (self.shoulder_z + 0.1 - at[:, 2]) / 0.5).clip(0.5, 1.6)
            front = covered & torso & (at[:, 1] < self.box.middle[1] + 0.03) & (np.abs(at[:, 0]) < width)
            put(front, top.inner_rgb, "inner")
        self._straps(torso, at, rgb, part)
        shoes = feet | (legs & (along < (self.boot_along if person.shoes.kind == "boots" else -0.05)))
        put(shoes, person.shoes.rgb, "shoes")
        if person.shoes.kind == "sneakers":
            rgb[feet & (at[:, 2] < at[:, 2].min() + 0.02)] = self.sole_rgb.astype(np.float32) / 255
        if person.shoes.kind == "sandals":
            put(feet & (np.sin(at[:, 1] * 90) > 0), person.skin_rgb, "skin")
        scalp, crown = self.scalp(at)
        if person.hair.length != "bald":
            put(head & scalp, person.hair.rgb, "hair")
        wear = person.headwear
        if wear is not None:
            put(head & (self._hooded(at) if wear.kind == "hood" else crown), wear.rgb, "headwear")
        return rgb, part

    def scalp(self, at: Array) -> tuple[Bool, Bool]:
        """Where hair grows, and where a cap sits, on points (n, 3) of the rest head."""
        x, y, z = ((at - self.box.middle) / self.box.half).T
        # The hairline runs from the forehead (front, high) over the ears down to the nape.
        scalp = z > np.interp(y, [-1.0, -0.35, 0.1, 0.6, 1.0], [0.55, 0.4, -0.1, -0.55, -0.7])
        return scalp & (np.abs(x) < 2), z > 0.3 + 0.1 * y

    def _hooded(self, at: Array) -> Bool:
        x, y, z = ((at - self.box.middle) / self.box.half).T
        return ~((y < -0.25) & (z < 0.62) & (np.abs(x) < 0.75))

    def _sleeves(
        self, arms: Bool, hands: Bool, at: Array, along: Array, rgb: Array, part: NDArray[np.int64]
    ) -> None:
        top = self.person.top
        end = {"none": NO_SLEEVE, "short": SHORT_SLEEVE, "long": LONG_SLEEVE}[top.sleeve]
        covered = (arms | hands) & (along < end)
        colour = top.sleeve_rgb if top.sleeve_rgb is not None else top.rgb
        rgb[covered] = np.asarray(colour, np.float32) / 255
        if top.sleeve_rgb is None:
            self._top_pattern(covered, np.stack([at[:, 0], at[:, 1], -along * 0.28], 1), rgb, part)
        part[covered] = PARTS.index("sleeves")
        if top.sleeve == "none" and top.inner_rgb is not None:  # a vest over something with sleeves
            under = arms & (along < LONG_SLEEVE)
            rgb[under] = np.asarray(top.inner_rgb, np.float32) / 255
            part[under] = PARTS.index("inner")

    def _top_pattern(self, where: Bool, at: Array, rgb: Array, part: NDArray[np.int64]) -> None:
        top = self.person.top
        if top.rgb2 is None:
            return
        if (
            top.kind in ("hi-vis vest", "hi-vis jacket") and top.pattern == "horizontal stripes"
        ):  # reflective bands
            place = (at[:, 2] - self.hip_z) / (self.shoulder_z - self.hip_z)
            marked = where & ((np.abs(place - 0.2) < 0.06) | (np.abs(place - 0.5) < 0.06))
        elif top.pattern == "colour block":
            marked = where & (at[:, 2] < self.block_z)
        elif top.pattern == "logo":
            marked = where & (np.abs(at[:, 0]) < 0.075) & (np.abs(at[:, 2] - self.shoulder_z + 0.12) < 0.06)
        else:
            marked = self._weave(top.pattern, where, at, rgb, top.rgb2)
        rgb[marked] = np.asarray(top.rgb2, np.float32) / 255
        part[marked] = PARTS.index("top_pattern")

    def _bottom_pattern(self, where: Bool, at: Array, rgb: Array) -> None:
        bottom = self.person.bottom
        if bottom is None or bottom.rgb2 is None:
            return
        if bottom.pattern == "vertical stripes" and bottom.kind in ("sweatpants", "trousers", "leggings"):
            # Down the outer seams: a leg's vertices lie outside of its joint there.
            marked = where & (np.abs(at[:, 0]) > self.seam_x) & (np.abs(at[:, 1] - self.hip_y) < 0.035)
        else:
            marked = self._weave(bottom.pattern, where, at, rgb, bottom.rgb2)
        rgb[marked] = np.asarray(bottom.rgb2, np.float32) / 255

    def _weave(self, pattern: str, where: Bool, at: Array, rgb: Array, rgb2: tuple[int, int, int]) -> Bool:
        """Which of the points `where` have the second colour of a pattern that repeats; checks mix both as well."""
        turns = at / self.stripe_m
        across, down = (turns[:, 0] % 1) < 0.45, (turns[:, 2] % 1) < 0.45
        if pattern == "horizontal stripes":
            return where & down
        if pattern == "vertical stripes":
            return where & across
        if pattern == "checks":
            half = where & (across ^ down)
            rgb[half] = (rgb[half] + np.asarray(rgb2, np.float32) / 255) / 2
            return where & across & down
        if pattern == "polka dots":
            return where & (np.hypot(turns[:, 0] % 1 - 0.5, turns[:, 2] % 1 - 0.5) < 0.3)
        # A print of flowers, leaves or camouflage: blobs at the scale of the stripes.
        return where & (noise("patches", turns[:, 0] / 9 + self.block_z, turns[:, 2] / 9 + at[:, 1]) > 0.25)

    def _straps(self, torso: Bool, at: Array, rgb: Array, part: NDArray[np.int64]) -> None:
        """Straps of backpacks (front of both shoulders) and of shoulder bags (across the chest)."""
        for k, bag in enumerate(self.person.bags):
            x, z = at[:, 0], at[:, 2]
            if bag.kind == "backpack":
                front = at[:, 1] < self.box.middle[1] + 0.06
                low = self.hip_z + 0.55 * (self.shoulder_z - self.hip_z)
                strap = torso & front & (np.abs(np.abs(x) - 0.105) < 0.02) & (z > low)
            elif bag.kind == "shoulder bag":
                sign = 1.0 if bag.side == "left" else -1.0
                slope = (x * sign + 0.1) / 0.27 + (z - self.shoulder_z) / (self.shoulder_z - self.hip_z)
                strap = torso & (np.abs(slope) < 0.055)
            else:
                continue
            rgb[strap] = np.asarray(bag.rgb, np.float32) / 255
            part[strap] = PARTS.index(f"bag{k}")

    def piece(self, material: str, at: Array) -> tuple[Array, NDArray[np.int64]]:
        """Colour and part, as in `body`, of points (n, 3) on a piece; positions are the piece's own, metres."""
        person = self.person
        rgb = np.empty((len(at), 3), np.float32)
        part = np.empty(len(at), np.int64)
        if material == "hair":
            colour, name = person.hair.rgb, "hair"
        elif material in ("tails", "hood"):
            colour, name = person.top.rgb, "top"
        elif material == "bottom":
            assert person.bottom is not None
            colour, name = person.bottom.rgb, "bottom"
        elif material == "headwear":
            assert person.headwear is not None
            colour, name = person.headwear.rgb, "headwear"
        elif material == "phone":
            colour, name = (25, 25, 28), "phone"
        elif material == "scarf":
            assert person.scarf is not None
            colour, name = person.scarf, "scarf"
        else:
            bag = person.bags[int(material[3:])]
            colour, name = bag.rgb, material
        rgb[:] = np.asarray(colour, np.float32) / 255
        part[:] = PARTS.index(name)
        if material == "tails":
            self._top_pattern(np.ones(len(at), bool), at, rgb, part)
        elif material == "bottom":
            self._bottom_pattern(np.ones(len(at), bool), at, rgb)
        return rgb, part

    def thickness(
        self, segment: NDArray[np.int64], at: Array, along: Array, part: NDArray[np.int64]
    ) -> Array:
        """(V,) metres that each rest vertex moves out along its normal, for its cloth."""
        person = self.person
        out = np.zeros(len(at), np.float32)
        names = np.array(PARTS)[part]
        top = THICKNESS[person.top.kind]
        out[np.isin(names, ["top", "top_pattern", "sleeves"])] = top
        out[names == "inner"] = 0.012
        if person.bottom is not None:
            loose = THICKNESS[person.bottom.kind]
            flare = 0.02 * (2 - along[:, 0]) if person.bottom.kind == "wide trousers" else 0.0
            out = np.where(names == "bottom", loose + flare, out).astype(np.float32)
        out[names == "shoes"] = 0.012
        out[names == "hair"] = {
            "bald": 0.0,
            "short": 0.014,
            "curly": 0.02,
            "bun": 0.014,
            "ponytail": 0.014,
        }.get(person.hair.length, 0.026)
        wear = person.headwear
        if wear is not None:
            out[names == "headwear"] = 0.038 if wear.kind == "hood" else 0.022
        # Straps lie on the cloth that they cross, not on the skin under it.
        straps = np.isin(names, ["bag0", "bag1"])
        out[straps] = top + 0.004
        return out


def has_tails(person: Appearance) -> bool:
    """Whether the top reaches down as a coat or dress does."""
    return person.top.kind in COATS

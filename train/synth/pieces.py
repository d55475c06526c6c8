"""Clothes and things with a shape of their own: hair, hats, hoods, coat tails, bags, scarves.

Each piece is made in the rest pose and follows one bone, except what hangs (skirts, coat tails, things in a hand):
that is made anew for every posture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tagclip.train.synth.appearance import Appearance
from tagclip.train.synth.body import SEGMENTS, Array, BodyModel, Rest
from tagclip.train.synth.shapes import Mesh, rings, rounded_box, skirt

COATS = {"coat": 1.62, "long coat": 1.1, "dress": 1.2, "long dress": 0.35}  # hem on the scale of Rest.along
SKIRTS = {"skirt": 1.25, "long skirt": 0.35}
HAND_HELD = frozenset({"handbag", "plastic bag", "suitcase", "umbrella", "box"})


@dataclass(frozen=True)
class Piece:
    """A mesh with the name of what it is made of (see `paint.Paint`) and the bone that it follows."""

    mesh: Mesh
    material: str
    bone: str


@dataclass(frozen=True)
class HeadBox:
    """Middle (3,) and half sizes (3,) of a rest head, from the chin's height to the crown."""

    middle: Array
    half: Array


def head_box(rest: Rest, model: BodyModel) -> HeadBox:
    """Box of the rest head's vertices."""
    points = rest.vertices[model.segment == SEGMENTS.index("head")]
    base = rest.heads[model.bone("head")][2]
    points = points[points[:, 2] > base - 0.01]
    low, high = points.min(0), points.max(0)
    return HeadBox((low + high) / 2, (high - low) / 2)


def hair_pieces(
    person: Appearance, box: HeadBox, rest: Rest, model: BodyModel, rng: np.random.Generator
) -> list[Piece]:
    """What falls or is tied behind the head; the scalp itself is the displaced skin."""
    length = person.hair.length
    if length in ("bald", "short"):
        return []
    middle, half = box.middle, box.half
    if length == "curly":
        volume = rng.uniform(0.025, 0.07)
        centre = middle + np.array([0, 0.03, half[2] * 0.3])
        size = (float(half[0] + volume), float(half[1] + 0.6 * volume), float(0.85 * half[2] + volume))
        return [Piece(rounded_box(centre, size, 0.9), "hair", "head")]
    back = np.array([middle[0], middle[1] + half[1], middle[2]], np.float32)
    if length == "bun":
        centre = back + np.array([0, 0.02, rng.uniform(0.0, 0.6) * half[2]])
        return [Piece(rounded_box(centre, (0.05, 0.045, 0.045), 1.0), "hair", "head")]
    if length == "ponytail":
        drop = rng.uniform(0.10, 0.17)
        centre = back + np.array([0, 0.025, 0.2 * half[2] - drop])
        return [Piece(rounded_box(centre, (0.035, 0.035, drop), 0.9), "hair", "head")]
    # Medium hair ends at the jaw or neck, long hair on shoulders or back. Open towards the face.
    shoulder = rest.heads[model.bone("upperarm01.L")][2]
    end = (
        shoulder - rng.uniform(0.0, 0.16) if length == "long" else middle[2] - half[2] * rng.uniform(0.6, 1.1)
    )
    heights = np.linspace(middle[2] + half[2] * 0.75, end, 9)
    torso = rest.vertices[model.segment == SEGMENTS.index("torso")]
    centres, radii = [], []
    for z in heights:
        above = np.clip((z - middle[2]) / half[2], -1, 1)
        narrow = np.sqrt(max(0.05, 1 - max(0.0, above) ** 2))
        near = torso[(np.abs(torso[:, 2] - z) < 0.03) & (np.abs(torso[:, 0]) < 0.12)]
        behind = max(middle[1] + half[1] * narrow, near[:, 1].max() if len(near) else -9.0)
        ry = behind + 0.02 - middle[1]
        centres.append([middle[0], middle[1], z])
        radii.append([half[0] * (narrow + (0.12 if z < middle[2] else 0.05)) + 0.012, ry])
    angles = np.linspace(-1, 1, 15) * rng.uniform(1.45, 1.9)
    mesh = rings(np.array(centres, np.float32), np.array(radii)[:, None, :], angles, wrap=False)
    return [Piece(mesh, "hair", "neck02" if length == "long" else "head")]


def headwear_pieces(person: Appearance, box: HeadBox) -> list[Piece]:
    """Brims; crowns of hats; the folded hood on the back when it is down."""
    middle, half = box.middle, box.half
    wear = person.headwear
    pieces: list[Piece] = []
    if wear is not None and wear.kind == "cap":
        centre = middle + np.array([0, -half[1] - 0.04, 0.42 * half[2]])
        pieces.append(Piece(rounded_box(centre, (0.065, 0.07, 0.008), 0.8), "headwear", "head"))
    if wear is not None and wear.kind == "hat":
        angles = np.linspace(0, 2 * np.pi, 25)[:-1]
        rim = middle + np.array([0, 0, 0.45 * half[2]])
        centres = np.stack([rim, rim]).astype(np.float32)
        radii = np.array([[half[0] + 0.01, half[1] + 0.01], [half[0] + 0.075, half[1] + 0.075]])
        pieces.append(Piece(rings(centres, radii[:, None], angles, wrap=True), "headwear", "head"))
        crown = middle + np.array([0, 0, 0.75 * half[2]])
        box_half = (float(half[0]) + 0.012, float(half[1]) + 0.012, float(half[2]) * 0.5)
        pieces.append(Piece(rounded_box(crown, box_half, 0.6), "headwear", "head"))
    if wear is not None and wear.kind == "helmet":
        shell = middle + np.array([0, 0.005, 0.5 * half[2]])
        size = (float(half[0]) + 0.03, float(half[1]) + 0.03, float(half[2]) * 0.72)
        pieces.append(Piece(rounded_box(shell, size, 0.85), "headwear", "head"))
    if person.top.has_hood and not (wear is not None and wear.kind == "hood"):
        centre = middle + np.array([0, half[1] * 0.9, -half[2] * 1.15])
        pieces.append(Piece(rounded_box(centre, (0.115, 0.06, 0.075), 0.75), "hood", "spine01"))
    if person.scarf is not None:
        centre = middle + np.array([0, 0.25 * half[1], -half[2] * 1.2])
        pieces.append(Piece(rounded_box(centre, (0.095, 0.1, 0.05), 0.8), "scarf", "neck01"))
    return pieces


def worn_bag_pieces(
    person: Appearance, rest: Rest, model: BodyModel, rng: np.random.Generator
) -> list[Piece]:
    """Backpacks and shoulder bags; bags in the hand hang, see `hanging`."""
    pieces = []
    torso = rest.vertices[model.segment == SEGMENTS.index("torso")]
    hip, shoulder = rest.heads[model.bone("upperleg01.L")], rest.heads[model.bone("upperarm01.L")]
    for k, bag in enumerate(person.bags):
        if bag.kind == "backpack":
            z = hip[2] + 0.62 * (shoulder[2] - hip[2])
            back = torso[np.abs(torso[:, 2] - z) < 0.1][:, 1].max()
            size = rng.uniform(0.85, 1.2)
            half = (0.14 * size, 0.085 * size, 0.22 * size)
            centre = np.array([0, back + half[1] + 0.02, z])
            pieces.append(Piece(rounded_box(centre, half), f"bag{k}", "spine02"))
        elif bag.kind == "shoulder bag":
            sign = 1.0 if bag.side == "left" else -1.0
            z = hip[2] + rng.uniform(-0.06, 0.12)
            side = np.abs(torso[np.abs(torso[:, 2] - z) < 0.06][:, 0]).max()
            size = rng.uniform(0.8, 1.25)
            half = (0.065 * size, 0.16 * size, 0.12 * size)
            centre = np.array([sign * (side + half[0] + 0.03), hip[1] + rng.uniform(-0.08, 0.1), z])
            pieces.append(Piece(rounded_box(centre, half), f"bag{k}", "root"))
    return pieces


def draped(
    person: Appearance, body: Array, joints: dict[str, Array], along: Array, model: BodyModel, ease: float
) -> list[tuple[Mesh, str]]:
    """Cloth that follows gravity in this posture: coat tails and skirts.

    Args:
        body: (V, 3) posed, dressed vertices.
        joints: posed joint positions (3,) with "hip".
        along: (V,) first column of Rest.along.
        ease: looseness of the top, metres.
    """
    pieces: list[tuple[Mesh, str]] = []
    legs = np.isin(model.segment, [SEGMENTS.index(s) for s in ("leg.L", "leg.R")])
    lower = (legs | ((model.segment == SEGMENTS.index("torso")) & (along < 2.6))) & (along > 0.0)
    ground = body[:, 2].min()

    def height(place: float) -> float:
        """World height of a place on the leg scale, by the mean of the vertices near it."""
        near = lower & (np.abs(along - place) < 0.08)
        return float(body[near, 2].mean()) if near.any() else float(ground)

    def hung(top: float, hem: float, ease: float, flare: float) -> Mesh:
        # Over raised thighs the hem is hardly lower than the waist: there the cloth lies on the lap.
        return skirt(
            body[lower], joints["hip"][:2], height(top), min(height(hem), height(top) - 0.12), ease, flare
        )

    top = person.top.kind
    if person.bottom is not None and person.bottom.kind in SKIRTS:
        pieces.append((hung(2.25, SKIRTS[person.bottom.kind], 0.015, 0.10), "bottom"))
    if top in COATS:
        flare = 0.05 if top in ("coat", "long coat") else 0.12
        pieces.append((hung(2.3, COATS[top], ease, flare), "tails"))
    return pieces


def hand_held(
    person: Appearance, joints: dict[str, Array], ground: float, upright: bool
) -> list[tuple[Mesh, str]]:
    """Things in the hands; of those who are not upright they stand on the ground beside them.

    Args:
        joints: posed joint positions (3,): "hip", "head", "wrist.L", "wrist.R".
        ground: height of the lowest vertex, metres.
    """
    pieces: list[tuple[Mesh, str]] = []
    hip = joints["hip"]
    for k, bag in enumerate(person.bags):
        if bag.kind not in HAND_HELD:
            continue
        sign = 1.0 if bag.side == "left" else -1.0
        hand = joints["wrist.L" if bag.side == "left" else "wrist.R"]
        if bag.kind == "umbrella":
            if upright:
                pieces += [(mesh, f"bag{k}") for mesh in _umbrella(hand, joints["head"])]
            continue
        half, drop, power = _IN_HAND[bag.kind]
        if not upright:
            centre = np.array([hip[0] + sign * (0.35 + half[0]), hip[1] - 0.1, ground + half[2]])
        elif bag.kind == "suitcase":
            centre = np.array(
                [hand[0] + np.sign(hand[0] - hip[0]) * 0.05, hand[1] + 0.3, ground + half[2] + 0.02]
            )
        elif bag.kind == "box":
            centre = (joints["wrist.L"] + joints["wrist.R"]) / 2 + np.array([0, -0.06, 0.03])
        else:
            centre = hand + np.array([0, 0, drop])
        pieces.append((rounded_box(centre, half, power), f"bag{k}"))
    return pieces


# Half sizes, metres below the wrist, and roundness of what a hand carries.
_IN_HAND: dict[str, tuple[tuple[float, float, float], float, float]] = {
    "handbag": ((0.06, 0.15, 0.11), -0.24, 0.35),
    "plastic bag": ((0.09, 0.13, 0.19), -0.30, 0.8),
    "suitcase": ((0.19, 0.12, 0.29), 0.0, 0.25),
    "box": ((0.21, 0.15, 0.15), 0.0, 0.15),
}


def _umbrella(hand: Array, head: Array) -> list[Mesh]:
    """Shaft and open canopy over the head, nearly a metre wide."""
    angles = np.linspace(0, 2 * np.pi, 17)[:-1]
    middle = hand * 0.5 + head * 0.5
    top = np.array([middle[0], middle[1], head[2] + 0.45])
    share = np.linspace(0.03, 1.0, 6)
    rims = np.stack([np.full(6, top[0]), np.full(6, top[1]), top[2] - 0.26 * share**2], -1)
    radii = 0.52 * share[:, None, None] * (1 - 0.04 * (np.arange(16) % 2))[None, :, None]
    canopy = rings(rims.astype(np.float32), radii, angles, wrap=True)
    shaft = rings(np.stack([hand, top]).astype(np.float32), np.full((2, 1, 1), 0.012), angles[::2], wrap=True)
    return [canopy, shaft]

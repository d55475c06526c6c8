"""Postures: the gait cycle, and what else people do, as rotations for `BodyModel.transforms`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tagclip.train.synth.appearance import Posture
from tagclip.train.synth.body import Array, BodyModel, Rest, turn

X = (1.0, 0.0, 0.0)
Y = (0.0, 1.0, 0.0)
Z = (0.0, 0.0, 1.0)
# On their feet, trunk upright: what they carry hangs from the hands. All others have put it down.
UPRIGHT = frozenset({"walking", "running", "standing", "waving", "phoning"})
SHARES: dict[Posture, float] = {
    "walking": 0.52, "standing": 0.22, "running": 0.03, "sitting": 0.06, "crouching": 0.02, "kneeling": 0.015,
    "bending": 0.025, "lying": 0.05, "waving": 0.025, "phoning": 0.035,
}  # fmt: skip


@dataclass(frozen=True)
class Gait:
    """How one person moves, drawn once so that a walk stays the same walk; angles in radians.

    Attributes:
        stride: swing of the thigh to each side.
        arms: swing of the arms as a share of the stride.
        elbow: bend of the elbows beyond straight, per side (left, right).
        hang: how far the arms come down from the rest pose, per side.
        lean: forward lean of the trunk.
        nod: forward tilt of the head.
        legs_apart: outward turn of the thighs.
    """

    stride: float
    arms: float
    elbow: tuple[float, float]
    hang: tuple[float, float]
    lean: float
    nod: float
    legs_apart: float


@dataclass(frozen=True)
class Pose:
    """One posture in one picture: `way` (4,) in 0..1 chooses among the ways of it, `side` the arm that does it."""

    posture: Posture
    way: tuple[float, float, float, float] = (0.5, 0.5, 0.5, 0.5)
    side: str = "R"

    @property
    def on_seat(self) -> bool:
        """Whether there has to be something to sit on."""
        return self.posture == "sitting" and self.way[0] < 0.45


WALKING = Pose("walking")


def sample_gait(rng: np.random.Generator, carries: tuple[bool, bool]) -> Gait:
    """A way of walking; a hand that carries something (left, right) stays low."""
    elbows = []
    for loaded in carries:
        bent = rng.random() < 0.25 and not loaded
        elbows.append(float(rng.uniform(0.9, 2.0) if bent else rng.uniform(0.05, 0.5)))
    hang = tuple(float(rng.uniform(0.5, 0.72)) for _ in carries)
    return Gait(
        stride=float(rng.uniform(0.3, 0.6)),
        arms=float(rng.uniform(0.3, 1.1)),
        elbow=(elbows[0], elbows[1]),
        hang=(hang[0], hang[1]),
        lean=float(rng.normal(0.04, 0.06)),
        nod=float(rng.normal(0.08, 0.15)),
        legs_apart=float(rng.uniform(-0.02, 0.08)),
    )


def sample_pose(rng: np.random.Generator) -> Pose:
    """What a person does, mostly walk or stand."""
    names = list(SHARES)
    posture = names[int(rng.choice(len(names), p=list(SHARES.values())))]
    a, b, c, d = rng.random(4).tolist()
    return Pose(posture, (a, b, c, d), "LR"[int(rng.integers(2))])


def posture(
    model: BodyModel, rest: Rest, gait: Gait, phase: float, moving: float, pose: Pose
) -> dict[str, Array]:
    """Rotations at `phase` (radians of the gait cycle).

    Args:
        moving: 1 walking, 0 standing; between, a shuffle; above, a run. Only upright postures move.
    """
    rotations = _upright(model, rest, gait, phase, moving if pose.posture in UPRIGHT else 0.0)
    a, b, _, _ = pose.way
    if pose.posture == "running":
        rotations["spine03"] = turn(X, 0.12 + 0.15 * a)
        for side in "LR":
            rotations[f"lowerarm01.{side}"] = _elbow(model, rest, side, 1.3 + 0.5 * b)
    elif pose.posture in ("waving", "phoning"):
        _gesture(rotations, model, rest, pose)
    elif pose.posture not in UPRIGHT:
        _low(rotations, model, rest, pose)
    return rotations


def tilt(pose: Pose) -> Array:
    """(3, 3) turn of the whole body after its joints: whoever lies has it, on the back, the front or a side."""
    if pose.posture != "lying":
        return np.eye(3, dtype=np.float32)
    side = pose.way[0]
    if side < 0.4:
        return turn(X, -np.pi / 2)  # face up
    if side < 0.65:
        return turn(X, np.pi / 2)
    return (turn(X, -np.pi / 2) @ turn(Z, (1 if side < 0.82 else -1) * np.pi / 2)).astype(np.float32)


def carry(
    rotations: dict[str, Array], model: BodyModel, rest: Rest, gait: Gait, kind: str, side: str
) -> None:
    """Arms of someone who holds a box before them, or an umbrella over them, on `side` L or R."""
    for k, name in enumerate("LR"):
        sign = 1.0 if name == "L" else -1.0
        if kind == "box":
            rotations[f"upperarm01.{name}"] = turn(X, -0.35) @ turn(Y, sign * gait.hang[k])
            rotations[f"lowerarm01.{name}"] = _elbow(model, rest, name, 1.25)
        elif name == side:
            rotations[f"upperarm01.{name}"] = turn(X, -0.5) @ turn(Y, sign * gait.hang[k])
            rotations[f"lowerarm01.{name}"] = _elbow(model, rest, name, 1.9)


def _upright(model: BodyModel, rest: Rest, gait: Gait, phase: float, moving: float) -> dict[str, Array]:
    rotations: dict[str, Array] = {
        "spine03": turn(X, gait.lean),  # in these axes a positive turn about x leans towards -y, the front
        "head": turn(X, gait.nod),
        "spine01": turn(Z, 0.12 * moving * np.sin(phase)),
    }
    for k, side in enumerate("LR"):
        sign = 1.0 if side == "L" else -1.0
        swing = gait.stride * moving * np.sin(phase + (0 if side == "L" else np.pi))
        # The knee bends most while its leg swings forward (a quarter cycle before the thigh is in front).
        knee = 0.08 + moving * gait.stride * 1.5 * max(0.0, np.cos(phase + (0 if side == "L" else np.pi)))
        rotations[f"upperleg01.{side}"] = turn(X, -swing) @ turn(Y, -sign * (gait.legs_apart - 0.06))
        rotations[f"lowerleg01.{side}"] = turn(X, knee)
        rotations[f"foot.{side}"] = turn(X, 0.3 * swing - 0.3 * knee * moving)
        arm_swing = gait.arms * swing
        rotations[f"upperarm01.{side}"] = turn(X, arm_swing) @ turn(Y, sign * gait.hang[k])
        rotations[f"lowerarm01.{side}"] = _elbow(model, rest, side, gait.elbow[k])
    return rotations


def _elbow(model: BodyModel, rest: Rest, side: str, bend: float) -> Array:
    """Turn of a forearm that bends the elbow by `bend` beyond straight."""
    joints = [rest.heads[model.bone(f"{b}.{side}")] for b in ("upperarm01", "lowerarm01", "wrist")]
    upper, lower = joints[1] - joints[0], joints[2] - joints[1]
    bent = np.arccos(upper @ lower / np.linalg.norm(upper) / np.linalg.norm(lower))
    return turn(np.cross(upper, lower), bend - bent)


def _gesture(rotations: dict[str, Array], model: BodyModel, rest: Rest, pose: Pose) -> None:
    """One arm, or both, as the posture wants it."""
    a, b, c, _ = pose.way
    if pose.posture == "phoning":
        sign = 1.0 if pose.side == "L" else -1.0
        at_ear = a < 0.5
        rotations[f"upperarm01.{pose.side}"] = turn(X, -0.55 - 0.3 * b) @ turn(Y, sign * 0.5)
        rotations[f"lowerarm01.{pose.side}"] = _elbow(
            model, rest, pose.side, 2.35 if at_ear else 1.5 + 0.3 * c
        )
        rotations["head"] = turn(X, 0.05 if at_ear else 0.3 + 0.3 * c)
        return
    both = a < 0.35  # as people do who want to be found
    for side in "LR" if both else pose.side:
        sign = 1.0 if side == "L" else -1.0
        rotations[f"upperarm01.{side}"] = turn(Y, -sign * (1.4 + 0.9 * b)).astype(np.float32)
        rotations[f"lowerarm01.{side}"] = _elbow(model, rest, side, 0.1 + 0.9 * c)


def _low(rotations: dict[str, Array], model: BodyModel, rest: Rest, pose: Pose) -> None:
    """Legs and trunk of those who are not upright; angles of thigh (forward) and knee per leg."""
    a, b, c, d = pose.way
    lean, thighs, knees, spread = 0.1, (0.0, 0.0), (0.0, 0.0), 0.05
    arms_forward, arms_out = 0.3, 0.0
    if pose.posture == "sitting":
        if a < 0.45:  # on something
            lean, thighs, knees = 0.05 + 0.3 * b, (1.45, 1.5), (1.3 + 0.4 * c, 1.3 + 0.4 * d)
        elif a < 0.75:  # on the ground, knees up
            lean, thighs, knees = 0.25 - 0.4 * b, (1.95, 1.7 + 0.3 * c), (2.1, 1.6 + 0.5 * d)
        else:  # legs stretched out
            lean, thighs, knees, spread = -0.1 - 0.2 * b, (1.5, 1.5), (0.1, 0.5 * d), 0.15 + 0.2 * c
        arms_forward = 0.6 if a < 0.75 else -0.2
    elif pose.posture == "crouching":
        lean, thighs, knees, spread = 0.3 + 0.4 * b, (2.1, 2.0 + 0.2 * c), (2.4, 2.3), 0.25
        arms_forward = 0.9
    elif pose.posture == "kneeling":
        one = a < 0.6
        lean, thighs, knees = 0.1 + 0.4 * b, (1.5 if one else 0.05, 0.05), (1.55, 1.6)
        arms_forward = 0.5 + 0.4 * c
    elif pose.posture == "bending":
        lean, thighs, knees = 1.0 + 0.6 * b, (0.35, 0.35 + 0.3 * c), (0.35, 0.4)
        arms_forward = 1.0 + 0.6 * b
    elif pose.posture == "lying":
        on_side = a >= 0.65
        lean = 0.15 * b
        thighs = (0.2 + 0.9 * c, 0.1 + 0.6 * d) if on_side else (0.5 * c * (c > 0.6), 0.3 * d * (d > 0.6))
        knees = (0.3 + c, 0.2 + d) if on_side else (thighs[0] * 2, thighs[1] * 2)
        if 0.4 <= a < 0.65:  # face down: knees cannot go forward
            thighs = (0.0, 0.0)
        spread = 0.02 + 0.25 * b * (not on_side)
        arms_forward, arms_out = (0.8, 0.0) if on_side else (0.0, 1.6 * d)
    rotations["spine01"] = turn(Z, 0.2 * (c - 0.5))
    for bone in ("spine05", "spine04", "spine03"):
        rotations[bone] = turn(X, lean / 3)
    for k, side in enumerate("LR"):
        sign = 1.0 if side == "L" else -1.0
        rotations[f"upperleg01.{side}"] = (
            turn(Z, sign * spread) @ turn(X, -thighs[k]) @ turn(Y, -sign * spread / 2)
        )
        rotations[f"lowerleg01.{side}"] = turn(X, knees[k])
        rotations[f"foot.{side}"] = turn(X, -0.3 if pose.posture == "crouching" else 0.15)
        rotations[f"upperarm01.{side}"] = turn(X, -arms_forward) @ turn(Y, sign * (0.55 - arms_out))
        rotations[f"lowerarm01.{side}"] = _elbow(model, rest, side, 0.25 + 0.6 * (b if side == "L" else c))

"""Postures: the gait cycle and ways of standing, as rotations for `BodyModel.transforms`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tagclip.train.synth.body import Array, BodyModel, Rest, turn

X = (1.0, 0.0, 0.0)
Y = (0.0, 1.0, 0.0)
Z = (0.0, 0.0, 1.0)


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


def posture(model: BodyModel, rest: Rest, gait: Gait, phase: float, moving: float) -> dict[str, Array]:
    """Rotations of the posture at `phase` (radians of the gait cycle).

    Args:
        moving: 1 walking, 0 standing; between, a shuffle.
    """
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
        joints = [rest.heads[model.bone(f"{b}.{side}")] for b in ("upperarm01", "lowerarm01", "wrist")]
        upper, lower = joints[1] - joints[0], joints[2] - joints[1]
        axis = np.cross(upper, lower)
        bend = np.arccos(upper @ lower / np.linalg.norm(upper) / np.linalg.norm(lower))
        rotations[f"lowerarm01.{side}"] = turn(axis, gait.elbow[k] - bend)
    return rotations

"""Bodies: shape from `anny`'s parametric model, posture from a small forward kinematics of our own.

Axes: metres, z up, the person faces -y, its left hand is at +x. Rotations are given in the axes of the rest
pose (an A-pose), which is why a hip swing is a turn about x for every bone of a leg, whatever the rig's own frames.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagclip.train.synth.appearance import Appearance
from tagclip.train.synth.quiet import quiet_warp

Array = NDArray[Any]  # float32 wherever it is kept; stubs of NumPy and OpenCV widen it too often to say so

# anny's phenotype scales: 0..1 each; age 0 is a baby, 1/3 a child, 2/3 young, 1 old.
AGE = {"child": (0.26, 0.46), "young": (0.58, 0.68), "adult": (0.68, 0.80), "old": (0.88, 1.0)}
WEIGHT = {"slim": (0.15, 0.4), "average": (0.4, 0.62), "heavy": (0.68, 0.98)}
HEIGHT = {"short": (0.15, 0.38), "average": (0.4, 0.62), "tall": (0.65, 0.9)}
GENDER = {"woman": (0.88, 1.0), "man": (0.0, 0.12)}

SEGMENTS = ("torso", "head", "arm.L", "arm.R", "hand.L", "hand.R", "leg.L", "leg.R", "foot.L", "foot.R")


@dataclass(frozen=True)
class Rest:
    """One body in its rest pose.

    Attributes:
        vertices: (V, 3) float32, metres.
        normals: (V, 3) float32 unit vectors.
        heads: (J, 3) float32, the joint at which each bone turns.
        along: (V, 2) float32, place along legs and trunk (0 ankle, 1 knee, 2 hip, 3 shoulder) and along the arm
            of its side (0 shoulder, 1 elbow, 2 wrist). Every vertex has both, so that interpolation over a
            triangle that joins trunk and arm stays meaningful on either scale.
    """

    vertices: Array
    normals: Array
    heads: Array
    along: Array


def vertex_normals(vertices: Array, faces: NDArray[np.int32]) -> Array:
    """Unit normals (V, 3) of a mesh with vertices (V, 3) and triangles (F, 3), weighted by area."""
    corners = vertices[faces]
    area = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros_like(vertices)
    for axis in range(3):
        normals[:, axis] = np.bincount(faces.ravel(), np.repeat(area[:, axis], 3), minlength=len(vertices))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12
    return normals.astype(np.float32)


def segment_of(bone: str) -> str:
    """Name of SEGMENTS that a bone belongs to."""
    side = bone[-2:] if bone.endswith((".L", ".R")) else ""
    if bone.startswith(("upperarm", "lowerarm")):
        return "arm" + side
    if bone.startswith(("wrist", "finger", "metacarpal")):
        return "hand" + side
    if bone.startswith(("upperleg", "lowerleg")):
        return "leg" + side
    if bone.startswith(("foot", "toe")):
        return "foot" + side
    if bone.startswith(("root", "pelvis", "spine", "breast", "clavicle", "shoulder", "neck01")):
        return "torso"
    return "head"


class BodyModel:
    """anny's body, loaded once (some seconds); `BodyModel.shared()` keeps one a process."""

    def __init__(self) -> None:
        quiet_warp()
        import anny
        import torch

        model = anny.Anny().to(dtype=torch.float32)
        self._model = model
        self.bones: list[str] = list(model.bone_labels)
        self.parents: list[int] = [int(p) for p in model.bone_parents]
        self.faces: NDArray[np.int32] = model.get_triangular_faces().numpy().astype(np.int32)
        weights = model.vertex_bone_weights.numpy().astype(np.float32)
        indices = model.vertex_bone_indices.numpy()
        self.weights = np.zeros((len(weights), len(self.bones)), np.float32)
        for column in range(weights.shape[1]):
            np.add.at(self.weights, (np.arange(len(weights)), indices[:, column]), weights[:, column])
        of_bone = np.array([SEGMENTS.index(segment_of(b)) for b in self.bones])
        share = np.stack([self.weights[:, of_bone == k].sum(1) for k in range(len(SEGMENTS))], 1)
        self.segment: NDArray[np.int64] = share.argmax(1)  # (V,) index into SEGMENTS
        votes = self.segment[self.faces]
        # A face takes the segment that two of its corners share; with three opinions the first one counts.
        self.face_segment = np.where(votes[:, 1] == votes[:, 2], votes[:, 1], votes[:, 0])

    @staticmethod
    @functools.cache
    def shared() -> BodyModel:
        """The process's one body model."""
        return BodyModel()

    def bone(self, name: str) -> int:
        """Index of a bone by name."""
        return self.bones.index(name)

    def rest(self, person: Appearance, rng: np.random.Generator) -> Rest:
        """Body of `person`: phenotype drawn within what age, gender, build and height allow."""
        import torch

        values = {
            "gender": rng.uniform(*GENDER[person.gender]),
            "age": rng.uniform(*AGE[person.age]),
            "weight": rng.uniform(*WEIGHT[person.build]),
            "height": rng.uniform(*HEIGHT[person.height]),
            "muscle": rng.uniform(0.3, 0.7),
            "proportions": rng.uniform(0.3, 0.8),
        }
        with torch.no_grad():
            tensors = {k: torch.tensor([v], dtype=torch.float32) for k, v in values.items()}
            out = self._model.get_rest_model(self._model.get_phenotype_blendshape_coefficients(**tensors))
        vertices = out["rest_vertices"][0].numpy().copy()
        heads = out["rest_bone_heads"][0].numpy().copy()
        return Rest(vertices, vertex_normals(vertices, self.faces), heads, self._along(vertices, heads))

    def _along(self, vertices: Array, heads: Array) -> Array:
        def joints(names: tuple[str, ...], side: str) -> list[Array]:
            return [heads[self.bone(f"{name}.{side}")] for name in names]

        leg = joints(("foot", "lowerleg01", "upperleg01", "upperarm01"), "L")
        trunk = np.interp(vertices[:, 2], [j[2] for j in leg], [0.0, 1.0, 2.0, 3.0])
        arms = [_chain(vertices, joints(("upperarm01", "lowerarm01", "wrist"), side)) for side in "LR"]
        arm = np.where(vertices[:, 0] > 0, arms[0], arms[1])
        return np.stack([trunk, arm], -1).astype(np.float32)

    def transforms(self, rest: Rest, rotations: Mapping[str, Array]) -> Array:
        """(J, 4, 4) world transforms of the bones.

        Args:
            rotations: bone name -> (3, 3) turn about the bone's joint, in rest axes, before the parent's.
        """
        result = np.tile(np.eye(4, dtype=np.float32), (len(self.bones), 1, 1))
        for j, name in enumerate(self.bones):
            local = np.eye(4, dtype=np.float32)
            turn = rotations.get(name)
            if turn is not None:
                local[:3, :3] = turn
                local[:3, 3] = rest.heads[j] - turn @ rest.heads[j]
            result[j] = result[self.parents[j]] @ local if self.parents[j] >= 0 else local
        return result

    def skin(self, vertices: Array, transforms: Array) -> Array:
        """Linear blend skinning of rest positions (V, 3) by (J, 4, 4) -> (V, 3)."""
        blended = (self.weights @ transforms[:, :3].reshape(len(self.bones), 12)).reshape(-1, 3, 4)
        return np.einsum("vij,vj->vi", blended[:, :, :3], vertices) + blended[:, :, 3]


def _chain(points: Array, joints: list[Array]) -> Array:
    """Place of points (N, 3) along a chain of three joints: 0, 1, 2 at the joints, beyond 2 past the last."""
    upper, lower = joints[1] - joints[0], joints[2] - joints[1]
    first = (points - joints[0]) @ upper / (upper @ upper)
    second = (points - joints[1]) @ lower / (lower @ lower)
    return np.where(second > 0, 1 + second, np.minimum(first, 1)).astype(np.float32)


def turn(axis: Array | tuple[float, float, float], angle: float) -> Array:
    """(3, 3) rotation about a unit axis by `angle` radians (Rodrigues)."""
    x, y, z = np.asarray(axis, np.float32) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]], np.float32)
    return (np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross).astype(np.float32)

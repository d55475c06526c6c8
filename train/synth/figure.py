"""A dressed person as one mesh that can be posed again and again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tagclip.train.synth.appearance import Appearance
from tagclip.train.synth.body import Array, BodyModel, turn
from tagclip.train.synth.paint import THICKNESS, Paint
from tagclip.train.synth.pieces import (
    HAND_HELD,
    draped,
    hair_pieces,
    hand_held,
    head_box,
    headwear_pieces,
    worn_bag_pieces,
)
from tagclip.train.synth.poses import UPRIGHT, WALKING, Gait, Pose, carry, posture, sample_gait, tilt
from tagclip.train.synth.shapes import Faces, rounded_box


@dataclass(frozen=True)
class Posed:
    """A person in a posture at a place.

    Attributes:
        vertices: (N, 3) float32 world positions, metres, feet on z = 0.
        faces: (M, 3) int32.
        face_piece: (M,) int, -1 on the body, else index into `materials`.
        rest: (N, 3) positions in the rest pose, for patterns and zones.
        materials: name of each piece's material.
        figure: whose it is.
        hip_m: height of the hips over the ground.
    """

    vertices: Array
    faces: Faces
    face_piece: NDArray[np.int64]
    rest: Array
    materials: tuple[str, ...]
    figure: Figure
    hip_m: float

    def paint(self, face: NDArray[np.int64], weights: Array) -> tuple[Array, NDArray[np.int64]]:
        """Colour (n, 3) sRGB 0..1 and part (n,) of points given by face (n,) and barycentric weights (n, 3)."""
        corners = self.faces[face]
        at = np.einsum("nk,nkc->nc", weights, self.rest[corners])
        rgb = np.empty((len(face), 3), np.float32)
        part = np.empty(len(face), np.int64)
        piece = self.face_piece[face]
        on_body = piece < 0
        if on_body.any():
            figure = self.figure
            along = np.einsum("nk,nkc->nc", weights[on_body], figure.along[corners[on_body]])
            segment = figure.model.face_segment[face[on_body]]
            rgb[on_body], part[on_body] = figure.paint.body(segment, at[on_body], along)
        for k, material in enumerate(self.materials):
            here = piece == k
            if here.any():
                rgb[here], part[here] = self.figure.paint.piece(material, at[here])
        return rgb, part


class Figure:
    """One identity: body, clothes and gait, drawn from `rng` once.

    Args:
        painted: nothing has a shape of its own, all is paint on the body; for experiments.
    """

    def __init__(self, person: Appearance, rng: np.random.Generator, painted: bool = False):
        self.painted = painted
        self.person = person
        self.model = BodyModel.shared()
        rest = self.model.rest(person, rng)
        box = head_box(rest, self.model)
        self.paint = Paint(person, rest, self.model, box, rng)
        _, part = self.paint.body(self.model.segment, rest.vertices, rest.along)
        thick = self.paint.thickness(self.model.segment, rest.vertices, rest.along, part)
        self.rest = rest
        self.along = rest.along
        self.dressed = rest.vertices + (0 if painted else 1) * thick[:, None] * rest.normals
        self.pieces = [
            *hair_pieces(person, box, rest, self.model, rng),
            *headwear_pieces(person, box),
            *worn_bag_pieces(person, rest, self.model, rng),
        ]
        if painted:
            self.pieces = []
        loaded = tuple(
            any(b.side == side and b.kind in HAND_HELD for b in person.bags) for side in ("left", "right")
        )
        self.gait: Gait = sample_gait(rng, (loaded[0], loaded[1]))

    def posed(
        self, phase: float, moving: float, yaw: float, place: tuple[float, float], pose: Pose = WALKING
    ) -> Posed:
        """The person in a posture.

        Args:
            phase: radians of the gait cycle.
            moving: 0 standing to 1 walking.
            yaw: radians by which the person is turned about z; 0 faces -y.
            place: world x and y of the hips, metres.
        """
        model = self.model
        upright = pose.posture in UPRIGHT
        rotations = posture(model, self.rest, self.gait, phase, moving, pose)
        for bag in self.person.bags:
            if bag.kind in ("box", "umbrella") and upright:
                carry(rotations, model, self.rest, self.gait, bag.kind, "L" if bag.side == "left" else "R")
        transforms = model.transforms(self.rest, rotations)
        body = model.skin(self.dressed, transforms)

        def joint(name: str) -> Array:
            j = model.bone(name)
            moved: Array = transforms[j, :3, :3] @ self.rest.heads[j] + transforms[j, :3, 3]
            return moved

        joints = {"hip": joint("upperleg01.L") / 2 + joint("upperleg01.R") / 2, "head": joint("head")}
        joints |= {f"wrist.{s}": joint(f"wrist.{s}") for s in "LR"}
        # Skirts and tails are hung while the body is upright; whoever lies is then laid down with them.
        turned = tilt(pose)
        meshes = [p.mesh.moved(transforms[model.bone(p.bone)]) for p in self.pieces]
        rests = [p.mesh.vertices for p in self.pieces]
        materials = [p.material for p in self.pieces]
        ease = THICKNESS[self.person.top.kind]
        made = [] if self.painted else draped(self.person, body, joints, self.along[:, 0], model, ease)
        if pose.posture != "lying":
            made += hand_held(self.person, joints, float(body[:, 2].min()), upright)
        if pose.posture == "phoning":
            hand = joint(f"finger3-2.{pose.side}")
            made.append((rounded_box(hand, (0.012, 0.04, 0.075), 0.3), "phone"))
        for mesh, material in made:
            meshes.append(mesh)
            rests.append(mesh.vertices)
            materials.append(material)
        faces, pieces, vertices, start = [model.faces], [np.full(len(model.faces), -1)], [body], len(body)
        for k, mesh in enumerate(meshes):
            faces.append(mesh.faces + start)
            pieces.append(np.full(len(mesh.faces), k))
            vertices.append(mesh.vertices)
            start += len(mesh.vertices)
        world = np.concatenate(vertices).astype(np.float32) @ turned.T
        hip = turned @ joints["hip"]
        ground = float(world[:, 2].min())
        world -= np.array([hip[0], hip[1], ground], np.float32)
        world = world @ turn((0, 0, 1), yaw).T
        world[:, :2] += np.asarray(place, np.float32)
        return Posed(
            world.astype(np.float32),
            np.concatenate(faces).astype(np.int32),
            np.concatenate(pieces),
            np.concatenate([self.dressed, *rests]).astype(np.float32),
            tuple(materials),
            self,
            float(hip[2]) - ground,
        )

"""People who walk through a scene, so that the camera sees each for a while."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tagclip.runtime.errors import ConfigError
from tagclip.train.synth.body import Array
from tagclip.train.synth.figure import Figure, Posed
from tagclip.train.synth.flight import Flight
from tagclip.train.synth.people import sample_appearance
from tagclip.train.synth.picture import ground_reach_m
from tagclip.train.synth.poses import WALKING, Pose, sample_pose

STRIDE_PER_LEG = 0.85  # a step with a thigh swing of 1 rad, in leg lengths; keeps feet from sliding
LEG_M = 0.85
LEAST_PIXELS = 12  # of a person that must show
LEAST_M2 = 0.2  # that a person shows, seen from straight above
ROWS = (0.9, -0.62)  # of the nearest and the farthest feet, halves of the height below the middle
POLE_SPREAD, DRONE_SPREAD = 0.35, 0.7  # of people across the picture, see `lanes`
FLATTEST_DEG = 4.0
APART_M = 0.7  # two people who pass each other
STAYING = 0.25  # of those below a drone
DRAWS = 12  # of a way, until it keeps apart from the others'


@dataclass(frozen=True)
class Walker:
    """Who walks where: in a straight line at a steady speed, in the middle of the way at `middle_s`.

    Attributes:
        middle: (2,) world x and y in metres; velocity: (2,) metres a second, 0 of those who stay.
        phase: of the gait at time 0, radians.
        yaw: radians by which they are turned about z; 0 faces -y.
        pose: walking, or what they do where they stay.
    """

    figure: Figure
    middle: Array
    velocity: Array
    middle_s: float
    phase: float
    yaw: float
    pose: Pose = WALKING

    def place(self, time_s: float) -> Array:
        """Where the hips are over the ground at a time: (2,) world x and y, metres."""
        return self.middle + (time_s - self.middle_s) * self.velocity

    def at(self, time_s: float) -> Posed:
        """The person at a time."""
        place = self.place(time_s)
        speed = float(np.hypot(*self.velocity))
        # Two steps a cycle; a figure at yaw 0 faces -y.
        cycle_m = 4 * STRIDE_PER_LEG * LEG_M * np.sin(self.figure.gait.stride)
        phase = self.phase + 2 * np.pi * speed * (time_s - self.middle_s) / cycle_m
        moving = float(speed > 0)
        return self.figure.posed(
            float(phase), moving, self.yaw, (float(place[0]), float(place[1])), self.pose
        )


@dataclass(frozen=True)
class Span:
    """The ground that a camera sees well enough for people: metres ahead of the point below it.

    Attributes:
        near_m, far_m: near_m is below 0 when the camera also sees what is behind it.
        altitude_m: of the camera.
        reach: half of the picture's width at a distance of 1.
    """

    near_m: float
    far_m: float
    altitude_m: float
    reach: float


def ground_span(altitude_m: float, pitch_deg: float, focal_px: float, width_px: int, height_px: int) -> Span:
    """Where people may be, so that a camera sees them on the ground and not too small.

    Raises:
        ConfigError: nowhere: people would be too small, or the camera looks over the ground.
    """
    small_m = focal_px * np.sqrt(LEAST_M2 / LEAST_PIXELS)
    if altitude_m >= small_m:
        least_px = int(np.ceil(width_px * altitude_m / small_m / 2)) * 2 + 2
        raise ConfigError(
            f"from {altitude_m:g} m a person covers {LEAST_M2 * (focal_px / altitude_m) ** 2:.0f} pixels of a picture "
            f"{width_px} pixels wide, expected at least {LEAST_PIXELS}; take --size of {least_px} or wider, or go lower"
        )
    farthest_m = min(small_m, 0.9 * ground_reach_m(altitude_m))
    rows = (height_px - 1) / 2 * np.array(ROWS)
    near, far = np.deg2rad(pitch_deg) + np.arctan(rows / focal_px)
    flattest = max(np.deg2rad(FLATTEST_DEG), np.arcsin(min(altitude_m / farthest_m, 1.0)))
    if near <= flattest:
        raise ConfigError(
            f"at an altitude of {altitude_m:g} m and a pitch of {pitch_deg:g} degrees the camera sees no ground within "
            f"{farthest_m:.0f} m; pitch it further down, or take a picture that is less wide"
        )
    far = max(far, flattest)
    return Span(
        float(altitude_m / np.tan(near)),
        float(altitude_m / np.tan(far)),
        altitude_m,
        width_px / 2 / focal_px,
    )


def lanes(span: Span, people: int, spread: float, rng: np.random.Generator) -> list[Array]:
    """Where each is in the middle of the way, a lane each: (2,) metres right of and ahead of the camera.

    Args:
        spread: how far to each side of the middle, as a share of half of the picture's width.
    """
    edges = np.linspace(span.near_m, span.far_m, people + 1)
    found = []
    for k in rng.permutation(people):
        depth = rng.uniform(0.75 * edges[k] + 0.25 * edges[k + 1], 0.25 * edges[k] + 0.75 * edges[k + 1])
        reach = np.hypot(depth, span.altitude_m) * span.reach
        found.append(np.array([rng.uniform(-spread, spread) * reach, depth], np.float32))
    return found


def sample_walkers(
    flight: Flight, span: Span, people: int, seconds: float, rng: np.random.Generator
) -> list[Walker]:
    """People who cross the picture, each in the middle of it at some time of the video.

    Below a pole they walk across the view, to the left or to the right. Below a drone they walk in any direction, and
    some stay: they stand, sit, lie, wave.
    """
    walkers: list[Walker] = []
    spread = POLE_SPREAD if flight.motion == "fixed" else DRONE_SPREAD
    for k, lane in enumerate(lanes(span, people, spread, rng)):
        drawn = [_way(flight, lane, (k + rng.random()) / people, seconds, rng)]
        while (room := _room(drawn[-1], walkers, seconds)) < APART_M and len(drawn) < DRAWS:
            drawn.append(_way(flight, lane, (k + rng.random()) / people, seconds, rng))
        if room < APART_M:  # a crowd: the way that keeps most apart
            drawn.append(max(drawn, key=lambda way: _room(way, walkers, seconds)))
        middle, velocity, middle_s = drawn[-1]
        yaw = float(np.arctan2(velocity[0], -velocity[1]))
        pose = _staying(rng) if flight.motion != "fixed" and rng.random() < STAYING else WALKING
        if pose is not WALKING:  # where they are kept apart from others already
            velocity = np.zeros_like(velocity)
        person = replace(sample_appearance(rng), posture=pose.posture)
        phase = float(rng.uniform(0, 2 * np.pi))
        walkers.append(Walker(Figure(person, rng), middle, velocity, middle_s, phase, yaw, pose))
    return walkers


def _staying(rng: np.random.Generator) -> Pose:
    while (pose := sample_pose(rng)).posture in ("walking", "running"):
        pass
    return pose


_Way = tuple[Array, Array, float]  # middle, velocity, middle_s


def _way(flight: Flight, lane: Array, share: float, seconds: float, rng: np.random.Generator) -> _Way:
    middle_s = seconds * (0.15 + 0.7 * share)
    speed = rng.uniform(0.9, 1.6)
    if flight.motion == "fixed":
        heading = rng.normal(0, 0.15) + np.pi * (rng.random() < 0.5)
    else:
        heading = rng.uniform(0, 2 * np.pi)
    velocity = speed * np.array([np.cos(heading), np.sin(heading)], np.float32)
    seen = flight.course(middle_s)
    yaw = np.deg2rad(seen.yaw_deg)
    right, ahead = np.array([np.cos(yaw), -np.sin(yaw)]), np.array([np.sin(yaw), np.cos(yaw)])
    middle = np.array([seen.x_m, seen.y_m]) + lane[0] * right + lane[1] * ahead
    return middle.astype(np.float32), velocity.astype(np.float32), float(middle_s)


def _room(way: _Way, others: list[Walker], seconds: float) -> float:
    """Least distance in metres between somebody on `way` and all others, at any time of the video."""
    middle, velocity, middle_s = way
    start = middle - middle_s * velocity
    least = np.inf
    for other in others:
        apart, closing = other.place(0.0) - start, other.velocity - velocity
        time_s = np.clip(-(apart @ closing) / max(float(closing @ closing), 1e-9), 0, seconds)
        least = min(least, float(np.hypot(*(apart + time_s * closing))))
    return least

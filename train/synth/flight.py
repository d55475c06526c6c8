"""Where the camera of a scene is at any time: on a pole, or on a drone that hovers or flies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from tagclip.train.synth.body import Array
from tagclip.train.synth.camera import Camera, look_at

Motion = Literal["fixed", "hover", "moving"]
MOTIONS: tuple[Motion, ...] = get_args(Motion)
# What wind and a gimbal leave over: root mean square, and the band in Hz in which it happens.
# Less below 10 m, where pilots and sensors hold better.
DRIFT_M = (0.2, (0.04, 0.4))  # to each side
CLIMB_M = (0.08, (0.04, 0.4))
YAW_DEG = (0.35, (0.05, 0.8))  # the whole drone turns; a gimbal corrects pitch and roll better
TILT_DEG = (0.12, (0.3, 3.0))
# A flight: metres a second, its changes as a share, and turns in degrees.
SPEED_MPS = (2.0, 6.0)
SURGE = (0.06, (0.02, 0.1))
TURN_DEG = (12.0, (0.02, 0.07))
SINES = 8  # a wave
STEP_S = 0.02  # in which a flight is summed up


@dataclass(frozen=True)
class Pose:
    """Where a camera is and looks.

    Attributes:
        x_m, y_m: world place, metres; altitude_m over the ground.
        yaw_deg: direction of the view, clockwise from above; 0 looks along +y, 90 along +x.
        pitch_deg: below the horizon; 90 looks straight down with the yaw's direction up in the picture.
        roll_deg: of the camera about its view, its right side down when positive.
    """

    x_m: float
    y_m: float
    altitude_m: float
    yaw_deg: float
    pitch_deg: float
    roll_deg: float

    def camera(self, focal_px: float, width_px: int, height_px: int) -> Camera:
        """The pinhole camera there, its principal point in the middle of the picture."""
        yaw, pitch = np.deg2rad(self.yaw_deg), np.deg2rad(self.pitch_deg)
        position = np.array([self.x_m, self.y_m, self.altitude_m])
        ahead = np.array([np.cos(pitch) * np.sin(yaw), np.cos(pitch) * np.cos(yaw), -np.sin(pitch)])
        # Up in the picture: across the view also where that points straight down.
        up = (float(np.sin(pitch) * np.sin(yaw)), float(np.sin(pitch) * np.cos(yaw)), float(np.cos(pitch)))
        centre = ((width_px - 1) / 2, (height_px - 1) / 2)
        return look_at(position, position + ahead, self.roll_deg, focal_px, centre, up)


class Wave:
    """Something that wanders about 0 within a band of frequencies: a sum of sines, so a pure function of time."""

    def __init__(self, rms: float, band_hz: tuple[float, float], rng: np.random.Generator):
        """Draw a wave.

        Args:
            rms: root mean square over a long time.
            band_hz: lowest and highest frequency; the slow ones are the strong ones.
        """
        self._hz = np.exp(rng.uniform(np.log(band_hz[0]), np.log(band_hz[1]), SINES))
        self._phase = rng.uniform(0, 2 * np.pi, SINES)
        strength = 1 / self._hz
        self._height = strength * rms * np.sqrt(2 / (strength**2).sum())

    def at(self, time_s: Array | float) -> Array:
        """Values at times (any shape), seconds."""
        angle = 2 * np.pi * self._hz * np.asarray(time_s, np.float64)[..., None] + self._phase
        values: Array = (self._height * np.sin(angle)).sum(-1)
        return values

    @property
    def fastest(self) -> float:
        """A bound on the change a second."""
        return float((2 * np.pi * self._hz * self._height).sum())


class Flight:
    """The way of one camera through one video."""

    def __init__(
        self,
        motion: Motion,
        altitude_m: float,
        pitch_deg: float,
        speed_mps: float,
        seconds: float,
        rng: np.random.Generator,
    ):
        """Draw a way.

        Args:
            altitude_m, pitch_deg: what the pilot, or the pole, keeps.
            speed_mps: of a moving drone, on average.
            seconds: how long the way is known: times are 0 to this.
        """
        self.motion = motion
        self._altitude_m, self._pitch_deg = altitude_m, pitch_deg
        calm = min(1.0, altitude_m / 10)
        self.drift = [Wave(rms * calm, band, rng) for rms, band in (DRIFT_M, DRIFT_M, CLIMB_M)]
        self.shake = [Wave(*kind, rng) for kind in (YAW_DEG, TILT_DEG, TILT_DEG)]
        self.turn, surge = Wave(*TURN_DEG, rng), Wave(*SURGE, rng)
        # The integral of the velocity: the trapezoids of a fixed grid, so that any frame gets the same place.
        self._times = np.arange(int(np.ceil(seconds / STEP_S)) + 2) * STEP_S
        heading = np.deg2rad(self.turn.at(self._times))
        speed = speed_mps * (1 + surge.at(self._times)) * (motion == "moving")
        velocity = speed[:, None] * np.stack([np.sin(heading), np.cos(heading)], -1)
        steps = (velocity[1:] + velocity[:-1]) / 2 * STEP_S
        self._places = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, 0)])

    def course(self, time_s: float) -> Pose:
        """What the pilot means to do at a time: the pose without wind and shaking."""
        x, y = (float(np.interp(time_s, self._times, self._places[:, axis])) for axis in range(2))
        yaw = float(self.turn.at(time_s)) if self.motion == "moving" else 0.0
        return Pose(x, y, self._altitude_m, yaw, self._pitch_deg, 0.0)

    def pose(self, time_s: float) -> Pose:
        """Where the camera is at a time."""
        meant = self.course(time_s)
        if self.motion == "fixed":
            return meant
        x, y, up = (float(wave.at(time_s)) for wave in self.drift)
        yaw, pitch, roll = (float(wave.at(time_s)) for wave in self.shake)
        return Pose(
            meant.x_m + x,
            meant.y_m + y,
            meant.altitude_m + up,
            meant.yaw_deg + yaw,
            meant.pitch_deg + pitch,
            roll,
        )

"""Cameras of scenes: they move as drones do, and their pose says where they look."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("anny")
pytest.importorskip("warp")

from tagclip.train.synth.flight import Flight, Motion, Pose, Wave

SECONDS = 60.0
TIMES = np.arange(0, SECONDS, 0.1)


def flight(motion: Motion, seed: int = 0, altitude_m: float = 20.0, pitch_deg: float = 50.0) -> Flight:
    return Flight(motion, altitude_m, pitch_deg, 4.0, SECONDS, np.random.default_rng(seed))


def rows(way: Flight) -> np.ndarray:
    """(time, 6): x, y, altitude, yaw, pitch, roll."""
    return np.array([list(vars(way.pose(float(t))).values()) for t in TIMES])


def test_a_pole_stands_still() -> None:
    assert (rows(flight("fixed")) == [0, 0, 20, 0, 50, 0]).all()


@pytest.mark.parametrize("seed", range(5))
def test_a_hovering_drone_stays_near_its_place_and_is_never_quite_still(seed: int) -> None:
    found = rows(flight("hover", seed))
    off = found - [0, 0, 20, 0, 50, 0]
    assert (np.abs(off[:, :3]) < 1.0).all() and (np.abs(off[:, 3:]) < 1.5).all()
    assert (off[:, :2].std(0) > 0.05).all() and (off[:, 3:].std(0) > 0.05).all()


@pytest.mark.parametrize("seed", range(5))
def test_a_moving_drone_keeps_its_speed_and_looks_where_it_flies(seed: int) -> None:
    way = flight("moving", seed)
    found = rows(way)
    meant = np.array([[p.x_m, p.y_m, p.yaw_deg] for p in (way.course(float(t)) for t in TIMES)])
    steps = np.diff(meant[:, :2], axis=0)
    speed = np.hypot(*steps.T) / 0.1
    assert 2.8 < speed.min() and speed.max() < 5.2 and abs(speed.mean() - 4) < 0.6
    heading = np.rad2deg(np.arctan2(steps[:, 0], steps[:, 1]))
    middle = (meant[1:, 2] + meant[:-1, 2]) / 2
    assert np.abs(heading - middle).max() < 0.1
    assert np.ptp(meant[:, 2]) > 5  # it turns
    assert np.abs(found[:, 2] - 20).max() < 0.5 and np.abs(found[:, 4] - 50).max() < 1  # the gimbal holds


@pytest.mark.parametrize("motion", ["hover", "moving"])
def test_nothing_jumps(motion: Motion) -> None:
    found = rows(flight(motion, 3))
    rate = np.abs(np.diff(found, axis=0)).max(0) / 0.1
    assert rate[:2].max() < 6.5 and rate[2] < 0.5  # metres a second
    assert rate[3] < 15 and rate[4:].max() < 8  # degrees a second


def test_a_pose_is_a_function_of_seed_and_time() -> None:
    forwards, backwards = flight("moving", 1), flight("moving", 1)
    there = [forwards.pose(float(t)) for t in TIMES]
    assert [backwards.pose(float(t)) for t in TIMES[::-1]] == there[::-1]
    assert flight("moving", 2).pose(5.0) != forwards.pose(5.0)


def test_a_low_drone_does_not_touch_the_ground() -> None:
    for seed in range(20):
        assert rows(flight("hover", seed, altitude_m=2.0))[:, 2].min() > 1.8


def test_waves_keep_to_their_strength_and_band() -> None:
    times = np.arange(0, 1000, 0.05)
    for seed in range(5):
        wave = Wave(2.0, (0.2, 0.5), np.random.default_rng(seed))
        values = wave.at(times)
        assert values.std() == pytest.approx(2.0, rel=0.05)
        assert np.abs(np.gradient(values, times)).max() <= wave.fastest
        power = np.abs(np.fft.rfft(values)) ** 2
        hz = np.fft.rfftfreq(len(times), 0.05)
        assert power[(hz > 0.19) & (hz < 0.51)].sum() > 0.97 * power.sum()


@pytest.mark.parametrize("yaw_deg", [0.0, 90.0, -130.0])
@pytest.mark.parametrize("pitch_deg", [5.0, 45.0, 90.0, 90.4])
def test_the_middle_of_the_picture_is_where_the_pose_looks(yaw_deg: float, pitch_deg: float) -> None:
    camera = Pose(3.0, -2.0, 10.0, yaw_deg, pitch_deg, 12.0).camera(500.0, 640, 360)
    yaw, away = np.deg2rad(yaw_deg), 10 / np.tan(np.deg2rad(pitch_deg))
    target = np.array([[3 + away * np.sin(yaw), -2 + away * np.cos(yaw), 0]], np.float32)
    assert camera.project(target)[0] == pytest.approx([319.5, 179.5], abs=0.02)
    np.testing.assert_allclose(camera.axes @ camera.axes.T, np.eye(3), atol=1e-6)


def test_right_up_and_roll_are_what_they_are_called() -> None:
    """Looking along +x from above, -y is to the right; rolled with the right side down, things there rise."""
    level = Pose(0, 0, 10, 90, 90, 0).camera(500.0, 640, 360)
    ahead, right = level.project(np.array([[1, 0, 0], [0, -1, 0]], np.float32))
    assert ahead == pytest.approx([319.5, 129.5], abs=0.01) and right == pytest.approx(
        [369.5, 179.5], abs=0.01
    )
    rolled = Pose(0, 0, 10, 90, 90, 10).camera(500.0, 640, 360)
    assert rolled.project(np.array([[0, -1, 0]], np.float32))[0, 1] < 175

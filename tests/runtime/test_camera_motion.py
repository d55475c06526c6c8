"""The camera's motion, from pictures that were moved by a known matrix."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tagclip.runtime.camera_motion import IDENTITY, CameraMotion, moved_box
from tagclip.runtime.source import Image

NOBODY = np.empty((0, 4), np.float32)
WIDTH, HEIGHT = 768, 576


def ground(seed: int = 0) -> Image:
    """A textured ground, larger than the picture, at several scales."""
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(
            rng.integers(0, 255, (h, w, 3), dtype=np.uint8), (1400, 1100), interpolation=cv2.INTER_CUBIC
        ).astype(np.float32)
        for h, w in ((20, 26), (70, 90), (280, 350))
    ]
    return np.mean(layers, axis=0).astype(np.uint8)


def matrix(dx: float, dy: float, turn_deg: float, scale: float) -> np.ndarray:
    """(2, 3): turn and scale about the picture's middle, then shift."""
    turned = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), -turn_deg, scale)
    turned[:, 2] += (dx, dy)
    return turned


def seen(world: Image, motion: np.ndarray) -> Image:
    """The picture after `motion`: what was at (x, y) is at motion @ (x, y, 1)."""
    offset = np.array([[1, 0, 300], [0, 1, 250], [0, 0, 1]], np.float64)  # of the first picture in the world
    into_world = offset @ np.linalg.inv(np.vstack([motion, [0, 0, 1]]))
    return cv2.warpPerspective(world, np.linalg.inv(into_world), (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)


STILL = matrix(0, 0, 0, 1)


@pytest.mark.parametrize(
    "told",
    [(6.3, -3.8, 0, 1), (-21, 14, 0, 1), (2, 1, 1.5, 1), (0, 0, -2.0, 1), (0, 0, 0, 1.02), (9, -4, 1, 0.985)],
)
def test_the_motion_comes_back(told: tuple[float, float, float, float]) -> None:
    world, truth = ground(), matrix(*told)
    camera = CameraMotion()
    assert camera.update(seen(world, STILL), NOBODY) is None
    found = camera.update(seen(world, truth), NOBODY)
    assert found is not None
    middle = np.array([WIDTH / 2, HEIGHT / 2, 1])
    np.testing.assert_allclose(found @ middle, truth @ middle, atol=0.3)
    scale = np.hypot(found[0, 0], found[1, 0])
    assert scale == pytest.approx(told[3], rel=0.003)
    assert np.degrees(np.arctan2(found[1, 0], found[0, 0])) == pytest.approx(told[2], abs=0.1)
    assert camera.lost == 0


def test_people_who_walk_do_not_move_the_camera() -> None:
    """A third of the picture is people who go to the right; their boxes are known, the rest decides, and it stands."""
    world = ground()
    camera = CameraMotion()
    boxes = np.array([[40 + 150 * k, 150, 90, 300] for k in range(5)], np.float32)
    pattern = ground(5)
    for k in range(4):
        image = seen(world, STILL)
        for x, y, w, h in boxes.astype(int) + [12 * k, 0, 0, 0]:
            image[y : y + h, x : x + w] = pattern[: min(h, HEIGHT - y), :w]
        found = camera.update(image, boxes + np.array([12 * k, 0, 0, 0], np.float32))
        assert k == 0 or found is IDENTITY


def test_a_camera_that_stands_is_told_to_stand_in_spite_of_noise() -> None:
    world, rng = seen(ground(), STILL).astype(np.int16), np.random.default_rng(3)
    camera = CameraMotion()
    found = [
        camera.update((world + rng.normal(0, 6, world.shape)).clip(0, 255).astype(np.uint8), NOBODY)
        for _ in range(8)
    ]
    assert found[0] is None and all(motion is IDENTITY for motion in found[1:])


def test_what_cannot_be_told_is_not_guessed() -> None:
    flat, world = np.full((HEIGHT, WIDTH, 3), 200, np.uint8), ground()
    camera = CameraMotion()
    assert [camera.update(flat, NOBODY) for _ in range(3)] == [None] * 3 and camera.lost == 2  # snow
    camera = CameraMotion()
    camera.update(seen(world, STILL), NOBODY)
    assert camera.update(seen(ground(9), STILL), NOBODY) is None and camera.lost == 1  # a cut
    assert camera.update(seen(ground(9), matrix(4, 0, 0, 1)), NOBODY) is not None  # and it goes on
    assert (
        camera.update(cv2.resize(seen(world, STILL), (640, 480)), NOBODY) is None
    )  # another size: begun anew
    assert (
        camera.update(np.zeros((480, 640, 3), np.uint8), np.array([[-50, -50, 9000, 9000]], np.float32))
        is None
    )


def test_a_box_moves_with_its_middle_and_keeps_upright() -> None:
    motion = np.array([[0, -2, 100], [2, 0, 10]], np.float32)  # a quarter turn, twice as large
    np.testing.assert_allclose(
        moved_box(motion, np.array([10, 20, 4, 8], np.float32)), [48, 26, 8, 16], atol=1e-5
    )

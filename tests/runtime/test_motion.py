"""The motion detector on drawn people whose boxes are known, at several sizes and rates, and on real
footage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from tagclip.runtime.association import iou
from tagclip.runtime.motion import MotionDetector, PersonScale
from tagclip.runtime.motion_groups import split_group
from tagclip.runtime.source import Frame, Image, VideoSource

STREET = Path(__file__).parents[3] / "shared" / "data" / "street.mp4"
Box = tuple[float, float, float, float]


def ground(width: int, height: int) -> Image:
    """A textured, empty scene."""
    noise = np.random.default_rng(0).integers(-25, 25, (height // 4 + 1, width // 4 + 1, 1))
    image = np.clip(np.array([120, 130, 115]) + noise, 0, 255).astype(np.uint8)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.uint8)


def draw_person(image: Image, foot_x: float, foot_y: float, tall: float, coat: tuple[int, int, int]) -> Box:
    """An upright figure, its feet at (foot_x, foot_y); returns its box."""
    head, hip = foot_y - tall, foot_y - 0.45 * tall

    def point(x: float, y: float) -> tuple[int, int]:
        return round(x), round(y)

    cv2.circle(image, point(foot_x, head + 0.08 * tall), round(0.08 * tall), (190, 150, 130), -1)
    side = 0.15 * tall
    cv2.rectangle(image, point(foot_x - side, head + 0.17 * tall), point(foot_x + side, hip), coat, -1)
    for leg in (-0.5, 0.5):
        left, right = foot_x + (leg - 0.4) * side, foot_x + (leg + 0.4) * side
        cv2.rectangle(image, point(left, hip), point(right, foot_y), (30, 35, 60), -1)
    return foot_x - side, head, 2 * side, tall


def noisy(image: Image, seed: int, gain: float = 1.0) -> Image:
    """Sensor noise and a change of exposure."""
    noise = np.random.default_rng(seed).normal(0.0, 2.0, image.shape)
    return np.clip(image * gain + noise, 0, 255).astype(np.uint8)


Draw = Callable[[Image, float], list[Box]]


def play(
    draw: Draw, size: tuple[int, int], fps: float, seconds: float, gain: Callable[[float], float]
) -> list[float]:
    """Run the detector; for every frame after the first the worst IoU of a true box (0: missed or an extra
    box)."""
    width, height = size
    empty = ground(width, height)

    def picture(time_s: float) -> tuple[Image, list[Box]]:
        image = empty.copy()
        boxes = draw(image, time_s)
        return noisy(image, int(time_s * 1000), gain(time_s)), boxes

    samples = [picture(time_s)[0] for time_s in np.linspace(0.0, seconds, 25)]
    detector = MotionDetector(width, height, samples)
    worst = []
    for index in range(int(seconds * fps)):
        image, truth = picture(index / fps)
        found = detector.detect(Frame(index, index / fps, image)).boxes_xywh_px
        overlap = iou(np.array(truth, np.float32), found)
        worst.append(float(overlap.max(1).min()) if len(found) == len(truth) else 0.0)
    return worst


def walkers(width: int, height: int) -> Draw:
    """Three people on different rows, taller the nearer, and one who stands there from the start."""

    def draw(image: Image, time_s: float) -> list[Box]:
        at = (0.1 + 0.06 * time_s) * width
        return [
            draw_person(image, at, 0.45 * height, 0.13 * height, (170, 30, 40)),
            draw_person(image, width - at, 0.7 * height, 0.2 * height, (20, 20, 25)),
            draw_person(image, 0.25 * width + at, 0.95 * height, 0.27 * height, (60, 110, 190)),
        ]

    return draw


@pytest.mark.parametrize(
    ("size", "fps"),
    [((640, 480), 10.0), ((1280, 720), 25.0), ((320, 240), 15.0)],
    ids=["480p-10fps", "720p-25fps", "240p-15fps"],
)
def test_people_are_found_at_any_size_and_rate(size: tuple[int, int], fps: float) -> None:
    worst = play(walkers(*size), size, fps, 4.0, lambda time_s: 1.0)
    assert np.mean(np.array(worst) > 0.6) > 0.95
    assert worst[0] > 0.6  # people in the very first frame too: the median saw them leave


def test_a_change_of_light_makes_no_people() -> None:
    size = (640, 480)
    worst = play(walkers(*size), size, 10.0, 4.0, lambda time_s: 1.0 - 0.4 * min(time_s, 1.0))
    assert np.mean(np.array(worst) > 0.6) > 0.9


def test_a_moved_camera_makes_no_crowd() -> None:
    empty = ground(320, 240)
    detector = MotionDetector(320, 240, [noisy(empty, seed) for seed in range(10)])
    other = cv2.applyColorMap(empty[::-1].copy(), cv2.COLORMAP_JET)
    for index in range(100):
        frame = Frame(index, index / 10.0, noisy(other, 100 + index))
        assert len(detector.detect(frame).scores) == 0


def test_an_empty_scene_is_empty() -> None:
    empty = ground(320, 240)
    detector = MotionDetector(320, 240, [noisy(empty, seed) for seed in range(10)])
    for index in range(20):
        assert len(detector.detect(Frame(index, index / 10.0, noisy(empty, 100 + index))).scores) == 0


def test_a_camera_that_drops_most_frames_learns_by_time() -> None:
    """Two frames a second, whatever it announced: after 3 seconds people are found, and the light is followed."""
    detector = MotionDetector(640, 480)
    draw, empty = walkers(640, 480), ground(640, 480)
    counts = []
    for index in range(16):
        time_s = index / 2.0
        image = empty.copy()
        draw(image, time_s)
        light = 1.0 - 0.2 * min(max(time_s - 4.0, 0.0), 1.0)
        counts.append(
            len(detector.detect(Frame(15 * index, 100.0 + time_s, noisy(image, index, light))).scores)
        )
    assert counts[:6] == [0] * 6
    assert np.mean(np.array(counts[8:]) == 3) > 0.7


def test_without_samples_the_first_seconds_teach_the_background() -> None:
    detector = MotionDetector(640, 480)
    draw, empty = walkers(640, 480), ground(640, 480)
    counts = []
    for index in range(60):
        image = empty.copy()
        draw(image, index / 10.0)
        counts.append(len(detector.detect(Frame(index, index / 10.0, noisy(image, index))).scores))
    assert counts[:30] == [0] * 30  # warm-up
    assert np.mean(np.array(counts[35:]) == 3) > 0.8


def test_a_pair_side_by_side_is_two_people() -> None:
    size = (640, 480)

    def draw(image: Image, time_s: float) -> list[Box]:
        """A single walker teaches the height; the pair touches."""
        at, tall = (0.1 + 0.1 * time_s) * 640, 110
        return [
            draw_person(image, 600 - at, 250, 100, (170, 30, 40)),
            draw_person(image, at, 400, tall, (20, 30, 80)),
            draw_person(image, at + 0.31 * tall, 402, tall, (20, 20, 20)),
        ]

    worst = play(draw, size, 10.0, 5.0, lambda time_s: 1.0)
    assert np.mean(np.array(worst) > 0.6) > 0.9


def test_split_group_places_each_person_once() -> None:
    canvas = np.zeros((130, 200, 3), np.uint8)
    for x in (30, 62, 100):
        draw_person(canvas, x, 125, 110, (255, 255, 255))
    silhouette = canvas.any(2)[:, :140]
    found = sorted(split_group(silhouette, 36.0, 110.0))
    assert len(found) == 3
    np.testing.assert_allclose([(left + right) / 2 for left, _, right, _ in found], [30, 62, 100], atol=5)
    assert split_group(np.eye(100, 100, dtype=bool), 36.0, 100.0) == []  # a thin line is nobody


def test_person_scale_is_a_line_that_outliers_do_not_bend() -> None:
    rng = np.random.default_rng(1)
    foot = rng.uniform(100, 500, 120)
    tall = 0.25 * foot + 10 + rng.normal(0, 2, 120)
    tall[::4] *= 0.4  # dogs, fragments
    scale = PersonScale()
    assert scale.height(300.0) == 0.0  # unknown
    scale.add(list(zip(foot, tall, 0.36 * tall, strict=True)))
    for y in (150.0, 300.0, 450.0):
        assert scale.height(y) == pytest.approx(0.25 * y + 10, rel=0.06)
    assert scale.width_ratio == pytest.approx(0.36, abs=0.03)


@pytest.mark.skipif(not STREET.is_file(), reason="the street footage is not on this machine")
def test_street_first_frame_shows_its_three_people() -> None:
    source = VideoSource(STREET)
    detector = MotionDetector(source.width_px, source.height_px, source.sample(25))
    found = detector.detect(next(iter(source)))
    truth = np.array([[256, 220, 26, 90], [500, 158, 29, 73], [640, 241, 44, 82]], np.float32)
    assert len(found.scores) == 3
    assert iou(truth, found.boxes_xywh_px).max(1).min() > 0.6

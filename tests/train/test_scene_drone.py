"""Scenes from drones: people, boxes, visibility and the camera's pose agree with each other and with the pixels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("anny")
pytest.importorskip("warp")
pytest.importorskip("matplotlib")

from tagclip.runtime.source import VideoSource
from tagclip.train.synth.camera import Camera
from tagclip.train.synth.figure import Figure
from tagclip.train.synth.filming import Filming, SteadyPlace
from tagclip.train.synth.flight import Flight, Pose
from tagclip.train.synth.people import sample_appearance
from tagclip.train.synth.picture import background, ground_reach_m
from tagclip.train.synth.places import sample_place
from tagclip.train.synth.scene import focal_length_px, write_scene
from tagclip.train.synth.walkers import Walker, ground_span, sample_walkers

pytestmark = pytest.mark.slow
WIDTH, HEIGHT, FPS = 320, 192, 5
FOCAL = focal_length_px(WIDTH)
SCENE: dict[str, Any] = {
    "people": 4,
    "seconds": 2.0,
    "fps": FPS,
    "altitude_m": 9.0,
    "pitch_deg": 50.0,
    "width_px": WIDTH,
    "height_px": HEIGHT,
    "seed": 4,
}


@pytest.fixture(scope="module", params=["hover", "moving"])
def scene(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("scene") / "a.mp4"
    write_scene(out, **SCENE, motion=request.param)
    return out, json.loads(out.with_suffix(".json").read_text())


def camera_of(frame: dict[str, Any]) -> Camera:
    return Pose(**frame["camera"]).camera(FOCAL, WIDTH, HEIGHT)


def inside(boxes: list[list[float]], margin_px: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    for x, y, w, h in boxes:
        low_x, low_y = max(int(x) - margin_px, 0), max(int(y) - margin_px, 0)
        mask[low_y : int(y + h) + margin_px + 1, low_x : int(x + w) + margin_px + 1] = True
    return mask


def test_the_camera_moves_as_far_as_it_should(scene: tuple[Path, dict[str, Any]]) -> None:
    poses = np.array([list(frame["camera"].values()) for frame in scene[1]["frames"]])
    gone = np.hypot(*(poses[-1, :2] - poses[0, :2]))
    assert (gone < 1.0) if scene[1]["camera"]["motion"] == "hover" else (gone > 1.5)
    assert (np.ptp(poses, axis=0) > 1e-3).all() and (np.abs(poses[:, 4] - 50) < 1.5).all()


def test_the_place_of_a_person_seen_through_the_pose_is_in_the_box(
    scene: tuple[Path, dict[str, Any]],
) -> None:
    seen = 0
    for frame in scene[1]["frames"]:
        camera = camera_of(frame)
        for person in frame["people"]:
            x, y, w, h = person["box_xywh_px"]
            if x < 1 or y < 1 or x + w > WIDTH - 1 or y + h > HEIGHT - 1:
                continue  # cut: the middle of the person may lie outside
            hips = camera.project(np.array([[*person["place_m"], 0.8]], np.float32))[0]
            assert x + 0.1 * w < hips[0] < x + 0.9 * w and y + 0.2 * h < hips[1] < y + 0.8 * h
            seen += 1
    assert seen >= 15


def test_what_does_not_move_with_the_ground_lies_in_the_boxes(scene: tuple[Path, dict[str, Any]]) -> None:
    """A frame moved onto the next one, as the two poses say that the ground moves, differs from it where people are."""
    frames = [frame.image.astype(np.float32) for frame in VideoSource(scene[0])]
    told = scene[1]["frames"]
    ground = np.array([[x, y, 0] for x in (-3, 3) for y in (5, 11)], np.float32)
    differing = explained = 0
    for k in range(len(told) - 1):
        shift = np.array([told[k]["camera"]["x_m"], told[k]["camera"]["y_m"], 0], np.float32)
        here, there = (camera_of(told[n]).project(ground + shift).astype(np.float32) for n in (k, k + 1))
        move = cv2.getPerspectiveTransform(here, there)
        moved = cv2.warpPerspective(frames[k], move, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)
        # Without the frame's edges, where one of the two knows nothing.
        known = cv2.copyMakeBorder(
            np.ones((HEIGHT - 8, WIDTH - 8), np.uint8), 4, 4, 4, 4, cv2.BORDER_CONSTANT
        )
        known = known * cv2.warpPerspective(known, move, (WIDTH, HEIGHT))
        differs = (np.abs(cv2.blur(moved - frames[k + 1], (3, 3))).max(-1) > 30) & (known > 0)
        before, after = (inside([p["box_xywh_px"] for p in told[n]["people"]], 2) for n in (k, k + 1))
        before = cv2.warpPerspective(before.astype(np.uint8), move, (WIDTH, HEIGHT)) > 0
        differing += differs.sum()
        explained += differs[before | after].sum()
    assert differing > 1000 and explained > 0.95 * differing


def test_the_same_seed_makes_the_same_scene(scene: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    write_scene(tmp_path / "b.mp4", **SCENE, motion=scene[1]["camera"]["motion"])
    for name in ("json", "mp4", "mot/gt/gt.txt"):
        assert (tmp_path / f"b.{name}").read_bytes() == (scene[0].parent / f"a.{name}").read_bytes()


def walkers_of(motion: Any, people: int, seconds: float) -> tuple[Flight, list[Walker]]:
    span = ground_span(12.0, 45.0, FOCAL, WIDTH, HEIGHT)
    speed = (span.far_m - span.near_m) / 4
    flight = Flight(motion, 12.0, 45.0, speed, seconds, np.random.default_rng(0))
    return flight, sample_walkers(flight, span, people, seconds, np.random.default_rng(1))


def test_a_flight_sees_everybody_for_a_while_and_few_at_once() -> None:
    flight, walkers = walkers_of("moving", 12, 30.0)
    seen = np.zeros((12, 300), bool)
    for n in range(300):
        camera = flight.pose(n / 10).camera(FOCAL, WIDTH, HEIGHT)
        points = np.array([[*w.place(n / 10), 1.0] for w in walkers], np.float32)
        at = camera.project(points)
        seen[:, n] = (camera.depth(points) > 0) & ((at > 0) & (at < (WIDTH, HEIGHT))).all(1)
    assert (seen.sum(1) >= 15).all() and np.median(seen.sum(1)) >= 25  # tenths of a second
    assert seen.sum(0).max() <= 8


def test_people_keep_apart() -> None:
    _, walkers = walkers_of("hover", 10, 12.0)
    places = np.array([[w.place(t) for w in walkers] for t in np.arange(0, 12, 0.1)])
    apart = np.linalg.norm(places[:, :, None] - places[:, None], axis=-1) + 9 * np.eye(10)
    assert apart.min() > 0.4


@pytest.fixture(scope="module")
def two() -> tuple[Filming, Camera, list[Walker]]:
    """Somebody 0.8 m in front of somebody else, seen from the side at 6 m, and a third at the picture's edge."""
    rng = np.random.default_rng(5)
    camera = Pose(0, 0, 2.0, 0, 12.0, 0).camera(FOCAL, WIDTH, HEIGHT)
    walkers = [
        Walker(
            figure=Figure(sample_appearance(rng), rng),
            middle=np.array(place, np.float32),
            velocity=np.array([1.0, 0.0]),
            middle_s=0.0,
            phase=0.0,
            yaw=np.pi / 2,
        )
        for place in ((0.0, 6.0), (0.2, 6.8), (-2.75, 6.0))
    ]
    return Filming(sample_place(rng), camera, WIDTH, HEIGHT), camera, walkers


def test_visible_is_the_share_that_others_and_the_edge_leave(
    two: tuple[Filming, Camera, list[Walker]],
) -> None:
    filming, camera, walkers = two
    posed = {k: walker.at(0.0) for k, walker in enumerate(walkers)}
    shot = filming.frame(camera, posed, np.random.default_rng(0))
    found = {k: filming.visible(camera, posed[k], k, shot.person) for k in posed}
    alone = filming.frame(camera, {1: posed[1]}, np.random.default_rng(0))
    share = (shot.person == 1).sum() / (alone.person == 1).sum()
    assert found[0] == 1.0 and found[1] == pytest.approx(share, abs=1e-6) and found[1] < 0.8
    assert filming.visible(camera, posed[1], 1, alone.person) == 1.0
    assert 0.2 < found[2] < 0.9


@pytest.mark.parametrize("sun", [0.0, 0.8])
def test_whom_the_camera_may_see_is_never_left_out(
    two: tuple[Filming, Camera, list[Walker]], sun: float
) -> None:
    filming, camera, walkers = two
    filming = Filming(replace(filming.place, sun_strength=sun), camera, WIDTH, HEIGHT)
    rng = np.random.default_rng(0)
    near = 0
    for _ in range(60):
        place = rng.uniform((-20, -10), (20, 30)).astype(np.float32)
        walker = Walker(walkers[0].figure, place, np.array([0.0, 1.0]), 0.0, 0.0, np.pi)
        if filming.near(camera, place):
            near += 1
        else:
            assert filming.window(camera, walker.at(0.0)) is None
    assert sun or near < 40  # a low sun's shadows reach far


def test_walkers_walk_where_the_picture_has_ground() -> None:
    """`ground_reach_m` says what `background` does: ground within it, and beyond what stands behind."""
    place = sample_place(np.random.default_rng(0))
    ray = np.array([[0, np.cos(0.2), -np.sin(0.2)]], np.float32)
    camera = Pose(0, 0, 9.0, 0, 20, 0).camera(FOCAL, WIDTH, HEIGHT)
    reach = ground_reach_m(9.0)
    lit = np.ones(1, bool)
    looks = [
        background(place, camera, ray, np.array([share * reach], np.float32), lit)
        for share in (0.98, 1.02, 9.0)
    ]
    assert np.array_equal(looks[1], looks[2]) and not np.array_equal(looks[0], looks[1])


def test_the_ground_does_not_flicker_under_a_drone() -> None:
    """The same ground from half a step on, brought over each other: what remains is small."""
    place = SteadyPlace.of(sample_place(np.random.default_rng(2)))
    poses = (Pose(0, 0, 15, 0, 45, 0), Pose(0.1, 0.35, 15, 0.3, 45.1, 0.05))
    cameras = [pose.camera(FOCAL, WIDTH, HEIGHT) for pose in poses]
    filming = Filming(place, cameras[0], WIDTH, HEIGHT)
    first, second = (
        filming.frame(camera, {}, np.random.default_rng(n)).image.astype(np.float32)
        for n, camera in enumerate(cameras)
    )
    ground = np.array([[x, y, 0] for x in (-4, 4) for y in (9, 22)], np.float32)
    here, there = (camera.project(ground).astype(np.float32) for camera in cameras)
    moved = cv2.warpPerspective(first, cv2.getPerspectiveTransform(here, there), (WIDTH, HEIGHT))
    assert (moved - second)[20:-20, 20:-20].std() < 5


def test_some_stay_where_a_drone_sees_them() -> None:
    """They neither walk nor slide, and do what the truth says; below a pole everybody walks."""
    seen = {}
    for motion in ("fixed", "hover"):
        rng = np.random.default_rng(3)
        span = ground_span(12.0, 50.0, FOCAL, WIDTH, HEIGHT)
        flight = Flight(motion, 12.0, 50.0, 2.0, 8.0, np.random.default_rng(4))
        seen[motion] = sample_walkers(flight, span, 40, 8.0, rng)
    assert all(w.pose.posture == "walking" and np.hypot(*w.velocity) > 0.8 for w in seen["fixed"])
    still = [w for w in seen["hover"] if not w.velocity.any()]
    assert 4 <= len(still) <= 18 and len({w.pose.posture for w in still}) >= 3
    for walker in still:
        assert walker.figure.person.posture == walker.pose.posture not in ("walking", "running")
        np.testing.assert_array_equal(walker.at(0.0).vertices, walker.at(5.0).vertices)

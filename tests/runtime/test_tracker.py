"""The tracker on rectangles whose identities are known, judged by the field's own metric (motmetrics)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from tagclip.runtime.association import iou
from tagclip.runtime.boxes import Detections
from tagclip.runtime.look import distance, look_of
from tagclip.runtime.motion import MotionDetector
from tagclip.runtime.source import Frame, Image, VideoSource
from tagclip.runtime.target import Track
from tagclip.runtime.tracker import Tracker

STREET = Path(__file__).parents[3] / "shared" / "data" / "street.mp4"
COATS = ((200, 30, 30), (30, 60, 200), (30, 160, 60), (230, 230, 230))
Boxes = dict[int, tuple[float, float, float, float]]


def scene(boxes: Boxes) -> Image:
    """Rectangles in the coat's colour over dark trousers, the nearer (lower) drawn over the farther."""
    image = np.full((240, 480, 3), 110, np.uint8)
    for person, (x, y, w, h) in sorted(boxes.items(), key=lambda item: item[1][1] + item[1][3]):
        middle = round(y + h / 2)
        image[round(y) : middle, round(x) : round(x + w)] = COATS[person - 1]
        image[middle : round(y + h), round(x) : round(x + w)] = 30 + 40 * person
    return image


def run(
    where: Callable[[float], Boxes],
    *,
    fps: float = 10.0,
    seconds: float = 8.0,
    seen: Callable[[int, float], float] = lambda person, time_s: 1.0,
) -> tuple[list[Track], list[Boxes]]:
    """Track what `where` shows; `seen` gives the score of a person's box, 0 for none. Boxes tremble."""
    rng = np.random.default_rng(3)
    tracker, truth = Tracker(), []
    for index in range(int(seconds * fps)):
        boxes = where(index / fps)
        truth.append(boxes)
        rows = [
            [*(np.array(box) + rng.normal(0, 0.02 * box[3], 4)), seen(person, index / fps)]
            for person, box in boxes.items()
        ]
        found = np.array([row for row in rows if row[4] > 0], np.float32).reshape(-1, 5)
        tracker.update(Frame(index, index / fps, scene(boxes)), Detections(found[:, :4], found[:, 4]))
    return tracker.finish(), truth


def identity_f1(tracks: list[Track], truth: list[Boxes]) -> float:
    """IDF1 of motmetrics over all frames."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its dependencies' deprecations are not ours
        mm = pytest.importorskip("motmetrics", reason="motmetrics is not installed")
        told = mm.MOTAccumulator(auto_id=True)
        by_frame: list[Boxes] = [{} for _ in truth]
        for track in tracks:
            for seen in track.observations:
                by_frame[seen.frame][track.id] = seen.box_xywh_px
        for true, got in zip(truth, by_frame, strict=True):
            pairs = iou(
                np.array(list(true.values()), np.float32).reshape(-1, 4),
                np.array(list(got.values()), np.float32).reshape(-1, 4),
            )
            far = np.where(pairs >= 0.4, 1.0 - pairs, np.nan)
            told.update(list(true), list(got), far)
        metric = mm.metrics.create().compute(told, metrics=["idf1"], name="all")
        return float(metric["idf1"].iloc[0])


def crossing(time_s: float) -> Boxes:
    """Two walk towards each other and past, on nearly the same row; a third goes her own way."""
    return {
        1: (20 + 40 * time_s, 80, 30, 80),
        2: (400 - 40 * time_s, 84, 30, 80),
        3: (200 + 10 * time_s, 20, 14, 40),
    }


@pytest.mark.parametrize("fps", [5.0, 10.0, 30.0])
def test_people_who_cross_keep_their_ids(fps: float) -> None:
    def seen(person: int, time_s: float) -> float:
        """Who is behind is not detected while they cross."""
        gone = abs((20 + 40 * time_s) - (400 - 40 * time_s)) < 20
        return 0.0 if person == 1 and gone else 1.0

    tracks, truth = run(crossing, fps=fps, seen=seen)
    assert len(tracks) == 3
    assert identity_f1(tracks, truth) > 0.95


def test_meeting_and_turning_back_is_told_by_colour() -> None:
    """They meet, stand as one box, and each goes back where he came from: motion alone would swap them."""

    def where(time_s: float) -> Boxes:
        step = 40 * min(time_s, 8.0 - time_s, 3.8)
        return {1: (60 + step, 80, 30, 80), 2: (372 - step, 84, 30, 80)}

    def seen(person: int, time_s: float) -> float:
        return 0.0 if person == 1 and 3.5 < time_s < 4.5 else 1.0

    tracks, truth = run(where, seen=seen)
    assert len(tracks) == 2
    assert identity_f1(tracks, truth) > 0.9


def test_a_track_goes_on_after_four_seconds_behind_a_wall() -> None:
    def where(time_s: float) -> Boxes:
        return {1: (60 + 20 * time_s, 80, 30, 80), 2: (400, 80, 30, 80)}

    def hidden(person: int, time_s: float) -> float:
        return 0.0 if person == 1 and 2.0 < time_s < 6.0 else 1.0

    tracks, _ = run(where, seconds=9.0, seen=hidden)
    assert len(tracks) == 2
    assert (tracks[0].start_s, tracks[0].end_s) == (0.0, 8.9)


def test_somebody_else_who_comes_out_is_a_new_track() -> None:
    def where(time_s: float) -> Boxes:
        return {1: (100, 80, 30, 80)} if time_s < 3.0 else {2: (104, 80, 30, 80)} if time_s > 5.0 else {}

    tracks, _ = run(where, seconds=9.0)
    assert len(tracks) == 2


def test_poor_boxes_continue_a_track_but_start_none() -> None:
    def where(time_s: float) -> Boxes:
        return {1: (60 + 20 * time_s, 80, 30, 80), 2: (400, 20, 30, 80)}

    def poor(person: int, time_s: float) -> float:
        return 0.2 if person == 2 or 2.0 < time_s < 5.0 else 0.9

    tracks, _ = run(where, seen=poor)
    assert len(tracks) == 1
    assert all(seen.observed for seen in tracks[0].observations)


def test_gaps_are_filled_by_prediction_and_marked() -> None:
    def where(time_s: float) -> Boxes:
        return {1: (60 + 40 * time_s, 80, 30, 80)}

    tracks, truth = run(where, seconds=6.0, seen=lambda person, time_s: 0.0 if 3.0 <= time_s < 3.45 else 1.0)
    (track,) = tracks
    assert [seen.frame for seen in track.observations] == list(range(60))
    gap = [seen for seen in track.observations if not seen.observed]
    assert [seen.frame for seen in gap] == [30, 31, 32, 33, 34]
    for seen in gap[:3]:  # speed is trusted less the longer nobody is seen
        assert abs(seen.box_xywh_px[0] - truth[seen.frame][1][0]) < 8


def test_flicker_is_no_track() -> None:
    tracks, _ = run(lambda time_s: {1: (100, 80, 30, 80)} if round(time_s * 10) % 20 < 2 else {})
    assert tracks == []


def test_somebody_who_stands_there_for_hours_takes_no_more_memory() -> None:
    tracker = Tracker(most=100)
    box = np.array([[100, 80, 30, 80]], np.float32)
    image = scene({1: (100, 80, 30, 80)})
    for index in range(5000):
        tracker.update(Frame(index, index / 10, image), Detections(box + index % 7, np.ones(1, np.float32)))
    (track,) = tracker.finish()
    assert len(track.observations) <= 100 and (track.start_s, track.end_s) == (0.0, 499.9)
    times = [seen.time_s for seen in track.observations]
    assert (
        times == sorted(times) and len({round(time_s / 100) for time_s in times}) == 6
    )  # all of it is still there


@pytest.mark.parametrize(
    "times",
    [[0.1 * k - (50 if k > 30 else 0) for k in range(60)], [0.0] * 60, [3600.0 * k for k in range(20)]],
)
def test_a_clock_that_jumps_breaks_nothing(times: list[float]) -> None:
    tracker = Tracker(camera_moves=True)
    for index, time_s in enumerate(times):
        boxes = {1: (60.0 + 2 * index, 80.0, 30.0, 80.0)}
        found = Detections(np.array(list(boxes.values()), np.float32), np.ones(1, np.float32))
        for match in tracker.update(Frame(index, time_s, scene(boxes)), found):
            assert 0 <= match.agreement <= 1
    for track in tracker.finish():
        assert np.isfinite([seen.box_xywh_px for seen in track.observations]).all()


def test_a_camera_that_swings_loses_nobody_when_its_motion_is_known() -> None:
    """Two people in coats alike, a width apart, and a camera that jerks by two widths: places alone would swap them."""
    texture = cv2.resize(
        np.random.default_rng(1).integers(0, 255, (60, 140, 3), dtype=np.uint8),
        (1400, 600),
        interpolation=cv2.INTER_CUBIC,
    )
    rng = np.random.default_rng(2)
    world = {1: (500.0, 250.0), 2: (560.0, 252.0)}
    scores = {}
    for moves in (True, False):
        tracker, truth = Tracker(camera_moves=moves), []
        for index in range(80):
            swing = np.array(
                [420 + 60 * (index // 4 % 2) + index, 160.0]
            )  # top left of the picture in the world
            x0, y0 = (int(value) for value in swing)
            image = texture[y0 : y0 + 240, x0 : x0 + 480].copy()
            boxes = {
                person: (x + index - swing[0], y - swing[1], 30.0, 80.0) for person, (x, y) in world.items()
            }
            for x, y, w, h in boxes.values():
                image[round(y) : round(y + h), round(x) : round(x + w)] = COATS[0]
            truth.append(boxes)
            rows = np.array(list(boxes.values()), np.float32) + rng.normal(0, 1.0, (2, 4)).astype(np.float32)
            tracker.update(Frame(index, index / 10, image), Detections(rows, np.ones(2, np.float32)))
        scores[moves] = identity_f1(tracker.finish(), truth)
    assert scores[True] > 0.95 and scores[False] < 0.8, scores


def test_looks_differ_by_coat_and_survive_a_box_outside() -> None:
    boxes: Boxes = {1: (50, 50, 30, 80), 2: (150, 50, 30, 80)}
    image = scene(boxes)
    one, two = (look_of(image, np.array(box, np.float32)) for box in boxes.values())
    assert distance(one, one) < 1e-3 < 0.45 < distance(one, two)
    np.testing.assert_allclose(one.sum(1), 1.0, atol=1e-5)
    outside = look_of(image, np.array((900, 900, 30, 80), np.float32))
    np.testing.assert_allclose(outside.sum(1), 1.0, atol=1e-5)


@pytest.mark.skipif(not STREET.is_file(), reason="the street footage is not on this machine")
def test_street_people_have_one_long_track_each() -> None:
    """Boxes read off the frames by eye: the pair (red sleeves, black coat) and the light blue jacket."""
    source = VideoSource(STREET)
    detector = MotionDetector(source.width_px, source.height_px, source.sample(25))
    tracker = Tracker()
    for frame in source:
        tracker.update(frame, detector.detect(frame))
    tracks = tracker.finish()
    assert 10 <= len(tracks) <= 13  # eleven walks; a hidden man may be counted twice

    def who(frame: int, x: float, y: float) -> int:
        """Id of the track whose box has (x, y) near its middle in `frame`."""
        for track in tracks:
            for seen in track.observations:
                left, top, w, h = seen.box_xywh_px
                near = abs(left + w / 2 - x) < 0.6 * w and abs(top + h / 2 - y) < 0.3 * h
                if seen.frame == frame and seen.observed and near:
                    return track.id
        return 0

    def ids(*places: tuple[int, float, float]) -> set[int]:
        return {who(*place) for place in places}

    man = ids((20, 709, 323), (50, 526, 261), (100, 506, 180), (250, 644, 150), (313, 601, 207))
    woman = ids((20, 742, 318), (50, 568, 255), (100, 528, 187), (250, 666, 151), (313, 637, 212))
    blue = ids((120, 702, 260), (140, 532, 230), (160, 363, 205), (200, 93, 183))
    for found in (man, woman, blue):
        assert len(found) == 1 and 0 not in found
    assert len(man | woman | blue) == 3

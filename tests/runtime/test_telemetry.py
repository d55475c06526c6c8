"""Telemetry in the forms that drones and people write, and places on the ground against the renderer's own camera."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from tagclip.runtime.earth import great_circle_m
from tagclip.runtime.errors import SourceError
from tagclip.runtime.ground import elevation_deg, place_of, view_of
from tagclip.runtime.telemetry import CameraPose, Telemetry, read_telemetry

NEW_SRT = """1
00:00:00,000 --> 00:00:00,033
<font size="28">FrameCnt: 1, DiffTime: 33ms
2024-05-01 12:00:00.123
[iso: 100] [shutter: 1/1000.0] [fnum: 2.8] [focal_len: 24.00] [latitude: 47.370000] [longitude: 8.540000] \
[rel_alt: 30.200 abs_alt: 441.300] [gb_yaw: 170.0 gb_pitch: -45.5 gb_roll: 0.0] </font>

2
00:00:01,000 --> 00:00:01,033
<font size="28">FrameCnt: 2
[latitude: 47.370100] [longitude: 8.540200] [rel_alt: 31.200 abs_alt: 442.300] \
[gb_yaw: -170.0 gb_pitch: -46.5 gb_roll: 0.0] </font>
"""
OLD_SRT = """1
00:00:00,000 --> 00:00:01,000
F/2.8, SS 206.14, ISO 150, EV 0, GPS (8.5400, 47.3700, 15), D 24.01m, H 12.50m, H.S 0.00m/s, V.S 0.00m/s

2
00:00:01,000 --> 00:00:02,000
F/2.8, SS 206.14, ISO 150, EV 0, GPS (0.0000, 0.0000, 0), D 24.01m, H 13.50m, H.S 0.00m/s, V.S 0.00m/s
"""
OLDEST_SRT = """1
00:00:00,000 --> 00:00:01,000
HOME(8.5390,47.3690) 2017.08.05 14:11:51
GPS(8.5400,47.3700,18) BAROMETER:7.5
ISO:100 Shutter:60 EV: Fnum:2.2
"""


def written(tmp_path: Path, name: str, text: str) -> Telemetry:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return read_telemetry(tmp_path / name)


def test_the_subtitles_of_newer_drones(tmp_path: Path) -> None:
    telemetry = written(tmp_path, "a.SRT", NEW_SRT)
    pose = telemetry.at(0.0)
    assert (pose.latitude_deg, pose.longitude_deg, pose.altitude_m) == (47.37, pytest.approx(8.54), 30.2)
    assert (pose.pitch_deg, pose.yaw_deg, pose.roll_deg) == (45.5, pytest.approx(170), 0.0)
    assert pose.field_of_view_deg == pytest.approx(73.74, abs=0.01)  # of a 24 mm lens on film 36 mm wide
    half = telemetry.at(0.5)
    assert half.altitude_m == pytest.approx(30.7) and half.pitch_deg == pytest.approx(46)
    assert abs(half.yaw_deg or 0) == pytest.approx(180)  # the short way round
    assert telemetry.at(3.0).altitude_m == pytest.approx(31.2) and telemetry.at(3.1) == CameraPose()


def test_the_subtitles_of_older_drones(tmp_path: Path) -> None:
    telemetry = written(tmp_path, "a.srt", OLD_SRT)
    assert telemetry.at(0.0) == CameraPose(47.37, pytest.approx(8.54), 12.5)
    assert telemetry.at(1.0).altitude_m == 13.5 and telemetry.at(1.0).latitude_deg == 47.37  # 0, 0 is no fix
    assert written(tmp_path, "b.srt", OLDEST_SRT).at(0.0) == CameraPose(47.37, pytest.approx(8.54), 7.5)


def test_tables_and_lists(tmp_path: Path) -> None:
    names = "time_s,latitude_deg,longitude_deg,altitude_m,pitch_deg,yaw_deg,note"
    table = f"{names}\n0,47.1,8.1,20,30,,x\n2,47.1,8.1,24,30,10,y\n"
    assert written(tmp_path, "a.csv", table).at(1.0) == CameraPose(
        47.1, pytest.approx(8.1), 22, 30, pytest.approx(10)
    )
    rows = [{"time_s": 2, "altitude_m": 24}, {"time_s": 0, "altitude_m": 20, "roll_deg": None}]
    assert written(tmp_path, "a.json", json.dumps(rows)).at(1.0) == CameraPose(altitude_m=22)


def test_what_is_fixed_comes_before_what_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("time_s,altitude_m\n0,20\n")
    telemetry = read_telemetry(tmp_path / "a.csv", CameraPose(altitude_m=5, pitch_deg=20))
    assert telemetry.at(0.0) == telemetry.at(1e6) == CameraPose(altitude_m=5, pitch_deg=20)
    assert Telemetry().at(0.0) == CameraPose()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "x", "expected telemetry as .srt, .tlog, .csv or .json, found .txt"),
        ("a.srt", "1\n00:00:00,000 --> 00:00:01,000\nHello\n", "tells nothing of a camera"),
        ("a.srt", "", "tells nothing of a camera"),
        (
            "a.srt",
            NEW_SRT.replace("47.370100", "97.37"),
            "the subtitle at 00:00:01,000: latitude_deg must be -90 to 90",
        ),
        ("a.csv", "time_s,altitude_m\n0,high\n", "a.csv:2: altitude_m must be a number, found 'high'"),
        ("a.csv", "time_s,altitude_m\n0,nan\n", "a.csv:2: altitude_m must be -500 to 20000, found nan"),
        ("a.csv", "altitude_m\n4\n", "a.csv:2: expected time_s and any of"),
        ("a.json", "{}", "expected a list of objects"),
        ("a.json", "[", "is not JSON"),
        ("a.json", "[" * 100_000, "is not JSON"),
        ("a.json", "[3]", "a.json:1: expected time_s"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        written(tmp_path, name, text)
    with pytest.raises(SourceError, match="No such file"):
        read_telemetry(tmp_path / "none.srt")
    with pytest.raises(SourceError, match="the pose given: pitch_deg must be"):
        Telemetry(fixed=CameraPose(pitch_deg=100))


WIDTH, HEIGHT, FOV = 640, 360, 50.0


@pytest.mark.parametrize(
    ("altitude_m", "pitch_deg", "yaw_deg", "roll_deg"),
    [(7, 22, 0, 0), (30, 45, 130, 4), (15, 60, -75, -8), (80, 75, 20, 3), (25, 90, 210, 0)],
)
def test_places_are_where_the_renderers_camera_sees_them(
    altitude_m: float, pitch_deg: float, yaw_deg: float, roll_deg: float
) -> None:
    pytest.importorskip("matplotlib")
    flight = pytest.importorskip("tagclip.train.synth.flight")
    focal_px = WIDTH / 2 / math.tan(math.radians(FOV) / 2)
    camera = flight.Pose(0, 0, altitude_m, yaw_deg, pitch_deg, roll_deg).camera(focal_px, WIDTH, HEIGHT)
    pose = CameraPose(47.0, 8.0, altitude_m, pitch_deg, yaw_deg, roll_deg, FOV)
    rng = np.random.default_rng(0)
    seen = 0
    for _ in range(100):
        at = rng.uniform((0, 0), (WIDTH - 1, HEIGHT - 1)).astype(np.float32)  # the middle of a pixel
        ray = camera.rays(at[:1], at[1:])[0, 0]
        if ray[2] > -0.05:
            continue
        ground = ray[:2] * altitude_m / -ray[2]
        x, y = at + 0.5  # from middles of pixels to edges
        seen += 1
        box = (x - 5, y - (10 if pitch_deg >= 60 else 20), 10.0, 20.0)
        place = place_of(pose, box, (WIDTH, HEIGHT))
        assert place is not None
        east = great_circle_m(47.0, 8.0, 47.0, place.longitude_deg) * np.sign(place.longitude_deg - 8)
        north = great_circle_m(47.0, 8.0, place.latitude_deg, 8.0) * np.sign(place.latitude_deg - 47)
        np.testing.assert_allclose([east, north], ground[:2], atol=0.02 + 0.002 * np.hypot(*ground[:2]))
        elevation = math.degrees(math.atan2(altitude_m, np.hypot(*ground[:2])))
        assert elevation_deg(pose, box, (WIDTH, HEIGHT)) == pytest.approx(elevation, abs=0.1)
        assert view_of(pose, box, (WIDTH, HEIGHT)) == ("aerial" if elevation >= 27.5 else "ground")
        assert place.error_m >= 6 and place.error_m < 2 * np.hypot(*ground[:2]) + 30
    assert seen > 40


def test_the_radius_holds_what_it_says() -> None:
    """With errors of the sizes that are assumed, two thirds and more of places are within the radius."""
    rng = np.random.default_rng(3)
    true = CameraPose(47.0, 8.0, 30.0, 40.0, 0.0, 0.0, FOV)
    box = (300.0, 200.0, 20.0, 40.0)
    at = place_of(true, box, (WIDTH, HEIGHT))
    assert at is not None
    within = []
    for _ in range(300):
        told = CameraPose(
            47.0 + rng.normal(0, 3) / 111_195, 8.0 + rng.normal(0, 3) / 75_800, 30 + rng.normal(0, 1),
            40 + rng.normal(0, 1), rng.normal(0, 3), 0.0, FOV,
        )  # fmt: skip
        place = place_of(told, box, (WIDTH, HEIGHT))
        assert place is not None
        away = great_circle_m(at.latitude_deg, at.longitude_deg, place.latitude_deg, place.longitude_deg)
        within.append(away <= place.error_m)
    assert 0.85 < np.mean(within) <= 1


@pytest.mark.parametrize(
    "name", ["latitude_deg", "longitude_deg", "altitude_m", "pitch_deg", "yaw_deg", "field_of_view_deg"]
)
def test_without_one_of_these_there_is_no_place(name: str) -> None:
    pose = CameraPose(47.0, 8.0, 30.0, 40.0, 0.0, 0.0, FOV)
    assert place_of(pose, (300, 200, 20, 40), (WIDTH, HEIGHT)) is not None
    assert place_of(CameraPose(**{**vars(pose), name: None}), (300, 200, 20, 40), (WIDTH, HEIGHT)) is None


def test_what_is_above_the_horizon_has_no_place() -> None:
    pose = CameraPose(47.0, 8.0, 30.0, 5.0, 0.0, 0.0, FOV)
    assert place_of(pose, (300, 0, 20, 40), (WIDTH, HEIGHT)) is None
    assert view_of(pose, (300, 0, 20, 40), (WIDTH, HEIGHT)) == "ground"
    assert view_of(CameraPose(), (300, 0, 20, 40), (WIDTH, HEIGHT)) is None

"""`tagclip alerts export`: from a file of hits, a store and a video to the files for people; and their drawing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from tagclip.runtime.alerts_export_cli import export
from tagclip.runtime.cli import run as run_command
from tagclip.runtime.errors import HitError
from tagclip.runtime.hit import CONFIRMED, Hit
from tagclip.runtime.hit_log import HitLog
from tagclip.runtime.hit_sheet import MOST_CARDS, draw_hits, draw_video, lines_of, ranked
from tagclip.runtime.sheet import image_bytes
from tagclip.runtime.source import VideoSource, decode_image
from tagclip.runtime.store import TrackStore
from tagclip.runtime.store_track import Place, StoredTrack

Export = Callable[..., tuple[int, str, str]]
COATS = {1: (220, 30, 30), 2: (30, 180, 40), 3: (30, 50, 220)}
W_PX, H_PX, FRAMES, FPS = 320, 240, 60, 10


def hit(number: int, **changes: Any) -> Hit:
    """Hit number 1 is the least likely by chance; its picture is frame 20 * number."""
    made = Hit(
        uuid.UUID(int=number), 1, "q1", "a man in a red jacket", uuid.UUID(int=1000 + number), "mast", "aerial",
        "e" * 64, 0.5 - 0.1 * number, 0.0001 * number, 0.25 * number, 0.25, 1_764_235_815.0, 1_764_235_820.0,
        1_764_235_817.0, 20 * number, (100.0, 80.0, 40.0, 100.0), (W_PX, H_PX), Place(47.3769123, 8.5417001, 6.5), 4,
    )  # fmt: skip
    return replace(made, **changes)


def written(path: Path, hits: Sequence[Hit]) -> Path:
    with HitLog(path) as log:
        for one in hits:
            log.append(one)
    return path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Three hits, written in the order 3, 1, 2, the second confirmed later, the third without a place."""
    third = hit(3, place=None, frame=200, query="somebody <b>in</b> blue & \x07white")
    return written(tmp_path / "hits.jsonl", [third, hit(1), hit(2), hit(2, revision=2, review=CONFIRMED)])


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The tracks of hits 1 and 2, each with a picture in one colour; that of hit 3 is there no longer."""
    with TrackStore(tmp_path / "north.db") as opened:
        for number in (1, 2):
            picture = np.full((120, 40, 3), COATS[number], np.uint8)
            vector = np.eye(8, dtype=np.float32)[number]
            track = StoredTrack(
                uuid.UUID(int=1000 + number), "mast", "aerial", 0.0, 1.0, 0.5, 3, (1.0, 2.0, 3.0, 4.0), "e" * 64, vector
            )  # fmt: skip
            opened.add([(track, image_bytes(picture, ".jpg"))])
    return tmp_path / "north.db"


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 grey frames, 10 a second."""
    path: Path = tmp_path_factory.mktemp("video") / "mast.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FPS, (W_PX, H_PX))
    for _ in range(FRAMES):
        writer.write(np.full((H_PX, W_PX, 3), 120, np.uint8))
    writer.release()
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Export:
    """Run the command in this process: (exit status, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_:
            run_command(export, "tagclip alerts export", [str(argument) for argument in arguments])
        return exit_.value.code, *capsys.readouterr()  # type: ignore[return-value]

    return run


def coloured(image: np.ndarray, rgb: tuple[int, int, int]) -> int:
    """How many pixels have about this colour."""
    return int((np.abs(image.astype(int) - rgb).max(2) < 40).sum())


def test_everything_at_once(run: Export, log: Path, store: Path, video: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    names = {"kml": "h.kml", "geojson": "h.geojson", "cot": "h.cot", "sheet": "h.png", "video": "h.mp4"}
    wanted = [text for name, file in names.items() for text in (f"--{name}", out / file)]
    status, said, err = run(log, *wanted, "--store", store, "--source", video, "--json")
    assert (status, err) == (0, "")
    found = json.loads(said)
    assert (found["hits"], found["chosen"], found["torn_bytes"], found["dry_run"]) == (3, 3, 0, False)
    rows = {row["form"]: row for row in found["files"]}
    assert {form: (row["hits"], row["left_out"]) for form, row in rows.items()} == {
        "kml": (2, 1), "geojson": (2, 1), "cot": (2, 1), "sheet": (3, 0), "video": (2, 1),
    }  # fmt: skip
    assert (rows["kml"]["why"], rows["video"]["why"]) == ("place unknown", "the video ends before them")
    assert rows["sheet"]["without_picture"] == 1
    assert sorted(path.name for path in out.iterdir()) == sorted(names.values())

    ids = [str(uuid.UUID(int=number)) for number in (1, 2)]
    features = json.loads((out / "h.geojson").read_text())["features"]
    assert [(one["id"], one["properties"]["review"]) for one in features] == [
        (ids[0], "unreviewed"),
        (ids[1], "confirmed"),
    ]
    marks = ElementTree.fromstring((out / "h.kml").read_bytes()).findall(".//{*}Placemark")
    assert [mark.get("id") for mark in marks] == [f"hit-{one}" for one in ids]
    lines = (out / "h.cot").read_bytes().splitlines()
    assert [ElementTree.fromstring(line).get("uid") for line in lines] == [f"tagclip-{one}" for one in ids]
    sheet = decode_image((out / "h.png").read_bytes())
    assert sheet is not None
    assert coloured(sheet, COATS[1]) > 25_000 and coloured(sheet, COATS[2]) > 25_000
    assert VideoSource(out / "h.mp4").frame_count == FRAMES


def test_people_are_told_what_was_left_out(run: Export, log: Path, store: Path, tmp_path: Path) -> None:
    kml, sheet = tmp_path / "h.kml", tmp_path / "h.jpg"
    status, said, _ = run(log, "--kml", kml, "--sheet", sheet, "--store", store)
    assert status == 0
    assert said.splitlines() == [
        "3 hits, 3 of them chosen",
        f"written: {sheet} (sheet): 3 hits, 1 without a picture",
        f"written: {kml} (kml): 2 hits, 1 left out: place unknown",
    ]


def test_a_dry_run_writes_nothing(run: Export, log: Path, store: Path, video: Path, tmp_path: Path) -> None:
    def content() -> dict[str, bytes]:
        # SQLite has its own files beside a store that is read.
        return {path.name: path.read_bytes() for path in tmp_path.iterdir() if "-" not in path.name}

    before = content()
    out = tmp_path / "out"
    status, said, _ = run(
        log, "--kml", out / "h.kml", "--sheet", out / "h.png", "--store", store, "--video", out / "h.mp4",
        "--source", video, "--dry-run",
    )  # fmt: skip
    assert status == 0
    assert f"would write: {out / 'h.kml'} (kml): 2 hits, 1 left out: place unknown" in said
    assert f"would write: {out / 'h.mp4'} (video): 2 hits, 1 left out: the video ends before them" in said
    assert "written" not in said and not out.exists()
    assert content() == before


def test_review_and_camera_choose(run: Export, tmp_path: Path) -> None:
    log = written(
        tmp_path / "hits.jsonl", [hit(1, review=CONFIRMED), hit(2, camera="drone", review=CONFIRMED), hit(3)]
    )
    for options, numbers in (
        (["--review", "confirmed"], [1, 2]),
        (["--review", "rejected"], []),
        (["--camera", "mast"], [1, 3]),
        (["--camera", "drone", "--review", "unreviewed"], []),
    ):
        assert run(log, "--geojson", tmp_path / "h.json", *options)[0] == 0
        found = json.loads((tmp_path / "h.json").read_text())["features"]
        assert [uuid.UUID(one["id"]).int for one in found] == numbers


def test_a_torn_end_is_said(run: Export, log: Path, tmp_path: Path) -> None:
    log.write_bytes(log.read_bytes()[:-100])
    status, said, err = run(log, "--kml", tmp_path / "h.kml", "--json")
    assert status == 0 and json.loads(said)["torn_bytes"] > 100
    assert re.search(r"warning: .*hits.jsonl ends in \d+ bytes of a half-written hit; left out", err)
    assert b"confirmed)" not in (tmp_path / "h.kml").read_bytes()


def test_what_does_not_go_together_is_refused(
    run: Export, log: Path, store: Path, video: Path, tmp_path: Path
) -> None:
    kml = tmp_path / "h.kml"
    for options, said in (
        ([], "name what to write"),
        (["--sheet", tmp_path / "h.png"], "--sheet and --store go together"),
        (["--kml", kml, "--store", store], "--sheet and --store go together"),
        (["--video", tmp_path / "h.mp4"], "--video and --source go together"),
        (["--sheet", tmp_path / "h.gif", "--store", store], "--sheet expects a name ending in .png or .jpg"),
        (["--video", tmp_path / "h.avi", "--source", video], "--video expects a name ending in .mp4"),
        (["--kml", log], "--kml would overwrite"),
        (["--kml", kml, "--geojson", tmp_path / "." / "h.kml"], "--geojson would overwrite"),
        (["--sheet", store.rename(tmp_path / "s.png"), "--store", tmp_path / "s.png"], "would overwrite"),
        (["--cot", tmp_path], "is a folder"),
    ):
        status, _, err = run(log, *options)
        assert status == 2 and said in " ".join(err.split()), err
        assert not kml.exists()


def test_what_cannot_be_read_or_written_is_named(
    run: Export, log: Path, store: Path, video: Path, tmp_path: Path
) -> None:
    lines = log.read_text().splitlines(keepends=True)
    damaged = tmp_path / "damaged.jsonl"
    damaged.write_text(lines[0] + lines[1][:50] + "\n" + lines[2])
    mixed = written(tmp_path / "mixed.jsonl", [hit(1), hit(2, camera="drone")])
    larger = written(tmp_path / "larger.jsonl", [hit(1, frame_px=(768, 576))])
    mp4, kml = tmp_path / "h.mp4", tmp_path / "h.kml"
    for arguments, said in (
        ([damaged, "--kml", kml], "damaged.jsonl, line 2: damaged"),
        ([tmp_path / "no.jsonl", "--kml", kml], "found none"),
        ([store, "--kml", kml], "is no file of hits"),
        ([log, "--kml", kml, "--sheet", tmp_path / "h.png", "--store", video], "cannot be used as a store"),
        ([log, "--kml", kml, "--video", mp4, "--source", log], "is text, not a video"),
        ([mixed, "--kml", kml, "--video", mp4, "--source", video], "hits of 2 cameras ('drone', 'mast')"),
        ([larger, "--kml", kml, "--video", mp4, "--source", video], "hits of frames of 768x576, "),
        ([log, "--kml", log / "h.kml"], "cannot write"),
    ):
        status, out, err = run(*arguments)
        assert (status, out) == (1, ""), (arguments, err)
        assert said in err and "Traceback" not in err
        assert not kml.exists() and not mp4.exists()
    assert run(mixed, "--camera", "mast", "--video", mp4, "--source", video)[0] == 0


def test_the_video_shows_each_hit_for_the_second_around_its_picture(video: Path, tmp_path: Path) -> None:
    hits = [hit(1), hit(2, box_xywh_px=(200.0, 60.0, 40.0, 100.0)), hit(3, frame=200)]
    drawn = draw_video(hits, VideoSource(video), tmp_path / "h.mp4")
    assert (drawn.drawn, drawn.left_out) == (2, 1)
    shown: dict[int, list[int]] = {1: [], 2: []}
    for frame in VideoSource(tmp_path / "h.mp4"):
        for number, (x, y) in ((1, (100, 80)), (2, (200, 60))):
            edge = frame.image[y + 30 : y + 90, x - 1 : x + 2].astype(int)  # below the label
            if np.abs(edge - 120).max(2).mean() > 30:
                shown[number].append(frame.index)
    assert shown == {
        1: list(range(15, 26)),
        2: list(range(35, 46)),
    }  # 10 frames a second, half before, half after


def test_a_hit_in_the_very_first_frame_and_a_box_beyond_the_edge(video: Path, tmp_path: Path) -> None:
    beyond = hit(
        1, frame=0, box_xywh_px=(-50.0, -50.0, 500.0, 400.0), query="\x00 \u7d05 %s " + "very " * 400
    )
    assert draw_video([beyond], VideoSource(video), tmp_path / "h.mp4").drawn == 1
    first = next(iter(VideoSource(tmp_path / "h.mp4")))
    assert np.abs(first.image[:20].astype(int) - 120).max(2).mean() > 30  # the label is within the frame


def test_the_least_likely_by_chance_comes_first() -> None:
    hits = [
        hit(3, p_value=0.0004),
        hit(1, p_value=0.0003, score=0.9),
        hit(2),
        hit(4, p_value=0.0003, score=0.1),
    ]
    assert [one.id.int for one in ranked(hits)] == [2, 1, 4, 3]


def test_a_sheet_says_what_a_person_needs() -> None:
    assert lines_of(hit(1))[:2] == ["unreviewed", "0.25 false alarms an hour"]
    assert lines_of(hit(1))[3:] == ["mast, aerial", "47.37691,8.54170 +-6 m"]
    assert lines_of(hit(1, false_alarms_per_hour=None, place=None))[1::3] == [
        "by chance: p 0.0001",
        "place unknown",
    ]
    code = (
        "import importlib.util as u, sys; s = u.spec_from_file_location('t', sys.argv[1]);"
        "t = u.module_from_spec(s); s.loader.exec_module(t); print(t.lines_of(t.hit(1))[2])"
    )
    for zone, said in (("UTC0", "2025-11-27 09:30:17+0000"), ("CET-1", "2025-11-27 10:30:17+0100")):
        done = subprocess.run(
            [sys.executable, "-c", code, __file__],
            capture_output=True,
            text=True,
            env={**os.environ, "TZ": zone},
        )
        assert done.stdout.strip() == said, done.stderr


def test_a_sheet_is_bounded_and_says_so(store: Path) -> None:
    with TrackStore(store, read_only=True) as opened:
        many = draw_hits([hit(1)] * (MOST_CARDS + 7), opened, ".jpg")
        assert (many.drawn, many.left_out, many.without_picture) == (MOST_CARDS, 7, 0)
        image = decode_image(many.data)
        assert image is not None and image.shape[0] < 65_535
        none = draw_hits([], opened, ".png")
        assert decode_image(none.data) is not None and none.drawn == 0


def test_each_card_names_its_query_where_there_are_several(store: Path) -> None:
    """The same two hits, of one query and of two: the second sheet has more ink on the cards."""
    ink = []
    with TrackStore(store, read_only=True) as opened:
        for query in ("a man in a red jacket", "a woman with a yellow umbrella and a very long green dress"):
            image = decode_image(draw_hits([hit(1), hit(2, query=query)], opened, ".png").data)
            assert image is not None
            ink.append(int((image[120:].max(2) < 160).sum()))
    assert ink[1] > ink[0] + 1000


def test_hits_of_another_size_are_refused_before_anything_is_drawn(video: Path, tmp_path: Path) -> None:
    with pytest.raises(HitError, match=r"frames of 640x480, .*mast.avi has 320x240"):
        draw_video([hit(1), hit(2, frame_px=(640, 480))], VideoSource(video), tmp_path / "h.mp4")
    assert list(tmp_path.iterdir()) == []

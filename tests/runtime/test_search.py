"""Searching with encoders that are plain arithmetic: a vector is a colour, so the right answer is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tagclip.runtime.annotate import write_annotated
from tagclip.runtime.boxes import FileBoxes
from tagclip.runtime.crops import Crop
from tagclip.runtime.errors import OutputError, SourceError
from tagclip.runtime.search import Encoders, SearchResult, find_people, search_folder, search_video
from tagclip.runtime.source import FolderSource, Image, VideoSource, open_source

NAMES = {"red": (210, 30, 30), "green": (30, 170, 60), "blue": (30, 60, 210)}


class ColourImages:
    """The vector of a crop is its mean colour around grey, of unit length."""

    def embed(self, crops: Sequence[Image], /) -> NDArray[np.float32]:
        rows = np.array([crop.reshape(-1, 3).mean(0) - 110.0 for crop in crops], np.float32).reshape(-1, 3)
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


class ColourTexts:
    """The vector of a text is the colour it names."""

    def embed(self, texts: Sequence[str], /) -> NDArray[np.float32]:
        rows = np.array([NAMES[text] for text in texts], np.float32) - 110.0
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


ENCODERS = Encoders(ColourImages(), ColourTexts(), "test-encoder", "ground")


@pytest.fixture
def video(tmp_path: Path) -> tuple[VideoSource, FileBoxes]:
    """Five seconds: red and green walk, blue stands, a fourth is there for 0.3 s."""
    path, boxes = tmp_path / "clip.mp4", []
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (320, 240))
    for index in range(50):
        image = np.full((240, 320, 3), 110, np.uint8)
        people = {"red": 20 + 4 * index, "green": 270 - 4 * index, "blue": 150}
        rows = {"red": 20, "green": 90, "blue": 160}
        for name, x in people.items():
            image[rows[name] : rows[name] + 60, x : x + 24] = NAMES[name][::-1]
            boxes.append(f"{index + 1},-1,{x},{rows[name]},24,60,1")
        if 10 <= index < 13:
            boxes.append(f"{index + 1},-1,2,170,24,60,1")
        writer.write(image)
    writer.release()
    (tmp_path / "boxes.txt").write_text("\n".join(boxes))
    return VideoSource(path), FileBoxes(tmp_path / "boxes.txt")


def search(video: tuple[VideoSource, FileBoxes], query: str, *, top: int = 5) -> SearchResult:
    """Search the clip."""
    return search_video(*video, query, ENCODERS, top=top, drop_still=False)


@pytest.mark.parametrize("query", list(NAMES))
def test_the_right_person_comes_first(video: tuple[VideoSource, FileBoxes], query: str) -> None:
    result = search(video, query)
    assert (result.searched, len(result.hits)) == (3, 3)
    best = result.hits[0]
    colour = best.crops[0].image.reshape(-1, 3).mean(0)
    assert int(np.argmax(colour)) == list(NAMES).index(query)
    assert best.score > 0.9 > result.hits[1].score
    assert [hit.rank for hit in result.hits] == [1, 2, 3]
    scores = [hit.score for hit in result.hits]
    assert scores == sorted(scores, reverse=True)


def test_json_has_the_promised_shape(video: tuple[VideoSource, FileBoxes]) -> None:
    result = search(video, "red", top=1)
    data = result.to_json(["out/crops/01.jpg"])
    assert list(data) == ["query", "encoder_id", "view", "results"]
    assert (data["query"], data["encoder_id"], data["view"]) == ("red", "test-encoder", "ground")
    (hit,) = data["results"]
    assert list(hit) == ["rank", "score", "track_id", "start_s", "end_s", "best"]
    assert (hit["rank"], hit["start_s"], hit["end_s"]) == (1, 0.0, 4.9)
    best = hit["best"]
    assert list(best) == ["time_s", "frame", "box_xywh_px", "crop"]
    assert best["crop"] == "out/crops/01.jpg"
    assert best["time_s"] == pytest.approx(best["frame"] / 10.0)
    x, y, w, h = best["box_xywh_px"]
    assert (x, y, w, h) == (20 + 4 * best["frame"], 20, 24, 60)
    assert result.to_json()["results"][0]["best"]["crop"] is None


def test_short_and_still_tracks_are_left_out_and_said(video: tuple[VideoSource, FileBoxes]) -> None:
    people = find_people(*video, drop_still=False)
    assert len(people.tracks) == 3
    assert people.warnings == ["1 track left out: seen for less than 0.5 s"]
    people = find_people(*video, drop_still=True)
    assert len(people.tracks) == 2
    assert any("1 track left out: never moved" in warning for warning in people.warnings)


def test_the_score_is_the_cosine_of_the_weighted_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two crops with vectors (1, 0) and (0, 1) and qualities 0.75 and 0.25, against (1, 0)."""

    class Two:
        def embed(self, items: Sequence[object], /) -> NDArray[np.float32]:
            return np.eye(2, dtype=np.float32)[: len(items)]

    from tagclip.runtime import search as module
    from tagclip.runtime.target import Observation, Track

    black = np.zeros((8, 4, 3), np.uint8)
    box = (0.0, 0.0, 4.0, 8.0)
    crops = [Crop(0, 0.0, box, 0.75, black), Crop(1, 0.1, box, 0.25, black)]
    track = Track(1, [Observation(0, 0.0, (0, 0, 4, 8), True)])
    people = module.People([track], {1: crops}, [])
    monkeypatch.setattr(module, "find_people", lambda *args, **kwargs: people)
    encoders = Encoders(Two(), Two(), "two", "ground")
    result = search_video(None, None, "x", encoders, top=1, drop_still=False)  # type: ignore[arg-type]
    assert result.hits[0].score == pytest.approx(0.75 / np.hypot(0.75, 0.25), abs=1e-6)
    assert result.hits[0].crops[0] is crops[0]


def test_a_video_without_people_gives_no_hits(tmp_path: Path, video: tuple[VideoSource, FileBoxes]) -> None:
    (tmp_path / "far.txt").write_text("1000,1,10,10,20,50")
    far = FileBoxes(tmp_path / "far.txt")
    result = search_video(video[0], far, "red", ENCODERS, top=5, drop_still=False)
    assert (result.hits, result.searched, result.to_json()["results"]) == ([], 0, [])


def test_progress_counts_frames(video: tuple[VideoSource, FileBoxes]) -> None:
    calls: list[tuple[int, int]] = []
    find_people(*video, drop_still=False, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(index, 50) for index in range(1, 51)]


def test_folder_ranks_images_and_reports_the_unreadable(tmp_path: Path) -> None:
    for name, colour in NAMES.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((60, 24, 3), colour[::-1], np.uint8))
    (tmp_path / "broken.jpg").write_bytes(b"no")
    source = open_source(tmp_path)
    assert isinstance(source, FolderSource)
    result = search_folder(source, "green", ENCODERS, top=2)
    assert len(result.hits) == 2 and result.hits[0].path == tmp_path / "green.png"
    assert result.searched == 3
    (warning,) = result.warnings
    assert "1 image left out" in warning and "broken.jpg" in warning
    best = result.to_json()["results"][0]
    assert best == {
        "rank": 1,
        "score": 1.0,
        "track_id": None,
        "start_s": None,
        "end_s": None,
        "best": {"time_s": None, "frame": None, "box_xywh_px": None, "crop": str(tmp_path / "green.png")},
    }


def test_large_folders_go_through_in_batches(tmp_path: Path) -> None:
    for index in range(150):
        cv2.imwrite(str(tmp_path / f"{index:03d}.png"), np.full((8, 4, 3), (210 - index, 30, 30), np.uint8))
    source = open_source(tmp_path)
    assert isinstance(source, FolderSource)
    result = search_folder(source, "blue", ENCODERS, top=200)
    assert result.searched == len(result.hits) == 150
    assert result.hits[0].path == tmp_path / "000.png"


def test_annotated_video_has_every_frame_and_colours_the_hit(
    tmp_path: Path, video: tuple[VideoSource, FileBoxes]
) -> None:
    result = search(video, "red", top=1)
    write_annotated(video[0], result.tracks, result.hits, tmp_path / "annotated.mp4")
    drawn = VideoSource(tmp_path / "annotated.mp4")
    frames = [frame.image.copy() for frame in drawn]
    assert len(frames) == 50
    index = 25  # the frame of the hit's box is in the first rank's colour, orange; the others' is grey
    np.testing.assert_allclose(frames[index][50, 20 + 4 * index], (213, 94, 0), atol=60)
    assert not list(tmp_path.glob(".*part*"))


def test_annotated_video_to_nowhere_is_an_output_error(
    tmp_path: Path, video: tuple[VideoSource, FileBoxes]
) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        write_annotated(video[0], [], [], tmp_path / "gone" / "annotated.mp4")


def test_a_video_that_shrinks_half_way_is_a_source_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Some recorders change the size in the stream; cv2 then hands out frames of another shape."""

    class Shrinks:
        def __init__(self) -> None:
            self.left = 4

        def read(self, image: object = None) -> tuple[bool, Image]:
            self.left -= 1
            return True, np.zeros((24, 32, 3) if self.left < 2 else (240, 320, 3), np.uint8)

        def get(self, prop: int) -> float:
            return {cv2.CAP_PROP_FPS: 10.0, cv2.CAP_PROP_FRAME_COUNT: 4.0}.get(prop, 0.0)

        def release(self) -> None: ...

    (tmp_path / "x.mp4").write_bytes(b"\0" * 100)
    monkeypatch.setattr(VideoSource, "_open", lambda self: Shrinks())
    source = VideoSource(tmp_path / "x.mp4")
    with pytest.raises(SourceError, match="expected 320x240"):
        list(source)

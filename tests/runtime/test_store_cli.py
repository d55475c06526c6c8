"""`tagclip search TEXT STORE` and `tagclip store`, with the shipped bundle's real encoders."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("numkong")

from tagclip.runtime.bundle import open_bundle
from tagclip.runtime.encoder import ImageEncoder, TextEncoder
from tagclip.runtime.errors import QueryError
from tagclip.runtime.ids import uuid7
from tagclip.runtime.store import TrackStore
from tagclip.runtime.store_track import Place, StoredTrack
from tagclip.runtime.vector_scan import parse_near

COATS = {"red": (200, 30, 30), "green": (30, 150, 50), "blue": (40, 60, 200), "white": (240, 240, 240)}
NOW_S = time.time()
Run = Callable[..., tuple[int, str, str]]


def person(rgb: tuple[int, int, int]) -> np.ndarray:
    """A drawn figure in a coat of one colour, RGB uint8 (128, 64, 3)."""
    image = np.full((128, 64, 3), 128, np.uint8)
    cv2.circle(image, (32, 18), 10, (200, 160, 130), -1)
    cv2.rectangle(image, (16, 28), (48, 84), rgb, -1)
    cv2.rectangle(image, (20, 84), (44, 124), (40, 40, 50), -1)
    return image


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Four people, an hour apart, the newest now; two cameras, the last without a place."""
    bundle = open_bundle(None)
    path = tmp_path / "north.db"
    with TrackStore(path) as opened:
        for k, rgb in enumerate(COATS.values()):
            crop = person(rgb)
            view = ("ground", "aerial")[k % 2]
            vector = ImageEncoder(bundle, view).embed([crop])[0]
            start_s = NOW_S - 3600 * (3 - k)
            place = Place(47.37 + 0.01 * k, 8.54, 4.0) if k < 3 else None
            track = StoredTrack(
                uuid7(), ("mast", "drone")[k % 2], view, start_s, start_s + 40, start_s + 3, 30 * k,
                (10.0, 20.0, 30.0, 60.0), bundle.encoder_id, vector, place,
            )  # fmt: skip
            ok, jpeg = cv2.imencode(".jpg", crop[..., ::-1])
            assert ok
            opened.add([(track, jpeg.tobytes())])
    return path


def test_the_ranking_is_that_of_the_vectors(store: Path, run: Run) -> None:
    status, out, err = run("search", "a person in a red coat", store, "--json")
    assert status == 0 and err == "4 of 4 stored tracks compared\n"
    found = json.loads(out)
    assert {"query", "encoder_id", "view", "results"} == found.keys()
    text = TextEncoder(open_bundle(None)).embed(["a person in a red coat"])[0]
    with TrackStore(store, read_only=True) as opened:
        tracks = [track for _, track in opened.since(0)]
    expected = sorted(((float(t.vector.astype(np.float32) @ text), str(t.id)) for t in tracks), reverse=True)
    assert [(r["rank"], r["track_id"]) for r in found["results"]] == [
        (k, i) for k, (_, i) in enumerate(expected, 1)
    ]
    assert [r["score"] for r in found["results"]] == pytest.approx([s for s, _ in expected], abs=1e-4)
    best = found["results"][0]
    assert best["camera"] == "mast" and best["best"]["crop"] is None and best["place"] == [47.37, 8.54, 4.0]
    assert best["start_s"] == pytest.approx(NOW_S - 3 * 3600, abs=1e-3)


@pytest.mark.parametrize(
    ("options", "frames"),
    [
        (["--after", "90m"], {60, 90}),
        (["--before", "150m"], {0}),
        (["--after", "150m", "--before", "30m"], {30, 60}),
        (["--camera", "drone"], {30, 90}),
        (["--camera", "drone", "--camera", "mast"], {0, 30, 60, 90}),
        (["--near", "47.38,8.54,50"], {30}),
        (["--near", "47.385,8.54,2000"], {0, 30, 60}),
        (["--after", "1999-01-01", "--before", "2000-01-01T12:00"], set()),
    ],
)
def test_only_where_it_was_asked_for(store: Path, run: Run, options: list[str], frames: set[int]) -> None:
    status, out, err = run("search", "somebody in a coat", store, "--json", *options)
    assert status == 0
    assert {r["best"]["frame"] for r in json.loads(out)["results"]} == frames
    assert err == f"{len(frames)} of 4 stored tracks compared\n"


def test_the_folder_of_results(store: Path, run: Run, tmp_path: Path) -> None:
    status, out, _ = run("search", "a blue coat", store, "--top", 2, "--out", tmp_path / "out")
    assert status == 0 and out.splitlines()[0].split() == [
        "rank",
        "score",
        "camera",
        "first",
        "seen",
        "for",
        "place",
        "track",
    ]
    assert "47.39000,8.54000 ± 4 m" in out and "40 s" in out
    assert sorted(p.name for p in (tmp_path / "out").rglob("*.*")) == [
        "01.jpg",
        "02.jpg",
        "results.json",
        "sheet.png",
    ]
    results = json.loads((tmp_path / "out/results.json").read_text())["results"]
    crop = cv2.imread(results[0]["best"]["crop"])
    assert crop.shape == (128, 64, 3) and np.abs(crop[50, 32, ::-1].astype(int) - COATS["blue"]).max() < 25
    assert cv2.imread(str(tmp_path / "out/sheet.png")).std() > 5


def test_what_does_not_fit_together_is_usage(store: Path, run: Run, tmp_path: Path) -> None:
    for options in (["--view", "aerial"], ["--detector", "motion"]):
        status, _, err = run("search", "a coat", store, *options)
        assert status == 2 and "is a store: no --view" in err
    cv2.imwrite(str(tmp_path / "one.png"), person(COATS["red"]))
    status, _, err = run("search", "a coat", tmp_path / "one.png", "--after", "2h")
    assert status == 2 and "ask a store" in err
    for option, text in (("--after", "yesterday"), ("--near", "47,8"), ("--near", "99,8,5")):
        status, _, err = run("search", "a coat", store, option, text)
        assert status == 1 and err.startswith("error: ") and text in err


def test_the_engine_is_the_one_that_was_asked_for(store: Path, run: Run) -> None:
    plain = json.loads(run("search", "a red coat", store, "--json")[1])
    status, out, err = run("search", "a red coat", store, "--engine", "auto", "--json")
    assert status == 0 and "the encoder runs on " in err and json.loads(out) == plain
    for engine, says in (("turbo", "engine 'turbo': expected one of cpu"), ("tensorrt", "tensorrt")):
        status, out, err = run("search", "a red coat", store, "--engine", engine)
        assert status == 1 and says in err and out == ""


def test_info_and_prune(store: Path, run: Run) -> None:
    status, out, _ = run("store", "info", store, "--json")
    facts = json.loads(out)
    assert status == 0 and facts["tracks"] == 4 and facts["cameras"] == {"drone": 2, "mast": 2}
    assert facts["first_s"] == pytest.approx(NOW_S - 3 * 3600) and facts["bytes"] == store.stat().st_size
    status, out, _ = run("store", "info", store)
    assert status == 0 and "tracks    4" in out and "camera    mast: 2" in out
    status, out, _ = run("store", "prune", store, "--days", 1.5 / 24)
    assert (status, out) == (0, "2 tracks deleted, 2 kept\n")
    status, _, err = run("store", "info", store.with_name("none.db"))
    assert status == 1 and "expected a store at" in err
    status, _, err = run("store", "prune", store.with_name("none.db"), "--days", 1)
    assert status == 1 and not store.with_name("none.db").exists()


def test_another_bundles_vectors_are_refused_until_they_are_made_anew(store: Path, run: Run) -> None:
    bundle = open_bundle(None)
    with TrackStore(store) as opened:
        wanted = {str(t.id): t.vector for _, t in opened.since(0)}
        wrong = {key: np.eye(len(t.vector))[0] for key, t in opened.since(0)}
        opened.embed_anew(wrong, "f" * 64)
    status, _, err = run("search", "a red coat", store)
    assert status == 1 and "4 by ffffffffffff" in err and "tagclip store reindex" in err
    status, out, _ = run("store", "reindex", store)
    assert (status, out) == (0, f"4 tracks embedded anew by {bundle.encoder_id[:12]}\n")
    with TrackStore(store, read_only=True) as opened:
        assert opened.encoders() == {bundle.encoder_id: 4}
        for _, track in opened.since(0):  # from a JPEG of the same crop
            assert float(track.vector.astype(np.float32) @ wanted[str(track.id)].astype(np.float32)) > 0.9
    assert run("search", "a red coat", store)[0] == 0
    assert run("store", "reindex", store)[1].startswith("0 tracks")


def test_a_picture_that_cannot_be_decoded_is_named(store: Path, run: Run) -> None:
    with TrackStore(store) as opened:
        track = next(iter(opened.since(0)))[1]
        opened.add([(StoredTrack(**{**vars(track), "encoder_id": "f" * 64}), b"no jpeg")])
    status, _, err = run("store", "reindex", store)
    assert status == 1 and "the picture cannot be decoded" in err


def test_bench_measures_and_leaves_nothing(run: Run, tmp_path: Path) -> None:
    status, out, _ = run(
        "store", "bench", tmp_path / "b", "--tracks", 1000, "--dim", 16, "--queries", 5, "--json"
    )
    found = json.loads(out)
    assert status == 0 and (found["tracks"], found["dim"]) == (1000, 16) and not (tmp_path / "b").exists()
    assert 0 < found["search_ms"]["p50"] <= found["search_ms"]["p99"] and found["inserts_per_s"] > 0
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine").write_text("x")
    status, _, err = run("store", "bench", tmp_path / "b", "--tracks", 1000)
    assert status == 1 and "not empty" in err and (tmp_path / "b" / "mine").exists()


def test_places() -> None:
    assert parse_near(" 47.37, 8.54 ,200") == (47.37, 8.54, 200.0)
    for text in ("", "a,b,c", "1,2", "1,2,3,4", "91,0,5", "0,181,5", "0,0,0", "0,0,-5", "nan,0,5"):
        with pytest.raises(QueryError, match="LATITUDE,LONGITUDE,METRES"):
            parse_near(text)

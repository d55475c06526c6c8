"""Backgrounds: the file, what is refused, and what `tagclip calibrate` makes of pictures, stores and videos."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from tagclip.runtime.background import (
    BACKGROUND,
    LEAST_PEOPLE,
    Background,
    People,
    pack,
    read_background,
    unpack,
    write_background,
)
from tagclip.runtime.bundle import Bundle, open_bundle
from tagclip.runtime.encoder import ImageEncoder
from tagclip.runtime.errors import BackgroundError

Run = Callable[..., tuple[int, str, str]]


def rows(seed: int, count: int = 60, dim: int = 16) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def some(encoder_id: str = "e") -> Background:
    views = {"aerial": People(rows(0), rows(1)), "unknown": People(rows(2, 70), rows(3, 70))}
    return Background(encoder_id, "ours", views, 42.5)


def pictures(folder: Path, people: int) -> Path:
    """An annotated folder: people of one colour each, three pictures from the ground and two from the air."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    annotations = []
    for who in range(people):
        colour = rng.integers(0, 256, 3)
        for k in range(5):
            name = f"{who}_{k}.png"
            image = np.clip(colour + rng.normal(0, 20, (40, 20, 3)), 0, 255).astype(np.uint8)
            cv2.imwrite(str(folder / "images" / name), image)
            annotations.append({"file_path": name, "id": who, "cam_id": int(k < 3), "captions": ["x"]})
    (folder / "val_reid.json").write_text(json.dumps(annotations))
    return folder


def test_what_is_written_is_read_again() -> None:
    given = some()
    found = unpack(pack(given), "x")
    assert (found.encoder_id, found.source, found.people_per_hour) == ("e", "ours", 42.5)
    assert list(found.views) == ["aerial", "unknown"]
    for view, people in given.views.items():
        for name in ("one", "many"):
            one, other = getattr(people, name), getattr(found.views[view], name)
            assert (one * other).sum(
                1
            ).min() > 0.9999  # eight bits a number cost the direction next to nothing
    assert pack(given) == pack(some())
    assert unpack(pack(Background("e", "s", given.views)), "x").people_per_hour is None


@pytest.mark.parametrize(
    "damage", ["empty", "text", "cut", "flipped", "few", "odd", "floats", "names", "zero"]
)
def test_what_is_no_background_is_refused(damage: str) -> None:
    data = pack(some())
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "flipped":
        data = data[:200] + bytes([data[200] ^ 0xFF]) + data[201:]
    elif damage in ("empty", "text"):
        data = b"" if damage == "empty" else b"hello" * 100
    else:
        arrays = dict(np.load(io.BytesIO(data)))
        if damage == "few":
            arrays = {k: v[: LEAST_PEOPLE - 1] if v.ndim == 2 else v for k, v in arrays.items()}
        elif damage == "odd":
            arrays["aerial_one"] = arrays["aerial_one"][:, :8]
        elif damage == "floats":
            arrays["aerial_one"] = arrays["aerial_one"].astype(np.float32)
        elif damage == "names":
            del arrays["encoder_id"]
        elif damage == "zero":
            arrays["aerial_many"][3] = 0
        file = io.BytesIO()
        np.savez(file, **arrays)
        data = file.getvalue()
    with pytest.raises(BackgroundError, match="x"):
        unpack(data, "x")


def test_no_pickle_is_opened() -> None:
    file = io.BytesIO()
    np.savez(file, encoder_id=np.array([object()], object))
    with pytest.raises(BackgroundError):
        unpack(file.getvalue(), "x")


def test_which_background_counts(tiny_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BackgroundError, match=r"has no background\.npz.*tagclip calibrate"):
        read_background(tiny_bundle, None)
    path = tmp_path / "site.npz"
    with pytest.raises(BackgroundError, match="cannot read"):
        read_background(tiny_bundle, path)
    write_background(path, some("other"))
    with pytest.raises(BackgroundError, match="made by encoder other.*make it again"):
        read_background(tiny_bundle, path)
    write_background(path, some(tiny_bundle.encoder_id))
    found = read_background(tiny_bundle, path)
    assert found.people_per_hour == 42.5
    with pytest.raises(BackgroundError, match="no people of view 'ground', it has aerial, unknown"):
        found.of("ground")


def test_calibrate_takes_pictures(tiny_bundle: Bundle, tmp_path: Path, run: Run) -> None:
    folder, out = pictures(tmp_path / "people", LEAST_PEOPLE), tmp_path / "site.npz"
    status, said, _ = run("calibrate", tiny_bundle.path, "--background", folder, "--out", out, "--json")
    assert status == 0 and json.loads(said)["people"] == {"aerial": 50, "ground": 50, "unknown": 100}
    found = read_background(tiny_bundle, out)
    # Person 7 from the ground, by hand: one picture (the second of three), and the mean of the three.
    images = [cv2.imread(str(folder / "images" / f"7_{k}.png"))[..., ::-1].copy() for k in range(3)]
    vectors = ImageEncoder(tiny_bundle, "ground").embed(images)
    mean = vectors.mean(0) / np.linalg.norm(vectors.mean(0))
    assert float(found.views["ground"].one[7] @ vectors[7 % 3]) > 0.9999
    assert float(found.views["ground"].many[7] @ mean) > 0.9999


def test_calibrate_makes_a_bundle(tiny_bundle: Bundle, tmp_path: Path, run: Run) -> None:
    folder, out = pictures(tmp_path / "people", LEAST_PEOPLE), tmp_path / "new"
    status, _, err = run("calibrate", tiny_bundle.path, "--background", folder, "--out", out)
    assert status == 0 and "sign it" in err
    new = open_bundle(out)
    assert new.has(BACKGROUND) and new.encoder_id == tiny_bundle.encoder_id
    assert read_background(new, None).views.keys() == {"aerial", "ground", "unknown"}
    assert {name: new.sha256[name] for name in tiny_bundle.sha256} == dict(tiny_bundle.sha256)
    status, _, err = run("calibrate", tiny_bundle.path, "--background", folder, "--out", out)
    assert status == 1 and "exists and is not empty" in err


@pytest.mark.parametrize(
    ("name", "says"),
    [("people", "expected 50 people or more"), ("none", "expected annotations"), ("gone", "gone")],
)
def test_calibrate_says_what_is_wrong(
    tiny_bundle: Bundle, tmp_path: Path, run: Run, name: str, says: str
) -> None:
    pictures(tmp_path / "people", 3)
    (tmp_path / "none").mkdir()
    out = tmp_path / "site.npz"
    status, _, err = run("calibrate", tiny_bundle.path, "--background", tmp_path / name, "--out", out)
    assert status == 1 and says in err and "Traceback" not in err and not out.exists()

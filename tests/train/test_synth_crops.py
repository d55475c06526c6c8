"""Synthetic people, end to end: reproducible bytes, annotations that hold, pictures that show what the words say."""

from __future__ import annotations

import colorsys
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("anny")
pytest.importorskip("warp")
pytest.importorskip("matplotlib")

from tagclip.runtime.errors import OutputError
from tagclip.train.datasets.check import check_data
from tagclip.train.synth.appearance import PARTS, Top, from_json, to_json
from tagclip.train.synth.crops import split_of, write_crops
from tagclip.train.synth.figure import Figure, Posed
from tagclip.train.synth.people import sample_appearance
from tagclip.train.synth.picture import Stage, visible_parts
from tagclip.train.synth.places import Place, to_srgb
from tagclip.train.synth.shot import ELEVATION_DEG

pytestmark = pytest.mark.slow
IDENTITIES = 9  # two jobs: workers take eight people at a time


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made in this process; the test of reproducibility compares with two worker processes."""
    out = tmp_path_factory.mktemp("crops") / "one"
    ticks: list[tuple[str, int, int]] = []
    counts = write_crops(out, IDENTITIES, 1, 5, 1, lambda *tick: ticks.append(tick))
    assert counts == {"train": 14, "val": 2, "test": 2}
    assert ticks == [("people", 8, 9), ("people", 9, 9), ("pictures", 18, 18)]
    return out


def rows(folder: Path) -> Iterator[tuple[str, dict]]:
    for split in ("train", "val", "test"):
        for row in json.loads((folder / f"{split}_reid.json").read_text()):
            yield split, row


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_same_seed_makes_the_same_bytes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):  # write_crops sets them for its workers
        monkeypatch.setenv(name, "1")
    write_crops(tmp_path / "two", IDENTITIES, 1, 5, 2)
    one, two = contents(folder), contents(tmp_path / "two")
    assert len(one) == 2 * IDENTITIES + 5 and set(one) == set(two)
    assert [name for name in one if one[name] != two[name]] == []


def test_annotations_are_valid(folder: Path) -> None:
    report = check_data(folder)
    assert report.problems == []
    assert [(k, v["images"], v["identities"], v["aerial"]) for k, v in report.splits.items()] == [
        ("train", 14, 7, 7),
        ("val", 2, 1, 1),
        ("test", 2, 1, 1),
    ]


def test_every_row_says_what_its_picture_shows(folder: Path) -> None:
    for split, row in rows(folder):
        assert split_of(row["id"], IDENTITIES) == split and row["file_path"].startswith(f"{split}/")
        assert len(row["captions"]) == (6 if split == "train" else 2) and all(
            len(text.split()) >= 1 for text in row["captions"]
        )
        low, high = ELEVATION_DEG["aerial" if row["cam_id"] == 0 else "ground"]
        # A camera that would be under the ground is lifted to 0.4 m, which near by is up to a degree or two.
        assert low - 0.1 <= row["elevation_deg"] <= high + 0.1
        assert set(row["visible"]) <= set(PARTS) and all(v >= 0 for v in row["visible"].values())
        assert sum(row["visible"].values()) == pytest.approx(1, abs=0.01)
        assert to_json(from_json(row["attributes"])) == row["attributes"]
        image = cv2.imread(str(folder / "images" / row["file_path"]))
        assert image.shape[0] >= 12 and image.shape[1] >= 6 and image.std() > 3


def test_both_views_show_the_same_person(folder: Path) -> None:
    by_id: dict[int, list[dict]] = {}
    for _, row in rows(folder):
        by_id.setdefault(row["id"], []).append(row)
    assert sorted(by_id) == list(range(IDENTITIES))
    for pair in by_id.values():
        assert [row["cam_id"] for row in pair] == [0, 1]
        first, second = (row["attributes"] | {"posture": ""} for row in pair)
        assert first == second


def test_contact_sheet_has_a_line_a_person(folder: Path) -> None:
    sheet = cv2.imread(str(folder / "sheet.png"))
    assert sheet.shape == (7 * 96, 8 * 64 + 640, 3) and sheet[:, :128].std() > 10


def test_an_existing_folder_is_refused_and_kept(folder: Path) -> None:
    before = contents(folder)
    with pytest.raises(OutputError, match="exists and is not empty"):
        write_crops(folder, IDENTITIES, 1, 6, 1)
    assert contents(folder) == before


def test_split_sizes() -> None:
    counts = {n: [split_of(k, n) for k in range(n)] for n in (3, 9, 100, 4000)}
    found = {n: tuple(c.count(s) for s in ("train", "val", "test")) for n, c in counts.items()}
    assert found == {3: (1, 1, 1), 9: (7, 1, 1), 100: (80, 10, 10), 4000: (3600, 200, 200)}


OVERCAST = Place(
    ground="concrete",
    tint=np.ones(3, np.float32),
    tiles_m=0.0,
    line_m=float("nan"),
    line_yaw=0.0,
    far=np.full((3, 3), 0.5, np.float32),
    far_grain=0.1,
    sun=np.array([0, 0, 1], np.float32),
    sun_strength=0.0,
    sky=np.ones(3, np.float32),
    shift=np.zeros(2, np.float32),
)


def posed_in(rgb: tuple[int, int, int], seed: int) -> Posed:
    """A standing person in a plain t-shirt of colour `rgb`, facing the camera of `look`, without bags and hat."""
    rng = np.random.default_rng(seed)
    person = replace(
        sample_appearance(rng), top=Top("t-shirt", "short", rgb), bags=(), scarf=None, headwear=None
    )
    return Figure(person, rng).posed(0.0, 0.0, 0.0, (0.0, 0.0))


def look(posed: Posed, elevation_deg: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Picture, person and part through a window that fits the person as a detector's box does."""
    from tagclip.train.synth.camera import look_at

    angle = np.deg2rad(elevation_deg)
    target = np.array([0, 0, 0.85])
    position = target + 8 * np.array([0, -np.cos(angle), np.sin(angle)])
    camera = look_at(position, target, 0.0, 800.0, (0.0, 0.0), up=(0.0, 0.1, 1.0))
    points = camera.project(posed.vertices)
    low, high = points.min(0), points.max(0)
    x, y = (np.linspace(low[k], high[k], n).astype(np.float32) for k, n in ((0, 48), (1, 96)))
    return Stage([posed], OVERCAST).render(camera, x, y)


@pytest.mark.parametrize("elevation_deg", [0, 45, 85])
def test_a_person_fills_a_good_part_of_the_box(elevation_deg: float) -> None:
    posed = posed_in((200, 30, 40), 1)
    assert posed.vertices[:, 2].min() == pytest.approx(0, abs=1e-5)  # feet on the ground
    assert 0.9 < posed.vertices[:, 2].max() < 2.2
    linear, person, part = look(posed, elevation_deg)
    assert np.isfinite(linear).all() and (linear >= 0).all()
    assert (person == 0).mean() > 0.2 and ((part >= 0) == (person == 0)).all()
    shares = visible_parts(person, part, 0)
    assert sum(shares.values()) == pytest.approx(1)
    assert {"top", "skin" if elevation_deg == 0 else "sleeves"} <= set(shares)


@pytest.mark.parametrize(
    ("rgb", "name"), [((205, 40, 45), "red"), ((40, 150, 60), "green"), ((45, 75, 190), "blue")]
)
@pytest.mark.parametrize("elevation_deg", [5, 60])
def test_cloth_has_the_colour_that_was_drawn(
    rgb: tuple[int, int, int], name: str, elevation_deg: float
) -> None:
    """Under a neutral overcast sky: the same hue, within 8 degrees of the colour circle, and not washed out."""
    linear, _, part = look(posed_in(rgb, 2), elevation_deg)
    here = part == PARTS.index("top")
    assert here.mean() > 0.05
    mean = to_srgb(linear[here].mean(0))
    found, wanted = colorsys.rgb_to_hsv(*mean), colorsys.rgb_to_hsv(*(v / 255 for v in rgb))
    apart = abs((found[0] - wanted[0] + 0.5) % 1 - 0.5) * 360
    assert apart < 8 and abs(found[1] - wanted[1]) < 0.15, name

"""The dataset card: its numbers are those of the annotations, its sheets show its pictures, bad input leaves none."""

from __future__ import annotations

import json
import re
import shlex
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("matplotlib")

from tagclip.runtime.cli import main
from tagclip.runtime.errors import DataError, OutputError, TagclipError
from tagclip.train.synth.appearance import to_json
from tagclip.train.synth.card import CELL_PX, COLUMNS, GAP_PX, contact_sheet, write_card
from tagclip.train.synth.cli import synth
from tagclip.train.synth.fields import ABSENT, Fields, Leaf, leaves
from tagclip.train.synth.palette import basic_name
from tagclip.train.synth.people import sample_appearance
from tagclip.train.synth.statistics import combination, independence

Row = dict[str, Any]
RED, BLUE, GREEN = [200, 20, 30], [30, 60, 200], [30, 140, 50]
BAG = {"kind": "backpack", "rgb": GREEN, "side": "left"}


def row(identity: int, view: int, elevation_deg: float, **changes: Any) -> Row:
    """One picture of a person; `changes` of the attributes."""
    person = {
        **{"gender": "woman", "age": "adult", "build": "slim", "skin_rgb": [243, 214, 194]},
        "headwear": None,
        "top": {"kind": "coat", "rgb": RED, "pattern": "plain", "rgb2": None, "open": False},
        "bottom": {"kind": "jeans", "rgb": BLUE, "pattern": "plain"},
        **{"bags": [], "scarf": None, "posture": "walking"},
    }
    return {
        "file_path": f"{identity:06d}_{'ag'[view]}{abs(elevation_deg):.0f}.png",
        "id": identity,
        "cam_id": view,
        "captions": ["A woman in a red coat.", "red coat, blue jeans"],
        "elevation_deg": elevation_deg,
        "attributes": person | changes,
        "visible": {"top": 0.5, "bottom": 0.25, "bag0": 0.0},
    }


def write(
    folder: Path, splits: dict[str, list[Row]], colour: Callable[[Row], int], height_px: int = 40
) -> Path:
    """A data folder with pictures of one grey each."""
    for split, rows in splits.items():
        for one in rows:
            one["file_path"] = f"{split}/{one['file_path']}"
            path = folder / "images" / one["file_path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), np.full((height_px, 20, 3), colour(one), np.uint8))
        (folder / f"{split}_reid.json").write_text(json.dumps(rows))
    return folder


def small() -> dict[str, list[Row]]:
    dress = {"kind": "dress", "rgb": RED, "pattern": "logo", "rgb2": BLUE, "open": False}
    return {
        "train": [
            row(2, 0, 45.0),
            row(2, 1, -1.0, posture="sitting"),
            row(
                3, 0, 89.0, gender="man", bags=[BAG, BAG | {"kind": "box", "rgb": RED}], skin_rgb=[52, 33, 26]
            ),
            row(
                3, 1, 10.0, gender="man", bags=[BAG, BAG | {"kind": "box", "rgb": RED}], skin_rgb=[52, 33, 26]
            ),
        ],
        "val": [row(1, 0, 30.0, top=dress, bottom=None, headwear={"kind": "cap", "rgb": BLUE})],
        "test": [row(0, 1, 25.4, scarf=GREEN, age="child")],
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "data", small(), lambda one: 100)


def test_numbers_are_those_of_the_annotations(folder: Path, tmp_path: Path) -> None:
    card = write_card(folder, tmp_path / "out")
    assert card["splits"] == {
        "train": {"people": 2, "images": 4, "aerial": 2, "ground": 2, "captions": 8, "words": 40},
        "val": {"people": 1, "images": 1, "aerial": 1, "ground": 0, "captions": 2, "words": 10},
        "test": {"people": 1, "images": 1, "aerial": 0, "ground": 1, "captions": 2, "words": 10},
    }
    shares = {path: (line["of"], line["percent"]) for path, line in card["attributes"].items()}
    assert shares == {
        "age": ("people", {"adult": 75.0, "child": 25.0}),
        "bags": ("people", {"0": 75.0, "2": 25.0}),
        "bags[].kind": ("people", {"backpack": 25.0, "box": 25.0, ABSENT: 75.0}),
        "bags[].side": ("people", {"left": 25.0, ABSENT: 75.0}),
        "bottom.kind": ("people", {"jeans": 75.0, ABSENT: 25.0}),
        "bottom.pattern": ("people", {"plain": 75.0, ABSENT: 25.0}),
        "build": ("people", {"slim": 100.0}),
        "gender": ("people", {"woman": 75.0, "man": 25.0}),
        "headwear.kind": ("people", {"cap": 25.0, ABSENT: 75.0}),
        "posture": ("pictures", {"walking": 83.33, "sitting": 16.67}),
        "top.kind": ("people", {"coat": 75.0, "dress": 25.0}),
        "top.open": ("people", {"no": 100.0}),
        "top.pattern": ("people", {"plain": 75.0, "logo": 25.0}),
    }
    # Two each of age, bag, gender, posture, top and its pattern; side, jeans, plain, slim, cap; open or not.
    assert (card["attribute_values"], card["attribute_fields"]) == (2 * 6 + 5 + 1, 12)
    colours = {
        path: (line["having_percent"], line["percent_of_having"]) for path, line in card["colours"].items()
    }
    assert colours == {
        "bags[].rgb": (25.0, {"green": 100.0, "red": 100.0}),
        "bottom.rgb": (75.0, {"blue": 100.0}),
        "headwear.rgb": (25.0, {"blue": 100.0}),
        "scarf": (25.0, {"green": 100.0}),
        "top.rgb": (100.0, {"red": 100.0}),
        "top.rgb2": (25.0, {"blue": 100.0}),
    }
    assert card["colour_values"] == 7
    assert card["combinations"][0] == {
        "fields": ["top.kind", "bottom.kind", "top.pattern"],
        **{"seen": 2, "possible": 8, "entropy_bits": 0.81},  # -(3/4 log2 3/4 + 1/4 log2 1/4)
        **{"rare_percent": 100.0, "people_with_rare_percent": 100.0},
    }
    assert card["height_px"]["aerial"] == {"under 24": 0, "24 to 48": 3, "48 to 96": 0, "96 and more": 0}
    assert {view: (line["lowest"], line["highest"]) for view, line in card["elevation_deg"].items()} == {
        "aerial": (30.0, 89.0),
        "ground": (-1.0, 25.4),
    }
    assert card["elevation_deg"]["ground"]["images"] == dict.fromkeys(
        (f"{low} to {low + 10}" for low in range(-10, 90, 10)), 0
    ) | {"-10 to 0": 1, "10 to 20": 1, "20 to 30": 1}
    assert card["visible"] == {
        part: {view: {"showing_percent": 100.0, "mean_percent": mean} for view in ("aerial", "ground")}
        for part, mean in (("top", 50.0), ("bottom", 25.0))
    }
    assert card["captions"]["words"] == {
        **{"shortest": 4, "mean": 5.0, "median": 4, "nine_in_ten_up_to": 6, "longest": 6}
    }
    assert card["captions"]["distinct_words"] == len("a woman in red coat blue jeans".split())
    assert set(card["captions"]["examples"]) <= set(small()["train"][0]["captions"])
    assert len(card["captions"]["examples"]) == 2  # one of each person
    assert card["people"]["percent"]["skin lightness"] == {
        **{"under 26": 25.0, "26 to 42": 0.0, "42 to 58": 0.0, "58 to 74": 0.0, "74 and more": 75.0}
    }


def test_drawn_people_are_counted_as_they_are(tmp_path: Path) -> None:
    """Of 200 people as `tagclip synth crops` draws them, against counts that know the form."""
    rng = np.random.default_rng(4)
    people = [sample_appearance(rng) for _ in range(200)]
    rows = [row(k, 1, 5.0) | {"attributes": to_json(person)} for k, person in enumerate(people)]
    splits = {"train": rows[:150], "val": rows[150:170], "test": rows[170:]}
    card = write_card(write(tmp_path / "data", splits, lambda one: 90), tmp_path / "out")
    kinds = Counter(p.bottom.kind if p.bottom else ABSENT for p in people)
    found = card["attributes"]["bottom.kind"]["percent"]
    assert {name: round(p * 2) for name, p in found.items()} == kinds
    bags = Counter(kind for p in people for kind in {bag.kind for bag in p.bags})
    found = card["attributes"]["bags[].kind"]["percent"]
    assert {name: round(p * 2) for name, p in found.items() if name != ABSENT} == bags
    tops = Counter(basic_name(p.top.rgb) for p in people)
    found = card["colours"]["top.rgb"]["percent_of_having"]
    assert {name: round(p * 2) for name, p in found.items()} == tops
    pairs = Counter((p.top.kind, p.bottom.kind if p.bottom else None) for p in people)
    rare = [n for n in pairs.values() if n < 5]
    line = card["combinations"][1]
    assert line["fields"] == ["top.kind", "bottom.kind"] and line["seen"] == len(pairs)
    assert line["rare_percent"] == round(100 * len(rare) / len(pairs), 2)
    assert line["people_with_rare_percent"] == round(sum(rare) / 2, 2)
    assert card["attributes"]["posture"]["of"] == "people"  # one picture each: nothing differs


def test_fields_that_nobody_foresaw_show_up() -> None:
    fields = Fields()
    for identity, new in enumerate(
        ({"pet": {"name": ["dog"], "age": 3}}, {"pet": None}, {"pet": {"age": 4.5}})
    ):
        fields.add(identity, leaves(new, "here"))
    shares = fields.shares()
    assert shares["attributes"]["pet.name[]"]["percent"] == {"dog": 33.33, ABSENT: 66.67}
    head = {"of": "people", "having_percent": 66.67}
    assert shares["numbers"] == {"pet.age": head | {"lowest": 3.0, "mean": 3.75, "highest": 4.5}}
    assert "pet" not in shares["attributes"]  # its fields tell who has one
    assert dict(leaves({"a": [1, 2, 3]}, "here")) == {"a": Leaf("colour", (1, 2, 3))}
    assert dict(leaves({"a": [1, 2, 300]}, "here"))["a"] == Leaf("length", 3)


def test_four_people_are_rare_and_five_are_not() -> None:
    fields = Fields()
    for identity, kind in enumerate("a" * 5 + "b" * 4 + "c"):
        fields.add(identity, leaves({"top": {"kind": kind}, "hat": None if kind == "c" else "cap"}, "here"))
    line = combination(fields, ("top.kind", "hat"))
    assert (line["seen"], line["possible"]) == (3, 3 * 2)
    assert (line["rare_percent"], line["people_with_rare_percent"]) == (66.67, 50.0)
    assert line["entropy_bits"] == 1.36  # of 0.5, 0.4 and 0.1


@pytest.mark.parametrize(("tied", "bits"), [(True, 1.0), (False, 0.0)])
def test_independence(tied: bool, bits: float) -> None:
    group = ["a", "b"] * 100 + ["c"]
    colour = group[:200] if tied else ["a", "a", "b", "b"] * 50
    found = independence(group, [*colour, ABSENT])
    assert found["bits"] == bits and found["points"] == 100 * bits
    assert 0 < found["bits_by_chance"] < 0.05 and 0 < found["points_by_chance"] < 30


def test_each_sheet_shows_the_pictures_of_its_band(tmp_path: Path) -> None:
    grey = {-3.0: 60, 5.0: 90, 25.4: 120, 30.0: 150, 45.0: 180, 74.9: 210, 89.0: 240}
    rows = [row(k, int(e < 30), e) for e in grey for k in range(40)]
    splits = {"train": rows, "val": [row(40, 0, 30.0)], "test": [row(41, 0, 30.0)]}
    write(tmp_path / "data", splits, lambda one: grey[one["elevation_deg"]])
    card = write_card(tmp_path / "data", tmp_path / "out")
    assert [sheet["file"] for sheet in card["sheets"]] == [
        *(f"card-ground-{band}.jpg" for band in ("below-0", "0-10", "10-25")),
        *(f"card-aerial-{band}.jpg" for band in ("30-45", "45-60", "60-75", "75-90")),
    ]
    for sheet, level in zip(card["sheets"], grey.values(), strict=True):
        shown = cv2.imread(str(tmp_path / "out" / sheet["file"]))
        assert shown.shape == (4 * (CELL_PX + GAP_PX), COLUMNS * (64 + GAP_PX), 3)  # 20 x 40 pixels, enlarged
        assert 32 * CELL_PX * 64 == pytest.approx(
            (abs(shown[..., 0].astype(int) - level) < 8).sum(), rel=0.02
        )


def test_a_sheet_of_noise_is_small_enough_to_keep(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{k}.png" for k in range(32)]
    for k, path in enumerate(paths):
        size = (60, 200, 3) if k == 5 else (200, 200 - 3 * k, 3)  # one wider than high
        cv2.imwrite(str(path), rng.integers(0, 256, size, dtype=np.uint8))
    sheet = contact_sheet(paths)
    assert len(sheet) < 250_000
    shown = cv2.imdecode(np.frombuffer(sheet, np.uint8), cv2.IMREAD_COLOR)
    cell = shown[: CELL_PX + GAP_PX, 5 * (CELL_PX + GAP_PX) : 6 * (CELL_PX + GAP_PX)]
    assert cell[:40].std() < 12 < 30 < cell[50:80].std()  # in the middle of its cell, as wide as that


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_folder_gives_the_same_bytes_also_from_tars(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "other.md").write_text("kept")
    for out in ("one", "two"):
        write_card(folder, tmp_path / out)
    one = contents(tmp_path / "one")
    assert contents(tmp_path / "two") == one | {"other.md": b"kept"} and len(one) == 1 + 5
    for split in ("train", "val", "test"):
        path = folder / f"{split}_reid.json"
        rows = json.loads(path.read_text())
        with tarfile.open(folder / "images" / f"{split}-000000.tar", "w") as tar:
            for r in rows:
                name = Path(r["file_path"]).name
                tar.add(folder / "images" / r["file_path"], name)
                (folder / "images" / r["file_path"]).unlink()
                r["file_path"] = f"{split}-000000.tar/{name}"
        path.write_text(json.dumps(rows))
    assert write_card(folder, tmp_path / "three")["in_tars"]
    assert contents(tmp_path / "three") == one


def test_the_page_shows_text_as_it_is_and_a_command_that_works(folder: Path, tmp_path: Path) -> None:
    settings = {
        "generator": 7,
        "seed": 5,
        "identities": 4,
        "images_per_view": 1,
        "captions": 3,
        "device": "cpu",
    }
    settings |= {"without": "camera patterns", "shifted": 1}
    (folder / "synth.json").write_text(json.dumps(settings | {"captions_seed": 9}))
    rows = json.loads((folder / "train_reid.json").read_text())
    for r in rows:
        r["captions"] = ["A <b>bold</b> | [coat](x)\n# no title"]
        r["attributes"]["top"]["kind"] = "a|b"
    (folder / "train_reid.json").write_text(json.dumps(rows))
    write_card(folder, tmp_path / "out")
    page = (tmp_path / "out" / "card.md").read_text()
    assert r"* A \<b\>bold\</b\> \| \[coat\](x) # no title" in page and r"a\|b 50.0" in page
    assert "with version 7 of" in page
    commands = re.findall(r"^    tagclip synth (.*)$", page, re.MULTILINE)
    assert len(commands) == 2
    for line in commands:
        name, *arguments = shlex.split(line)
        given = synth.commands[name].make_context(name, arguments).params
        crops = {"seed": 5, "identities": 4, "without": ("camera", "patterns"), "shifted": True}
        expected = crops if name == "crops" else {"seed": 9, "per_image": 3}
        assert expected.items() <= given.items()
    links = re.findall(r"!\[.*\]\((.*)\)", page)
    assert sorted([*links, "card.md"]) == sorted(contents(tmp_path / "out"))
    for table in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table


def test_the_command_prints_the_numbers(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*more: str) -> str:
        with pytest.raises(SystemExit) as left:
            main(["synth", "card", str(folder), "--out", str(tmp_path / "out"), *more])
        assert not left.value.code
        return capsys.readouterr().out

    assert run() == f"{tmp_path / 'out' / 'card.md'}: 6 images, 5 contact sheets\n"
    assert json.loads(run("--json")) == write_card(folder, tmp_path / "again")


def without(key: str) -> Callable[[Row], Any]:
    return lambda r: r.pop(key)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            without("attributes"),
            "row 1: expected elevation_deg, attributes and visible; only a folder of `tagclip",
        ),
        (without("elevation_deg"), "row 1: expected elevation_deg"),
        (lambda r: r["visible"].update(top="half"), "row 1: visible must be shares from 0 to 1"),
        (
            lambda r: r["attributes"].update(skin_rgb="pale"),
            "row 1: attributes skin_rgb must be a colour.*found text",
        ),
        (lambda r: r["attributes"].update(age=None), "row 1: attributes age must be a text.*found none"),
        (lambda r: r["attributes"].update(weight=float("nan")), "row 1: attributes weight must be a number"),
        (lambda r: r["attributes"].update(weight=10**400), "row 1: attributes weight must be a number"),
        (
            lambda r: r["attributes"].update(x=json.loads("[" * 99 + "]" * 99)),
            "row 1: attributes may be 8 deep",
        ),
        (lambda r: r.update(file_path="gone.png"), "missing file: expected the image .*gone.png"),
    ],
)
def test_damaged_annotations_are_named_and_nothing_is_written(
    folder: Path, tmp_path: Path, damage: Callable[[Row], Any], message: str
) -> None:
    path = folder / "train_reid.json"
    rows = json.loads(path.read_text())
    damage(rows[1])
    path.write_text(json.dumps(rows))
    with pytest.raises(DataError, match=message):
        write_card(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["[]", "{", '{"seed": [1]}'])
def test_a_damaged_synth_json_is_named(folder: Path, tmp_path: Path, content: str) -> None:
    (folder / "synth.json").write_text(content)
    with pytest.raises(DataError, match=r"synth\.json"):
        write_card(folder, tmp_path / "out")


def test_a_place_that_cannot_be_written(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here")
    with pytest.raises(OutputError, match="choose another place"):
        write_card(folder, tmp_path / "file")
    with pytest.raises(TagclipError, match="expected a data folder"):
        write_card(tmp_path / "none", tmp_path / "out")

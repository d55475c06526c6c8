"""File names of the public sets, real examples of each; what they do not say is refused, not guessed."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from tagclip.runtime.errors import DataError
from tagclip.train.datasets.names import RULES, read_name, view_of_name

AERIAL, GROUND = 0, 1


@pytest.mark.parametrize(
    ("source", "path", "key", "view"),
    [
        ("ag-reid-v2", "train_all/P0260T02210A2/P0260T02210A2C0F13651.jpg", "P0260T02210A2", AERIAL),
        ("ag-reid-v2", "gallery/P0001T04070A1/P0001T04070A1C3F00751.jpg", "P0001T04070A1", GROUND),
        ("g2aps", "0012/D1_30_000255_1_train.jpg", "12", AERIAL),
        ("g2aps", "0012/S2_20_001904_0_train.jpg", "12", GROUND),
        ("g2aps", "0012/S2_20_001904.jpg", "12", GROUND),
        ("g2aps", "bounding_box_train/0001_c0v1_000255.jpg", "1", AERIAL),
        ("g2aps", "0001_c3v1_000255.jpg", "1", GROUND),
        ("prai-1581", "00000978_0001_00000002.jpg", "00000978", AERIAL),
        (
            "uav-human",
            "P000S03G10B00H20UC021000LC021000A018R0_09301543_063_bbx.jpg",
            "P000S03",
            AERIAL,
        ),
        ("market-1501", "0002_c6s1_073426_00.jpg", "0002", GROUND),
        ("market-1501", "query/0002_c6s1_073426_00.jpg.jpg", "0002", GROUND),
    ],
)
def test_names_say_who_and_from_where(source: str, path: str, key: str, view: int) -> None:
    shown = read_name(source, PurePosixPath(path))
    assert (shown.key, shown.view, shown.left_out) == (key, view, None)
    assert view_of_name(PurePosixPath(path).name) == view


def test_time_and_altitude_make_another_identity_in_ag_reid() -> None:
    names = [f"P0001T{t}A{a}C0F1.jpg" for t in ("04041", "04070") for a in "01"]
    assert len({read_name("ag-reid-v2", PurePosixPath(name)).key for name in names}) == 4


@pytest.mark.parametrize(
    ("source", "name", "reason"),
    [
        ("ag-reid-v2", "P0001T04041A0C2F31.jpg", "wearable camera (C2)"),
        ("market-1501", "0000_c1s1_000151_01.jpg", "distractor (0000)"),
        ("market-1501", "-1_c1s1_000401_03.jpg", "junk (-1)"),
    ],
)
def test_what_is_left_out_says_why(source: str, name: str, reason: str) -> None:
    assert read_name(source, PurePosixPath(name)).left_out == reason


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("ag-reid-v2", "P0001T04041A0C1F31.jpg"),  # no such camera
        ("ag-reid-v2", "0002_c6s1_073426_00.jpg"),  # Market's
        ("g2aps", "0001_c1v1_000255.jpg"),  # neither c0 nor c3
        ("prai-1581", "978_1_2.jpg"),
        ("uav-human", "P000S03G10B00H20UC021000.jpg"),
        ("market-1501", "holiday.jpg"),
    ],
)
def test_another_name_is_refused_with_an_example(source: str, name: str) -> None:
    with pytest.raises(DataError) as error:
        read_name(source, PurePosixPath("sub") / name)
    assert f"sub/{name}: no file name of {source}" in str(error.value)
    assert RULES[source].example in str(error.value)


def test_a_g2aps_name_without_a_persons_folder_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"train/D1_30_000255_1_train.jpg: .* holds no identity.*such as 0001/D1"
    ):
        read_name("g2aps", PurePosixPath("train/D1_30_000255_1_train.jpg"))


@pytest.mark.parametrize(
    ("name", "view"),
    [
        ("000400_a0.jpg", AERIAL),  # tagclip synth
        ("000400_g3.jpg", GROUND),
        ("0363004.png", None),  # CUHK01
        ("0627_010_05_0303morning_1591_1.jpg", None),  # ICFG-PEDES
        ("0000_c14_0031.jpg", None),  # RSTPReid
    ],
)
def test_views_of_other_names(name: str, view: int | None) -> None:
    assert view_of_name(name) == view


def test_every_example_is_of_its_own_set_only() -> None:
    for source, rule in RULES.items():
        for example in rule.example.split(" or "):
            fits = []
            for other in RULES:
                try:
                    read_name(other, PurePosixPath(example))
                    fits.append(other)
                except DataError:
                    pass
            assert fits == [source], example

"""The picture of best and worst queries: which are chosen, and what is drawn."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tagclip.runtime.errors import DataError
from tagclip.train.data import Sample
from tagclip.train.evaluate import answer
from tagclip.train.queries_sheet import CROP_W_PX, EACH, OWN, RIGHT, SHOWN, WRONG, choose, draw_queries

PEOPLE = 12


def test_best_and_worst_are_of_different_people_and_stable() -> None:
    ap = np.array([0.5, 1.0, 1.0, np.nan, 0.0, 0.1, 1.0, 0.2])
    identity = np.array([0, 1, 1, 2, 3, 3, 4, 5])
    best, worst = choose(ap, identity, 3)
    assert best.tolist() == [1, 6, 0]  # query 2 is of the same person as 1; 1 before 6, which ties
    assert worst.tolist() == [4, 7, 2]  # query 2 is left, as it is not among the best


def test_few_queries_are_in_one_half_only() -> None:
    best, worst = choose(np.array([0.5, 1.0]), np.array([0, 1]))
    assert best.tolist() == [1, 0] and worst.tolist() == []


@pytest.fixture
def people(tmp_path: Path) -> tuple[list[Sample], np.ndarray, np.ndarray]:
    """Each person has one picture per view, of one grey; captions find the right person for the first half of them."""
    samples = []
    for k in range(2 * PEOPLE):
        path = tmp_path / f"{k}.png"
        cv2.imwrite(str(path), np.full((40 + k, 20, 3), 100 + k, np.uint8))
        samples.append(
            Sample(path, k // 2, k % 2, (f"person {k // 2} in a rather long and detailed sentence",))
        )
    images = np.repeat(np.eye(PEOPLE, dtype=np.float32), 2, axis=0)
    texts = images.copy()
    texts[PEOPLE:] = np.roll(texts[PEOPLE:], 2, axis=0)
    return samples, texts, images


def colours(png: bytes) -> dict[tuple[int, int, int], int]:
    """How many gallery crops have a tab of each colour: bars exactly as wide as a crop that end downwards."""
    sheet = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    found = {}
    for colour in (OWN, RIGHT, WRONG):
        mask = np.pad((sheet == np.array(colour)).all(2), 1).astype(int)
        ends = (np.diff(mask, axis=0) == -1)[:, 1:-1]  # coloured here, not below
        bars = np.diff(np.pad(ends.astype(int), ((0, 0), (1, 1))), axis=1)
        starts, stops = np.argwhere(bars == 1), np.argwhere(bars == -1)
        found[colour] = int((stops[:, 1] - starts[:, 1] == CROP_W_PX).sum())
    return found


@pytest.mark.parametrize(("gallery", "exclude_own"), [("all", False), ("all", True), ("ground", False)])
def test_frames_say_who_is_right(
    people: tuple[list[Sample], np.ndarray, np.ndarray], gallery: str, exclude_own: bool
) -> None:
    samples, texts, images = people
    identity, view = np.array([s.identity for s in samples]), np.array([s.view for s in samples])
    answers = answer(texts, images, np.arange(len(samples)), identity, view, exclude_own)
    png = draw_queries(samples, answers, texts, images, gallery, exclude_own, "toy, test")
    best, worst = choose(answers.found[gallery].ap, identity)
    assert len(best) == len(worst) == EACH
    expected = {OWN: 0, RIGHT: 0, WRONG: 0}
    for query in [*best, *worst]:
        here = [k for k in range(len(samples)) if gallery == "all" or view[k] == 1]
        here = [k for k in here if not (exclude_own and k == query)]
        for k in sorted(here, key=lambda k: -(images[k] @ texts[query]))[:SHOWN]:
            expected[OWN if k == query else RIGHT if identity[k] == identity[query] else WRONG] += 1
    assert colours(png) == expected
    assert expected[RIGHT] >= EACH - 1 and expected[WRONG] > expected[RIGHT]


def test_the_same_numbers_give_the_same_bytes(people: tuple[list[Sample], np.ndarray, np.ndarray]) -> None:
    samples, texts, images = people
    identity, view = np.array([s.identity for s in samples]), np.array([s.view for s in samples])
    answers = answer(texts, images, np.arange(len(samples)), identity, view)
    once, again = (draw_queries(samples, answers, texts, images, "all", False, "x") for _ in range(2))
    assert once == again


def test_an_image_that_vanished_is_named(people: tuple[list[Sample], np.ndarray, np.ndarray]) -> None:
    samples, texts, images = people
    identity, view = np.array([s.identity for s in samples]), np.array([s.view for s in samples])
    answers = answer(texts, images, np.arange(len(samples)), identity, view)
    samples[0].path.unlink()
    with pytest.raises(DataError, match="missing file: .*0.png"):
        draw_queries(samples, answers, texts, images, "all", False, "x")

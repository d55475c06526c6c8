"""The contact sheet: it holds what it is given, whatever that is."""

from __future__ import annotations

import cv2
import numpy as np

from tagclip.runtime.sheet import FONT, Card, ascii_only, draw_sheet, wrap

RED = np.zeros((120, 40, 3), np.uint8)
RED[..., 0] = 255
TINY, WIDE = np.full((5, 3, 3), (0, 255, 0), np.uint8), np.full((30, 400, 3), (0, 0, 255), np.uint8)


def pixels(sheet: np.ndarray, colour: tuple[int, int, int]) -> int:
    """How many pixels have exactly this colour."""
    return int((sheet == colour).all(2).sum())


def test_every_image_is_on_the_sheet_and_the_best_is_largest() -> None:
    cards = [Card(1, 0.41, ["track 3"], [RED, TINY, WIDE]), Card(2, -0.02, [], [TINY])]
    sheet = draw_sheet("a person in red", "2 people compared", cards)
    assert sheet.dtype == np.uint8 and sheet.ndim == 3
    assert pixels(sheet, (255, 0, 0)) > 25000
    assert pixels(sheet, (0, 255, 0)) > 5000
    assert pixels(sheet, (0, 0, 255)) > 50


def test_more_cards_make_more_rows_and_none_says_so() -> None:
    heights = [draw_sheet("x", "", [Card(1, 0.1, [], [RED])] * count).shape[0] for count in (1, 3, 4, 12)]
    assert heights[0] == heights[1] < heights[2] < heights[3]
    empty = draw_sheet("a person in red", "0 people compared", [])
    assert (empty < 120).any()  # there is writing
    assert empty.shape[0] >= heights[0]


def test_long_queries_are_wrapped_and_nothing_is_lost() -> None:
    text = "a man with a long coat and a very " + "x" * 200 + " hat"
    lines = wrap(text, 600, 0.85, 2)
    assert len(lines) > 2
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    for line in lines:
        assert cv2.getTextSize(line, FONT, 0.85, 2)[0][0] <= 600
    assert draw_sheet(text, "", []).shape[0] > draw_sheet("short", "", []).shape[0]
    assert wrap("", 600, 0.85, 2) == [""]


def test_text_that_the_font_lacks_is_replaced() -> None:
    assert ascii_only("caf\u00e9 \u2013 \u201cred\u201d\n\u7ea2") == 'caf? - "red"??'

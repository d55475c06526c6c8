"""The contact sheet: the best results of a search on one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from tagclip.runtime.errors import OutputError
from tagclip.runtime.source import Image

CARD_W_PX, CARD_H_PX = 400, 330
BEST_W_PX, BEST_H_PX = 150, 300
MORE = 4  # smaller crops beside the best one
MOST_ROWS = 12  # of text on one card
GAP_PX = 14
MARGIN_PX = 24
MOST_COLUMNS = 3
FONT = cv2.FONT_HERSHEY_SIMPLEX
Colour = tuple[int, int, int]
PAPER, CARD, INK, SOFT, MARK = (244, 244, 242), (255, 255, 255), (34, 34, 34), (110, 110, 110), (180, 60, 20)


@dataclass(frozen=True)
class Card:
    """One result on the sheet: `images` are RGB uint8 (h, w, 3), the best first, of any size.

    Beside more than one image there is room for three lines, cut to one row each; else they are wrapped.
    """

    rank: int
    score: float
    lines: Sequence[str]
    images: Sequence[Image]


def image_bytes(image: Image, suffix: str, jpeg_quality: int = 95) -> bytes:
    """An RGB uint8 (H, W, 3) image as a file of that suffix. Raises: OutputError, OpenCV cannot write such files."""
    how = [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality] if suffix == ".jpg" else []
    ok, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), how)
    if not ok:
        raise OutputError(f"this OpenCV cannot write {suffix} files")
    return bytes(data)


def draw_sheet(query: str, subtitle: str, cards: Sequence[Card]) -> Image:
    """Draw the sheet.

    Args:
        query: the description; wrapped over as many lines as it needs.
        subtitle: one line under it, what was searched.
        cards: in order; none gives a sheet that says so.

    Returns:
        RGB uint8 (H, W, 3).
    """
    columns = min(max(len(cards), 2), MOST_COLUMNS)
    rows = -(-len(cards) // columns)
    width = 2 * MARGIN_PX + columns * CARD_W_PX + (columns - 1) * GAP_PX
    title = wrap(ascii_only(query), width - 2 * MARGIN_PX, 0.85, 2)
    head = MARGIN_PX + 36 * len(title) + 34
    sheet = np.empty((head + max(rows, 1) * (CARD_H_PX + GAP_PX) + MARGIN_PX, width, 3), np.uint8)
    sheet[:] = PAPER
    for number, line in enumerate(title):
        write(sheet, line, MARGIN_PX, MARGIN_PX + 24 + 36 * number, 0.85, INK, 2)
    below = wrap(ascii_only(subtitle), width - 2 * MARGIN_PX, 0.5, 1)[0]
    write(sheet, below, MARGIN_PX, MARGIN_PX + 36 * len(title) + 14, 0.5, SOFT, 1)
    if not cards:
        write(sheet, "Nobody was found.", MARGIN_PX, head + 60, 0.7, SOFT, 1)
    for number, card in enumerate(cards):
        row, column = divmod(number, columns)
        _draw_card(sheet, card, MARGIN_PX + column * (CARD_W_PX + GAP_PX), head + row * (CARD_H_PX + GAP_PX))
    return sheet


def _draw_card(sheet: Image, card: Card, x: int, y: int) -> None:
    sheet[y : y + CARD_H_PX, x : x + CARD_W_PX] = CARD
    inner = (CARD_H_PX - BEST_H_PX) // 2
    if card.images:
        place(sheet, card.images[0], x + inner, y + inner, BEST_W_PX, BEST_H_PX)
    left = x + inner + BEST_W_PX + 14
    write(sheet, f"{card.rank}", left, y + 44, 1.1, MARK, 2)
    write(sheet, f"{card.score:.3f}", left + 24 + 20 * len(str(card.rank)), y + 44, 0.7, INK, 1)
    wrapped = [wrap(ascii_only(line), x + CARD_W_PX - left - 8, 0.47, 1) for line in card.lines]
    beside = len(card.images) > 1
    rows = [row for parts in (wrapped[:3] if beside else wrapped) for row in parts[: 1 if beside else None]]
    for number, row in enumerate(rows[:MOST_ROWS]):
        write(sheet, row, left, y + 72 + 21 * number, 0.47, SOFT, 1)
    top = y + 132
    side_w = (x + CARD_W_PX - inner - left - 3 * 6) // MORE
    for number, image in enumerate(card.images[1 : 1 + MORE]):
        place(sheet, image, left + number * (side_w + 6), top, side_w, CARD_H_PX - 132 - inner)


def place(sheet: Image, image: Image, x: int, y: int, width: int, height: int) -> None:
    """Fit an image into a box, its top left corner at (x, y), proportions kept."""
    zoom = min(width / image.shape[1], height / image.shape[0])
    w, h = max(round(image.shape[1] * zoom), 1), max(round(image.shape[0] * zoom), 1)
    way = cv2.INTER_AREA if zoom < 1.0 else cv2.INTER_CUBIC
    sheet[y : y + h, x : x + w] = cv2.resize(image, (w, h), interpolation=way)


def wrap(text: str, width_px: int, size: float, thickness: int) -> list[str]:
    """Break ASCII text into lines that are at most `width_px` wide; at least one line, long words are cut."""
    lines, line = [], ""
    for word in text.split():
        while True:
            longer = f"{line} {word}".strip()
            if cv2.getTextSize(longer, FONT, size, thickness)[0][0] <= width_px:
                line = longer
                break
            if line:
                lines.append(line)
                line = ""
                continue
            fits = len(word) - 1
            while fits > 1 and cv2.getTextSize(word[:fits], FONT, size, thickness)[0][0] > width_px:
                fits -= 1
            lines.append(word[:fits])
            word = word[fits:]
    return [*lines, line] if line or not lines else lines


_PLAIN = str.maketrans("–—‘’“”", "--''\"\"")


def ascii_only(text: str) -> str:
    """OpenCV's fonts know ASCII: dashes and quotes become plain ones, the rest a question mark."""
    plain = text.translate(_PLAIN)
    return "".join(letter if " " <= letter <= "~" else "?" for letter in plain)


def write(sheet: Image, text: str, x: int, y: int, size: float, colour: Colour, thickness: int) -> None:
    cv2.putText(sheet, text, (x, y), FONT, size, colour, thickness, cv2.LINE_AA)

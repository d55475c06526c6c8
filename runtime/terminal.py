"""What commands print for people: aligned tables, times, one line of progress."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence


def aligned(rows: Sequence[tuple[str, ...]], left: set[int]) -> str:
    """Rows of text as columns; those in `left` are aligned to the left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def clock(time_s: float) -> str:
    """Seconds as m:ss, or h:mm:ss from one hour on."""
    minutes, seconds = divmod(int(time_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


class Progress:
    """One line on a terminal, rewritten in place, once the work takes longer than two seconds."""

    WAIT_S = 2.0
    EVERY_S = 0.25

    def __init__(self, doing: str, noun: str) -> None:
        self._doing, self._noun = doing, noun
        self._start_s = time.monotonic()
        self._last_s = self._start_s
        self._shown = False

    def update(self, done: int, total: int) -> None:
        """Say how far it is; `total` 0 is unknown."""
        now_s = time.monotonic()
        early = now_s - self._start_s < self.WAIT_S or now_s - self._last_s < self.EVERY_S
        if early or not sys.stderr.isatty():
            return
        self._last_s = now_s
        text = f"{self._doing}: {done} {self._noun}"
        if total >= done > 0:
            rest_s = (now_s - self._start_s) * (total - done) / done
            text = f"{self._doing}: {done} of {total} {self._noun}, {clock(rest_s + 0.5)} left"
        print(f"\r{text:<60}", end="", file=sys.stderr, flush=True)
        self._shown = True

    def end(self) -> None:
        """Clear the line."""
        if self._shown:
            print(f"\r{'':<60}\r", end="", file=sys.stderr, flush=True)

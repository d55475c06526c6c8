"""What happened to hits since a page last looked, so that pages show it within a second and fetch nothing else."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable

from tagclip.runtime.station.bell import Bell

REMEMBERED = 2000  # changes; whoever was away for longer looks at everything anew


class News(Bell):
    """Hits that came, changed or were decided about, each with a number that only grows; any thread may tell.

    It is kept in memory alone: numbers begin at the time of the start, so one of an earlier start is known as such.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._first = self._number = time.time_ns() // 1000
        self._changes: deque[tuple[int, str]] = deque(maxlen=REMEMBERED)

    @property
    def number(self) -> int:
        """Of the last change."""
        return self._number

    def tell(self, hits: Iterable[str]) -> None:
        """Something about these hits (ids) is another than before, and is committed."""
        hits = tuple(dict.fromkeys(hits))
        if not hits:
            return
        with self._lock:
            for hit in hits:
                self._number += 1
                self._changes.append((self._number, hit))
        self.ring()

    def since(self, number: int) -> list[str] | None:
        """Ids of hits that changed after the change `number`, the first first; None when that is not remembered."""
        with self._lock:
            oldest = self._changes[0][0] - 1 if self._changes else self._number
            if not oldest <= number <= self._number:
                return None
            return list(dict.fromkeys(hit for at, hit in self._changes if at > number))

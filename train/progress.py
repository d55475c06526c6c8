"""One progress bar with the time left, on a terminal; a line now and then where there is none."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LINE_EVERY_S = 30.0

# Told what is done, how much of it, of how much, and a note.
Tick = Callable[[str, int, int, str], None]


@contextmanager
def bar(quiet: bool = False) -> Iterator[Tick]:
    """Yield tick(what, done, total, note); a new `what` begins a new bar. Writes to stderr, or nothing if `quiet`."""
    if quiet:
        yield lambda what, done, total, note: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines()
        return
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=console) as progress:
        tasks = {}

        def tick(what: str, done: int, total: int, note: str) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total, note=note)
            progress.update(tasks[what], completed=done, total=total, note=note)

        yield tick


def _lines() -> Tick:
    began: dict[str, tuple[float, int]] = {}
    last = [time.monotonic()]

    def tick(what: str, done: int, total: int, note: str) -> None:
        now = time.monotonic()
        start, before = began.setdefault(what, (now, done))  # what goes on begins with something done
        if now - last[0] < LINE_EVERY_S and not (done == total and now - start > 2):
            return
        last[0] = now
        left = (now - start) / max(1, done - before) * (total - done)
        print(f"{what}: {done}/{total}, {left:.0f} s left {note}", file=sys.stderr, flush=True)

    return tick

"""Devices of a test, their lives one after another, and what each of them said to have kept."""

from __future__ import annotations

import threading
from pathlib import Path

from chaos.child import Child

BLOCK = 1_000_000  # numbers of one device


class Device:
    """One device, which is to find `count` people; it may be killed and started again.

    Attributes:
        put: numbers of the hits that it said were on its disk.
        maybe: those that it was at when it ended: kept or not, either is right.
        resent: messages of which it knows that it sent them twice.
    """

    def __init__(
        self,
        folder: Path,
        number: int,
        count: int,
        every_s: float,
        within: tuple[str, ...] = (),
        more: tuple[str, ...] = (),
    ) -> None:
        self.put: set[int] = set()
        self.maybe: set[int] = set()
        self.resent = 0
        self._folder, self._first, self._left = folder, number * BLOCK, count
        self._lock = (
            threading.Lock()
        )  # of what is counted: one may kill it while another asks whether it is done
        self._every_s, self._within, self._more = every_s, within, more
        self.start()

    def start(self) -> None:
        """A new life, after the last number that it may have used."""
        command = ["-m", "chaos.device", self._folder, self._first, self._left, self._every_s, *self._more]
        log = self._folder.with_name(self._folder.name + ".log")
        self.child = Child(command, "ready", self._within, log)
        self._counted = False

    def ended(self) -> None:
        """Its process is no more: what it said counts."""
        self.child.kill()
        with self._lock:
            if self._counted:
                return
            said = [line.split() for line in self.child.lines if line.startswith("put ")]
            numbers = [int(words[1]) for words in said]
            self.put.update(numbers)
            self.resent += int(said[-1][2]) if said else 0
            self.maybe.add(self._first + len(numbers))
            self._first += len(numbers) + 1
            self._left -= len(numbers)
            self._counted = True

    def again(self) -> None:
        """End it if it runs, and start it anew."""
        self.ended()
        self.start()

    def close(self) -> None:
        self.child.kill()

    def rest(self) -> None:
        """It finds nobody any more, and sends what it has."""
        self._left = 0
        self.again()

    def done(self) -> bool:
        """Whether it has put all of its hits."""
        with self._lock:
            said = 0 if self._counted else sum(line.startswith("put ") for line in self.child.lines)
            return said >= self._left

    def drained(self, timeout_s: float) -> bool:
        """Until the station has all that it put."""
        return self.child.wait("empty", timeout_s)

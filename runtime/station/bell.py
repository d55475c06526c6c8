"""Wakes requests that wait in the server's loop, from any thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Bell:
    """Wakes whoever waits for something new. Rung by any thread; waited for in the server's loop."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event: asyncio.Event | None = None
        self.closing = False
        self.others: list[Callable[[], None]] = []  # that are called too; quick, from any thread

    def attach(self) -> None:
        """To be called in the loop, before anybody waits."""
        self._loop, self._event = asyncio.get_running_loop(), asyncio.Event()

    def event(self) -> asyncio.Event:
        """What is set when it rings next; to be fetched before looking at what is there."""
        assert self._event is not None
        return self._event

    def ring(self, _revision: int = 0) -> None:
        """There is something new."""
        for other in self.others:
            other()
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._swap)

    def close(self) -> None:
        """Nobody waits any longer: the station ends."""
        self.closing = True
        self.ring()

    def _swap(self) -> None:
        self.event().set()
        self._event = asyncio.Event()

"""The time by which a store deletes: the wall clock, but for its steps."""

from __future__ import annotations

import time
from collections.abc import Callable

STEP_S = 60.0  # the wall clock against the one that only goes forward: more is no drift
SETTLE_S = 3600.0


class SteadyClock:
    """Wall time that a step changes only after it has held for an hour; until then, the earlier of both counts.

    A clock that is decades ahead for a moment (a receiver's first fix, somebody's typing error) would otherwise delete
    everybody as too old. One that goes back deletes nobody, and a board that learns the time after its start deletes
    an hour later. Time that the machine was suspended looks like a step, too.

    Args:
        wall: Unix time in seconds.
        clock: seconds that only go forward.
    """

    def __init__(
        self, wall: Callable[[], float] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._wall = wall or (lambda: time.time())
        self._clock = clock
        self._ahead_s = self._wall() - clock()  # of the wall clock, as it is believed
        self._other_s, self._since_s = self._ahead_s, clock()  # as it says since it stepped

    def now_s(self) -> float:
        """Unix time, UTC; to be asked a few times an hour at least, since a step is only seen by whoever looks."""
        now_s = self._clock()
        ahead_s = self._wall() - now_s
        if abs(ahead_s - self._other_s) > STEP_S:
            self._since_s = now_s
        self._other_s = ahead_s
        if abs(ahead_s - self._ahead_s) <= STEP_S or now_s - self._since_s >= SETTLE_S:
            self._ahead_s = ahead_s
        return now_s + min(ahead_s, self._ahead_s)

"""Watches the machine while the device works: says when it is slowed down, ends a process that grows too large."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from tagclip.runtime.health import Health
from tagclip.runtime.machine import Machine, MachineState
from tagclip.runtime.service import Stop

EVERY_S = 5.0
CALM_S = 30.0  # throttling is over when nothing was slowed for so long: it comes and goes in bursts
PATIENCE_S = 60.0  # above the memory's limit before the process is ended

log = logging.getLogger(__name__)


class Monitor:
    """Looks at the machine every few seconds, in a thread of its own, while it is entered.

    Memory beyond the limit is said at once, and ends the process in order after a minute above it: the tracks in view
    are kept and whoever started it starts it anew, which is better than the kernel's choice of a moment and a victim.

    Args:
        health: is told the readings, and the causes `throttled` and `memory`.
        stop: is asked to end the process.
        max_memory_mb: limit of this process's resident memory, in 10^6 bytes; None has none.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        machine: Machine,
        health: Health,
        stop: Stop,
        max_memory_mb: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._machine, self._health, self._stop, self._max_mb = machine, health, stop, max_memory_mb
        self._clock = clock
        self._slowed_s = self._large_s = 0.0  # when it was last slowed; since when it is too large
        self._over = threading.Event()

    def look(self) -> None:
        """One look at the machine, and what follows from it."""
        state = self._machine.read()
        self._health.machine = state
        self._throttling(state)
        if self._max_mb is not None and state.resident_bytes is not None:
            self._memory(state.resident_bytes / 1e6, self._max_mb)

    def __enter__(self) -> Monitor:
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            self.look()
            self._over.wait(EVERY_S)

    def _throttling(self, state: MachineState) -> None:
        now_s = self._clock()
        if state.throttled:
            self._slowed_s = now_s
            hot = f" at {state.hottest_c:.0f} C" if state.hottest_c is not None else ""
            text = f"the machine slows itself down{hot}: {', '.join(state.throttled)}"
            if self._health.degrade("throttled", text):
                log.warning(
                    "%s; cool it, give it a stronger supply, or a lower power mode",
                    text,
                    extra={"temperature_c": state.temperature_c, "power_w": state.power_w},
                )
        elif now_s - self._slowed_s >= CALM_S and self._health.recover("throttled"):
            log.info("the machine is no longer slowed down")

    def _memory(self, now_mb: float, limit_mb: float) -> None:
        if now_mb <= limit_mb:
            self._large_s = 0.0
            if self._health.recover("memory"):
                log.info("memory is back under its limit of %g MB", limit_mb)
            return
        self._large_s = self._large_s or self._clock()
        text = f"{now_mb:.0f} MB, the limit is {limit_mb:g} MB"
        if self._health.degrade("memory", text):
            log.warning("memory: %s; ends in %g s unless it shrinks", text, PATIENCE_S)
        if self._clock() - self._large_s >= PATIENCE_S:
            self._stop.request(f"memory: {text} (--max-memory-mb)", failed=True)

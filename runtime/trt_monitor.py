"""How far a build is, and the way to end one that takes minutes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


def make_monitor(trt: Any, progress: Callable[[float], None] | None) -> Any:
    """An IProgressMonitor; its attribute `failure` is what `progress` raised, and what is set there ends the build.

    Args:
        trt: the module of TensorRT or TensorRT-RTX.
        progress: called with the part of the build that is done, 0 to 1, never falling.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.failure: BaseException | None = None
            self._lock = threading.Lock()  # phases end on several threads
            self._phases: dict[
                str, tuple[str | None, int, int]
            ] = {}  # name -> phase around it, steps done, steps
            self._most = 0.0

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._lock:
                self._phases[phase_name] = (parent_phase, 0, max(num_steps, 1))

        def phase_finish(self, phase_name: str) -> None:
            with self._lock:
                self._phases.pop(phase_name, None)

        def step_complete(self, phase_name: str, step: int) -> bool:
            # No exception may leave this function: C++ called it, and would end the process. So it waits in
            # `failure`, and False stops the build.
            try:
                with self._lock:
                    if phase_name in self._phases:
                        parent, _, steps = self._phases[phase_name]
                        self._phases[phase_name] = (parent, min(step + 1, steps), steps)
                    self._most = max(self._most, self._done(None))
                if progress is not None:
                    progress(self._most)
            except BaseException as error:
                self.failure = self.failure or error
            return self.failure is None

        def _done(self, around: str | None) -> float:
            """The part done of the furthest of the phases directly in `around`; each is one step of that."""
            parts = [
                min(1.0, (done + (self._done(name) if done < steps else 0)) / steps)
                for name, (above, done, steps) in self._phases.items()
                if above == around
            ]
            return max(parts, default=0.0)

    return Monitor()

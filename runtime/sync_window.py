"""How much to send at once, and how long to wait: by what the link was measured to do, never by a fixed timer."""

from __future__ import annotations

import math
from collections import deque

START_BYTES = 16 << 10
LEAST_BYTES = 4 << 10
# A batch costs its headers, and half of itself whenever the link dies. With so many bytes and such a life the sum is
# least for batches of sqrt(2 * HEADERS_BYTES * LIFE_S * bandwidth) bytes.
HEADERS_BYTES, LIFE_S = 400, 10.0
LEAST_IN_FLIGHT_S, MOST_IN_FLIGHT_S = 0.1, 2.0
DELAYS = (
    4.0  # a batch may take so many times the link's delay, so that the delay does not cost most of the time
)
PATIENCE = 4.0  # times the expected answer time
LEAST_WAIT_S, MOST_WAIT_S = 10.0, 300.0


class Window:
    """Bytes in flight and time-outs of one link.

    What is in flight never lasts longer than its answer takes; so the answer time is led to a goal, and the bandwidth
    need not be told from the delay.

    Attributes:
        bytes: to send at once at most.
    """

    def __init__(self, most_bytes: int) -> None:
        self.bytes = START_BYTES
        self._most_bytes = most_bytes
        self._answers: deque[tuple[float, int]] = deque(maxlen=256)  # seconds, bytes
        self._recent_s: deque[float] = deque(maxlen=16)
        self._byte_s = 0.0  # seconds for each byte of the last full batch
        self._timeouts = 0

    @property
    def goal_s(self) -> float:
        """The answer time that a full batch is to have."""
        quickest_s = min(self._answers, default=(0.0, 0))[0]
        delay_s = min((time_s for time_s, size in self._answers if size <= LEAST_BYTES), default=0.0)
        cheapest_s = math.sqrt(2 * HEADERS_BYTES * LIFE_S * self._byte_s)
        return min(max(LEAST_IN_FLIGHT_S, cheapest_s, DELAYS * quickest_s), MOST_IN_FLIGHT_S + delay_s)

    def timeout_s(self, size: int) -> float:
        """How long to wait for the answer to `size` bytes; longer after each time in vain, for a link that got slow."""
        expected_s = max(size * self._byte_s, max(self._recent_s, default=0.0))
        return min(max(LEAST_WAIT_S, PATIENCE * expected_s) * 2.0**self._timeouts, MOST_WAIT_S)

    def answered(self, size: int, time_s: float) -> None:
        """`size` bytes were sent and answered within `time_s`."""
        self._timeouts = 0
        self._answers.append((time_s, size))
        self._recent_s.append(time_s)
        time_s = max(time_s, 1e-3)
        if size < self.bytes / 2 and time_s <= self.goal_s:
            return  # too little to learn from: mostly delay
        self._byte_s = time_s / size
        self.bytes = int(min(max(size * self.goal_s / time_s, LEAST_BYTES), 2 * self.bytes, self._most_bytes))

    def failed(self, *, timed_out: bool) -> None:
        """No answer came."""
        self._timeouts += timed_out
        self.bytes = max(self.bytes // 2, LEAST_BYTES)

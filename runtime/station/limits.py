"""How often somebody may try: in memory, so that a restart forgives."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

MAX_KEYS = 10_000  # remembered; the one that tried longest ago is forgotten first


class Attempts:
    """At most `most` tries of one key within `window_s` seconds.

    Args:
        clock: seconds that only go forward.
    """

    def __init__(
        self, most: int, window_s: float = 60.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most, self._window_s, self._clock = most, window_s, clock
        self._tries: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, key: str) -> float:
        """Count a try, before it is known how it ends. Returns 0, or the seconds to wait if it is one too many."""
        now_s = self._clock()
        with self._lock:
            tries = self._tries.setdefault(key, deque())
            self._tries.move_to_end(key)
            if len(self._tries) > MAX_KEYS:
                self._tries.popitem(last=False)
            while tries and now_s - tries[0] >= self._window_s:
                tries.popleft()
            if len(tries) >= self._most:
                return self._window_s - (now_s - tries[0])
            tries.append(now_s)
            return 0.0

    def forgive(self, key: str) -> None:
        """The last try of `key` was a good one and does not count."""
        with self._lock:
            tries = self._tries.get(key)
            if tries:
                tries.pop()


def network(address: str) -> str:
    """Whose tries count together: an IPv4 address; of IPv6 the /64, of which one customer has all addresses."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)

"""Living as a service: stop when asked, and tell systemd that it is ready and alive."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

from tagclip.runtime.logs import mask

SIGNALS = (signal.SIGTERM, signal.SIGINT)
GRACE_S = 10.0
STATUS_EVERY_S = 5.0

log = logging.getLogger(__name__)


class Stop:
    """Asks the process to come to an end: by SIGTERM or SIGINT (Ctrl-C), or by `request`.

    The first signal sets `requested`, and whoever works ends in order. The second ends the process at once, with
    status 128 + signal. So does time: who is not done `grace_s` after the request is ended with status 1. A thread
    does both, so that it works while the main thread is held in a library.

    To be entered in the main thread; afterwards the earlier handlers hold again.
    """

    def __init__(self, grace_s: float = GRACE_S) -> None:
        self.reason = ""  # what asked first
        self.failed = False  # it was not a wish, but that going on makes no sense
        self._grace_s = grace_s
        self._asked, self._over = threading.Event(), threading.Event()
        self._over.set()  # until it is entered: nothing is ended by time
        self._lock = threading.Lock()

    @property
    def requested(self) -> bool:
        """Whether to come to an end."""
        return self._asked.is_set()

    def request(self, reason: str, *, failed: bool = False) -> None:
        """Ask for the end, from any thread; only the first reason counts.

        Args:
            failed: whoever reads it has to exit with an error, so that whoever started the process starts it anew.
        """
        with self._lock:
            if self._asked.is_set():
                return
            self.reason, self.failed = reason, failed
            self._asked.set()
        threading.Thread(target=self._end_late, name="stop-late", daemon=True).start()

    def wait(self, timeout_s: float) -> bool:
        """Wait for a request, but no longer than this; whether there is one."""
        return self._asked.wait(timeout_s)

    def __enter__(self) -> Stop:
        self._over.clear()
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        # The interpreter's own C handler writes the signal's number here, also while Python code cannot run.
        self._before_fd = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, _ignore) for number in SIGNALS}
        self._thread = threading.Thread(target=self._watch, name="stop", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._before_fd)
        self._over.set()
        os.write(self._write, b"\0")
        self._thread.join()
        os.close(self._read)
        os.close(self._write)

    def _watch(self) -> None:
        signals = 0
        while not self._over.is_set():
            for number in os.read(self._read, 64):
                if number not in SIGNALS:
                    continue
                signals += 1
                if signals > 1:
                    os._exit(128 + number)
                self.request(signal.Signals(number).name)

    def _end_late(self) -> None:
        if not self._over.wait(self._grace_s):
            log.critical("not at an end %g s after %s; ended", self._grace_s, self.reason)
            os._exit(1)


def has_keeper() -> bool:
    """Whether systemd waits for this process's words (`Type=notify`), and starts it anew when it fails."""
    return bool(os.environ.get("NOTIFY_SOCKET"))


def start_anew() -> None:
    """Begin this process from its first line, with the same arguments; never returns."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


class Notifier:
    """Tells systemd about the service (`Type=notify`); without systemd it does nothing.

    It speaks as sd_notify(3) does: a datagram to the socket of the environment variable NOTIFY_SOCKET.

    Args:
        clock: seconds that only go forward.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._socket: socket.socket | None = None
        self._every_s = self._next_s = self._next_status_s = 0.0
        path = os.environ.get("NOTIFY_SOCKET", "")
        if not path.startswith(("/", "@")):
            return
        self._address = "\0" + path[1:] if path[0] == "@" else path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        timeout_us = os.environ.get("WATCHDOG_USEC", "")
        if timeout_us.isdigit() and os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
            self._every_s = int(timeout_us) / 1e6 / 4  # half of it is asked for; a frame may be late

    def ready(self, status: str = "") -> None:
        """The start is over; `systemctl start` returns."""
        self._send("READY=1", status)

    def alive(self, status: str = "") -> None:
        """The loop goes round; to be called in every round, it sends only as often as is needed.

        Args:
            status: a line for `systemctl status`, sent every few seconds.
        """
        if self._socket is None:
            return
        now_s = self._clock()
        beat = bool(self._every_s) and now_s >= self._next_s
        if status and now_s >= self._next_status_s:
            self._next_status_s = now_s + STATUS_EVERY_S
        else:
            status = ""
        if beat:
            self._next_s = now_s + self._every_s
        if (beat or status) and not self._send("WATCHDOG=1" if beat else "", status):
            self._next_s = 0.0  # the next round tries again

    def stopping(self, status: str = "") -> None:
        """The end has begun."""
        self._send("STOPPING=1", status)

    def close(self) -> None:
        """Let go of the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, state: str, status: str) -> bool:
        if self._socket is None:
            return True
        lines = [state] if state else []
        if status:
            lines.append("STATUS=" + " ".join(mask(status).split()))
        with contextlib.suppress(OSError):  # systemd is being restarted, or its queue is full
            self._socket.sendto("\n".join(lines).encode("utf-8", "replace"), self._address)
            return True
        return False


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Stands where Python's own handler would raise KeyboardInterrupt; `Stop` reads the signal from its pipe."""

"""Telemetry as it comes over a MAVLink link: heard only, nothing is ever sent."""

from __future__ import annotations

import bisect
import contextlib
import logging
import os
import re
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable

from tagclip.runtime.errors import ConfigError
from tagclip.runtime.mavlink import Craft
from tagclip.runtime.mavlink_wire import Wire
from tagclip.runtime.telemetry import LONGEST_GAP_S, CameraPose, Telemetry

KEPT_S = 120.0  # for somebody whose best picture lies so far back
MOST_ROWS = 10_000  # in KEPT_S come 3,600 of a craft that tells all
WAIT_S = 0.2
SILENT_S = 10.0  # a connection of TCP that says nothing for so long is dead, whatever the kernel thinks
AGAIN_S = 2.0  # before a link that failed is opened again
CONNECT_S = 3.0
CLOSE_S = 5.0
BAUDS = (9600, 57600, 115200, 230400, 460800, 921600)

_NET = re.compile(r"(udp|tcp):(?://)?(\[[0-9A-Fa-f:]+\]|[^:/\s]+):(\d{1,5})")
_SERIAL = re.compile(r"serial:(/[^:]+):(\d{1,7})")

log = logging.getLogger(__name__)


def is_link(text: str) -> bool:
    """Whether a --telemetry names a link, and no file."""
    return text.startswith(("udp:", "tcp:", "serial:"))


class LiveTelemetry:
    """Poses as they are heard, for the last KEPT_S; in a thread, until `close`.

    A link that dies is opened again, and until then the pose is unknown: the camera goes on without it. Times are
    those of arrival, by a clock that only goes forward.

    Args:
        address: udp:HOST:PORT to listen there, tcp:HOST:PORT to connect, serial:/dev/ttyTHS1:57600.
        fixed: what is known besides; its pitch is that of a camera fixed to the craft, see `Craft`.

    Attributes:
        messages: heard, of any kind. bad: bytes that were no message.
        opened, failures: how often the link was opened, and could not be or ended.
        trouble: why nothing is heard; empty while something is.

    Raises:
        ConfigError: the address has another form, or cannot be listened at.
    """

    def __init__(self, address: str, fixed: CameraPose, clock: Callable[[], float] = time.monotonic) -> None:
        net, serial = _NET.fullmatch(address), _SERIAL.fullmatch(address)
        if not (net and 0 < int(net[3]) < 65536) and not (serial and int(serial[2]) in BAUDS):
            raise ConfigError(
                f"--telemetry {address}: expected udp:HOST:PORT, tcp:HOST:PORT or serial:/dev/NAME:BAUD with one of "
                f"{', '.join(map(str, BAUDS))}"
            )
        self.messages = self.bad = self.opened = self.failures = 0
        self.trouble = "nothing was heard yet"
        self._address, self._net, self._serial, self._clock = address, net, serial, clock
        self._datagrams = net is not None and net[1] == "udp"
        rest = {name: value for name, value in vars(fixed).items() if name != "pitch_deg"}
        self._fixed = CameraPose(**rest)
        self._craft = Craft(fixed.pitch_deg or 0.0)
        self._wire = Wire()
        self._rows: deque[dict[str, float]] = deque(maxlen=MOST_ROWS)
        self._begin_s = 0.0
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._descriptor: int | None = self._open() if self._datagrams else None
        self._thread = threading.Thread(target=self._work, name="mavlink", daemon=True)
        self._thread.start()

    def begin(self, monotonic_s: float) -> None:
        """Say when the footage's time 0 was, by the clock."""
        self._begin_s = monotonic_s

    def at(self, time_s: float) -> CameraPose:
        """As `Telemetry.at`; nothing is known farther than LONGEST_GAP_S from its latest message."""
        when_s = self._begin_s + time_s
        with self._lock:
            first = bisect.bisect_left(self._rows, when_s - LONGEST_GAP_S, key=_time_s)
            end = bisect.bisect_right(self._rows, when_s + LONGEST_GAP_S, key=_time_s)
            near = [self._rows[k] for k in range(first, end)]
        return Telemetry(near, self._fixed).at(when_s)

    def close(self) -> None:
        """End the thread."""
        self._over.set()
        self._thread.join(CLOSE_S)

    def _work(self) -> None:
        while not self._over.is_set():
            try:
                if self._descriptor is None:
                    self._descriptor = self._open()
                self.opened += 1
                self._hear(self._descriptor)
            except (OSError, ConfigError) as error:
                self.failures += 1
                self._say(str(error))
            finally:
                if self._descriptor is not None:
                    with contextlib.suppress(OSError):
                        os.close(self._descriptor)
                    self._descriptor = None
            self._over.wait(AGAIN_S)

    def _hear(self, descriptor: int) -> None:
        self._wire = Wire()
        heard_s = time.monotonic()
        while not self._over.is_set():
            if time.monotonic() - heard_s > SILENT_S:
                if self._net and not self._datagrams:
                    raise OSError(f"silent for {SILENT_S:g} s")
                self._say(f"silent for {SILENT_S:g} s")
            if not select.select([descriptor], [], [], WAIT_S)[0]:
                continue
            try:
                data = os.read(descriptor, 65536)
            except BlockingIOError:
                continue
            if not data and not self._datagrams:
                raise OSError("the other end has closed it")
            if self._take(data):
                heard_s = time.monotonic()
                self._say("")

    def _take(self, data: bytes) -> int:
        """Note what is heard: how many messages."""
        before, now_s = self._wire.bad, self._clock()
        packets = self._wire.take(data, last=self._datagrams)
        self.bad += self._wire.bad - before
        self.messages += len(packets)
        rows = [row for packet in packets if (row := self._craft.take(packet, now_s))]
        with self._lock:
            self._rows += rows
            while self._rows and self._rows[0]["time_s"] < now_s - KEPT_S:
                self._rows.popleft()
        return len(packets)

    def _say(self, trouble: str) -> None:
        """Log a change, not every try."""
        if trouble == self.trouble:
            return
        if trouble:
            log.warning("no telemetry from %s: %s", self._address, trouble)
        else:
            log.info("telemetry from %s", self._address)
        self.trouble = trouble

    def _open(self) -> int:
        if self._serial:
            return _open_serial(self._serial[1], int(self._serial[2]))
        assert self._net is not None
        host, port = self._net[2].strip("[]"), int(self._net[3])
        if not self._datagrams:
            with socket.create_connection((host, port), timeout=CONNECT_S) as connection:
                connection.setblocking(False)
                return connection.detach()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            listening.setblocking(False)
            listening.bind((host, port))
        except OSError as error:
            listening.close()
            raise ConfigError(
                f"cannot listen at {self._address}: {error.strerror or error}; is another program there already?"
            ) from error
        return listening.detach()


def _time_s(row: dict[str, float]) -> float:
    return row["time_s"]


def _open_serial(path: str, baud: int) -> int:
    """Raw bytes, eight bits, no parity; without waiting for a modem's carrier."""
    import termios
    import tty

    descriptor = os.open(path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        tty.setraw(descriptor)
        settings = termios.tcgetattr(descriptor)
        settings[2] |= termios.CLOCAL | termios.CREAD
        settings[4] = settings[5] = getattr(termios, f"B{baud}")
        termios.tcsetattr(descriptor, termios.TCSANOW, settings)
    except (OSError, termios.error) as error:
        os.close(descriptor)
        raise OSError(f"{path} is no serial line: {error}") from error
    return descriptor

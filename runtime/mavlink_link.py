"""Telemetry as it comes over a MAVLink link: heard only, nothing is ever sent."""

from __future__ import annotations

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
from tagclip.runtime.mavlink import Craft, parser
from tagclip.runtime.telemetry import LONGEST_GAP_S, CameraPose, Telemetry

KEPT_S = 120.0  # for somebody whose best picture lies so far back
MOST_ROWS = 20_000
WAIT_S = 0.5
AGAIN_S = 2.0  # before a link that failed is opened again
BAUDS = (9600, 57600, 115200, 230400, 460800, 921600)

_NET = re.compile(r"(udp|tcp):(?://)?(\[[0-9A-Fa-f:]+\]|[^:/\s]*):(\d{1,5})")
_SERIAL = re.compile(r"serial:(/[^:]+):(\d+)")

log = logging.getLogger(__name__)


def is_link(text: str) -> bool:
    """Whether a --telemetry names a link, and no file."""
    return text.startswith(("udp:", "tcp:", "serial:"))


class LiveTelemetry:
    """Poses as they are heard, for the last KEPT_S; in a thread, until `close`.

    A link that dies is opened again, and until then the pose is unknown: the camera goes on without it.

    Args:
        address: udp:HOST:PORT to listen there, tcp:HOST:PORT to connect, serial:/dev/ttyTHS1:57600.
        fixed: what is known besides; its pitch is that of a camera fixed to the craft, see `Craft`.

    Attributes:
        messages, bad: heard, and bytes that were no message.

    Raises:
        ConfigError: the address has another form, or cannot be listened at.
        MissingExtraError: pymavlink is not installed.
    """

    def __init__(self, address: str, fixed: CameraPose, clock: Callable[[], float] = time.monotonic) -> None:
        net, serial = _NET.fullmatch(address), _SERIAL.fullmatch(address)
        if not (net and 0 < int(net[3]) < 65536) and not (serial and int(serial[2]) in BAUDS):
            raise ConfigError(
                f"--telemetry {address}: expected udp:HOST:PORT, tcp:HOST:PORT or serial:/dev/NAME:BAUD with one of "
                f"{', '.join(map(str, BAUDS))}"
            )
        self.messages = self.bad = 0
        self._address, self._net, self._serial, self._clock = address, net, serial, clock
        rest = {name: value for name, value in vars(fixed).items() if name != "pitch_deg"}
        self._fixed = CameraPose(**rest)
        self._craft = Craft(fixed.pitch_deg or 0.0)
        self._reader = parser()
        self._rows: deque[dict[str, float]] = deque(maxlen=MOST_ROWS)
        self._begin_s = 0.0
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._silent = True
        self._descriptor: int | None = self._open() if net and net[1] == "udp" else None
        self._thread = threading.Thread(target=self._work, name="mavlink", daemon=True)
        self._thread.start()

    def begin(self, monotonic_s: float) -> None:
        """Say when the footage's time 0 was, by the clock."""
        self._begin_s = monotonic_s

    def at(self, time_s: float) -> CameraPose:
        """As `Telemetry.at`; nothing is known farther than LONGEST_GAP_S from any message."""
        when_s = self._begin_s + time_s
        with self._lock:
            near = [row for row in self._rows if abs(row["time_s"] - when_s) <= LONGEST_GAP_S]
        return Telemetry(near, self._fixed).at(when_s)

    def close(self) -> None:
        """End the thread."""
        self._over.set()
        self._thread.join(5.0)

    def _work(self) -> None:
        while not self._over.is_set():
            try:
                if self._descriptor is None:
                    self._descriptor = self._open()
                while not self._over.is_set():
                    self._hear(self._descriptor)
            except (OSError, ConfigError) as error:
                log.warning("no telemetry from %s: %s", self._address, error)
            finally:
                if self._descriptor is not None:
                    with contextlib.suppress(OSError):
                        os.close(self._descriptor)
                    self._descriptor = None
            self._over.wait(AGAIN_S)

    def _hear(self, descriptor: int) -> None:
        if not select.select([descriptor], [], [], WAIT_S)[0]:
            return
        data = os.read(descriptor, 65536)
        if not data and not (self._net and self._net[1] == "udp"):
            raise OSError("the link has ended")
        now_s = self._clock()
        for message in self._reader.parse_buffer(data) or ():
            if message.get_type() == "BAD_DATA":
                self.bad += len(message.data)
                continue
            self.messages += 1
            pose = self._craft.take(message)
            if pose:
                with self._lock:
                    self._rows.append({"time_s": now_s} | pose)
                    while self._rows[0]["time_s"] < now_s - KEPT_S:
                        self._rows.popleft()
                if self._silent:
                    self._silent = False
                    log.info("telemetry from %s", self._address)
        if self._net and self._net[1] == "udp" and self._reader.buf_len():
            self.bad += (
                self._reader.buf_len()
            )  # a datagram holds whole packets: what is left over begins none
            self._reader = parser()

    def _open(self) -> int:
        if self._serial:
            return _open_serial(self._serial[1], int(self._serial[2]))
        assert self._net is not None
        kind, host, port = self._net[1], self._net[2].strip("[]"), int(self._net[3])
        if kind == "tcp":
            with socket.create_connection((host or "127.0.0.1", port), timeout=5.0) as connection:
                connection.setblocking(True)
                return connection.detach()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            listening.bind((host or "127.0.0.1", port))
        except OSError as error:
            listening.close()
            raise ConfigError(
                f"cannot listen at {self._address}: {error.strerror or error}; is another program there already?"
            ) from error
        return listening.detach()


def _open_serial(path: str, baud: int) -> int:
    """Raw bytes, eight bits, no parity."""
    import termios
    import tty

    descriptor = os.open(path, os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        tty.setraw(descriptor)
        settings = termios.tcgetattr(descriptor)
        settings[4] = settings[5] = getattr(termios, f"B{baud}")
        termios.tcsetattr(descriptor, termios.TCSANOW, settings)
    except (OSError, termios.error) as error:
        os.close(descriptor)
        raise OSError(f"{path} is no serial line: {error}") from error
    return descriptor

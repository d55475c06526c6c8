"""A bad radio link between this machine and network namespaces, one for each device. Root is needed.

What `tc netem` does in the kernel is done here, packet by packet, between two TUN devices: loss, delay, jitter (and
with it other orders), packets that come twice, a rate with a bounded queue, and black holes. TCP and TLS above it are
the kernel's and OpenSSL's own. It is done here because many kernels, this project's test machine among them, are built
without netem.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import threading
import time
from dataclasses import dataclass

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
MOST_QUEUED_S = 0.5  # of a link's rate; what comes on top is lost


@dataclass(frozen=True)
class Weather:
    """How a link is, each way.

    Attributes:
        up: a black hole otherwise: nothing passes, nobody is told.
        loss, twice: chance of a packet's being lost, and of its coming twice.
        delay_s: of each packet; jitter_s: at most so much more, each by itself.
        rate: bytes per second.
    """

    up: bool = True
    loss: float = 0.0
    twice: float = 0.0
    delay_s: float = 0.0
    jitter_s: float = 0.0
    rate: float = 1e9


FAIR = Weather()


def any_weather(rng: random.Random) -> Weather:
    """Fair, poor or none."""
    kind = rng.random()
    if kind < 0.25:
        return Weather(up=False)
    if kind < 0.45:
        return FAIR
    return Weather(
        loss=rng.choice([0.01, 0.05, 0.15, 0.3]),
        twice=0.01,
        delay_s=rng.choice([0.01, 0.05, 0.3]),
        jitter_s=rng.choice([0.0, 0.02, 0.1]),
        rate=rng.choice([32e3, 250e3, 2e6]),
    )


class Wire:
    """Links to `devices` namespaces while it is entered; namespace n runs what `within(n)` begins.

    Attributes:
        address: of this machine, for the devices.
        weather: of each link; may be set at any time.
        passed, lost: packets.

    Raises:
        OSError: by `__enter__`, where namespaces or TUN devices cannot be made.
    """

    def __init__(self, devices: int, seed: int = 0) -> None:
        self.weather = [FAIR] * devices
        self.passed = self.lost = 0
        self._rng = random.Random(seed)
        self._net = f"10.{64 + os.getpid() // 250 % 64}.{os.getpid() % 250}"
        self.address = f"{self._net}.1"
        self._names = [f"air{os.getpid()}-{number}" for number in range(devices)]
        self._handles: list[int] = []  # of the devices, then of this machine
        self._free_s = [
            [0.0, 0.0] for _ in range(devices)
        ]  # when the link has sent what is queued, up and down
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._carry, name="wire", daemon=True)

    def __enter__(self) -> Wire:
        try:
            for number, name in enumerate(self._names):
                _ip("netns", "add", name)
                self._handles.append(self._tun(f"tc{os.getpid()}.{number}", number + 2, name))
            self._handles.append(self._tun(f"tc{os.getpid()}", 1, ""))
        except BaseException:
            self._remove()
            raise
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._remove()

    def within(self, device: int) -> tuple[str, ...]:
        """What a command is run by that is to be at that end."""
        # `ip netns exec` would copy the mounts, too, and whoever unmounts one of them would wait for the copy.
        return ("nsenter", f"--net=/run/netns/{self._names[device]}")

    def _remove(self) -> None:
        for handle in self._handles:
            os.close(handle)
        for name in self._names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)

    def _tun(self, device: str, last: int, namespace: str) -> int:
        handle = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        try:
            fcntl.ioctl(handle, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TUN | IFF_NO_PI))
            inside = ("-n", namespace) if namespace else ()
            if namespace:
                _ip("link", "set", device, "netns", namespace)
            _ip(*inside, "address", "add", f"{self._net}.{last}/24", "dev", device)
            _ip(*inside, "link", "set", device, "up")
        except BaseException:
            os.close(handle)
            raise
        return handle

    def _carry(self) -> None:
        """Every packet waits in `due` until its time."""
        due: list[tuple[float, int, int, bytes]] = []
        links = {handle: number for number, handle in enumerate(self._handles)}
        station = len(self._handles) - 1
        poll, count = select.poll(), 0
        for handle in self._handles:
            poll.register(handle, select.POLLIN)
        while not self._over.is_set():
            wait_s = min(max(due[0][0] - time.monotonic(), 0.0), 0.05) if due else 0.05
            for handle, _ in poll.poll(1000 * wait_s):
                try:
                    packet = os.read(handle, 65536)
                except BlockingIOError:
                    continue
                if len(packet) < 20 or packet[0] >> 4 != 4:
                    continue
                up = links[handle] != station
                device = links[handle] if up else packet[19] - 2
                if not 0 <= device < station:
                    continue
                for at_s in self._times(device, len(packet), 0 if up else 1):
                    count += 1
                    heapq.heappush(due, (at_s, count, self._handles[station if up else device], packet))
            now_s = time.monotonic()
            while due and due[0][0] <= now_s:
                _, _, handle, packet = heapq.heappop(due)
                try:
                    os.write(handle, packet)
                    self.passed += 1
                except OSError:  # its queue is full
                    self.lost += 1

    def _times(self, device: int, size: int, way: int) -> list[float]:
        """When the packet arrives: never, once or twice."""
        weather, rng, now_s = self.weather[device], self._rng, time.monotonic()
        free_s = max(self._free_s[device][way], now_s) + size / weather.rate
        if not weather.up or rng.random() < weather.loss or free_s - now_s > MOST_QUEUED_S:
            self.lost += 1
            return []
        self._free_s[device][way] = free_s
        copies = 2 if rng.random() < weather.twice else 1
        return [free_s + weather.delay_s + weather.jitter_s * rng.random() for _ in range(copies)]


def _ip(*words: str) -> None:
    try:
        subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        raise OSError(f"ip {' '.join(words)}: {error.stderr.strip()}") from error

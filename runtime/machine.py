"""How the machine is: temperatures, power, memory, and whether it slows itself down.

Everything is read from sysfs and procfs, on a Jetson also the current of its power rails, the load of its GPU and its
power mode. What is not there is unknown, never an error; nothing here waits, but for `tegrastats` (see tegra.py).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tagclip.runtime.tegra import parse_tegrastats, read_tegrastats

# Of thermal zones, in degrees Celsius: what lies outside is a sensor that is off (-256) or not one at all.
PLAUSIBLE_C = (-40.0, 150.0)
_CONSTANT_ZONES = {"PMIC-Die"}  # Jetsons up to Xavier: always 100
# Cooling devices that cool by working less, unlike fans, pumps and alarms.
_SLOWING = re.compile(r"(thermal-)?(cpufreq|devfreq)|.*throttle|Processor$")
# Files whose count grows whenever hardware slows the processor: heat (x86), undervoltage and overcurrent (Jetson).
_COUNTERS = (
    "sys/devices/system/cpu/cpu*/thermal_throttle/*_throttle_count",
    "sys/class/hwmon/hwmon*/oc*_event_cnt",
)
_GPU_LOADS = (
    "sys/class/devfreq/*.gpu/device/load",
    "sys/class/devfreq/*.g[avp][0-9]*b/device/load",
    "sys/devices/platform/gpu.0/load",
    "sys/devices/gpu.0/load",
)


@dataclass(frozen=True)
class MachineState:
    """One look at the machine.

    Attributes:
        temperature_c: by thermal zone.
        power_w: by rail.
        gpu_load: 0..1, None if unknown.
        power_mode: of a Jetson, such as "15W"; None elsewhere.
        throttled: what is being slowed down, such as "cpufreq-cpu0", or was since the last look; empty if nothing is,
            None where the machine does not tell.
        resident_bytes: memory of this process; None if unknown. What it holds on a GPU of its own is not in it.
        available_bytes, total_bytes: memory of the machine, None if unknown.
    """

    temperature_c: dict[str, float]
    power_w: dict[str, float]
    gpu_load: float | None
    power_mode: str | None
    throttled: tuple[str, ...] | None
    resident_bytes: int | None
    available_bytes: int | None
    total_bytes: int | None

    @property
    def hottest_c(self) -> float | None:
        """The highest of the temperatures, None without any."""
        return max(self.temperature_c.values(), default=None)


class Machine:
    """Looks at the machine; remembers the counters of the last look.

    Args:
        root: where /sys, /proc, /etc and /var begin.
        tegrastats: NVIDIA's tool, asked where sysfs shows neither a temperature nor a rail; None asks nobody.
    """

    def __init__(self, root: Path = Path("/"), tegrastats: str | None = "tegrastats") -> None:
        self._root, self._tegrastats = root, tegrastats
        self._counts = {path: value for path, value in self._counters()}

    def read(self) -> MachineState:
        """One look. Takes milliseconds; at most `tegra.TIMEOUT_S` where `tegrastats` is asked."""
        temperature_c, power_w, gpu_load = self._temperatures(), self._powers(), self._gpu_load()
        if not temperature_c and not power_w and self._tegrastats:
            line = read_tegrastats(self._tegrastats)
            told = parse_tegrastats(line) if line else None
            if told:
                temperature_c, power_w = told.temperature_c, told.power_w
                gpu_load = told.gpu_load if gpu_load is None else gpu_load
        memory = self._memory()
        return MachineState(
            temperature_c=temperature_c,
            power_w=power_w,
            gpu_load=gpu_load,
            power_mode=self._power_mode(),
            throttled=self._throttled(),
            resident_bytes=self._resident(),
            available_bytes=memory.get("MemAvailable"),
            total_bytes=memory.get("MemTotal"),
        )

    def _temperatures(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for zone in self._glob("sys/class/thermal/thermal_zone*"):
            name, milli = read_text(zone / "type"), _integer(zone / "temp")
            if name and milli is not None and name not in _CONSTANT_ZONES:
                _put(found, name, milli / 1000, PLAUSIBLE_C)
        return found

    def _powers(self) -> dict[str, float]:
        """Watts of each rail. The sums and shunt voltages that INA3221 also shows have no current of their own."""
        found: dict[str, float] = {}
        for sensor in self._glob("sys/class/hwmon/hwmon*"):
            if not (read_text(sensor / "name") or "").startswith("ina"):
                continue
            for number in range(1, 4):  # an INA3221 has three channels
                label = read_text(sensor / f"in{number}_label") or ""
                milli_v, milli_a = (_integer(sensor / f"{kind}{number}_input") for kind in ("in", "curr"))
                if label and milli_v is not None and milli_a is not None and label != "NC":
                    _put(found, label, milli_v * milli_a / 1e6)
            micro_w = _integer(sensor / "power1_input")
            if micro_w is not None:
                _put(found, read_text(sensor / "power1_label") or "input", micro_w / 1e6)
        return found

    def _gpu_load(self) -> float | None:
        for pattern in _GPU_LOADS:
            for path in self._glob(pattern):
                per_mille = _integer(path)
                if per_mille is not None:
                    return min(max(per_mille / 1000, 0.0), 1.0)
        return None

    def _power_mode(self) -> str | None:
        """The mode that nvpmodel set, by its name in nvpmodel.conf; its number where the name is not there."""
        status = re.search(r"pmode:(\d+)", read_text(self._root / "var/lib/nvpmodel/status") or "")
        if not status:
            return None
        number = int(status[1])
        catalogue = read_text(self._root / "etc/nvpmodel.conf", 64 * 1024) or ""
        name = re.search(rf"^<\s*POWER_MODEL\s+ID={number}\s+NAME=(\S+)\s*>", catalogue, re.MULTILINE)
        return name[1] if name else str(number)

    def _throttled(self) -> tuple[str, ...] | None:
        slowed: list[str] = []
        known = False
        for device in self._glob("sys/class/thermal/cooling_device*"):
            name, state = read_text(device / "type"), _integer(device / "cur_state")
            if name and state is not None and _SLOWING.match(name):
                known = True
                if state > 0:
                    slowed.append(name)
        for path, count in self._counters():
            known = True
            if count > self._counts.get(path, count):
                slowed.append(_event(path))
            self._counts[path] = count
        return tuple(dict.fromkeys(slowed)) if known else None

    def events(self) -> dict[str, int]:
        """How often hardware slowed the processor since the machine began, by kind; only what happened."""
        found: dict[str, int] = {}
        for path, count in self._counters():
            if count:
                found[_event(path)] = found.get(_event(path), 0) + count
        return found

    def _counters(self) -> Iterator[tuple[Path, int]]:
        for pattern in _COUNTERS:
            for path in self._glob(pattern):
                count = _integer(path)
                if count is not None:
                    yield path, count

    def _resident(self) -> int | None:
        fields = (read_text(self._root / "proc/self/statm") or "").split()
        return (
            int(fields[1]) * os.sysconf("SC_PAGE_SIZE") if len(fields) > 1 and fields[1].isdigit() else None
        )

    def _memory(self) -> dict[str, int]:
        text = read_text(self._root / "proc/meminfo") or ""
        return {name: int(kib) * 1024 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}

    def _glob(self, pattern: str) -> list[Path]:
        """In the order of the numbers in their names."""
        found = self._root.glob(pattern)
        return sorted(found, key=lambda path: [int(n) for n in re.findall(r"\d+", str(path))])


def read_text(path: Path, most_bytes: int = 4096) -> str | None:
    """The beginning of a small file without the white space around it; None where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(most_bytes).decode("utf-8", "replace").strip("\0 \t\r\n")
    except OSError:  # absent, forbidden, or a sensor that is powered down
        return None


def _integer(path: Path) -> int | None:
    text = read_text(path) or ""
    return int(text) if re.fullmatch(r"-?\d{1,18}", text) else None


def _put(found: dict[str, float], name: str, value: float, within: tuple[float, float] | None = None) -> None:
    """Under a name that is still free: several zones may have the same."""
    if within and not within[0] <= value <= within[1]:
        return
    free, number = name, 2
    while free in found:
        free, number = f"{name} {number}", number + 1
    found[free] = value


def _event(path: Path) -> str:
    """What a counter counts: `oc3` is what NVIDIA's documents call it."""
    if path.name.startswith("oc"):
        number = path.name[2:].partition("_")[0]
        kind = {"1": "undervoltage", "2": "overcurrent, average", "3": "overcurrent, peak"}.get(
            number, "supply"
        )
        return f"{kind} (oc{number})"
    return f"heat ({path.name.partition('_')[0]})"

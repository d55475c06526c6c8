"""On what a benchmark ran: the machine and its software, and how its clocks, heat and watts were meanwhile."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import resource
import subprocess
import time
from pathlib import Path
from typing import Any

from tagclip.runtime.doctor_machine import l4t_release
from tagclip.runtime.machine import Machine, read_text

PACKAGES = (
    "tagclip",
    "numpy",
    "opencv-python-headless",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "openvino",
    "tensorrt",
    "torch",
    "open_clip_torch",
)
GIT_S = 5.0
_CPUFREQ = "sys/devices/system/cpu/cpu0/cpufreq"


def describe_machine(root: Path = Path("/")) -> dict[str, Any]:
    """What a reader has to know of this machine; None for what it does not tell.

    Args:
        root: where /sys, /proc and /etc begin.

    Returns:
        "board", "cpu", "cores" (this process may use), "cores_of_machine", "governor", "mhz_most", "memory_bytes",
        "os", "kernel", "architecture", "l4t", "power_mode", "python", "packages" {name: version} of those that are
        there, and "load" (of the last minute, before the benchmark; 0 on an idle machine).
    """
    state = Machine(root, tegrastats=None).read()
    release = l4t_release(root)
    most_khz = read_text(root / _CPUFREQ / "cpuinfo_max_freq") or ""
    try:
        system = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        system = platform.system()
    return {
        "board": read_text(root / "proc/device-tree/model"),
        "cpu": _cpu(root),
        "cores": own_cores(),
        "cores_of_machine": os.cpu_count(),
        "governor": read_text(root / _CPUFREQ / "scaling_governor"),
        "mhz_most": int(most_khz) / 1000 if most_khz.isdigit() else None,
        "memory_bytes": state.total_bytes,
        "os": system,
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "l4t": release[1] if release else None,
        "power_mode": state.power_mode,
        "python": platform.python_version(),
        "packages": _packages(),
        "load": round(os.getloadavg()[0], 2),
    }


def own_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def git_revision() -> str | None:
    """Commit of the working copy that runs, with "+" where it was changed; None when installed from a package."""
    folder = Path(__file__).parent
    # Some other repository may lie around an environment: it has to know this very folder's code.
    if _git(folder, "ls-files", "--error-unmatch", "machine.py") is None:
        return None
    commit, changed = _git(folder, "rev-parse", "HEAD"), _git(folder, "status", "--porcelain")
    return None if commit is None else commit + ("+" if changed else "")


class Watch:
    """Looks at the machine between frames. What it cannot see is absent, never 0.

    Args:
        root: where /sys and /proc begin.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        # tegrastats takes a second to answer; a Jetson's sysfs tells the same.
        self._machine = Machine(root, tegrastats=None)
        self._begun_s = time.monotonic()

    def look(self) -> dict[str, Any]:
        """One look, in milliseconds.

        Returns:
            "at_s" (since the first), "mhz" (of each core), "temperature_c" {zone: value}, "power_w" {rail: value},
            "energy_j" {package: counter of the processor since some moment}, "throttled" (names, None if not told),
            "resident_bytes".
        """
        state = self._machine.read()
        return {
            "at_s": round(time.monotonic() - self._begun_s, 3),
            "mhz": self._mhz(),
            "temperature_c": state.temperature_c,
            "power_w": state.power_w,
            "energy_j": self._energy_j(),
            "throttled": None if state.throttled is None else list(state.throttled),
            "resident_bytes": state.resident_bytes,
        }

    def _mhz(self) -> list[float]:
        files = self._root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")
        told = [read_text(file) or "" for file in sorted(files)]
        found = [int(khz) / 1000 for khz in told if khz.isdigit()]
        if found:
            return found
        text = read_text(self._root / "proc/cpuinfo", 1 << 20) or ""
        return [float(mhz) for mhz in re.findall(r"^cpu MHz\s*:\s*([\d.]+)", text, re.MULTILINE)]

    def _energy_j(self) -> dict[str, float]:
        found = {}
        for zone in sorted(self._root.glob("sys/class/powercap/intel-rapl:[0-9]*")):
            counter = read_text(zone / "energy_uj") or ""  # since Linux 5.10 only root may read it
            if zone.name.count(":") == 1 and counter.isdigit():
                found[f"{read_text(zone / 'name') or zone.name} {zone.name[-1]}"] = int(counter) / 1e6
        return found


def peak_bytes() -> int:
    """The most memory that this process ever had, that of a GPU left out."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def mean_watts(looks: list[dict[str, Any]]) -> dict[str, float]:
    """Mean power by rail over the looks of one pass; of a processor's counter, between the first and the last."""
    rails: dict[str, list[float]] = {}
    for look in looks:
        for rail, watts in look.get("power_w", {}).items():
            rails.setdefault(rail, []).append(watts)
    means = {rail: sum(watts) / len(watts) for rail, watts in rails.items()}
    if len(looks) > 1:
        first, last = looks[0], looks[-1]
        for package, joules in last.get("energy_j", {}).items():
            spent = joules - first.get("energy_j", {}).get(package, joules)
            if spent > 0 and last["at_s"] > first["at_s"]:  # less than 0: the counter began again
                means[package] = spent / (last["at_s"] - first["at_s"])
    return means


def _cpu(root: Path) -> str | None:
    text = read_text(root / "proc/cpuinfo", 1 << 20) or ""
    found = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", text, re.MULTILINE)
    if found:
        return found[1].strip()
    part = re.search(r"^CPU part\s*:\s*(\w+)$", text, re.MULTILINE)
    return f"Arm, part {part[1]}" if part else None


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=GIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None

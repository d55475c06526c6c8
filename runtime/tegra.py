"""A line of NVIDIA's `tegrastats`, for where sysfs is out of sight, as in some containers."""

from __future__ import annotations

import contextlib
import re
import select
import shutil
import subprocess
import time
from dataclasses import dataclass

TIMEOUT_S = 3.0
MAX_LINE = 8192

# cpu@52.5C, and from JetPack 7.2 on cpu@52.5C/53.0C with the highest so far
_TEMPERATURE = re.compile(r"(?<![\w@%])([A-Za-z]\w*)@(-?\d+(?:\.\d+)?)C(?![A-Za-z])")
# VDD_IN 4952mW/4952mW: now and on average (JetPack 5 and later); POM_5V_IN 2545/2547 before; the highest third in 7.2
_POWER = re.compile(r"(?<!\S)([A-Z][A-Z0-9_]+) (\d+)(?:mW)?/(\d+)(?:mW)?(?:/\d+mW)?(?=\s|$)")
# GR3D_FREQ 77%@918, 0%@[305,0]; Thor shows only @[1574,..] when it is idle
_GPU = re.compile(r"(?<!\S)GR3D_FREQ (\d+)%")
_MEMORY = re.compile(r"(?<!\S)RAM (\d+)/(\d+)MB")
_OFF_C = -200.0  # what a sensor of a part without power shows is -256


@dataclass(frozen=True)
class TegraState:
    """One line: degrees Celsius, watts, load of the GPU 0..1, memory in MiB; None where it says nothing."""

    temperature_c: dict[str, float]
    power_w: dict[str, float]
    gpu_load: float | None
    used_mib: int | None
    total_mib: int | None


def parse_tegrastats(line: str) -> TegraState | None:
    """Read a line of JetPack 4 to 7; None if it says nothing that is known."""
    line = line[:MAX_LINE]
    gpu, memory = _GPU.search(line), _MEMORY.search(line)
    celsius = {name: float(text) for name, text in _TEMPERATURE.findall(line)}
    state = TegraState(
        temperature_c={name: value for name, value in celsius.items() if value > _OFF_C and name != "PMIC"},
        power_w={
            name: int(now) / 1000
            for name, now, _ in _POWER.findall(line)
            if name not in ("RAM", "SWAP", "NC")
        },
        gpu_load=min(int(gpu[1]), 100) / 100 if gpu else None,
        used_mib=int(memory[1]) if memory else None,
        total_mib=int(memory[2]) if memory else None,
    )
    return state if celsius or state.power_w or gpu or memory else None


def read_tegrastats(command: str = "tegrastats", timeout_s: float = TIMEOUT_S) -> str | None:
    """The first line that the tool prints; None where it is not there or says nothing in time."""
    path = shutil.which(command)
    if path is None:
        return None
    try:
        process = subprocess.Popen(
            [path, "--interval", "200"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return None
    assert process.stdout is not None
    data, end_s = b"", time.monotonic() + timeout_s
    try:
        while b"\n" not in data and len(data) < MAX_LINE:
            ready, _, _ = select.select([process.stdout], [], [], max(end_s - time.monotonic(), 0))
            part = process.stdout.read1(MAX_LINE) if ready else b""  # type: ignore[attr-defined]
            if not part:
                return None
            data += part
    finally:
        process.kill()
        process.stdout.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
    return data.partition(b"\n")[0].decode("utf-8", "replace")

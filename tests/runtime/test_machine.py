"""Readings out of trees as the kernel shows them: a Jetson Orin, a laptop, a machine that tells nothing."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from tagclip.runtime.machine import Machine
from tagclip.runtime.tegra import parse_tegrastats, read_tegrastats


def write(root: Path, files: dict[str, object]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")


ORIN = {
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
    "sys/class/thermal/thermal_zone0/temp": 52562,
    "sys/class/thermal/thermal_zone1/type": "gpu-thermal",
    "sys/class/thermal/thermal_zone1/temp": 48437,
    "sys/class/thermal/thermal_zone2/type": "cv0-thermal",
    "sys/class/thermal/thermal_zone2/temp": -256000,  # without power
    "sys/class/thermal/thermal_zone10/type": "cpu-thermal",
    "sys/class/thermal/thermal_zone10/temp": 51000,
    "sys/class/thermal/thermal_zone3/type": "PMIC-Die",
    "sys/class/thermal/thermal_zone3/temp": 100000,  # always
    "sys/class/thermal/cooling_device0/type": "cpufreq-cpu0",
    "sys/class/thermal/cooling_device0/cur_state": 0,
    "sys/class/thermal/cooling_device1/type": "pwm-fan",
    "sys/class/thermal/cooling_device1/cur_state": 3,
    "sys/class/thermal/cooling_device2/type": "gpu-throttle-alert",
    "sys/class/thermal/cooling_device2/cur_state": 0,
    "sys/class/thermal/cooling_device3/type": "hot-surface-alert",
    "sys/class/thermal/cooling_device3/cur_state": 1,
    "sys/class/hwmon/hwmon0/name": "nvme",
    "sys/class/hwmon/hwmon0/in1_label": "core",
    "sys/class/hwmon/hwmon0/in1_input": 900,
    "sys/class/hwmon/hwmon0/curr1_input": 900,
    "sys/class/hwmon/hwmon1/name": "ina3221",
    "sys/class/hwmon/hwmon1/in1_label": "VDD_IN",
    "sys/class/hwmon/hwmon1/in1_input": 5064,
    "sys/class/hwmon/hwmon1/curr1_input": 1040,
    "sys/class/hwmon/hwmon1/in2_label": "VDD_CPU_GPU_CV",
    "sys/class/hwmon/hwmon1/in2_input": 5072,
    "sys/class/hwmon/hwmon1/curr2_input": 200,
    "sys/class/hwmon/hwmon1/in3_label": "NC",
    "sys/class/hwmon/hwmon1/in3_input": 5072,
    "sys/class/hwmon/hwmon1/curr3_input": 0,
    "sys/class/hwmon/hwmon1/in7_label": "sum of shunt voltages",
    "sys/class/hwmon/hwmon1/in7_input": 1,
    "sys/class/hwmon/hwmon2/name": "ina238",  # Thor's input
    "sys/class/hwmon/hwmon2/power1_input": 26_686_000,
    "sys/class/hwmon/hwmon3/name": "soctherm_oc",
    "sys/class/hwmon/hwmon3/oc1_event_cnt": 0,
    "sys/class/hwmon/hwmon3/oc3_event_cnt": 37,
    "sys/class/devfreq/17000000.gpu/device/load": 735,
    "var/lib/nvpmodel/status": "pmode:0002",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\nCPU 1\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >",
    "proc/self/statm": "200000 50000 1 1 0 1 0",
    "proc/meminfo": "MemTotal:        7802876 kB\nMemFree:  1 kB\nMemAvailable:    5120000 kB",
}


@pytest.fixture
def orin(tmp_path: Path) -> Path:
    write(tmp_path, ORIN)
    return tmp_path


def test_a_jetson_is_read(orin: Path) -> None:
    state = Machine(orin, tegrastats=None).read()
    assert state.temperature_c == {"cpu-thermal": 52.562, "gpu-thermal": 48.437, "cpu-thermal 2": 51.0}
    assert state.hottest_c == 52.562
    assert state.power_w == pytest.approx({"VDD_IN": 5.26656, "VDD_CPU_GPU_CV": 1.0144, "input": 26.686})
    assert (state.gpu_load, state.power_mode, state.throttled) == (0.735, "MAXN_SUPER", ())
    assert state.resident_bytes == 50000 * os.sysconf("SC_PAGE_SIZE")
    assert (state.available_bytes, state.total_bytes) == (5_120_000 * 1024, 7_802_876 * 1024)


def test_throttling_is_what_slows_not_what_cools(orin: Path) -> None:
    machine = Machine(orin, tegrastats=None)
    write(orin, {"sys/class/thermal/cooling_device0/cur_state": 2})
    assert machine.read().throttled == ("cpufreq-cpu0",)
    write(orin, {"sys/class/thermal/cooling_device2/cur_state": 1})
    assert machine.read().throttled == ("cpufreq-cpu0", "gpu-throttle-alert")
    write(orin, {f"sys/class/thermal/cooling_device{k}/cur_state": 0 for k in (0, 2)})
    assert machine.read().throttled == ()


def test_counters_tell_what_happened_between_two_looks(orin: Path) -> None:
    """What the count was before we began says nothing about now."""
    machine = Machine(orin, tegrastats=None)
    assert machine.read().throttled == ()
    write(orin, {"sys/class/hwmon/hwmon3/oc3_event_cnt": 39, "sys/class/hwmon/hwmon3/oc1_event_cnt": 1})
    assert machine.read().throttled == ("undervoltage (oc1)", "overcurrent, peak (oc3)")
    assert machine.read().throttled == ()
    assert machine.events() == {"undervoltage (oc1)": 1, "overcurrent, peak (oc3)": 39}


def test_a_laptop_counts_its_heat(tmp_path: Path) -> None:
    count = "sys/devices/system/cpu/cpu3/thermal_throttle/core_throttle_count"
    write(tmp_path, {count: 5})
    machine = Machine(tmp_path, tegrastats=None)
    write(tmp_path, {count: 6})
    assert machine.read().throttled == ("heat (core)",)


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    state = Machine(tmp_path, tegrastats=None).read()
    assert (state.temperature_c, state.power_w, state.hottest_c) == ({}, {}, None)
    assert {getattr(state, name) for name in ("gpu_load", "power_mode", "throttled", "total_bytes")} == {None}


def test_nonsense_is_unknown(orin: Path) -> None:
    """Sensors fail while they are read, and files hold what nobody expects."""
    write(
        orin,
        {
            "sys/class/thermal/thermal_zone0/temp": "nan",
            "sys/class/thermal/thermal_zone1/temp": "9" * 400,
            "sys/class/hwmon/hwmon1/curr1_input": "",
            "sys/class/devfreq/17000000.gpu/device/load": "busy",
            "var/lib/nvpmodel/status": "pmode:0007",
            "proc/self/statm": "x",
            "proc/meminfo": "MemTotal: lots",
        },
    )
    (orin / "sys/class/thermal/thermal_zone10/temp").unlink()
    (orin / "sys/class/thermal/thermal_zone10/temp").mkdir()
    state = Machine(orin, tegrastats=None).read()
    assert state.temperature_c == {}
    assert set(state.power_w) == {"VDD_CPU_GPU_CV", "input"}
    assert (state.gpu_load, state.power_mode, state.resident_bytes, state.total_bytes) == (
        None,
        "7",
        None,
        None,
    )


def test_this_machine() -> None:
    """Whatever it shows, nothing fails, and its memory is known."""
    state = Machine().read()
    assert state.resident_bytes is not None and 10e6 < state.resident_bytes < 100e9
    assert state.total_bytes is not None and state.available_bytes is not None
    assert 0 < state.available_bytes <= state.total_bytes


# One line of each form; the numbers are those of public reports.
NANO = (  # JetPack 4
    "RAM 1766/3964MB (lfb 197x4MB) SWAP 0/2048MB (cached 0MB) CPU [24%@1224,15%@1224,off,off] EMC_FREQ 0% "
    "GR3D_FREQ 12% PLL@21C CPU@25C PMIC@100C GPU@23.5C AO@33.5C thermal@24.5C POM_5V_IN 2545/2547 POM_5V_GPU 0/0"
)
XAVIER = (  # JetPack 5
    "07-09-2024 13:31:31 RAM 3168/6851MB (lfb 2x4MB) SWAP 161/3426MB (cached 0MB) CPU [23%@1397,10%@1190] "
    "EMC_FREQ 2%@204 GR3D_FREQ 0%@[114] VIC_FREQ 115 APE 150 AUX@45C CPU@46.5C PMIC@50C VDD_IN 2763mW/2846mW "
    "VDD_CPU_GPU_CV 650mW/670mW"
)
ORIN_LINE = (  # JetPack 6
    "05-09-2026 18:42:06 RAM 18207/62841MB (lfb 466x4MB) CPU [14%@2188,5%@2112] EMC_FREQ 3%@2133 "
    "GR3D_FREQ 99%@[611,0] NVENC 79%@166 NVDEC off APE 174 CV0@-256C cpu@52.562C tj@52.562C "
    "VDD_GPU_SOC 2412mW/2412mW NC 0mW/0mW VIN_SYS_5V0 4025mW/4025mW"
)
THOR = (  # JetPack 7
    "08-08-2026 20:58:23 RAM 3429/125749MB (lfb 120x4MB) CPU [0%,5%,off]@2601 EMC_FREQ @4266 "
    "GR3D_FREQ @[1574,1574,1574] cpu@49.75C/49.75C gpu@51.218C/52.5C VDD_GPU 6330mW/6330mW/6330mW "
    "VIN 28906mW/14453mW/30000mW"
)


@pytest.mark.parametrize(
    ("line", "temperatures", "powers", "gpu", "memory"),
    [
        (
            NANO,
            {"PLL": 21, "CPU": 25, "GPU": 23.5, "AO": 33.5, "thermal": 24.5},
            {"POM_5V_IN": 2.545, "POM_5V_GPU": 0},
            0.12,
            (1766, 3964),
        ),
        (XAVIER, {"AUX": 45, "CPU": 46.5}, {"VDD_IN": 2.763, "VDD_CPU_GPU_CV": 0.65}, 0, (3168, 6851)),
        (
            ORIN_LINE,
            {"cpu": 52.562, "tj": 52.562},
            {"VDD_GPU_SOC": 2.412, "VIN_SYS_5V0": 4.025},
            0.99,
            (18207, 62841),
        ),
        (THOR, {"cpu": 49.75, "gpu": 51.218}, {"VDD_GPU": 6.33, "VIN": 28.906}, None, (3429, 125749)),
    ],
    ids=["jetpack4", "jetpack5", "jetpack6", "jetpack7"],
)
def test_tegrastats_of_every_jetpack(
    line: str, temperatures: dict, powers: dict, gpu: float, memory: tuple
) -> None:
    state = parse_tegrastats(line)
    assert state is not None
    assert (state.temperature_c, state.power_w, state.gpu_load) == (temperatures, powers, gpu)
    assert (state.used_mib, state.total_mib) == memory


@pytest.mark.parametrize("line", ["", "tegrastats: command not found", "RAM / CPU [] GR3D_FREQ %", "\0" * 99])
def test_tegrastats_nonsense(line: str) -> None:
    assert parse_tegrastats(line) is None


def tool(folder: Path, script: str) -> str:
    path = folder / "tegrastats"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_tegrastats_is_asked_where_sysfs_shows_nothing(tmp_path: Path, orin: Path) -> None:
    asked = tool(tmp_path, f"while :; do echo '{ORIN_LINE}'; sleep 0.2; done")
    empty = tmp_path / "empty"
    empty.mkdir()
    state = Machine(empty, tegrastats=asked).read()
    assert (state.temperature_c["tj"], state.power_w["VDD_GPU_SOC"], state.gpu_load) == (52.562, 2.412, 0.99)
    assert "tj" not in Machine(orin, tegrastats=asked).read().temperature_c


def test_a_tool_that_hangs_or_fails_costs_little(tmp_path: Path) -> None:
    began_s = time.monotonic()
    assert read_tegrastats(tool(tmp_path, "exec sleep 600"), timeout_s=0.2) is None
    assert read_tegrastats(tool(tmp_path, "printf 'no end of line'; exec sleep 600"), timeout_s=0.2) is None
    assert read_tegrastats(tool(tmp_path, "exit 3")) is None
    assert read_tegrastats(str(tmp_path / "absent")) is None
    assert time.monotonic() - began_s < 30

"""The doctor: on this machine, and on trees and commands of machines that are not well."""

from __future__ import annotations

import json
import os
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

from tagclip.runtime import cli, doctor, doctor_machine
from tagclip.runtime.bundle import Bundle
from tagclip.runtime.doctor import OK, PROBLEM, WARNING, Check
from tagclip.runtime.doctor_cli import doctor as command
from tagclip.runtime.store import TrackStore

Run = Callable[..., tuple[int, str, str]]
LONG_S = 300.0  # only a broken test waits for it


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that does much else at a time, an import may take minutes."""
    monkeypatch.setattr(doctor, "IMPORT_S", LONG_S)
    monkeypatch.setattr(doctor, "SELF_TEST_S", LONG_S)


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `tagclip doctor`: (status, stdout, stderr)."""

    def tell(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            cli.run(command, "doctor", [str(argument) for argument in arguments])
        return stopped.value.code, *capsys.readouterr()  # type: ignore[return-value]

    return tell


def write(root: Path, files: dict[str, object]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


def only(checks: list[Check], name: str) -> Check:
    (found,) = (check for check in checks if check.name == name)
    return found


def test_this_machine(tell: Run, tiny_bundle: Bundle, tmp_path: Path) -> None:
    status, out, err = tell("--bundle", tiny_bundle.path, "--store", tmp_path / "north.db", "--json")
    told = json.loads(out)
    rows = {row["name"]: row for row in told["checks"]}
    assert err == ""
    assert {
        "python",
        "tagclip",
        "onnxruntime",
        "gpu",
        "tensorrt",
        "opencv",
        "heat",
        "memory",
        "clock",
    } <= set(rows)
    for tower in ("image-aerial", "image-ground", "text"):
        row = rows[f"self-test {tower}"]
        assert (
            row["state"] == OK and float(row["found"].split()[1]) >= 0.999 and row["found"].endswith("on cpu")
        )
    assert rows["bundle"]["found"].startswith("toy, encoder ")
    assert rows["opencv"]["found"].startswith(cv2.__version__)
    for state, count in ((PROBLEM, told["problems"]), (WARNING, told["warnings"])):
        assert count == sum(row["state"] == state for row in told["checks"])
    assert status == (1 if told["problems"] else 0)
    assert all(row["advice"] for row in told["checks"] if row["state"] != OK)
    assert not list(tmp_path.iterdir())  # nothing is left behind


def test_a_damaged_bundle_is_a_problem(tell: Run, tiny_bundle: Bundle, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(tiny_bundle.path, damaged)
    (damaged / "text.onnx").write_bytes(b"x" * (damaged / "text.onnx").stat().st_size)
    status, out, _ = tell("--bundle", damaged)
    assert status == 1
    (row,) = (line for line in out.splitlines() if line.startswith("problem  bundle"))
    assert "text.onnx" in row
    assert "1 problems" in out.splitlines()[-1] or "2 problems" in out.splitlines()[-1]


def test_a_provider_that_is_not_there_is_a_problem(tiny_bundle: Bundle) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    row = only(doctor.check_bundle(tiny_bundle.path, "cuda"), "self-test")
    assert row.state == PROBLEM and "cuda was asked for" in row.found and row.advice


def test_a_check_that_fails_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[Check]:
        raise RuntimeError("two\nlines")

    for name in ("check_onnxruntime", "check_opencv", "check_gpu", "check_tensorrt", "check_bundle"):
        monkeypatch.setattr(doctor, name, lambda *_: [])
    monkeypatch.setattr(doctor, "check_python", broken)
    checks = list(doctor.examine())
    assert checks[0] == Check(
        "python", PROBLEM, "the check itself failed: RuntimeError: two lines", "report this line"
    )
    assert len(checks) > 3


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("print('noise')\nprint('{\"a\": 1}')", {"a": 1}),
        ("import no_such_library", "No module named 'no_such_library'"),
        ("raise ValueError('first\\nlast line')", "last line"),
        (
            "import os\nos.kill(os.getpid(), 4)",
            "ends its process with SIGILL: built for another processor, or damaged",
        ),
        ("raise SystemExit(3)", "exit status 3"),
        ("import time\ntime.sleep(600)", "no answer in 0.5 s"),
    ],
)
def test_libraries_are_asked_in_a_process_of_their_own(code: str, told: object) -> None:
    assert doctor.ask_python(code, timeout_s=0.5 if "sleep" in code else LONG_S) == told


def test_a_file_here_does_not_stand_in_for_a_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cv2.py").write_text("raise SystemError('the wrong one')")
    monkeypatch.chdir(tmp_path)
    assert doctor.check_opencv()[0].state == OK


def test_a_command_that_hangs_or_is_not_there() -> None:
    began_s = time.monotonic()
    assert doctor.run(["sleep", "600"], timeout_s=0.2) == (None, "", "")
    assert doctor.run(["no-such-command"])[0] == 127
    assert time.monotonic() - began_s < LONG_S


def test_what_opencv_can_read() -> None:
    """Against what it does: FFmpeg opens the clip that ships."""
    (row,) = doctor.check_opencv()
    capture = cv2.VideoCapture(str(Path(doctor.__file__).parent / "data" / "example.mp4"), cv2.CAP_FFMPEG)
    assert ("FFmpeg yes" in row.found) == capture.isOpened()
    capture.release()


@pytest.mark.parametrize(
    ("lacks", "state", "says"),
    [("", OK, ""), ("CAP_FFMPEG", PROBLEM, "no RTSP camera"), ("CAP_V4L2", WARNING, "no USB camera")],
)
def test_an_opencv_that_lacks_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacks: str, state: str, says: str
) -> None:
    """Another build of the library stands first in the path of its process."""
    (tmp_path / "cv2.py").write_text(
        "__version__ = '4.9'\nCAP_FFMPEG, CAP_V4L2 = 'CAP_FFMPEG', 'CAP_V4L2'\n"
        f"class videoio_registry:\n    hasBackend = staticmethod(lambda name: name != {lacks!r})\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (row,) = doctor.check_opencv()
    assert row.state == state and says in row.advice


R36 = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8"


def commands(folder: Path, monkeypatch: pytest.MonkeyPatch, scripts: dict[str, str]) -> None:
    """Make these the only commands that there are."""
    folder.mkdir()
    for name, script in scripts.items():
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder))


def jetson(root: Path, **files: object) -> list[Check]:
    return doctor_machine.check_jetson(write(root, {"etc/nv_tegra_release": R36, **files}))


def test_other_machines_have_no_jetson_rows(tmp_path: Path) -> None:
    assert doctor_machine.check_jetson(tmp_path) == []
    assert doctor_machine.l4t_release(tmp_path) is None


@pytest.mark.parametrize(
    ("release", "found", "state"),
    [
        (R36, "L4T 36.4.3, JetPack 6", OK),
        ("# R39 (release), REVISION: 2.0, GCID: 1", "L4T 39.2.0, JetPack 7", OK),
        ("# R35 (release), REVISION: 4.1, GCID: 1", "L4T 35.4.1, JetPack 5", PROBLEM),
        ("# R41 (release), REVISION: 1.0, GCID: 1", "L4T 41.1.0", OK),  # of the future
    ],
)
def test_jetpack(tmp_path: Path, release: str, found: str, state: str) -> None:
    row = only(doctor_machine.check_jetson(write(tmp_path, {"etc/nv_tegra_release": release})), "jetpack")
    assert (row.found, row.state) == (found, state)


@pytest.mark.parametrize(
    ("scripts", "state", "says"),
    [
        ({}, WARNING, "gst-inspect-1.0 is not there"),
        ({"gst-inspect-1.0": "exit 1"}, WARNING, "nvv4l2decoder, nvvidconv, nvarguscamerasrc"),
        ({"gst-inspect-1.0": '[ "$1" != nvarguscamerasrc ]'}, WARNING, "does not have nvarguscamerasrc"),
        ({"gst-inspect-1.0": "exit 0"}, PROBLEM, "it will deliver no frames"),  # no lsmod
        ({"gst-inspect-1.0": "exit 0", "lsmod": "exit 0"}, OK, "nvv4l2decoder"),
    ],
)
def test_the_hardware_decoder_and_its_trap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scripts: dict[str, str], state: str, says: str
) -> None:
    commands(tmp_path / "bin", monkeypatch, scripts)
    row = only(jetson(tmp_path), "decoder")
    assert row.state == state and says in row.found
    assert (row.advice == "apt install kmod") == (state == PROBLEM)


def test_power_mode_and_a_weak_supply(tmp_path: Path) -> None:
    assert only(jetson(tmp_path), "power mode").found == "unknown"
    files = {
        "var/lib/nvpmodel/status": "pmode:0001",
        "etc/nvpmodel.conf": "< POWER_MODEL ID=1 NAME=25W >",
        "sys/class/hwmon/hwmon3/oc1_event_cnt": 4,
    }
    checks = jetson(tmp_path, **files)
    assert only(checks, "power mode").found == "25W"
    supply = only(checks, "supply")
    assert (supply.state, supply.found) == (WARNING, "since the start: undervoltage (oc1) 4 times")


def test_heat(tmp_path: Path) -> None:
    zone, device = "sys/class/thermal/thermal_zone0", "sys/class/thermal/cooling_device0"
    write(tmp_path, {f"{zone}/type": "cpu", f"{zone}/temp": 91500})
    assert doctor_machine.check_heat(tmp_path) == [Check("heat", OK, "92 C at most")]
    write(tmp_path, {f"{device}/type": "cpufreq-cpu0", f"{device}/cur_state": 1})
    (row,) = doctor_machine.check_heat(tmp_path)
    assert (row.state, row.found) == (WARNING, "92 C at most; slowed down: cpufreq-cpu0")


@pytest.mark.parametrize(("free_kib", "state"), [(4_000_000, OK), (400_000, WARNING), (100_000, PROBLEM)])
def test_memory(tmp_path: Path, free_kib: int, state: str) -> None:
    write(tmp_path, {"proc/meminfo": f"MemTotal:  7802876 kB\nMemAvailable:  {free_kib} kB"})
    assert doctor_machine.check_memory(tmp_path)[0].state == state


MOUNTS = r"""
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
25 24 0:23 / /data rw - ext4 /dev/sda1 rw
26 25 0:24 / /data/on\040ram rw - tmpfs tmpfs rw
28 25 0:25 / /data/north rw - vfat /dev/sdb1 rw
29 25 0:26 / /data/north rw,nobarrier shared:1 - xfs /dev/sdc1 rw,barrier=0
broken line
"""


@pytest.mark.parametrize(
    ("path", "kind", "option"),
    [
        ("/data/on ram/x", "tmpfs", "rw"),
        ("/data/on ramp", "ext4", "rw"),  # no part of the path above
        ("/data/north", "xfs", "barrier=0"),  # mounted over the other
        ("/home", "ext4", "discard"),
    ],
)
def test_the_file_system_of_a_folder(tmp_path: Path, path: str, kind: str, option: str) -> None:
    write(tmp_path, {"proc/self/mountinfo": MOUNTS})
    found = doctor_machine.filesystem(Path(path), tmp_path)
    assert found[0] == kind and option in found[1]
    assert doctor_machine.filesystem(Path(path), tmp_path / "absent") == (None, ())


@pytest.mark.parametrize(
    ("mount", "state", "says"),
    [
        ("rw - ext4 /dev/sda1 rw", OK, ""),
        ("rw - tmpfs tmpfs rw", PROBLEM, "gone when power goes"),
        ("rw - nfs4 host:/x rw", PROBLEM, "on another machine"),
        ("rw - overlay overlay rw", WARNING, "mount a volume"),
        ("rw - exfat /dev/sdb1 rw", WARNING, "use ext4"),
        ("rw,nobarrier - ext4 /dev/sda1 rw", PROBLEM, "write barriers"),
    ],
)
def test_where_people_are_kept(tmp_path: Path, mount: str, state: str, says: str) -> None:
    write(tmp_path, {"proc/self/mountinfo": f"1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 8:2 / {tmp_path} {mount}"})
    (row,) = doctor_machine.check_store(tmp_path / "north.db", tmp_path)
    if row.state == WARNING and state == OK:
        assert shutil.disk_usage(tmp_path).free < doctor_machine.LITTLE_DISK_BYTES
        return
    assert row.state == state and says in row.advice


def test_a_real_folder_in_memory() -> None:
    if doctor_machine.filesystem(Path("/dev/shm"))[0] != "tmpfs":
        pytest.skip("/dev/shm is no tmpfs here")
    (row,) = doctor_machine.check_store(Path("/dev/shm/north.db"), Path("/"))
    assert row.state == PROBLEM and "on tmpfs" in row.found


def test_stores_that_cannot_be_used(tmp_path: Path) -> None:
    (row,) = doctor_machine.check_store(tmp_path / "absent" / "north.db", Path("/"))
    assert (row.state, row.advice) == (PROBLEM, f"mkdir -p {tmp_path / 'absent'}")
    (row,) = doctor_machine.check_store(Path("/proc/north.db"), Path("/"))  # not even root can
    assert row.state == PROBLEM and "cannot be written to" in row.found
    (tmp_path / "letter.db").write_text("dear all")
    rows = doctor_machine.check_store(tmp_path / "letter.db", Path("/"))
    assert rows[0].state == PROBLEM and rows[0].found.endswith("is no store of tagclip")
    with TrackStore(tmp_path / "north.db"):
        pass
    assert all(row.state != PROBLEM for row in doctor_machine.check_store(tmp_path / "north.db", tmp_path))


def test_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = doctor_machine.check_clock()
    synchronised = doctor_machine.clock_synchronised()
    assert row.state == (OK if synchronised else WARNING)
    status, output, _ = doctor.run(["timedatectl", "show", "--property=NTPSynchronized", "--value"])
    if status == 0 and synchronised is not None:
        assert (output.strip() == "yes") == synchronised
    monkeypatch.setattr(time, "time", lambda: 86_400.0)  # a device without a battery begins in 1970
    (row,) = doctor_machine.check_clock()
    assert (row.state, row.found) == (PROBLEM, "1970-01-02T00:00:00Z: it was never set")


def test_cameras(tmp_path: Path) -> None:
    assert doctor_machine.check_cameras(tmp_path)[0].state == OK
    (tmp_path / "dev").mkdir()
    for name in ("video0", "video2", "video10", "videoz"):
        (tmp_path / "dev" / name).touch()
    row = doctor_machine.check_cameras(tmp_path)[0]
    assert (row.state, row.found) == (OK, "/dev/video0, /dev/video2, /dev/video10")
    (tmp_path / "dev" / "video2").unlink()
    os.symlink("nowhere", tmp_path / "dev" / "video2")  # may not be read, not even by root
    row = doctor_machine.check_cameras(tmp_path)[0]
    assert row.state == PROBLEM and row.found.endswith("not for this user: video2")

"""The checks of `tagclip doctor` that concern the machine: Jetson, heat, memory, disk, clock, cameras."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import tempfile
import time
from pathlib import Path

from tagclip.runtime.doctor import OK, PROBLEM, WARNING, Check, run
from tagclip.runtime.errors import one_line
from tagclip.runtime.machine import Machine, read_text

OLDEST_CLOCK_S = 1_735_689_600.0  # 2025: no clock that was ever set is before it
LITTLE_BYTES, TOO_LITTLE_BYTES = 500_000_000, 150_000_000  # of memory that is left
LITTLE_DISK_BYTES = 1_000_000_000
TIME_ERROR = 5  # what adjtimex(2) returns for a clock that nobody sets

# What is kept there is gone, or may be torn, when power goes; or SQLite's shared memory does not work there.
_FILESYSTEMS = {
    "tmpfs ramfs": (PROBLEM, "lies in memory and is gone when power goes; name a folder on a disk"),
    "nfs nfs4 cifs smb3 9p ceph afs fuse.sshfs fuse.glusterfs": (
        PROBLEM,
        "lies on another machine, where SQLite's log does not work; name a folder on a disk of this one",
    ),
    "overlay aufs": (WARNING, "goes with the container, or at the next start; mount a volume for it"),
    "vfat msdos exfat ntfs ntfs3 fuseblk": (
        WARNING,
        "keeps neither owners nor a journal: everybody may read it, and power cuts damage it; use ext4",
    ),
}
_NO_BARRIERS = {"nobarrier", "barrier=0"}


def l4t_release(root: Path) -> tuple[int, str] | None:
    """Major number and name of a Jetson's Linux, such as (36, "36.4.3"); None elsewhere."""
    text = read_text(root / "etc/nv_tegra_release") or ""
    found = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", text)
    return (int(found[1]), f"{found[1]}.{found[2]}") if found else None


def check_jetson(root: Path) -> list[Check]:
    """JetPack, the hardware decoder and its traps, the power mode, the supply. No rows on other machines."""
    release = l4t_release(root)
    if release is None:
        return []
    major, name = release
    jetpack = {32: 4, 34: 5, 35: 5, 36: 6, 38: 7, 39: 7}.get(major)
    found = f"L4T {name}" + (f", JetPack {jetpack}" if jetpack else "")
    old = major < 36
    rows = [Check("jetpack", PROBLEM if old else OK, found, "update to JetPack 6 or later" if old else "")]
    rows += _decoder()
    machine = Machine(root, tegrastats=None)
    mode = machine.read().power_mode
    rows.append(Check("power mode", OK, mode or "unknown"))
    events = machine.events()
    if events:
        told = ", ".join(f"{kind} {count} times" for kind, count in events.items())
        advice = "the supply sags, so clocks are cut: a stronger one, a shorter cable, or a lower power mode"
        rows.append(Check("supply", WARNING, f"since the start: {told}", advice))
    return rows


def _decoder() -> list[Check]:
    if shutil.which("gst-inspect-1.0") is None:
        advice = "apt install gstreamer1.0-tools, then ask again; needed only for CSI cameras and the decoder"
        return [Check("decoder", WARNING, "gst-inspect-1.0 is not there, so GStreamer is unknown", advice)]
    missing = [
        element
        for element in ("nvv4l2decoder", "nvvidconv", "nvarguscamerasrc")
        if run(["gst-inspect-1.0", element])[0] != 0
    ]
    if missing:
        advice = "apt install nvidia-l4t-gstreamer; in a container start it with --runtime nvidia"
        return [Check("decoder", WARNING, f"GStreamer does not have {', '.join(missing)}", advice)]
    if shutil.which("lsmod") is None:
        # The plugin asks lsmod which driver is loaded. Without an answer it delivers nothing, and no error either.
        found = "nvv4l2decoder is there, lsmod is not: it will deliver no frames, for ever and without a word"
        return [Check("decoder", PROBLEM, found, "apt install kmod")]
    return [Check("decoder", OK, "nvv4l2decoder, nvvidconv, nvarguscamerasrc")]


def check_heat(root: Path) -> list[Check]:
    """The hottest place, and whether the machine slows itself down."""
    state = Machine(root).read()
    hot = f"{state.hottest_c:.0f} C at most" if state.hottest_c is not None else "no thermometer"
    if state.throttled:
        advice = "cool it, or choose a lower power mode"
        return [Check("heat", WARNING, f"{hot}; slowed down: {', '.join(state.throttled)}", advice)]
    return [Check("heat", OK, hot + ("" if state.throttled is None else ", nothing slowed down"))]


def check_memory(root: Path) -> list[Check]:
    """What is left."""
    state = Machine(root, tegrastats=None).read()
    if state.available_bytes is None or state.total_bytes is None:
        return [Check("memory", WARNING, "unknown", "mount /proc")]
    found = f"{state.available_bytes / 1e9:.1f} of {state.total_bytes / 1e9:.1f} GB are free"
    if state.available_bytes < LITTLE_BYTES:
        worse = PROBLEM if state.available_bytes < TOO_LITTLE_BYTES else WARNING
        return [Check("memory", worse, found, "end other programs; on a Jetson also the desktop")]
    return [Check("memory", OK, found)]


def check_store(store: Path | None, root: Path) -> list[Check]:
    """Whether what is kept at `store` is still there tomorrow: its folder can be written to, and the disk is one."""
    folder = (store.parent if store else Path()).resolve()
    name = "store" if store else "folder"
    if not folder.is_dir():
        return [Check(name, PROBLEM, f"{folder} does not exist", f"mkdir -p {folder}")]
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".tagclip-doctor-") as file:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        found = f"{folder} cannot be written to: {error.strerror or error}"
        return [Check(name, PROBLEM, found, "change its owner, mount it for writing, or name another")]
    rows = []
    if store and store.exists():
        rows += _existing(store)
    kind, options = filesystem(folder, root)
    free = shutil.disk_usage(folder).free
    found = f"{folder}: {free / 1e9:.1f} GB free on {kind or 'an unknown file system'}"
    state, advice = OK, ""
    for kinds, (worse, why) in _FILESYSTEMS.items():
        if kind in kinds.split():
            state, advice = worse, f"what is kept here {why}"
    if _NO_BARRIERS & set(options):
        state, advice = (
            PROBLEM,
            "mounted without write barriers, so a power cut loses what was kept; take that option out",
        )
    if free < LITTLE_DISK_BYTES and state == OK:
        state, advice = WARNING, "the oldest people make room when it is full; free some, or lower --max-gb"
    return [*rows, Check(name, state, found, advice)]


def _existing(store: Path) -> list[Check]:
    from tagclip.runtime.store_form import is_store

    if not os.access(store, os.R_OK | os.W_OK):
        return [
            Check("store", PROBLEM, f"{store} may not be read and written", "run as the user that owns it")
        ]
    if not is_store(store):
        return [Check("store", PROBLEM, f"{store} is no store of tagclip", "name another file")]
    return []


def filesystem(path: Path, root: Path = Path("/")) -> tuple[str | None, tuple[str, ...]]:
    """Kind and options of the file system that `path` lies on, such as ("ext4", ("rw", "relatime"))."""
    best = -1
    found: tuple[str | None, tuple[str, ...]] = (None, ())
    for line in (read_text(root / "proc/self/mountinfo", 1 << 20) or "").splitlines():
        place, dash, device = line.partition(" - ")
        fields, more = place.split(), device.split()
        if not dash or len(fields) < 6 or len(more) < 3:
            continue
        mount = Path(re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), fields[4]))
        if (path == mount or mount in path.parents) and len(
            mount.parts
        ) >= best:  # a later one hides an earlier one
            best = len(mount.parts)
            found = more[0], tuple(f"{fields[5]},{more[2]}".split(","))
    return found


def check_clock() -> list[Check]:
    """Whether the clock is right: people are kept with their times, and searched by them."""
    now_s, advice = (
        time.time(),
        "set up timesyncd or chrony; without a network a GPS or a battery-backed clock",
    )
    shown = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now_s))
    if now_s < OLDEST_CLOCK_S:
        return [Check("clock", PROBLEM, f"{shown}: it was never set", advice)]
    synchronised = clock_synchronised()
    if synchronised:
        return [Check("clock", OK, f"{shown}, synchronised")]
    found = "nobody sets it" if synchronised is False else "whether somebody sets it is unknown"
    return [Check("clock", WARNING, f"{shown}, {found}", advice)]


def clock_synchronised() -> bool | None:
    """Whether the kernel holds its clock for right; None where it may not be asked."""
    try:
        # Of zeros, so that nothing is changed: only the return value is of interest.
        returned = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(512))
    except (OSError, AttributeError):
        returned = -1
    if returned >= 0:
        return bool(returned != TIME_ERROR)
    status, output, _ = run(["timedatectl", "show", "--property=NTPSynchronized", "--value"])
    return output.strip() == "yes" if status == 0 else None


def check_cameras(root: Path) -> list[Check]:
    """USB and CSI cameras, and whether this user may read them. No camera is no problem: files and RTSP need none."""
    devices = sorted((root / "dev").glob("video[0-9]*"), key=lambda path: (len(path.name), path.name))
    if not devices:
        return [Check("cameras", OK, "no /dev/video*; files and RTSP cameras need none")]
    closed = [path.name for path in devices if not os.access(path, os.R_OK | os.W_OK)]
    names = ", ".join(f"/dev/{path.name}" for path in devices)
    if closed:
        found = one_line(f"{names}; not for this user: {', '.join(closed)}")
        return [Check("cameras", PROBLEM, found, "usermod -aG video USER, then log in anew")]
    return [Check("cameras", OK, names)]

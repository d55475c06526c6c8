"""Nothing that was acknowledged is lost or torn: the writer is killed, its disk loses power, or is full.

A power cut is a real loss of what the kernel had not yet written: the store lies on an ext4 in a file, whose file
system is shut down without flushing its log (the ioctl of xfstests' godown), then mounted again. Root and a loop
device are needed. How often is set by TAGCLIP_KILLS and TAGCLIP_POWER_CUTS:

    TAGCLIP_KILLS=1000 TAGCLIP_POWER_CUTS=300 python -m pytest tests/runtime/test_store_power.py
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tagclip.runtime.errors import StoreFullError
from tagclip.runtime.store import BALLAST_BYTES, TrackStore

WRITER = Path(__file__).parent / "store_writer.py"
KILLS = int(os.environ.get("TAGCLIP_KILLS", "12"))
POWER_CUTS = int(os.environ.get("TAGCLIP_POWER_CUTS", "6"))
EXT4_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, u32)
NO_LOG_FLUSH = (2).to_bytes(4, "little")
pytestmark = pytest.mark.slow

spec = importlib.util.spec_from_file_location("store_writer", WRITER)
assert spec and spec.loader
writer = importlib.util.module_from_spec(spec)
spec.loader.exec_module(writer)


class Child:
    """A writer, and the numbers that it acknowledged, with the time of each by the clock that all processes share."""

    def __init__(self, path: Path, first: int, *more: str) -> None:
        command = [sys.executable, str(WRITER), str(path), str(first), *more]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.acknowledged: dict[int, int] = {}
        self.ready = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        assert self.ready.wait(60), "the writer did not start"

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            if line == "ready\n":
                self.ready.set()
            elif line.endswith("\n"):  # half a line is no acknowledgement
                number, at_ns = map(int, line.split())
                self.acknowledged[number] = at_ns

    def kill(self) -> dict[int, int]:
        """SIGKILL; what was acknowledged by then, and when."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self._reader.join()
        assert self.process.stdout
        self.process.stdout.close()
        return self.acknowledged


def missing(path: Path, acknowledged: set[int]) -> set[int]:
    """Which acknowledged tracks are not in the store as they were; the store must be sound."""
    with TrackStore(path) as store:
        assert store._db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        found = store.get(store.keys())
        pictures = store.thumbnails(found)
        whole = set()
        for key, track in found.items():
            wanted = writer.track(track.frame)
            assert (track.id, track.start_s, track.box_xywh_px) == (
                wanted.id,
                wanted.start_s,
                wanted.box_xywh_px,
            )
            assert track.vector.tolist() == wanted.vector.astype("float32").astype("float16").tolist()
            assert pictures[key] == writer.THUMBNAIL
            whole.add(track.frame)
        return acknowledged - whole


def test_a_killed_writer_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    rng = random.Random(1)
    acknowledged: set[int] = set()
    for number in range(KILLS):
        child = Child(tmp_path / "s.db", 1_000_000 * (number + 1))
        threading.Event().wait(rng.uniform(0, 0.15))
        acknowledged |= set(child.kill())
        if number % 20 == 19 or number == KILLS - 1:
            assert missing(tmp_path / "s.db", acknowledged) == set()
    assert len(acknowledged) > KILLS


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Where an ext4 of 64 MB of its own is mounted."""
    image, place = tmp_path / "disk.img", tmp_path / "disk"
    place.mkdir()
    image.write_bytes(b"")
    os.truncate(image, 64 << 20)
    try:
        subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True, capture_output=True)
        mount(image, place)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    yield place
    subprocess.run(["umount", str(place)], check=False)


def mount(image: Path, place: Path) -> None:
    subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True, capture_output=True)


def cut_power(place: Path) -> None:
    handle = os.open(place, os.O_RDONLY)
    try:
        fcntl.ioctl(handle, EXT4_IOC_SHUTDOWN, NO_LOG_FLUSH)
    except OSError as error:
        pytest.skip(f"the file system cannot be shut down here: {error}")
    finally:
        os.close(handle)


def lost_by_power_cuts(disk: Path, cuts: int, *more: str) -> tuple[int, int]:
    """How many acknowledged tracks were lost, and how many there were."""
    rng = random.Random(2)
    acknowledged: set[int] = set()
    lost: set[int] = set()
    for number in range(cuts):
        child = Child(disk / "s.db", 1_000_000 * (number + 1), *more)
        threading.Event().wait(rng.uniform(0.05, 0.3))
        began_ns = time.monotonic_ns()
        cut_power(disk)
        # The call takes milliseconds, and a commit that is under way meanwhile may be told that it is on the disk. When
        # power is cut nothing runs on to hear it: acknowledged is what the writer knew before.
        acknowledged |= {number for number, at_ns in child.kill().items() if at_ns < began_ns}
        subprocess.run(["umount", str(disk)], check=True)
        mount(disk.parent / "disk.img", disk)
        lost |= missing(disk / "s.db", acknowledged)
        if number % 10 == 9:  # the disk is small
            (disk / "s.db").unlink()
            acknowledged.clear()
    return len(lost), 1_000_000 if not acknowledged and not lost else len(acknowledged)


def test_a_power_cut_loses_nothing_that_was_acknowledged(disk: Path) -> None:
    lost, count = lost_by_power_cuts(disk, POWER_CUTS)
    assert lost == 0 and count > 0


def test_the_power_cuts_would_lose_what_is_not_synchronous(disk: Path) -> None:
    """The control: with synchronous=NORMAL, acknowledged tracks are lost by the very same cuts."""
    lost, _ = lost_by_power_cuts(disk, max(POWER_CUTS // 2, 3), "NORMAL")
    assert lost > 0


def test_a_full_disk_keeps_the_newest_and_stays_sound(disk: Path) -> None:
    """Its quota is larger than the disk: the ballast gives room to delete."""
    with TrackStore(disk / "s.db") as store:
        assert (disk / "s.db.ballast").stat().st_size == BALLAST_BYTES
        for number in range(9000):
            store.add([(writer.track(number), writer.THUMBNAIL)])
        frames = [t.frame for t in store.get(store.keys()).values()]
        assert store.dropped > 1000 and frames == list(range(9000 - len(frames), 9000)) and len(frames) > 1000
        assert store._db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_disk_that_others_filled_is_named(disk: Path) -> None:
    with TrackStore(disk / "s.db") as store:
        store.add([(writer.track(1), writer.THUMBNAIL)])
        (disk / "s.db.ballast").unlink()
        with (disk / "others").open("wb") as other:
            try:
                while True:
                    os.write(other.fileno(), bytes(1 << 16))
            except OSError:
                pass
        with pytest.raises(StoreFullError, match="is full; free room, or allow more"):
            for number in range(2, 4000):
                store.add([(writer.track(number), writer.THUMBNAIL)])
        (disk / "others").unlink()
        store.add([(writer.track(5000), writer.THUMBNAIL)])
        assert store._db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

"""Nothing that was acknowledged is lost or torn: the writer is killed, its disk loses power, or is full.

Power cuts need root and a loop device (tests/chaos/disk.py). How often is set by TAGCLIP_KILLS and TAGCLIP_POWER_CUTS:

    TAGCLIP_KILLS=1000 TAGCLIP_POWER_CUTS=300 python -m pytest tests/runtime/test_store_power.py
"""

from __future__ import annotations

import importlib.util
import os
import random
import time
from pathlib import Path

import pytest
from chaos.child import Child
from chaos.disk import Disk

from tagclip.runtime.errors import StoreFullError
from tagclip.runtime.store import BALLAST_BYTES, TrackStore

WRITER = Path(__file__).parent / "store_writer.py"
KILLS = int(os.environ.get("TAGCLIP_KILLS", "12"))
POWER_CUTS = int(os.environ.get("TAGCLIP_POWER_CUTS", "6"))
pytestmark = pytest.mark.slow

spec = importlib.util.spec_from_file_location("store_writer", WRITER)
assert spec and spec.loader
writer = importlib.util.module_from_spec(spec)
spec.loader.exec_module(writer)


def writing(path: Path, first: int, *more: str) -> Child:
    return Child([WRITER, path, first, *more], "ready")


def kept(child: Child) -> set[int]:
    """Numbers that a killed one acknowledged."""
    return {int(line.split()[1]) for line in child.kill() if line != "ready"}


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
        child = writing(tmp_path / "s.db", 1_000_000 * (number + 1))
        if number % 2:  # the others may be killed before they have done anything
            assert child.wait("kept")
        time.sleep(rng.uniform(0, 0.15))
        acknowledged |= kept(child)
        if number % 20 == 19 or number == KILLS - 1:
            assert missing(tmp_path / "s.db", acknowledged) == set()
    assert acknowledged


def lost_by_power_cuts(disk: Disk, cuts: int, *more: str) -> tuple[int, int]:
    """How many acknowledged tracks were lost, of how many."""
    rng = random.Random(2)
    acknowledged: set[int] = set()
    lost: set[int] = set()
    count, path = 0, disk.place / "s.db"
    for number in range(cuts):
        child = writing(path, 1_000_000 * (number + 1), *more)
        assert child.wait("kept")
        time.sleep(rng.uniform(0.05, 0.3))
        disk.cut(child)
        new = kept(child)
        acknowledged, count = acknowledged | new, count + len(new)
        lost |= missing(path, acknowledged)
        if number % 10 == 9:  # the disk is small
            path.unlink()
            acknowledged.clear()
    return len(lost), count


def test_a_power_cut_loses_nothing_that_was_acknowledged(disk: Disk) -> None:
    lost, count = lost_by_power_cuts(disk, POWER_CUTS)
    assert lost == 0 and count > 0


def test_the_power_cuts_would_lose_what_is_not_synchronous(disk: Disk) -> None:
    """The control: with synchronous=NORMAL, acknowledged tracks are lost by the very same cuts."""
    lost, _ = lost_by_power_cuts(disk, max(POWER_CUTS // 2, 3), "NORMAL")
    assert lost > 0


def test_a_full_disk_keeps_the_newest_and_stays_sound(disk: Disk) -> None:
    """Its quota is larger than the disk: the ballast gives room to delete."""
    with TrackStore(disk.place / "s.db") as store:
        assert (disk.place / "s.db.ballast").stat().st_size == BALLAST_BYTES
        for number in range(2400):  # 19 KB each
            store.add([(writer.track(number), 4 * writer.THUMBNAIL)])
        frames = [t.frame for t in store.get(store.keys()).values()]
        assert store.dropped > 250 and frames == list(range(2400 - len(frames), 2400)) and len(frames) > 250
        assert store._db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_disk_that_others_filled_is_named(disk: Disk) -> None:
    with TrackStore(disk.place / "s.db") as store:
        store.add([(writer.track(1), writer.THUMBNAIL)])
        (disk.place / "s.db.ballast").unlink()
        with (disk.place / "others").open("wb") as other:
            try:
                while True:
                    os.write(other.fileno(), bytes(1 << 16))
            except OSError:
                pass
        with pytest.raises(StoreFullError, match="is full; free room, or allow more"):
            for number in range(2, 4000):
                store.add([(writer.track(number), writer.THUMBNAIL)])
        (disk.place / "others").unlink()
        store.add([(writer.track(5000), writer.THUMBNAIL)])
        assert store._db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

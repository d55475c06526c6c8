"""What is put into an outbox leaves it by the station's word or by the quota, counted; not by a kill or a power cut.

Power cuts need root and a loop device (tests/chaos/disk.py). How often is set by TAGCLIP_KILLS and TAGCLIP_POWER_CUTS.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from chaos.child import Child
from chaos.disk import Disk

from tagclip.runtime.errors import HitError, StoreError, StoreFullError
from tagclip.runtime.hit import Hit
from tagclip.runtime.outbox import Outbox, encode
from tagclip.runtime.outbox_file import BALLAST_BYTES
from tagclip.runtime.sync_messages import HIT, PICTURE, message_of

WRITER = Path(__file__).parent / "outbox_writer.py"
KILLS = int(os.environ.get("TAGCLIP_KILLS", "10"))
POWER_CUTS = int(os.environ.get("TAGCLIP_POWER_CUTS", "4"))

spec = importlib.util.spec_from_file_location("outbox_writer", WRITER)
assert spec and spec.loader
writer = importlib.util.module_from_spec(spec)
spec.loader.exec_module(writer)


def hit(number: int, p_value: float, score: float = 0.3) -> Hit:
    return replace(writer.hit(number), p_value=p_value, score=score)


def waiting(outbox: Outbox) -> list[tuple[str, int]]:
    """Kind and number of what would be sent, in that order."""
    taken = outbox.take(1 << 40, 1 << 30)
    return [(m.kind, m.body["frame"] if m.kind == HIT else uuid.UUID(m.body["hit_id"]).int) for m in taken]


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "o.db", "drone-1") as opened:
        yield opened


def test_hits_go_before_pictures_and_the_most_remarkable_first(outbox: Outbox) -> None:
    for number, p_value, score in (
        (1, 0.01, 0.3),
        (2, 0.001, 0.3),
        (3, 0.01, 0.4),
        (4, 0.01, 0.3),
        (5, 0.1, 0.9),
    ):
        assert outbox.put(hit(number, p_value, score), writer.jpeg(number))
    order = [2, 3, 1, 4, 5]
    assert waiting(outbox) == [(HIT, n) for n in order] + [(PICTURE, n) for n in order]
    for message in outbox.take(1 << 40, 100):
        assert message_of(json.loads(encode(message))) == message  # the station takes it
        if message.kind == PICTURE:
            assert message.jpeg() == writer.jpeg(uuid.UUID(message.body["hit_id"]).int)
    assert sorted(m.seq for m in outbox.take(1 << 40, 100)) == list(range(1, 11))
    assert {m.boot_id for m in outbox.take(1 << 40, 100)} == {outbox.boot_id}


def test_a_batch_is_as_large_as_was_asked_for_and_never_nothing(outbox: Outbox) -> None:
    for number in range(6):
        outbox.put(hit(number, 0.01), writer.jpeg(number))
    sizes = [len(encode(message)) + 1 for message in outbox.take(1 << 40, 100)]
    assert outbox.facts()["bytes"] == sum(sizes) and outbox.facts()["depth"] == len(outbox) == 12
    assert len(outbox.take(sum(sizes[:3]), 100)) == 3
    assert len(outbox.take(sum(sizes[:3]) - 1, 100)) == 2
    assert len(outbox.take(1, 100)) == 1
    assert len(outbox.take(1 << 40, 5)) == 5


def test_what_the_station_has_is_gone_and_what_it_refuses_is_put_aside(
    outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    outbox.put(hit(1, 0.01), writer.jpeg(1))
    outbox.put(hit(2, 0.02), writer.jpeg(2))
    first, second, *pictures = outbox.take(1 << 40, 100)
    assert outbox.acked([first.id, first.id, "unknown"]) == 1
    assert outbox.acked([first.id]) == 0
    for _ in range(2):  # told twice, said once
        outbox.rejected({second.id: "no such camera", "unknown": "x"})
    assert [r.getMessage() for r in caplog.records] == [
        f"the station refuses message {second.id} for good: no such camera"
    ]
    assert waiting(outbox) == [(PICTURE, 1), (PICTURE, 2)]
    kept = outbox._file.db.execute("SELECT id, about, revision, reason FROM rejected").fetchall()
    assert kept == [(second.id, str(uuid.UUID(int=2)), 1, "no such camera")]
    assert outbox.facts()["rejected"] == 1
    outbox.acked(picture.id for picture in pictures)
    assert (len(outbox), outbox.facts()["bytes"], outbox.facts()["oldest_s"]) == (0, 0, None)


def test_a_newer_revision_replaces_what_still_waits(outbox: Outbox) -> None:
    outbox.put(writer.hit(1), writer.jpeg(1))
    outbox.put(writer.hit(1, 2), writer.jpeg(7))
    first, picture = outbox.take(1 << 40, 100)
    assert (first.body["revision"], picture.body["revision"], picture.jpeg()) == (2, 2, writer.jpeg(7))
    outbox.put(writer.hit(1, 1), writer.jpeg(1))  # late
    outbox.put(writer.hit(1, 2), writer.jpeg(1))  # twice
    assert outbox.take(1 << 40, 100) == [first, picture]
    outbox.acked([first.id])
    outbox.put(writer.hit(1, 3), writer.jpeg(3))  # while its picture is on the way: another message
    newer = outbox.take(1 << 40, 100)
    assert [(m.kind, m.body["revision"]) for m in newer] == [(HIT, 3), (PICTURE, 3)]
    assert picture.id not in {m.id for m in newer} and outbox.acked([picture.id]) == 0


def test_the_quota_drops_least_remarkable_pictures_then_hits_and_counts_them(tmp_path: Path) -> None:
    with Outbox(tmp_path / "o.db", "drone-1", max_bytes=20_000) as outbox:
        for number in range(10):  # p_value of a number: 1 is the most remarkable, 0 the least
            outbox.put(hit(number, 0.5 if number == 0 else number / 100), writer.jpeg(number))
        hits = len(encode(outbox.take(1, 1)[0])) + 1
        pictures = (20_000 - 10 * hits) // (len(encode(outbox.take(1 << 40, 100)[-1])) + 1)
        assert 1 <= pictures < 10
        assert waiting(outbox) == [(HIT, n) for n in (*range(1, 10), 0)] + [
            (PICTURE, n) for n in range(1, 1 + pictures)
        ]
        facts = outbox.facts()
        assert (facts["dropped_hits"], facts["dropped_pictures"]) == (0, 10 - pictures)
        assert facts["bytes"] <= 20_000
        for number in range(10, 100):
            outbox.put(hit(number, 0.2), b"")
        left = waiting(outbox)
        facts = outbox.facts()
        assert facts["dropped_hits"] == 100 - len(left) > 0
        assert {kind for kind, _ in left} == {HIT}  # no picture stays while a hit goes
        assert [n for _, n in left[:9]] == list(range(1, 10)) and ((HIT, 0) not in left)
        assert [n for _, n in left[9:]] == list(range(100 - len(left) + 9, 100))  # the oldest of equals went
        assert facts["bytes"] <= 20_000 and facts["dropped_pictures"] == 10 + 90
        assert not outbox.put(hit(100, 0.9), b"")  # too unremarkable, and that is said
        assert waiting(outbox) == left
    with Outbox(tmp_path / "o.db", "drone-1", max_bytes=20_000) as outbox:
        again = outbox.facts()
        assert again.pop("oldest_s") >= 0 and again["dropped_hits"] == facts["dropped_hits"] + 1
        assert (again["depth"], again["bytes"]) == (facts["depth"], facts["bytes"])


def test_a_picture_that_no_station_takes_is_left_out_and_counted(outbox: Outbox) -> None:
    for number, jpeg in enumerate((b"", b"GIF89a", b"\xff\xd8\xff" + bytes(64 << 10))):
        outbox.put(writer.hit(number), jpeg)
    assert {kind for kind, _ in waiting(outbox)} == {HIT}
    assert outbox.facts()["dropped_pictures"] == 3
    with pytest.raises(HitError, match="p_value"):
        outbox.put(hit(9, 2.0), b"")
    assert len(outbox) == 3


def test_the_file_is_private_and_bounded(tmp_path: Path) -> None:
    with Outbox(tmp_path / "o.db", "drone-1", max_bytes=256 << 10) as outbox:
        for number in range(400):
            outbox.put(writer.hit(number), writer.jpeg(number))
        assert 200_000 < outbox.facts()["bytes"] <= 256 << 10
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
        assert set(modes.values()) == {0o600} and set(modes) == {"o.db", "o.db-wal", "o.db.ballast"}
    assert (tmp_path / "o.db").stat().st_size < 512 << 10


def test_what_is_no_outbox_is_named(tmp_path: Path) -> None:
    with Outbox(tmp_path / "o.db", "drone-1"):
        child = [sys.executable, "-c", f"from pathlib import Path; from tagclip.runtime.outbox import Outbox\n"
                 f"Outbox(Path({str(tmp_path / 'o.db')!r}), 'd')"]  # fmt: skip
        ended = subprocess.run(child, capture_output=True, text=True)
        assert "is held by another process; end that `tagclip run`" in ended.stderr
    (tmp_path / "text").write_text("hello " * 1000)
    with pytest.raises(StoreError, match="not a database; move it away to begin anew"):
        Outbox(tmp_path / "text", "drone-1")
    from tagclip.runtime.store import TrackStore

    TrackStore(tmp_path / "s.db").close()
    with pytest.raises(StoreError, match="is no outbox of tagclip"):
        Outbox(tmp_path / "s.db", "drone-1")
    with pytest.raises(StoreError, match="cannot make the outbox"):
        Outbox(tmp_path / "none" / "o.db", "drone-1")


def test_damage_is_named(tmp_path: Path) -> None:
    with Outbox(tmp_path / "o.db", "drone-1") as outbox:
        for number in range(200):
            outbox.put(writer.hit(number), writer.jpeg(number))
    data = bytearray((tmp_path / "o.db").read_bytes())
    rng, named = random.Random(5), 0
    for _ in range(10):
        broken = bytearray(data)
        at = rng.randrange(4096, len(broken) - 4096)
        broken[at : at + 3000] = rng.randbytes(3000)
        (tmp_path / "o.db").write_bytes(broken)
        try:
            Outbox(tmp_path / "o.db", "drone-1").close()
        except StoreError as error:
            assert "move it away to begin anew" in str(error)
            named += 1
    assert named > 0  # what hits a picture alone is no damage that SQLite knows


def test_threads_may_share_it(outbox: Outbox) -> None:
    """One puts, one sends: in the end every hit was sent once."""
    sent: list[int] = []
    over = threading.Event()

    def send() -> None:
        while not over.is_set() or len(outbox):
            taken = outbox.take(20_000, 16)
            outbox.acked(m.id for m in taken)
            sent.extend(m.body["frame"] for m in taken if m.kind == HIT)

    thread = threading.Thread(target=send)
    thread.start()
    for number in range(120):
        outbox.put(writer.hit(number), writer.jpeg(number))
    over.set()
    thread.join(20)
    assert sorted(sent) == list(range(120)) and outbox.facts()["bytes"] == 0


def writing(path: Path, first: int, *more: str) -> Child:
    return Child([WRITER, path, first, *more], "ready")


def said(child: Child) -> tuple[set[int], set[int]]:
    """Numbers that a killed one put, and those that it may have removed."""
    lines = [line.split() for line in child.kill() if line != "ready"]
    put, acking = ({int(number) for word, number in lines if word == kind} for kind in ("put", "acking"))
    return put, acking


def missing(path: Path, put: set[int], removed: set[int]) -> set[int]:
    """Which of the hits that were put are not there as they were, with their pictures; the file must be sound."""
    with Outbox(path, "drone-1") as outbox:
        assert outbox._file.db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        hits, pictures = set(), set()
        for message in outbox.take(1 << 40, 1 << 30):
            if message.kind == HIT:
                number = message.body["frame"]
                assert message.hit() == writer.hit(number) and number not in hits
                hits.add(number)
            else:
                number = uuid.UUID(message.body["hit_id"]).int
                assert message.jpeg() == writer.jpeg(number) and number not in pictures
                pictures.add(number)
        assert hits - pictures <= removed and len(outbox) == len(hits) + len(pictures)
        return put - removed - hits | (put - pictures - removed)


def test_a_killed_writer_loses_nothing_that_it_put(tmp_path: Path) -> None:
    rng = random.Random(1)
    put: set[int] = set()
    removed: set[int] = set()
    for number in range(KILLS):
        child = writing(tmp_path / "o.db", 1_000_000 * (number + 1))
        if number % 2:  # the others may be killed before they have done anything
            assert child.wait("acking")
        time.sleep(rng.uniform(0, 0.15))
        more, gone = said(child)
        put, removed = put | more, removed | gone
        if number % 10 == 9 or number == KILLS - 1:
            assert missing(tmp_path / "o.db", put, removed) == set()
    assert put and removed


def lost_by_power_cuts(disk: Disk, cuts: int, *more: str) -> tuple[int, int]:
    """How many hits that were put were lost, of how many."""
    rng = random.Random(2)
    count, lost = 0, 0
    path = disk.place / "o.db"
    for number in range(cuts):
        child = writing(path, 1_000_000 * (number + 1), *more)
        assert child.wait("put")
        time.sleep(rng.uniform(0.05, 0.3))
        disk.cut(child)
        put, removed = said(child)
        count, lost = count + len(put), lost + len(missing(path, put, removed))
        path.unlink()
    return lost, count


@pytest.mark.slow
def test_a_power_cut_loses_nothing_that_was_put(disk: Disk) -> None:
    lost, count = lost_by_power_cuts(disk, POWER_CUTS)
    assert lost == 0 and count > 0


@pytest.mark.slow
def test_the_power_cuts_would_lose_what_is_not_synchronous(disk: Disk) -> None:
    """The control: with synchronous=NORMAL, hits are lost by such cuts; on a busy machine not by each."""
    assert any(lost_by_power_cuts(disk, 3, "NORMAL")[0] > 0 for _ in range(10))


@pytest.mark.slow
def test_a_full_disk_keeps_the_most_remarkable_and_lets_what_was_sent_go(disk: Disk) -> None:
    """Its quota is larger than the disk: the ballast gives room to delete."""
    with Outbox(disk.place / "o.db", "drone-1") as outbox:
        assert (disk.place / "o.db.ballast").stat().st_size == BALLAST_BYTES
        other = os.open(disk.place / "others", os.O_CREAT | os.O_WRONLY)
        os.posix_fallocate(other, 0, 32 << 20)
        os.close(other)
        for number in range(1000):
            outbox.put(writer.hit(number), writer.jpeg(number))
        facts = outbox.facts()
        kept = waiting(outbox)
        assert 20 < facts["dropped_pictures"] < 950 and facts["dropped_hits"] == 0
        assert len(kept) == 2000 - facts["dropped_pictures"] == facts["depth"]
        assert outbox.acked(m.id for m in outbox.take(1 << 40, 64)) == 64
        (disk.place / "others").unlink()
        for number in range(1000, 1200):
            outbox.put(writer.hit(number), writer.jpeg(number))
        assert outbox.facts()["dropped_pictures"] == facts["dropped_pictures"]  # there is room again
        assert (disk.place / "o.db.ballast").stat().st_size == BALLAST_BYTES
        assert outbox._file.db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.slow
def test_a_disk_that_others_filled_is_named(disk: Disk) -> None:
    with Outbox(disk.place / "o.db", "drone-1") as outbox:
        outbox.put(writer.hit(1), writer.jpeg(1))
        (disk.place / "o.db.ballast").unlink()
        with (disk.place / "others").open("wb") as other:
            try:
                while True:
                    os.write(other.fileno(), bytes(1 << 16))
            except OSError:
                pass
        before = 0
        with pytest.raises(StoreFullError, match="the disk is full; free room"):
            for number in range(2, 4000):
                before = len(outbox)
                outbox.put(writer.hit(number), b"")
        assert len(outbox) == before
        (disk.place / "others").unlink()
        assert outbox.put(writer.hit(5000), writer.jpeg(5000))
        assert outbox._file.db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

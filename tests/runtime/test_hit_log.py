"""The file of hits: what a power cut may cost, what damage is refused, what reading gives."""

from __future__ import annotations

import json
import os
import random
import stat
import subprocess
import sys
import time
import tracemalloc
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tagclip.runtime.errors import HitError, StoreFullError
from tagclip.runtime.hit import CONFIRMED, Hit, hit_of
from tagclip.runtime.hit_log import HitLog, HitReader
from tagclip.runtime.store_track import Place


def hit(number: int, revision: int = 1, **changes: Any) -> Hit:
    """A hit whose numbers survive the rounding of `to_json`; its id and track follow from `number`."""
    made = Hit(
        uuid.UUID(int=number), revision, "q1", "a man in a red jacket", uuid.UUID(int=1000 + number), "mast", "aerial",
        "e" * 64, 0.3125, 0.00025, 0.5, 0.25, 1_764_235_815.25, 1_764_235_820.0, 1_764_235_817.5, 75,
        (10.5, 20.0, 30.5, 61.0), (768, 576), Place(47.3769123, 8.5417001, 6.5), 4,
    )  # fmt: skip
    return replace(made, **changes)


def test_a_hit_comes_back_from_its_json() -> None:
    for one in (
        hit(1),
        hit(2, place=None, false_alarms_per_hour=None),
        hit(3, query="\u7d05 \x07\u202e <b>&amp;\n\U0001f600"),
    ):
        assert hit_of(json.loads(json.dumps(one.to_json()))) == one


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("id", "{00000000-0000-0000-0000-000000000001}"),
        ("id", 7),
        ("revision", 0),
        ("revision", True),
        ("revision", 1.0),
        ("query", "\ud800"),
        ("query", "x" * 10_001),
        ("query", None),
        ("view", "below"),
        ("score", "0.3"),
        ("score", float("nan")),
        ("p_value", 1.01),
        ("false_alarms_per_hour", -1),
        ("start_s", -1.0),
        ("start_s", 1e12),
        ("end_s", 1.0),
        ("frame", -1),
        ("box_xywh_px", [1, 2, 3]),
        ("box_xywh_px", [1, 2, -3, 4]),
        ("box_xywh_px", [1, 2, 3, float("inf")]),
        ("box_xywh_px", [1, 2, 3, True]),
        ("frame_px", [768.5, 576]),
        ("frame_px", [0, 576]),
        ("place", [47.0, 8.0, 1.0]),
        ("place", {"latitude_deg": 91, "longitude_deg": 8, "error_m": 1}),
        ("place", {"latitude_deg": 47, "longitude_deg": 8}),
        ("crops", 0),
        ("review", "maybe"),
    ],
)
def test_every_field_is_checked_and_named(key: str, value: object) -> None:
    with pytest.raises(HitError, match=rf"hit\.{key}"):
        hit_of({**hit(1).to_json(), key: value})


def test_no_field_may_lack_and_none_be_added() -> None:
    row = hit(1).to_json()
    for key in row:
        with pytest.raises(HitError, match=rf"hit\.{key}: missing"):
            hit_of({name: value for name, value in row.items() if name != key})
    with pytest.raises(HitError, match="hit.colour: unknown, so it is of a newer tagclip"):
        hit_of({**row, "colour": 1})
    with pytest.raises(HitError, match="expected an object, found a list"):
        hit_of([row])


def test_the_newest_revision_in_the_order_of_first_appearance(tmp_path: Path) -> None:
    path = tmp_path / "hits.jsonl"
    with HitLog(path) as log:
        for one in (
            hit(3),
            hit(1),
            hit(3, 2, score=0.5),
            hit(2),
            hit(1, 3, review=CONFIRMED),
            hit(1, 2),
            hit(3, 2),
        ):
            log.append(one)
    reader = HitReader(path)
    assert list(reader) == [hit(3, 2, score=0.5), hit(1, 3, review=CONFIRMED), hit(2)]
    assert list(reader) == list(reader)
    assert (len(reader), reader.lines, reader.torn_bytes) == (3, 7, 0)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    lines = path.read_text().splitlines()
    assert [json.loads(line) for line in lines][3] == hit(2).to_json()


def test_a_power_cut_at_every_byte_of_the_last_hit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        os, "fsync", lambda _: None
    )  # the cuts are made by hand; 1,500 real ones take a minute
    path = tmp_path / "hits.jsonl"
    with HitLog(path) as log:
        log.append(hit(1))
        log.append(hit(2))
        kept = path.stat().st_size
        log.append(hit(2, 2, query="caf\u00e9 \n \U0001f600"))
    whole = path.read_bytes()
    for size in range(kept, len(whole) + 1):
        path.write_bytes(whole[:size])
        # Only the line's end may lack: an object that closes is complete.
        newest = 2 if size >= len(whole) - 1 else 1
        reader = HitReader(path)
        assert [(one.id.int, one.revision) for one in reader] == [(1, 1), (2, newest)], size
        assert reader.torn_bytes == (0 if newest == 2 else size - kept)
        with HitLog(path) as log:
            assert log.cut_bytes == (0 if newest == 2 else size - kept), size
            log.append(hit(3))
        assert [(one.id.int, one.revision) for one in HitReader(path)] == [(1, 1), (2, newest), (3, 1)], size


@pytest.mark.parametrize(
    "tail", [b"\0" * 700, b'{"id": "00' + b"\0" * 90 + b'"}\n', b"\0\0\0\n", b"\n", b"{}}\n"]
)
def test_what_a_file_system_may_leave_of_a_torn_write_is_cut(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "hits.jsonl"
    for before in ([], [hit(1)], [hit(1), hit(2)]):
        path.unlink(missing_ok=True)
        with HitLog(path) as log:
            for one in before:
                log.append(one)
        if not before and not tail.startswith((b"\0", b'{"id"')):
            continue  # a whole file of that is somebody else's
        path.write_bytes(path.read_bytes() + tail)
        assert list(HitReader(path)) == before
        with HitLog(path) as log:
            assert log.cut_bytes == len(tail)
            log.append(hit(9))
        assert list(HitReader(path)) == [*before, hit(9)]


def test_damage_in_the_middle_is_an_error_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "hits.jsonl"
    with HitLog(path) as log:
        for number in range(5):
            log.append(hit(number))
    lines = path.read_bytes().splitlines(keepends=True)
    for damaged, said in (
        (lines[2][:40] + b"\n", "not readable as JSON"),
        (b"\n", "not readable as JSON"),
        (b"\xff" + lines[2][1:], "not readable as JSON"),
        (lines[2].replace(b'"revision": 1', b'"revision": -1'), "hit.revision: expected"),
        (b"[" * 500 + b"\n", "not readable as JSON"),
        (b'"' + b"x" * 300_000 + b'"\n', "not readable as JSON"),
    ):
        path.write_bytes(b"".join([*lines[:2], damaged, *lines[3:]]))
        with pytest.raises(HitError, match=rf"hits\.jsonl, line 3: (damaged: )?(hit: )?{said}"):
            HitReader(path)


def test_a_last_line_of_a_newer_tagclip_is_refused_and_not_cut(tmp_path: Path) -> None:
    path = tmp_path / "hits.jsonl"
    text = json.dumps(hit(1).to_json()) + "\n" + json.dumps({**hit(2).to_json(), "colour": "red"}) + "\n"
    path.write_text(text)
    with pytest.raises(HitError, match=r"line 2: hit\.colour: unknown"):
        HitReader(path)
    with HitLog(path) as log:
        assert log.cut_bytes == 0
    assert path.read_text() == text


def test_files_of_others_are_refused_and_left_as_they_are(tmp_path: Path) -> None:
    for number, content in enumerate(
        (b"dear diary", b'{"query": "x"}\n', b"SQLite format 3\0" + b"\0" * 90, b"\n")
    ):
        path = tmp_path / f"{number}"
        path.write_bytes(content)
        for opened in (HitLog, HitReader):
            with pytest.raises(HitError, match="no file of hits"):
                opened(path)
        assert path.read_bytes() == content
    long = tmp_path / "long"
    long.write_bytes(b'{"id"' + b"x" * 300_000)
    with pytest.raises(HitError, match="bytes at its end are no hit"):
        HitLog(long)
    assert long.stat().st_size == 300_005
    with pytest.raises(HitError, match="found none"):
        HitReader(tmp_path / "absent")
    with pytest.raises(HitError, match="name another file"):
        HitLog(tmp_path)
    with pytest.raises(HitError, match="name another file"):
        HitLog(tmp_path / "no" / "folder.jsonl")


def test_a_hit_is_on_the_disk_before_append_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[int, int]] = []
    real = os.fsync

    def watched(descriptor: int) -> None:
        real(descriptor)
        facts = os.fstat(descriptor)
        synced.append((facts.st_ino, facts.st_size))

    monkeypatch.setattr(os, "fsync", watched)
    path = tmp_path / "hits.jsonl"
    with HitLog(path) as log:
        assert [inode for inode, _ in synced] == [tmp_path.stat().st_ino]  # its name, too
        for number in range(3):
            log.append(hit(number))
            assert synced[-1] == (path.stat().st_ino, path.stat().st_size)
    assert len(synced) == 4


def test_an_empty_file_holds_no_hit(tmp_path: Path) -> None:
    HitLog(tmp_path / "hits.jsonl").close()
    reader = HitReader(tmp_path / "hits.jsonl")
    assert (list(reader), len(reader), reader.lines) == ([], 0, 0)


def test_one_process_writes(tmp_path: Path) -> None:
    with HitLog(tmp_path / "hits.jsonl") as log:
        with pytest.raises(HitError, match="another process writes to it"):
            HitLog(tmp_path / "hits.jsonl")
        log.append(hit(1))
        assert list(HitReader(tmp_path / "hits.jsonl")) == [hit(1)]
    HitLog(tmp_path / "hits.jsonl").close()


def test_a_hit_that_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "hits.jsonl"
    with HitLog(path) as log:
        log.append(hit(1))
        for wrong in (
            hit(2, score=float("nan")),
            hit(2, query="\udc80"),
            hit(2, review="no"),
            hit(2, p_value=2.0),
        ):
            with pytest.raises(HitError, match="expected"):
                log.append(wrong)
        log.append(hit(3))
    assert list(HitReader(path)) == [hit(1), hit(3)]


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    """The kernel refuses to let the file grow: a real short write, then an error, in a child of its own."""
    path = tmp_path / "hits.jsonl"
    with HitLog(path) as log:
        log.append(hit(1))
    size = path.stat().st_size
    code = f"""
import json, resource, signal, sys
from pathlib import Path
from tagclip.runtime.errors import HitError
from tagclip.runtime.hit import hit_of
from tagclip.runtime.hit_log import HitLog
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = HitLog(Path({str(path)!r}))
resource.setrlimit(resource.RLIMIT_FSIZE, ({size + 100}, resource.RLIM_INFINITY))
row = json.loads(Path({str(path)!r}).read_text())
try:
    log.append(hit_of({{**row, "revision": 2}}))
except HitError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.append(hit_of({{**row, "revision": 3}}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "File too large" in done.stdout
    assert [one.revision for one in HitReader(path)] == [3]
    assert HitReader(path).lines == 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_no_room_is_said_as_such(tmp_path: Path) -> None:
    with HitLog(tmp_path / "hits.jsonl") as log:
        log._file.close()
        log._file = open("/dev/full", "r+b", buffering=0)
        with pytest.raises(StoreFullError, match="free room"):
            log.append(hit(1))


def test_killed_while_writing_nothing_that_was_acknowledged_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "hits.jsonl"
    code = f"""
import json, uuid
from pathlib import Path
from tagclip.runtime.hit import hit_of
from tagclip.runtime.hit_log import HitLog
row = json.loads({json.dumps(hit(1).to_json())!r})
log = HitLog(Path({str(path)!r}))
for number in range(1_000_000):
    log.append(hit_of({{**row, "id": str(uuid.UUID(int=number))}}))
    print(number, flush=True)
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    first = child.stdout.readline()
    time.sleep(0.3)
    child.kill()
    said = [first, *child.stdout.read().splitlines()]
    child.wait(30)
    child.stdout.close()
    acknowledged = int(said[-1])
    with HitLog(path) as log:
        log.append(hit(10**9))
    found = [one.id.int for one in HitReader(path)]
    assert acknowledged > 3
    assert found[: acknowledged + 1] == list(range(acknowledged + 1))


def test_garbage_is_a_named_error_or_hits(tmp_path: Path) -> None:
    rng = random.Random(7)
    path = tmp_path / "hits.jsonl"
    whole = b"".join(json.dumps(hit(n).to_json()).encode() + b"\n" for n in range(3))
    for _ in range(300):
        broken = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        path.write_bytes(broken)
        try:
            assert len(list(HitReader(path))) <= 3
        except HitError as error:
            assert "hits.jsonl" in str(error)


def test_memory_does_not_grow_with_revisions(tmp_path: Path) -> None:
    path = tmp_path / "hits.jsonl"
    line = json.dumps(hit(1).to_json()) + "\n"
    peaks = []
    for revisions in (50, 2000):
        path.write_text(
            "".join(line.replace('"revision": 1,', f'"revision": {k + 1},') for k in range(revisions))
        )
        tracemalloc.start()
        assert [one.revision for one in HitReader(path)] == [revisions]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 50_000  # the file is 1.3 MB larger

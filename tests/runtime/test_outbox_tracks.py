"""Tracks and wanted thumbnails in an outbox: behind what matters more, first to go, kept through a kill, and small.

How often a writer is killed is set by TAGCLIP_KILLS.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from tagclip.runtime.hit import Hit
from tagclip.runtime.outbox import Outbox, encode
from tagclip.runtime.store_track import Place, StoredTrack
from tagclip.runtime.sync_messages import HIT, PICTURE, THUMBNAIL, TRACK, Message, batch_of, message_of
from tagclip.runtime.sync_track import ToldTrack, told

KILLS = max(int(os.environ.get("TAGCLIP_KILLS", "20")) // 10, 2)
JPEG = b"\xff\xd8\xff\xe0" + bytes(3000)
ENCODER = "tc1-5784c1ffc6019db5"  # as the shipped bundle's
DIM = 128  # as the shipped bundle's


def track(number: int) -> ToldTrack:
    rng = np.random.default_rng(number)
    vector = rng.standard_normal(DIM)
    start_s = 1.8e9 + 7.123 * number
    stored = StoredTrack(
        uuid.UUID(int=number + 1), "north gate", "aerial", start_s, start_s + 31.456, start_s + 12.345, 1000 + number,
        tuple(rng.uniform(1, 1900, 4).tolist()), ENCODER, (vector / np.linalg.norm(vector)).astype(np.float32),
        Place(*rng.uniform(40, 50, 2).tolist(), 3.21),
    )  # fmt: skip
    return told(stored, (1920, 1080), 5)


def hit(number: int, p_value: float) -> Hit:
    seen = track(number)
    same = {f.name: getattr(seen, f.name) for f in fields(Hit) if hasattr(seen, f.name)}
    return Hit(id=uuid.UUID(int=10_000 + number), revision=1, query_id="q", query="x", score=0.5, p_value=p_value,
               false_alarms_per_hour=None, threshold=0.4, **same)  # fmt: skip


def waiting(outbox: Outbox, *, tracks: bool = True) -> list[tuple[str, int]]:
    """Kind and number, in the order of sending."""
    taken = outbox.take(1 << 40, 1 << 30, tracks=tracks)
    about = [m.body.get("track_id") if m.kind in (TRACK, THUMBNAIL) else None for m in taken]
    return [
        (m.kind, uuid.UUID(name).int - 1 if name else m.body.get("frame", 1000) - 1000)
        for m, name in zip(taken, about, strict=True)
    ]


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "o.db", "drone-1") as opened:
        yield opened


def test_tracks_go_behind_hits_and_pictures_and_wanted_thumbnails_before_pictures(outbox: Outbox) -> None:
    outbox.put_tracks([track(3), track(1)], over=True)
    outbox.put(hit(7, 0.1), JPEG)
    outbox.put_thumbnail(str(track(1).track_id), JPEG)
    outbox.put_thumbnail(str(track(5).track_id), None)
    expected = [(HIT, 7), (THUMBNAIL, 1), (THUMBNAIL, 5), (PICTURE, 0), (TRACK, 3), (TRACK, 1)]
    assert waiting(outbox) == expected and waiting(outbox, tracks=False) == expected[:4]
    for message in outbox.take(1 << 40, 100):
        assert message_of(json.loads(encode(message))) == message
        if message.kind == THUMBNAIL:
            assert message.jpeg() == (JPEG if message.body["jpeg"] else b"")
    first = outbox.take(1 << 40, 100)[1].id
    outbox.put_thumbnail(str(track(1).track_id), JPEG)  # asked for twice
    assert outbox.take(1 << 40, 100)[1].id == first and len(outbox) == 6


def test_a_track_that_is_not_over_waits_and_what_is_told_again_replaces_it(
    outbox: Outbox, tmp_path: Path
) -> None:
    outbox.put_tracks([track(1), track(2)], over=False)
    assert waiting(outbox) == [] and len(outbox) == 0 and outbox.facts()["oldest_s"] is None
    outbox.put_tracks([track(1)], over=True)
    (message,) = outbox.take(1 << 40, 10)
    assert message.track().to_json() == track(1).to_json() and len(outbox) == 1
    outbox.put_tracks([track(1)], over=True)
    assert [m.seq > message.seq for m in outbox.take(1 << 40, 10)] == [True]
    assert outbox.acked(m.id for m in outbox.take(1 << 40, 10)) == 1
    outbox.close()
    with Outbox(tmp_path / "o.db", "drone-1") as again:  # the run was cut off: as much as it told
        assert waiting(again) == [(TRACK, 2)] and len(again) == 1


def test_a_full_outbox_lets_the_oldest_tracks_go_first_and_counts_them(tmp_path: Path) -> None:
    with Outbox(tmp_path / "o.db", "drone-1", max_bytes=40_000) as outbox:
        for number in range(5):
            outbox.put(hit(number, 0.01), JPEG)
        free = 40_000 - outbox.facts()["bytes"]
        size = len(encode(outbox_message(tmp_path))) + 1
        for number in range(100):
            outbox.put_tracks([track(number)], over=True)
        left = [number for kind, number in waiting(outbox) if kind == TRACK]
        assert left == list(range(100 - len(left), 100)) and abs(len(left) - free // size) <= 2
        facts = outbox.facts()
        assert facts["dropped_tracks"] == 100 - len(left)
        assert (facts["dropped_hits"], facts["dropped_pictures"]) == (0, 0) and facts["bytes"] <= 40_000
        for number in range(5, 9):  # what matters more takes their room
            outbox.put(hit(number, 0.5), JPEG)
        after = outbox.facts()
        assert after["dropped_tracks"] == 100 - len([1 for kind, _ in waiting(outbox) if kind == TRACK])
        assert after["dropped_tracks"] > facts["dropped_tracks"] and after["dropped_hits"] == 0
        outbox.put_tracks([track(200)], over=False)
        for number in range(9, 20):
            outbox.put(hit(number, 0.5), JPEG)
        # The one that is not over went with all the others, uncounted: it is told again when it is.
        assert TRACK not in {kind for kind, _ in waiting(outbox)}
        assert outbox.facts()["dropped_tracks"] == 100
        outbox.close()
        with Outbox(tmp_path / "o.db", "drone-1", max_bytes=40_000) as again:
            assert TRACK not in {kind for kind, _ in waiting(again)}


def outbox_message(folder: Path) -> Message:
    with Outbox(folder / "other.db", "drone-1") as other:
        other.put_tracks([track(0)], over=True)
        return other.take(1, 1)[0]


def test_a_track_costs_under_five_hundred_bytes_on_the_link(outbox: Outbox) -> None:
    outbox.put_tracks([track(number) for number in range(64)], over=True)
    rows = b",".join(map(encode, outbox.take(1 << 40, 64)))
    batch = b'{"device":"drone-1","messages":[%s],"status":{}}' % rows
    assert len(batch_of(batch).rows) == 64
    assert len(gzip.compress(batch, 1)) / 64 < 500 and len(batch) / 64 < 900


_FORM_1 = """
CREATE TABLE messages (key INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, picture INTEGER NOT NULL,
    p_value REAL NOT NULL, score REAL NOT NULL, hit TEXT NOT NULL, revision INTEGER NOT NULL, made_s REAL NOT NULL,
    boot_id TEXT NOT NULL, seq INTEGER NOT NULL, bytes INTEGER NOT NULL, content BLOB NOT NULL) STRICT;
CREATE INDEX by_rank ON messages (picture, p_value, score DESC, key);
CREATE INDEX by_waste ON messages (picture DESC, p_value DESC, score, key);
CREATE INDEX by_hit ON messages (hit);
CREATE TABLE rejected (key INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, picture INTEGER NOT NULL,
    hit TEXT NOT NULL, revision INTEGER NOT NULL, at_s REAL NOT NULL, reason TEXT NOT NULL) STRICT;
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
INSERT INTO counters VALUES ('dropped_hits', 4);
PRAGMA application_id = 1952542562;
PRAGMA user_version = 1;
"""


def test_an_outbox_of_before_tracks_goes_on(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "o.db")
    db.executescript(_FORM_1)
    old = hit(3, 0.2)
    told_as = (0.2, 0.5, str(old.id), 1, 1.7e9, "0190163d-8694-7396-a4cc-13e0f1a6c3f2")
    content = json.dumps(old.to_json()).encode()
    for seq, (picture, what) in enumerate(((1, JPEG), (0, content)), 1):
        row = (f"0190163d-8694-7396-a4cc-13e0f1a6c3f{seq}", picture, *told_as, seq, 1000, what)
        db.execute(
            "INSERT INTO messages (id, picture, p_value, score, hit, revision, made_s, boot_id, seq, bytes, content)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)  # fmt: skip
    db.commit()
    db.close()
    for _ in range(2):
        with Outbox(tmp_path / "o.db", "drone-1") as outbox:
            first, second = outbox.take(1 << 40, 10, tracks=False)
            assert (first.hit().id, second.kind, second.jpeg()) == (old.id, PICTURE, JPEG)
            assert outbox.facts()["dropped_hits"] == 4 and outbox.facts()["dropped_tracks"] == 0


_WRITER = """
import sys
sys.path.insert(0, {folder!r})
from pathlib import Path
from test_outbox_tracks import Outbox, track
with Outbox(Path(sys.argv[1]), "drone-1") as outbox:
    for number in range(int(sys.argv[2]), 10**9):
        outbox.put_tracks([track(number)], over=number % 2 == 0)
        print(number, flush=True)
"""


def test_a_killed_writer_loses_no_track_over_or_not(tmp_path: Path) -> None:
    script, rng = _WRITER.format(folder=str(Path(__file__).parent)), random.Random(3)
    said: set[int] = set()
    for turn in range(KILLS):
        command = [sys.executable, "-c", script, str(tmp_path / "o.db"), str(1000 * turn)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout
            said.add(int(child.stdout.readline()))
            time.sleep(rng.uniform(0, 0.2))
            child.kill()
            lines = child.stdout.read().splitlines(keepends=True)
            said.update(int(line) for line in lines if line.endswith("\n"))
        with Outbox(tmp_path / "o.db", "drone-1") as outbox:
            sent = [number for kind, number in waiting(outbox) if kind == TRACK]
            assert said <= set(sent) and len(sent) == len(set(sent)) <= len(said) + turn + 1
            for message in outbox.take(1 << 40, 50):
                about = uuid.UUID(message.body["track_id"]).int - 1
                assert message.track().to_json() == track(about).to_json()

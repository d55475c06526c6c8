"""What the device does when its store has no room: it goes on, keeps what it can, and says what it could not."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures.disk import mounted

from tagclip.runtime import store_guard
from tagclip.runtime.errors import StoreFullError
from tagclip.runtime.health import Health
from tagclip.runtime.store import Retention, TrackStore
from tagclip.runtime.store_clock import SETTLE_S, SteadyClock
from tagclip.runtime.store_guard import DROPPING_S, LOOK_EVERY_S, MOST_WAITING, RETRY_S, StoreGuard

spec = importlib.util.spec_from_file_location("store_writer", Path(__file__).parent / "store_writer.py")
assert spec and spec.loader
writer = importlib.util.module_from_spec(spec)
spec.loader.exec_module(writer)
DAY_S = 86_400.0


class Clock:
    """Seconds that go forward when they are told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def health() -> Health:
    return Health(camera="c", detector="d", provider="cpu", encoder_id="e" * 64)


def rows(*numbers: int) -> list:
    return [(writer.track(number), writer.THUMBNAIL) for number in numbers]


def frames(store: TrackStore) -> list[int]:
    return sorted(track.frame for track in store.get(store.keys()).values())


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Where a file system of 24 MB of its own is mounted; the ballast takes 16 of them."""
    with mounted(tmp_path / "disk", "24m") as place:
        yield place


def fill(place: Path) -> None:
    """Take all that is left, to the last byte."""
    with (place / "others").open("wb", buffering=0) as other:
        for size in (1 << 16, 512, 1):
            try:
                while other.write(bytes(size)):
                    pass
            except OSError:
                pass


def test_a_full_disk_is_waited_out_and_nobody_is_lost(disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock, told = Clock(), health()
    caplog.set_level(logging.INFO)
    with TrackStore(disk / "s.db") as store:
        guard = StoreGuard(store, told, clock)
        guard.add(rows(1, 2))
        assert told.counts.people == 2 and guard.waiting == 0
        (disk / "s.db.ballast").unlink()
        fill(disk)
        number = 3
        while not guard.waiting:  # the file has some pages left
            guard.add(rows(number))
            number += 1
            assert number < 5000
        kept = number - 2
        assert told.reasons()["store"].startswith("full: 1 person waiting for room, 0 lost")
        guard.add(rows(number))  # not tried again at once
        assert guard.waiting == 2 and told.counts.people == kept
        assert sum(record.levelno == logging.ERROR for record in caplog.records) == 1
        (disk / "others").unlink()
        clock.now_s += max(RETRY_S, LOOK_EVERY_S)
        guard.look()
        assert guard.waiting == guard.lost == 0 and told.counts.people == kept + 2
        assert frames(store)[-2:] == [number - 1, number]
        guard.finish()
        assert store._db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert any("everybody who waited is kept" in record.message for record in caplog.records)
    with TrackStore(disk / "s.db", read_only=True) as store:
        assert len(store) == kept + 2


def test_beyond_what_can_wait_the_first_are_lost_counted_and_said(
    disk: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_guard, "MOST_WAITING", 5)
    clock, told = Clock(), health()
    with TrackStore(disk / "s.db") as store:
        guard = StoreGuard(store, told, clock)
        guard.add(rows(1))
        (disk / "s.db.ballast").unlink()
        fill(disk)
        number = 2
        while guard.lost < 3:
            guard.add(rows(number))
            number += 1
            assert number < 5000
        assert guard.waiting == 5
        with pytest.raises(StoreFullError, match="no room for 8 people who are lost; everybody else is kept"):
            guard.finish()
        assert store._db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        kept = frames(store)
    # Eight are lost: whoever was acknowledged is there, or made room for newer ones and is counted as such.
    assert len(kept) + 8 + store.dropped == number - 1 and told.counts.people == number - 1 - 8
    assert any("1 person lost, 3 in all" in record.message for record in caplog.records)
    assert MOST_WAITING == 500


def test_who_is_in_view_waits_once_and_counts_once(tmp_path: Path) -> None:
    told = health()
    with TrackStore(tmp_path / "s.db") as store:
        guard = StoreGuard(store, told)
        for _ in range(3):
            guard.add(rows(1, 2))
        assert told.counts.people == len(store) == 2


def test_making_room_is_said_and_over_after_an_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_guard, "LOW_BYTES", 0.0)
    monkeypatch.setattr(store_guard, "LOW_SHARE", 0.0)
    clock, told = Clock(), health()
    with TrackStore(tmp_path / "s.db", Retention(max_bytes=1 << 20)) as store:
        guard, number, seen = StoreGuard(store, told, clock), 0, []
        while not store.dropped:
            guard.add(rows(number))
            number += 1
            clock.now_s += LOOK_EVERY_S
            guard.look()
            seen.append(told.reasons().get("store", ""))
        assert seen[0] == "" and seen[-2].startswith("nearly full: 1 of 1 MB")
        assert seen[-1] == f"full: the oldest make room, {store.dropped} people so far"
        assert number - store.dropped == len(store)
        clock.now_s += DROPPING_S
        store._db.execute("DELETE FROM tracks WHERE frame % 2")
        guard.look()
        assert "store" not in told.reasons()


def test_a_disk_that_runs_full_is_said_before_it_is(disk: Path) -> None:
    clock, told = Clock(), health()
    with TrackStore(disk / "s.db") as store:
        guard = StoreGuard(store, told, clock)
        guard.look()
        assert told.reasons()["store"].startswith("its disk is nearly full: ")  # 24 MB are less than 200
        (disk / "s.db.ballast").unlink()
        guard.look()
        assert not store.has_ballast  # not taken from a disk that has little


def test_a_store_opens_on_a_full_disk_while_there_is_ballast_and_says_so_when_not(disk: Path) -> None:
    with TrackStore(disk / "s.db") as store:
        store.add(rows(1, 2))
    fill(disk)
    with TrackStore(disk / "s.db") as store:
        store.add(rows(3))
        assert frames(store) == [1, 2, 3]
    (disk / "s.db.ballast").unlink(missing_ok=True)
    fill(disk)
    with pytest.raises(
        StoreFullError, match="is full; free room, or allow more"
    ):  # not: damaged, move it away
        TrackStore(disk / "s.db")
    (disk / "others").unlink()
    with TrackStore(disk / "s.db") as store:
        assert frames(store) == [1, 2, 3] and store.has_ballast


def test_the_clock_that_jumps_deletes_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steady, wrong_s = Clock(), [0.0]
    real_s = 1.8e9
    wall = lambda: real_s + steady.now_s + wrong_s[0]  # noqa: E731
    with TrackStore(tmp_path / "s.db", Retention(days=2)) as store:
        store._clock = SteadyClock(wall, steady)
        ends = [wall() - 1.5 * DAY_S, wall()]
        store.add(
            [
                (type(t)(**{**vars(t), "start_s": end - 9, "end_s": end}), b"a")
                for t, end in zip((writer.track(1), writer.track(2)), ends, strict=True)
            ]
        )
        for jump_s in (
            70 * 365 * DAY_S,
            3 * DAY_S,
            -real_s,
            0.0,
        ):  # far ahead, a little, 1970, and right again
            wrong_s[0] = jump_s
            for _ in range(5):
                steady.now_s += 600
                assert store.prune() == 0, jump_s
            wrong_s[0] = 0.0
            steady.now_s += 600
            assert store.prune() == 0
        steady.now_s += 0.6 * DAY_S  # time that really passes
        assert store.prune() == 1 and len(store) == 1
        wrong_s[0] = 3 * DAY_S  # a step that stays is believed after an hour
        assert store.prune() == 0
        steady.now_s += SETTLE_S - 1
        assert store.prune() == 0
        steady.now_s += 2
        assert store.prune() == 1


def test_a_board_that_learns_the_time_late_deletes_an_hour_later() -> None:
    steady, wrong_s = Clock(), [-1.8e9]
    clock = SteadyClock(lambda: 1.8e9 + steady.now_s + wrong_s[0], steady)
    steady.now_s += 30
    wrong_s[0] = 0.0
    assert clock.now_s() < 1e6
    for _ in range(6):
        steady.now_s += SETTLE_S / 6
        shown_s = clock.now_s()
    assert shown_s == pytest.approx(1.8e9 + steady.now_s)


def test_a_clock_that_drifts_is_followed() -> None:
    steady, drift = Clock(), 1.001
    clock = SteadyClock(lambda: 1.8e9 + steady.now_s * drift, steady)
    for _ in range(1000):
        steady.now_s += 600
        assert clock.now_s() == pytest.approx(1.8e9 + steady.now_s * drift, abs=1e-3)

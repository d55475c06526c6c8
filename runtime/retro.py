"""A query that arrives is put to those, too, whom the device has seen already: out of its store, beside the frames."""

from __future__ import annotations

import contextlib
import itertools
import logging
import queue
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.alerts import HOUR_S, StandingQuery, hit_on, people_per_hour
from tagclip.runtime.background import Background
from tagclip.runtime.errors import BackgroundError, HitError, TagclipError
from tagclip.runtime.health import Health
from tagclip.runtime.hit import Hit
from tagclip.runtime.hit_log import HitReader
from tagclip.runtime.ids import uuid7
from tagclip.runtime.judge import Judge, Yardstick
from tagclip.runtime.picture_key import PictureKeys
from tagclip.runtime.retro_memory import Memory, name_of
from tagclip.runtime.store import TrackStore
from tagclip.runtime.store_track import StoredTrack

AT_ONCE = 128  # people: about a millisecond in which the frames may have to wait for Python
REST = 1.0  # after each, as long as it took: the frames come first
MOST_WAITING = 64  # hits with their pictures that the loop over the frames has not taken yet
SAVE_EVERY_S = 30.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Past:
    """Where to look for those who were seen before.

    Attributes:
        store: its file, open elsewhere for writing.
        hits: the run's file of hits; who is told there is not told again.
        camera: whose people.
        frame_px: width and height of its frames.
        hours: how long ago somebody may have been seen last.
        keys: of the store's pictures.
    """

    store: Path
    hits: Path
    camera: str
    frame_px: tuple[int, int]
    hours: float
    keys: PictureKeys | None = None


@dataclass(frozen=True)
class _Order:
    """Queries to put to everybody up to a key of the store, but for those in view."""

    queries: list[StandingQuery]
    upto: int
    in_view: frozenset[uuid.UUID]
    people_per_hour: float


@dataclass(frozen=True)
class _Candidate:
    key: int
    query: StandingQuery
    score: float
    p_value: float
    stick: Yardstick


def found_afterwards(hit: Hit) -> bool:
    """Whether somebody had been seen before the query came: the time in the hit's id is that of finding."""
    return hit.id.int >> 80 > int(round(hit.end_s * 1000))


class Retro:
    """Searches in a thread of its own; what it finds is taken by the loop over the frames, one hit a round.

    Which query was put to whom is remembered beside the store, so that a restart repeats nothing: each query has the
    key up to which everybody was judged, by this or as they passed.

    Args:
        typical: (T, D), the vectors of TYPICAL.
        health: is told with the cause "past".
    """

    def __init__(
        self, past: Past, background: Background, typical: NDArray[np.float32], health: Health
    ) -> None:
        self._past, self._background, self._typical, self._health = past, background, typical, health
        self._memory = Memory(past.store)
        self._orders: queue.Queue[_Order] = queue.Queue()
        self._found: queue.Queue[tuple[Hit, bytes]] = queue.Queue(MOST_WAITING)
        self._told: set[tuple[str, str, uuid.UUID]] | None = None  # query's id and text, track
        self._live: dict[str, bool] = {}  # queries that are looked for, by name; whether their past is done
        self._lock = threading.Lock()
        self._saved_s = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="past", daemon=True)
        self._thread.start()

    def arm(
        self,
        queries: Sequence[StandingQuery],
        last_key: int,
        in_view: frozenset[uuid.UUID],
        people_per_hour: float,
    ) -> None:
        """These are looked for from now on; those that are new are put to everybody of before.

        Args:
            last_key: of the store; whoever comes after it is judged by these queries as they pass.
            in_view: who is judged as they are seen, though they are kept already.
            people_per_hour: that pass, at least.
        """
        with self._lock:
            names = {name_of(query): query for query in queries}
            for name in self._live.keys() - names.keys():
                if self._live.pop(name):
                    self._memory.upto[name] = last_key
            new = [query for name, query in names.items() if name not in self._live]
            self._live |= {name_of(query): False for query in new}
        if new:
            self._orders.put(_Order(new, last_key, in_view, people_per_hour))

    def take(self, tell: Callable[[Hit, bytes], None]) -> bool:
        """Tell one hit that was found; whether there was one."""
        try:
            hit, jpeg = self._found.get_nowait()
        except queue.Empty:
            return False
        try:
            tell(hit, jpeg)
        finally:
            self._found.task_done()
        return True

    def passed(self, last_key: Callable[[], int], *, now: bool = False) -> None:
        """Everybody up to the store's last key was judged as they passed; remembered every 30 s, or now."""
        if not now and time.monotonic() - self._saved_s < SAVE_EVERY_S:
            return
        self._saved_s = time.monotonic()
        with self._lock:
            self._memory.keep(dict.fromkeys([name for name, done in self._live.items() if done], last_key()))

    def idle(self) -> bool:
        """Whether nothing is searched, and nothing found waits to be told."""
        return not self._orders.unfinished_tasks and not self._found.unfinished_tasks

    def close(self, tell: Callable[[Hit, bytes], None], last_key: Callable[[], int], wait_s: float) -> None:
        """Wait for what is being searched, at most `wait_s`; the rest is searched after the next start."""
        until_s = time.monotonic() + wait_s
        while not self.idle() and time.monotonic() < until_s:
            if not self.take(tell):
                time.sleep(0.02)
        self._stop.set()
        self._thread.join()
        while self.take(tell):
            pass
        self.passed(last_key, now=True)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                order = self._orders.get(timeout=0.2)
            except queue.Empty:
                continue
            try:
                self._search(order)
                self._health.recover("past")
            except TagclipError as error:
                if self._health.degrade("past", str(error)):
                    log.error("those who were seen before the query came are not searched: %s", error)
            finally:
                self._orders.task_done()

    def _search(self, order: _Order) -> None:
        begun_s = time.monotonic()
        # A second connection: a reader holds nobody up.
        with TrackStore(self._past.store, read_only=True, keys=self._past.keys) as store:
            searched, candidates, rate = self._candidates(store, order)
            count = 0
            for one in candidates:
                count += self._offer(store, one, rate)
        while self._found.unfinished_tasks and not self._stop.wait(0.02):
            pass
        if self._stop.is_set():  # searched again after the next start; what was told is in the file of hits
            return
        names = [name_of(query) for query in order.queries]
        with self._lock:
            self._live |= {name: True for name in names if name in self._live}
            self._memory.keep(dict.fromkeys(names, order.upto))
        log.info(
            "%d queries put to %d people of the last %g hours in %.1f s: %d hits",
            len(names),
            searched,
            self._past.hours,
            time.monotonic() - begun_s,
            count,
        )

    def _candidates(self, store: TrackStore, order: _Order) -> tuple[int, list[_Candidate], float]:
        """How many people were searched, who is over a threshold (the surest first), and how many passed in an hour."""
        since_s = time.time() - self._past.hours * HOUR_S
        judge = Judge(np.stack([q.vector for q in order.queries]), self._background, self._typical)
        begins = np.array([self._memory.begin(name_of(query), order.upto) for query in order.queries])
        # Never more than at the rate that is known now; at the store's own, which may be higher, in the end.
        allowed = np.array([query.promise.chance(order.people_per_hour) for query in order.queries])
        found: list[_Candidate] = []
        searched, first_s, last_s = 0, float("inf"), -float("inf")
        after = int(begins.min())
        while not self._stop.is_set():
            begun_s = time.monotonic()
            rows = list(itertools.islice(store.since(after), AT_ONCE))
            rows = [row for row in rows if row[0] <= order.upto]
            if not rows:
                break
            after = rows[-1][0]
            people = [row for row in rows if self._meant(row[1], since_s, order)]
            for view in sorted({track.view for _, track in people}):
                seen = [row for row in people if row[1].view == view]
                found += self._over(seen, view, judge, order.queries, begins, allowed)
            searched += len(people)
            first_s = min([first_s, *(track.start_s for _, track in people)])
            last_s = max([last_s, *(track.end_s for _, track in people)])
            self._stop.wait(REST * (time.monotonic() - begun_s))
        hours = max(last_s - first_s, 0.0) / HOUR_S if searched else 0.0
        passed = people_per_hour(searched, hours, self._background.people_per_hour)
        rate = max(order.people_per_hour, passed)
        found = [one for one in found if one.p_value <= one.query.promise.chance(rate)]
        return searched, sorted(found, key=lambda one: one.p_value), rate

    def _meant(self, track: StoredTrack, since_s: float, order: _Order) -> bool:
        return (
            track.camera == self._past.camera
            and track.encoder_id == self._background.encoder_id
            and track.end_s >= since_s
            and track.id not in order.in_view
        )

    def _over(
        self,
        rows: list[tuple[int, StoredTrack]],
        view: str,
        judge: Judge,
        queries: list[StandingQuery],
        begins: NDArray[np.int64],
        allowed: NDArray[np.float64],
    ) -> list[_Candidate]:
        """Who of people (key, track) of one view may be a hit."""
        try:
            sticks = judge.of(view)
        except BackgroundError as error:
            log.warning("%d people of before are not judged: %s", len(rows), error)
            return []
        vectors = np.stack([np.asarray(track.vector, np.float32) for _, track in rows])
        keys = np.array([key for key, _ in rows])
        found = []
        for k, query in enumerate(queries):
            if not query.looks_at(view):
                continue
            scores = (vectors @ query.vector).astype(np.float64)
            # The store does not say of how many pictures a vector is the mean: the less remarkable of both counts.
            p_values = np.maximum(sticks[k].p_values(scores, False), sticks[k].p_values(scores, True))
            for i in np.flatnonzero((p_values <= allowed[k]) & (keys > begins[k])):
                found.append(_Candidate(int(keys[i]), query, float(scores[i]), float(p_values[i]), sticks[k]))
        return found

    def _offer(self, store: TrackStore, one: _Candidate, rate: float) -> int:
        """Hand a hit to the loop over the frames, unless it is told already; how many that were."""
        track, picture = store.get([one.key]).get(one.key), store.thumbnails([one.key]).get(one.key)
        query, now_s = one.query, time.time()
        if track is None or picture is None or (query.expires_s is not None and query.expires_s <= now_s):
            return 0
        told = self._told_before()
        if (query.id, query.text, track.id) in told:
            return 0
        told.add((query.id, query.text, track.id))
        hit = self._hit(track, one, rate, now_s)
        while not self._stop.is_set():
            with contextlib.suppress(queue.Full):
                self._found.put((hit, picture), timeout=0.1)
                return 1
        return 0

    def _told_before(self) -> set[tuple[str, str, uuid.UUID]]:
        if self._told is None:
            try:
                self._told = {(hit.query_id, hit.query, hit.track_id) for hit in HitReader(self._past.hits)}
            except HitError as error:
                log.warning("%s; hits of before may be told again", error)
                self._told = set()
        return self._told

    def _hit(self, track: StoredTrack, one: _Candidate, rate: float, now_s: float) -> Hit:
        allowed = one.query.promise.chance(rate)
        return hit_on(
            one.query,
            track,
            self._past.frame_px,
            # Its time is that of finding, see `found_afterwards`; also where the clock is behind the footage.
            id=uuid7(max(int(now_s * 1000), int(track.end_s * 1000) + 2)),
            revision=1,
            score=one.score,
            p_value=one.p_value,
            false_alarms_per_hour=one.p_value * rate,
            threshold=max(one.stick.score_at(allowed, many) for many in (False, True)),
        )

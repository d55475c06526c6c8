"""Standing queries of a run: made ready at its start, and where their hits go."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tagclip.runtime.alerts import TYPICAL, Alerts, Promise, StandingQuery, promised, standing, vector_of
from tagclip.runtime.background import read_background
from tagclip.runtime.bundle_slots import BundleSlots
from tagclip.runtime.encoder import TextEncoder
from tagclip.runtime.engines import Engines
from tagclip.runtime.errors import HitError, QueryError, StoreFullError
from tagclip.runtime.health import Health
from tagclip.runtime.hit import Hit
from tagclip.runtime.hit_log import HitLog
from tagclip.runtime.judge import Judge
from tagclip.runtime.picture_key import PictureKeys
from tagclip.runtime.retro import Past, Retro, found_afterwards
from tagclip.runtime.store import TrackStore
from tagclip.runtime.sync_link import StationLink
from tagclip.runtime.sync_messages import Query
from tagclip.runtime.sync_track import ToldTrack
from tagclip.runtime.when import show_when

LOOK_BACK_H = 24.0
LAST_LOOK_S = 5.0  # at the end, for those who were seen before the queries came

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Orders:
    """What `tagclip run` was told to look for.

    Attributes:
        queries: as typed; may be none where a station gives some.
        promise: of each of them.
        background: a site's file; None for the one that ships, or the bundle's own.
        hits: the file that hits are added to.
        station: folder of `tagclip enrol`, of the station that is told of hits and gives queries; None for none.
        look_back_h: a query is put to everybody in the store, too, who was seen last in so many hours; 0: to nobody.
    """

    queries: tuple[str, ...]
    promise: Promise
    background: Path | None
    hits: Path
    station: Path | None = None
    look_back_h: float = LOOK_BACK_H


class Armed(AbstractContextManager["Armed"]):
    """Queries with their yardstick, the open file of hits, and the link to the station.

    Args:
        show: is given every line that a person, or a program, is to read.
        as_json: lines are the hits' JSON.
        store: where people are kept; `watch` looks there for those of before.
        keys: of pictures.
        slots: the bundle, where the station may change it.

    Raises:
        BackgroundError, QueryError, HitError, EngineError, KeyFileError, StoreError: what is wrong.
    """

    def __init__(
        self,
        orders: Orders,
        engines: Engines,
        health: Health,
        show: Callable[[str], None],
        as_json: bool,
        store: TrackStore,
        keys: PictureKeys | None = None,
        slots: BundleSlots | None = None,
    ) -> None:
        self._orders, self._store, self._keys = orders, store, keys
        self._retro: Retro | None = None
        self._health, self._show, self._as_json, self._promise = health, show, as_json, orders.promise
        self._background = read_background(engines.bundle, orders.background)
        self._text = TextEncoder(engines.bundle, engine=engines)
        self._own = standing(orders.queries, self._text, self._background, orders.promise)
        self._told: list[StandingQuery] = []  # by the station
        # The station's newest set, until it is made ready: with a hundred queries a second, in which frames go on.
        self._next: Sequence[Query] | None = None
        self._arming: Future[tuple[list[StandingQuery], Judge | None]] | None = None
        self._typical = self._text.embed(TYPICAL)
        self._alerts: Alerts | None = None
        with ExitStack() as opened:
            self._worker = opened.enter_context(ThreadPoolExecutor(1, "arm"))
            self._log = opened.enter_context(HitLog(orders.hits))
            self._link = (
                opened.enter_context(
                    StationLink(
                        orders.station,
                        engines.bundle.encoder_id,
                        health,
                        keys=keys,
                        slots=slots,
                        store=store.path,
                    )
                )
                if orders.station
                else None
            )
            self._open = opened.pop_all()
        if self._log.cut_bytes:
            log.warning("%s ended in half a hit, %d bytes were cut off", orders.hits, self._log.cut_bytes)
        for query in self._own:
            log.info("armed %s: %s", query.id, query.text)

    def alerts(self, camera: str, frame_px: tuple[int, int]) -> Alerts:
        """For a camera with frames of width and height `frame_px`."""
        self._alerts = Alerts(self._own, self._background, self._typical, frame_px)
        self._alerts.arm(self._own, self._alerts.judge_of(self._own))
        if self._orders.look_back_h > 0:
            where = Past(
                self._store.path, self._orders.hits, camera, frame_px, self._orders.look_back_h, self._keys
            )
            self._retro = Retro(where, self._background, self._typical, self._health)
            self._look_back(self._own)
        return self._alerts

    def _look_back(self, queries: list[StandingQuery]) -> None:
        if self._retro is not None and self._alerts is not None:
            alerts = self._alerts
            self._retro.arm(queries, self._store.last_key(), alerts.in_view, alerts.people_per_hour)

    def refresh(self, now_s: float) -> None:
        """Take over what the station wants now, Unix time `now_s`; to be called often."""
        new = self._link.new_queries() if self._link else None
        if new is not None:
            self._next = new.queries
        self._make_ready()
        if self._arming is not None and self._arming.done():
            self._take_over()
        left = [query for query in self._told if query.expires_s is None or query.expires_s > now_s]
        if self._alerts is not None and len(left) < len(self._told):
            self._told = left
            self._arm(None)
        if self._retro is not None:
            self._retro.take(self.tell)
            self._retro.passed(self._store.last_key)

    def _make_ready(self) -> None:
        """Begin with the station's newest set, when the one before is done."""
        if self._next is None or self._arming is not None or self._alerts is None:
            return
        queries, alerts, self._next = self._next, self._alerts, None

        def ready() -> tuple[list[StandingQuery], Judge | None]:
            told = [query for one in queries if (query := self._standing(one)) is not None]
            return told, alerts.judge_of([*self._own, *told])

        self._arming = self._worker.submit(ready)

    def _take_over(self) -> None:
        assert self._arming is not None
        arming, self._arming = self._arming, None
        self._told, judge = arming.result()
        self._arm(judge)

    def _arm(self, judge: Judge | None) -> None:
        assert self._alerts is not None
        queries = [*self._own, *self._told]
        self._alerts.arm(queries, judge)
        self._look_back(queries)
        log.info("armed %d queries of the station", len(self._told))

    def _standing(self, told: Query) -> StandingQuery | None:
        """A station's query, embedded there or here; None for one that this bundle cannot take, which is said."""
        promise = promised(told.alarms_per_hour, told.alarms_per_1000) or self._promise
        try:
            if told.vector is not None and told.encoder_id == self._background.encoder_id:
                vector = np.asarray(told.vector, np.float32)
            else:
                vector = vector_of(told.text, self._text, self._background)
        except QueryError as error:
            log.error("the station's query %s is not looked for: %s", told.id, error)
            return None
        return StandingQuery(told.id, told.text, vector, promise, told.view, told.expires_s)

    def tell(self, hit: Hit, jpeg: bytes) -> None:
        """A hit, or the newer revision of one. A file that cannot be written to is said, and does not end the run."""
        if hit.revision == 1:
            self._health.counts.hits += 1
        if self._as_json:
            self._show(json.dumps(hit.to_json(), ensure_ascii=False))
        elif hit.revision == 1:
            self._show(line(hit))
        try:
            self._log.append(hit)
        except (HitError, StoreFullError) as error:
            if self._health.degrade("hits", str(error)):
                log.error("%s", error)
        else:
            self._health.recover("hits")
        if self._link is not None:
            self._link.tell(hit, jpeg)

    def tell_tracks(self, tracks: Sequence[ToldTrack], over: bool) -> None:
        """People who were put into the store, for the station."""
        if self._link is not None:
            self._link.tell_tracks(tracks, over)

    def __exit__(self, *_: object) -> None:
        try:
            while self._arming is not None:  # what came last is looked for among those of before
                self._take_over()
                self._make_ready()
            if self._retro is not None:
                self._retro.close(self.tell, self._store.last_key, LAST_LOOK_S)
        finally:
            self._open.close()


def line(hit: Hit) -> str:
    """A hit on one line, for reading."""
    rate = hit.false_alarms_per_hour
    often = "" if rate is None else f", {rate:.2g} false alarms an hour"
    before = " (seen before the query came)" if found_afterwards(hit) else ""
    where = f", at {hit.place.latitude_deg:.5f},{hit.place.longitude_deg:.5f}" if hit.place else ""
    return (
        f"HIT {hit.query_id} {hit.query!r}: {hit.camera}, {show_when(hit.best_s)}{before}{where}, "
        f"score {hit.score:.2f}{often}; a person decides"
    )

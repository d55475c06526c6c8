"""Standing queries of a run: made ready at its start, and where their hits go."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from tagclip.runtime.alerts import TYPICAL, Alerts, Promise, standing
from tagclip.runtime.background import read_background
from tagclip.runtime.encoder import TextEncoder
from tagclip.runtime.engines import Engines
from tagclip.runtime.errors import HitError, StoreFullError
from tagclip.runtime.health import Health
from tagclip.runtime.hit import Hit
from tagclip.runtime.hit_log import HitLog
from tagclip.runtime.when import show_when

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Orders:
    """What `tagclip run` was told to look for.

    Attributes:
        queries: as typed, at least one.
        promise: of each query.
        background: a site's file; None for the bundle's own.
        hits: the file that hits are added to.
    """

    queries: tuple[str, ...]
    promise: Promise
    background: Path | None
    hits: Path


class Armed(AbstractContextManager["Armed"]):
    """Queries with their yardstick, and the open file of hits.

    Args:
        show: is given every line that a person, or a program, is to read.
        as_json: lines are the hits' JSON.

    Raises:
        BackgroundError, QueryError, HitError, EngineError: what is wrong.
    """

    def __init__(
        self, orders: Orders, engines: Engines, health: Health, show: Callable[[str], None], as_json: bool
    ) -> None:
        self._health, self._show, self._as_json = health, show, as_json
        self._background = read_background(engines.bundle, orders.background)
        text = TextEncoder(engines.bundle, engine=engines)
        self._queries = standing(orders.queries, text, self._background, orders.promise)
        self._typical = text.embed(TYPICAL)
        self._log = HitLog(orders.hits)
        if self._log.cut_bytes:
            log.warning("%s ended in half a hit, %d bytes were cut off", orders.hits, self._log.cut_bytes)
        for query in self._queries:
            log.info("armed %s: %s", query.id, query.text)

    def alerts(self, frame_px: tuple[int, int]) -> Alerts:
        """For a camera with frames of width and height `frame_px`."""
        return Alerts(self._queries, self._background, self._typical, frame_px)

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

    def __exit__(self, *_: object) -> None:
        self._log.close()


def line(hit: Hit) -> str:
    """A hit on one line, for reading."""
    rate = hit.false_alarms_per_hour
    often = "" if rate is None else f", {rate:.2g} false alarms an hour"
    where = f", at {hit.place.latitude_deg:.5f},{hit.place.longitude_deg:.5f}" if hit.place else ""
    return (
        f"HIT {hit.query_id} {hit.query!r}: {hit.camera}, {show_when(hit.best_s)}{where}, "
        f"score {hit.score:.2f}{often}; a person decides"
    )

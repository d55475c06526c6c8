"""A device's link to its station as `tagclip run --station` uses it: hits in, query sets out, no surprises."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from tagclip.runtime.bundle_slots import BundleSlots
from tagclip.runtime.errors import HitError, StoreError
from tagclip.runtime.health import Health
from tagclip.runtime.hit import Hit
from tagclip.runtime.outbox import Outbox
from tagclip.runtime.picture_key import PictureKeys
from tagclip.runtime.sync_bundle import BundleSync
from tagclip.runtime.sync_carrier import Carrier
from tagclip.runtime.sync_client import SyncClient
from tagclip.runtime.sync_enrol import OUTBOX, QUERIES, read_enrolment
from tagclip.runtime.sync_messages import QuerySet

FIXED = "fixed"  # the state of a bundle that was named with --bundle
DRAIN_S = 5.0  # at the end, for the last hits

log = logging.getLogger(__name__)


class StationLink(AbstractContextManager["StationLink"]):
    """The open outbox of a folder that was enrolled, and the two threads that empty it and fetch queries.

    Args:
        folder: of `tagclip enrol`.
        encoder_id: of the device's bundle.
        health: is told with the causes "link", "queries", "station", "outbox" and "bundle".
        slots: the device's bundle, for the station to change; None: it is not the station's to change.
        facts: more for the heartbeat; plain values by name.
        carrier: another way than HTTPS.
        max_bytes: of the outbox.
        keys: of the pictures in it.

    Raises:
        KeyFileError: the folder is not enrolled, or damaged; or other keys than these encrypted what waits.
        StoreError, StoreFullError: the outbox cannot be opened.
    """

    def __init__(
        self,
        folder: Path,
        encoder_id: str,
        health: Health,
        *,
        slots: BundleSlots | None = None,
        facts: Callable[[], dict[str, Any]] = dict,
        carrier: Carrier | None = None,
        max_bytes: int = 256 << 20,
        keys: PictureKeys | None = None,
    ) -> None:
        known = read_enrolment(folder)
        self._health = health
        self._lock = threading.Lock()
        self._new: QuerySet | None = None
        self.outbox = Outbox(folder / OUTBOX, known.device, max_bytes, keys)
        self.client = SyncClient(
            self.outbox,
            carrier or known.carrier(),
            known.key,
            folder / QUERIES,
            encoder_id=encoder_id,
            on_queries=self._keep,
            health=health,
            facts=lambda: {
                **(self._bundles.facts() if self._bundles else {"bundle_state": FIXED}),
                **facts(),
            },
        )
        self._bundles = (
            BundleSync(slots, known.bundles(), health, hits_wait=lambda: len(self.outbox) > 0)
            if slots
            else None
        )
        log.info(
            "station %s knows this device as %s; %d messages wait",
            known.address,
            known.device,
            len(self.outbox),
        )

    def __enter__(self) -> StationLink:
        self.client.start()
        if self._bundles is not None:
            self._bundles.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bundles is not None:
            self._bundles.close()
        if not self.client.drain(DRAIN_S):
            log.warning("%d messages wait in the outbox for the next start", len(self.outbox))
        self.client.close()
        self.outbox.close()

    def tell(self, hit: Hit, jpeg: bytes) -> None:
        """Keep a hit, or the newer revision of one, for the station. A disk that refuses is said, and ends nothing."""
        try:
            self.outbox.put(hit, jpeg)
        except (HitError, StoreError) as error:
            if self._health.degrade("outbox", str(error)):
                log.error("%s", error)
        else:
            self._health.recover("outbox")

    def new_queries(self) -> QuerySet | None:
        """The newest query set since the last call, for the loop over the frames; None when there is none."""
        if self._new is None:
            return None
        with self._lock:
            new, self._new = self._new, None
        return new

    def _keep(self, queries: QuerySet) -> None:
        with self._lock:
            self._new = queries

"""A device's link to its station as `tagclip run --station` uses it: hits in, query sets out, no surprises."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from tagclip.runtime.bundle_slots import BundleSlots
from tagclip.runtime.errors import HitError, KeyFileError, StoreError
from tagclip.runtime.health import Health
from tagclip.runtime.hit import Hit
from tagclip.runtime.outbox import Outbox
from tagclip.runtime.picture_key import PictureKeys
from tagclip.runtime.store import TrackStore
from tagclip.runtime.sync_bundle import BundleSync
from tagclip.runtime.sync_carrier import Carrier
from tagclip.runtime.sync_client import SyncClient
from tagclip.runtime.sync_enrol import OUTBOX, QUERIES, read_enrolment
from tagclip.runtime.sync_messages import QuerySet
from tagclip.runtime.sync_track import ToldTrack

FIXED = "fixed"  # the state of a bundle that was named with --bundle
DRAIN_S = 5.0  # at the end, for the last hits

log = logging.getLogger(__name__)


def _heat(health: Health) -> dict[str, Any]:
    """The highest temperature of the machine, where it tells one."""
    hottest_c = health.machine.hottest_c if health.machine else None
    return {} if hottest_c is None else {"temperature_c": round(hottest_c, 1)}


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
        store: of the people whose pictures the station may ask for; None for none.

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
        store: Path | None = None,
    ) -> None:
        self._store, self._keys = store, keys
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
            on_wanted=self._fetch,
            health=health,
            facts=lambda: {
                **(self._bundles.facts() if self._bundles else {"bundle_state": FIXED}),
                **_heat(health),
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
        with self._said():
            self.outbox.put(hit, jpeg)

    def tell_tracks(self, tracks: Sequence[ToldTrack], over: bool) -> None:
        """Keep people for the station, as they were put into the store; as `tell`.

        Args:
            over: they are gone; until then they wait, as much more may be learnt.
        """
        with self._said():
            self.outbox.put_tracks(tracks, over=over)

    def new_queries(self) -> QuerySet | None:
        """The newest query set since the last call, for the loop over the frames; None when there is none."""
        if self._new is None:
            return None
        with self._lock:
            new, self._new = self._new, None
        return new

    @contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except (HitError, StoreError) as error:
            if self._health.degrade("outbox", str(error)):
                log.error("%s", error)
        else:
            self._health.recover("outbox")

    def _fetch(self, track_ids: Sequence[str]) -> None:
        """Put pictures that the station wants into the outbox; what cannot be read is not there for it either."""
        if self._store is None:
            pictures: dict[str, bytes | None] = dict.fromkeys(track_ids)
        else:
            try:
                with TrackStore(self._store, read_only=True, keys=self._keys) as store:
                    pictures = {name: _picture(store, name) for name in track_ids}
            except (StoreError, KeyFileError) as error:  # the station names them again
                log.warning("pictures that the station wants cannot be read: %s", error)
                return
        with self._said():
            for name, jpeg in pictures.items():
                self.outbox.put_thumbnail(name, jpeg)

    def _keep(self, queries: QuerySet) -> None:
        with self._lock:
            self._new = queries


def _picture(store: TrackStore, track_id: str) -> bytes | None:
    try:
        return store.thumbnail_of(uuid.UUID(track_id))
    except (StoreError, KeyFileError) as error:
        log.warning("the picture of track %s cannot be sent: %s", track_id, error)
        return None

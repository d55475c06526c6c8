"""The bundle that a device runs: as its station ordered, on trial at first, left when it does not start.

    FOLDER/bundles/current, previous, slot-*   see slots.py
    FOLDER/bundles/state.json                  the order in force, which bundle is on trial, what was given up and why
    FOLDER/bundles/incoming/DIGEST             what has come of a bundle so far
    FOLDER/signer.pub                          optional: bundles have to be signed by this key, whoever orders them

A bundle is on trial from the moment it is switched to until a run with it has worked. Every start is counted before
it is made, so that one that is killed counts too. What was given up is not tried again before there is a new order.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tagclip.runtime.bundle import MAX_SUMS_BYTES, Bundle, open_bundle, sums_bytes
from tagclip.runtime.bundle_manifest import SUMS
from tagclip.runtime.bundle_order import MAX_ORDER_BYTES, Order, Ordered, digest_of, verify_order
from tagclip.runtime.errors import (
    BackgroundError,
    BundleError,
    EngineError,
    QueryError,
    SyncError,
    TagclipError,
    one_line,
)
from tagclip.runtime.keys import PublicKey, read_public_key
from tagclip.runtime.slots import current_slot, leave
from tagclip.runtime.sync_enrol import Enrolment
from tagclip.runtime.sync_fields import Row, parse, sync_errors
from tagclip.runtime.sync_queries import write_private

BUNDLES, STATE, INCOMING, SIGNER = "bundles", "state.json", "incoming", "signer.pub"
MOST_STARTS = 2
MAX_STATE_BYTES = MAX_ORDER_BYTES + (64 << 10)
REFUSED, ROLLED_BACK = "refused", "rolled back"

# What is a bundle's fault. That a camera, a disk or a station is not there is none.
_BLAMED = (BundleError, EngineError, BackgroundError, QueryError)

log = logging.getLogger(__name__)


class BundleSlots:
    """What a device was ordered, what it runs, and what it gave up; any thread may call.

    Args:
        folder: of `tagclip enrol`.
        known: what is in it.

    Attributes:
        order: in force; None before the first.
        trial: digest, revision, starts and error of the bundle on trial; None: none is.
        given_up: digest, revision, state (REFUSED or ROLLED_BACK) and reason of the last that was; None: none is.
        running: digest of the bundle of this process, "" before `begin`.
        on_ready: called when another bundle than the running one was switched to.

    Raises:
        KeyFileError: signer.pub is there and no public key.
    """

    def __init__(self, folder: Path, known: Enrolment) -> None:
        self.path, self.device = folder / BUNDLES, known.device
        self.signer_path = folder / SIGNER if (folder / SIGNER).exists() else None
        self.signer: PublicKey | None = read_public_key(self.signer_path) if self.signer_path else None
        self.order: Order | None = None
        self.trial: dict[str, Any] | None = None
        self.given_up: dict[str, Any] | None = None
        self.running = ""
        self.bundle: Bundle | None = None
        self.on_ready: Callable[[], None] = _nothing
        self._key = known.key
        self._document: Any = None
        self._lock = threading.RLock()
        self._load()

    def begin(self) -> Bundle:
        """The bundle to run now, the one that ships if none was ever switched to; its start is counted.

        One that is damaged, or on trial and started MOST_STARTS times already, is left for the one before.

        Raises:
            BundleError: even the one that ships cannot be used.
            OutputError: the folder cannot be written.
        """
        with self._lock:
            bundle = self._opened() or open_bundle(None)
            self.bundle, self.running = bundle, digest_of(sums_bytes(bundle.sha256))
            if self.trial and self.trial["digest"] == self.running:
                self.trial["starts"] += 1
                self._save()
                log.info("bundle %.12s is on trial, start %d", self.running, self.trial["starts"])
        return bundle

    @contextlib.contextmanager
    def blamed(self) -> Iterator[None]:
        """What the block raises is noted as the reason if it is the bundle's fault; if it is not, the start is not
        counted."""
        try:
            yield
        except Exception as error:
            with self._lock:
                if self.trial and self.trial["digest"] == self.running:
                    if isinstance(error, _BLAMED) or not isinstance(error, TagclipError):
                        self.trial["error"] = one_line(f"{error or type(error).__name__}")[:300]
                    else:
                        self.trial["starts"] = max(self.trial["starts"] - 1, 0)
                    self._save()
            raise

    def works(self) -> None:
        """A run with the bundle has worked: its trial is over. To be called as often as one likes."""
        if self.trial is None:
            return
        with self._lock:
            if self.trial and self.trial["digest"] == self.running:
                self.trial = None
                self._save()
                log.info("bundle %.12s has proved itself", self.running)

    @property
    def on_trial(self) -> bool:
        """Whether the running bundle has yet to prove itself."""
        return self.trial is not None and self.trial["digest"] == self.running

    def take(self, document: object) -> Order:
        """Check an order and keep it; on the disk when this returns.

        Raises:
            SyncError: another than the station signed it, it breaks its form, is not for this device, or its revision
                is not higher than that of the order in force, which stays.
            OutputError: it cannot be written.
        """
        order = verify_order(document, self._key)
        with self._lock:
            known = self.order.revision if self.order else 0
            if order.revision <= known:
                raise SyncError(
                    f"order.revision: expected more than {known}, found {order.revision}; the newer order stays"
                )
            if not order.is_for(self.device):
                raise SyncError(f"order.devices: the order is not for {self.device}; the last one stays")
            before = self.order, self._document
            self.order, self._document = order, document
            try:
                self._save()
            except TagclipError:
                self.order, self._document = before
                raise
        return order

    def wanted(self) -> Ordered | None:
        """What is ordered and not running, unless it was given up since."""
        with self._lock:
            order, gone = self.order, self.given_up
            if order is None or order.bundle is None or order.bundle.digest == self.running:
                return None
            return None if gone and gone["revision"] == order.revision else order.bundle

    def switched(self) -> bool:
        """Whether the next start takes another bundle than the running one."""
        with contextlib.suppress(BundleError, OSError):
            slot = current_slot(self.path)
            return slot is not None and _digest(slot) != self.running
        return False

    def begin_trial(self, bundle: Ordered) -> None:
        """To be called before the switch to it, so that no start with it goes uncounted. Raises: OutputError."""
        with self._lock:
            revision = self.order.revision if self.order else 0
            self.trial = {"digest": bundle.digest, "revision": revision, "starts": 0, "error": ""}
            self.given_up = None
            self._save()

    def refuse(self, reason: str) -> None:
        """Give up what is ordered until there is a new order. Raises: OutputError."""
        with self._lock:
            if self.order and self.order.bundle:
                self._give_up(self.order.bundle.digest, self.order.revision, REFUSED, reason)

    def _opened(self) -> Bundle | None:
        """The bundle in use, after those were left that cannot be; None for the one that ships."""
        while True:
            try:
                slot = current_slot(self.path)
                if slot is None:
                    return None
                digest = _digest(slot)
            except (BundleError, OSError) as error:
                digest, reason = "", f"damaged: {error}"
            else:
                reason = self._against(digest)
                if not reason:
                    try:
                        return open_bundle(slot, public_key=self.signer)
                    except BundleError as error:
                        reason = str(error)
            if reason != ROLLED_BACK:
                ordered = self.order.bundle if self.order else None
                mine = self.order.revision if self.order and ordered and ordered.digest == digest else 0
                self._give_up(digest, mine, ROLLED_BACK, reason)
            leave(self.path)

    def _against(self, digest: str) -> str:
        """Why not to start with it, "" if nothing is against it, ROLLED_BACK when it was said already."""
        if self.trial and self.trial["digest"] == digest and self.trial["starts"] >= MOST_STARTS:
            cause = self.trial["error"] or "it ended without a word"
            return f"it did not work in {self.trial['starts']} starts: {cause}"
        # A kill came between the word and the deed.
        return ROLLED_BACK if self.given_up and self.given_up["digest"] == digest else ""

    def _give_up(self, digest: str, revision: int, state: str, reason: str) -> None:
        text = one_line(reason)[:500]
        log.error("bundle %.12s is %s: %s", digest, state, text)
        self.given_up = {"digest": digest, "revision": revision, "state": state, "reason": text}
        self.trial = None
        self._save()

    def _load(self) -> None:
        path = self.path / STATE
        try:
            with open(path, "rb") as file:
                data = file.read(MAX_STATE_BYTES + 1)
            with sync_errors():
                fields = Row(parse(data, str(path), MAX_STATE_BYTES), STATE)
                self._document = None if fields.null("order") else fields.free("order")
                self.trial = None if fields.null("trial") else _trial(fields)
                self.given_up = None if fields.null("given_up") else _given_up(fields)
                fields.close()
            if self._document is not None:
                self.order = verify_order(self._document, self._key)
                if not self.order.is_for(self.device):
                    raise SyncError(f"the order is not for {self.device}")
        except FileNotFoundError:
            pass
        except (OSError, SyncError) as error:
            # Another station's, for one: the device was enrolled anew.
            log.warning("%s is not used, the order is fetched again: %s", path, error)
            self.order = self._document = None

    def _save(self) -> None:
        state = {"order": self._document, "trial": self.trial, "given_up": self.given_up}
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(self.path / STATE, json.dumps(state).encode("ascii"))


def _trial(fields: Row) -> dict[str, Any]:
    row = Row(fields.free("trial"), f"{STATE}.trial")
    found = {
        "digest": row.text("digest"),
        "revision": row.integer("revision", low=0, high=1 << 53),
        "starts": row.integer("starts", low=0, high=1 << 30),
        "error": row.line("error", least=0, most=300),
    }
    row.close()
    return found


def _given_up(fields: Row) -> dict[str, Any]:
    row = Row(fields.free("given_up"), f"{STATE}.given_up")
    found = {
        "digest": row.line("digest", least=0, most=64),
        "revision": row.integer("revision", low=0, high=1 << 53),
        "state": row.text("state", choices=(REFUSED, ROLLED_BACK)),
        "reason": row.line("reason", least=0, most=500),
    }
    row.close()
    return found


def _digest(slot: Path) -> str:
    """Of the bundle that lies there. Raises: OSError."""
    with open(slot / SUMS, "rb") as file:
        return digest_of(file.read(MAX_SUMS_BYTES))


def _nothing() -> None:
    """Nobody waits for it."""

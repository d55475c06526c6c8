"""The device's side of the link: hits go home out of the outbox, query sets come in and are kept.

Two threads over one carrier: one sends a batch, waits for the station's word that it is on its disk, and removes it;
one asks for the next query set and waits. While the station is out of reach both try again, ever more seldom.
"""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tagclip.runtime.errors import CredentialError, LinkError, RefusedError, SyncError, TagclipError
from tagclip.runtime.health import Health
from tagclip.runtime.keys import PublicKey
from tagclip.runtime.outbox import Outbox, encode
from tagclip.runtime.sync_carrier import Carrier
from tagclip.runtime.sync_messages import MAX_BATCH_BYTES, MAX_MESSAGES, THUMBNAIL, TRACK, Message, QuerySet
from tagclip.runtime.sync_queries import QueryKeeper
from tagclip.runtime.sync_window import Window

HEARTBEAT_S = 30.0
LONG_POLL_S = 25.0
FIRST_PAUSE_S, MOST_PAUSE_S = 0.5, 60.0
MOST_ASKED_S = 600.0  # what a station may ask a device to wait
OLD_STATION_S = 3600.0  # for which tracks wait that an older station does not know
STATUS_BYTES = 16 << 10  # of a batch are left for the status

log = logging.getLogger(__name__)


@dataclass
class LinkCounts:
    """Totals since the start.

    Attributes:
        batches: answered. messages, bytes: sent, before any packing; resent ones again.
        acked, rejected: messages that the station has, and that it refuses.
        resent, resent_bytes: of those that had been sent before and not answered.
        failures: exchanges without an answer.
        query_sets, refused_sets: taken, and refused.
    """

    batches: int = 0
    messages: int = 0
    bytes: int = 0
    acked: int = 0
    rejected: int = 0
    resent: int = 0
    resent_bytes: int = 0
    failures: int = 0
    query_sets: int = 0
    refused_sets: int = 0


class SyncClient:
    """Sends and receives from `start` until `close`.

    Args:
        outbox: what to send.
        carrier: the way; closed by `close`.
        key: of the station, which signs query sets.
        queries_path: where the last good query set is kept.
        encoder_id: of the device's bundle; vectors of another encoder are refused, their texts are not.
        on_queries: is given each new query set, by a thread of its own, and the kept one by `start`.
        on_wanted: is given ids of tracks whose thumbnail the station wants, by the thread that sends; it names them
            again with every answer until it has them.
        health: is told with the causes "link" and "queries".
        facts: more for the heartbeat; plain values by name.

    Attributes:
        counts: what has happened.
    """

    def __init__(
        self,
        outbox: Outbox,
        carrier: Carrier,
        key: PublicKey,
        queries_path: Path,
        *,
        encoder_id: str,
        on_queries: Callable[[QuerySet], None],
        health: Health,
        facts: Callable[[], dict[str, Any]] = dict,
        on_wanted: Callable[[Sequence[str]], None] = lambda ids: None,
    ) -> None:
        self.counts = LinkCounts()
        self._outbox, self._carrier = outbox, carrier
        self._keeper = QueryKeeper(queries_path, key, encoder_id)
        self._encoder_id, self._on_queries, self._health, self._facts = encoder_id, on_queries, health, facts
        self._on_wanted = on_wanted
        self._tracks_from_s = 0.0  # before it they wait
        self._window = Window(MAX_BATCH_BYTES - STATUS_BYTES)
        self._told_s = -HEARTBEAT_S
        self._unsure: set[str] = set()  # sent without an answer
        self._singly = 0  # so many are sent one by one, to find the one that is refused
        self._stop = threading.Event()
        self._wakes = {"send": threading.Event(), "queries": threading.Event()}
        self._threads = [
            threading.Thread(target=self._run, args=(name, turn), name=f"sync-{name}", daemon=True)
            for name, turn in (("send", self._send), ("queries", self._ask))
        ]

    @property
    def revision(self) -> int:
        """Of the query set in force; 0 while there is none."""
        return self._keeper.queries.revision if self._keeper.queries else 0

    def start(self) -> None:
        """Take up the query set that was kept, and begin."""
        if (kept := self._keeper.load()) is not None:
            self._on_queries(kept)
        for thread in self._threads:
            thread.start()

    def drain(self, timeout_s: float) -> bool:
        """Wait until nothing waits to be sent; False when something still does after `timeout_s`."""
        end_s = time.monotonic() + timeout_s
        while len(self._outbox) and time.monotonic() < end_s and not self._stop.is_set():
            time.sleep(0.02)
        return not len(self._outbox)

    def close(self, timeout_s: float = 5.0) -> None:
        """End within `timeout_s`; what was not acknowledged waits in the outbox for the next start."""
        self._stop.set()
        for wake in (self._outbox.news, *self._wakes.values()):
            wake.set()
        self._carrier.close()
        end_s = time.monotonic() + timeout_s
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(end_s - time.monotonic(), 0.0))

    def __enter__(self) -> SyncClient:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, name: str, turn: Callable[[], None]) -> None:
        """Take turns until the end; after each that fails a pause, twice as long as the last."""
        pause_s = 0.0
        wake, other = self._wakes[name], self._wakes["queries" if name == "send" else "send"]
        while True:
            wake.clear()
            if self._stop.is_set():  # looked at after what `close` sets is cleared
                return
            asked_s = None
            try:
                turn()
            except LinkError as error:
                asked_s = error.retry_s
                self._trouble(name, error)
            except CredentialError as error:
                pause_s = MOST_PAUSE_S
                self._trouble(name, error)
            except Exception as error:  # a thread that died would be a device that is silent and looks well
                if not isinstance(error, TagclipError):
                    log.exception("unexpected; the link goes on")
                self._trouble(name, error)
            else:
                if pause_s:
                    other.set()  # the station is back: what works for one works for the other
                pause_s = 0.0
                continue
            pause_s = min(max(2 * pause_s, FIRST_PAUSE_S), MOST_PAUSE_S)
            if asked_s is not None:
                self._stop.wait(min(asked_s, MOST_ASKED_S))
            else:
                wake.wait(pause_s * random.uniform(0.5, 1.0))

    def _trouble(self, name: str, error: Exception) -> None:
        if self._stop.is_set():
            return
        if name == "send":
            self.counts.failures += 1
        cause = "link" if name == "send" else "queries"
        # The sender tells of the link; only what is wrong with a query set itself is told by the other.
        if name == "queries" and isinstance(error, (LinkError, CredentialError)):
            return
        if self._health.degrade(cause, str(error)):
            log.warning("%s", error)

    def _send(self) -> None:
        """Send one batch, or wait until there is something to send."""
        self._outbox.news.clear()
        most = 1 if self._singly else MAX_MESSAGES
        takes_tracks = time.monotonic() >= self._tracks_from_s
        messages = self._outbox.take(self._window.bytes, most, tracks=takes_tracks)
        due_s = self._told_s + HEARTBEAT_S - time.monotonic()
        if not messages and due_s > 0:
            if not self._stop.is_set():  # looked at after news, which `close` sets, was cleared
                self._outbox.news.wait(due_s)
            return
        status = self._status() if due_s <= 0 else {}
        batch = _batch(self._outbox.device, messages, status)
        ids, known = {message.id for message in messages}, self.revision
        again = ids & self._unsure
        counts = self.counts
        counts.messages, counts.bytes = counts.messages + len(messages), counts.bytes + len(batch)
        if again:
            counts.resent += len(again)
            counts.resent_bytes += len(batch) * len(again) // len(ids)
        begun_s = time.monotonic()
        try:
            answer = self._carrier.exchange(batch, self._window.timeout_s(len(batch)))
        except RefusedError as error:
            self._refused(messages, error)
            return
        except LinkError as error:
            self._unsure |= ids
            self._window.failed(timed_out=error.timed_out)
            raise
        self._window.answered(len(batch), time.monotonic() - begun_s)
        self._unsure -= ids
        self._singly = max(self._singly - 1, 0)
        if status:
            self._told_s = time.monotonic()
        rejected = {id_: reason for id_, reason in answer.rejected.items() if id_ in ids}
        acked = ids.intersection(answer.acks)
        if ids and not acked and not rejected:
            raise LinkError(
                f"the station acknowledges none of {len(ids)} messages; ask its operator to look at it"
            )
        counts.batches += 1
        old = [message.id for message in messages if _unknown(message, rejected)]
        if old:
            self._tracks_from_s = time.monotonic() + OLD_STATION_S
            log.warning("the station is of an older tagclip and takes no tracks; they wait")
            rejected = {id_: reason for id_, reason in rejected.items() if id_ not in old}
        if acked:
            counts.acked += self._outbox.acked(acked)
        if rejected:
            counts.rejected += self._outbox.rejected(rejected)
        if self._health.recover("link"):
            log.info("the station is in reach, %d messages wait", len(self._outbox))
        self._compare(answer.queries_revision, known)
        if answer.wanted:
            self._on_wanted(answer.wanted)

    def _refused(self, messages: list[Message], error: RefusedError) -> None:
        """Find the message for which a batch is refused, and give it up, so that it does not block the others."""
        if not messages:
            raise LinkError(f"the station refuses an empty batch: {error}")
        if len(messages) > 1:
            self._singly = len(messages)
            return
        self._singly = max(self._singly - 1, 0)
        self.counts.rejected += self._outbox.rejected({messages[0].id: str(error)})

    def _compare(self, theirs: int, ours: int) -> None:
        """A station that was set back would never be heard again: its revisions are all refused."""
        text = (
            f"the station's query set has revision {theirs}, this device's {ours}: "
            "was the station restored from a backup? enrol the device anew"
        )
        if theirs < ours and self._health.degrade("station", text):
            log.warning("%s", text)
        elif theirs >= ours:
            self._health.recover("station")

    def _status(self) -> dict[str, Any]:
        known = {
            "now_s": round(time.time(), 3),
            "encoder_id": self._encoder_id,
            "queries_revision": self.revision,
        }
        return {**self._facts(), **self._outbox.facts(), **known}

    def _ask(self) -> None:
        """Wait for the next query set."""
        begun_s = time.monotonic()
        document = self._carrier.queries(self.revision, LONG_POLL_S)
        if document is None:
            if time.monotonic() - begun_s < 1.0:  # a station that does not wait is not asked without end
                self._stop.wait(1.0)
            return
        try:
            queries = self._keeper.take(document, time.time() + (self._carrier.skew_s or 0.0))
        except SyncError:
            self.counts.refused_sets += 1
            raise
        self.counts.query_sets += 1
        log.info("query set %d is in force, %d queries", queries.revision, len(queries.queries))
        self._on_queries(queries)
        self._health.recover("queries")


def _batch(device: str, messages: list[Message], status: dict[str, Any]) -> bytes:
    """A batch as `sync_messages.batch_of` reads it."""
    told = json.dumps(status, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    rows = b",".join(encode(message) for message in messages)
    return b'{"device":"%s","messages":[%s],"status":%s}' % (device.encode("ascii"), rows, told)


def _unknown(message: Message, rejected: Mapping[str, str]) -> bool:
    """Whether the station refuses a message for its kind alone."""
    return message.kind in (TRACK, THUMBNAIL) and rejected.get(message.id, "").startswith("message.kind:")

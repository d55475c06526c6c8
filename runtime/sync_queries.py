"""The station's query set as a device keeps it: the last good one, whatever else comes."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import replace
from pathlib import Path

from tagclip.runtime.errors import OutputError, SyncError
from tagclip.runtime.files import write_atomic
from tagclip.runtime.keys import PublicKey
from tagclip.runtime.sync_fields import parse
from tagclip.runtime.sync_messages import MAX_QUERIES_BYTES, QuerySet, verify

log = logging.getLogger(__name__)


class QueryKeeper:
    """One file with the query set in force.

    Args:
        path: the file; its folder is there.
        key: of the station.
        encoder_id: of the device; vectors of another one are refused, those texts are for the device to encode.

    Attributes:
        queries: the set in force, None while there is none.
    """

    def __init__(self, path: Path, key: PublicKey, encoder_id: str) -> None:
        self.queries: QuerySet | None = None
        self._path, self._key, self._encoder_id = path, key, encoder_id

    def load(self) -> QuerySet | None:
        """Take up what was kept, were it expired: a device that is offline goes on with it. None: there is none."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("%s cannot be read (%s); the queries are fetched again", self._path, error.strerror)
            return None
        try:
            queries = verify(parse(data, str(self._path), MAX_QUERIES_BYTES), self._key)
        except SyncError as error:
            log.warning("the query set in %s is not used, and fetched again: %s", self._path, error)
            return None
        self.queries = self._usable(queries)
        return self.queries

    def take(self, document: object, now_s: float) -> QuerySet:
        """Check a query set and keep it, on the disk when this returns.

        Args:
            document: as it came.
            now_s: Unix time, UTC, by the station's clock as far as that is known.

        Raises:
            SyncError: another than the station signed it, or it breaks its form, has no higher revision than the set
                in force, or is expired. The set in force stays.
            OutputError: it cannot be written; the set in force stays.
        """
        queries = verify(document, self._key)
        known = self.queries.revision if self.queries else 0
        if queries.revision <= known:
            raise SyncError(
                f"queries.revision: expected more than {known}, found {queries.revision}; the newer set stays"
            )
        if queries.expires_s <= now_s:
            late_s = now_s - queries.expires_s
            raise SyncError(
                f"queries.expires_s: the query set expired {late_s:.0f} s ago; the last one stays"
            )
        write_private(self._path, json.dumps(document).encode("ascii"))
        self.queries = self._usable(queries)
        return self.queries

    def _usable(self, queries: QuerySet) -> QuerySet:
        """Without the vectors of other encoders: what they would find here is chance. Those texts are encoded here."""
        others = [query for query in queries.queries if query.encoder_id not in (None, self._encoder_id)]
        if not others:
            return queries
        log.warning(
            "%d of %d queries come with vectors of encoder %.12s, this device has %.12s: they are encoded here; "
            "the same bundle at both ends is better",
            *(len(others), len(queries.queries), others[0].encoder_id, self._encoder_id),
        )
        own = (
            replace(query, vector=None, encoder_id=None) if query in others else query
            for query in queries.queries
        )
        return replace(queries, queries=tuple(own))


def write_private(path: Path, data: bytes) -> None:
    """`write_atomic`, for the owner alone.

    Raises:
        OutputError: the folder is absent, not writable or full; nothing is left behind.
    """
    waiting = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        waiting.unlink(missing_ok=True)
        os.close(os.open(waiting, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; choose another place") from error
    write_atomic(path, data, waiting=waiting)

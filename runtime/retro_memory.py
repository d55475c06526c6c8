"""Which queries were put to whom of a store already, so that a restart repeats nothing."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import time
from pathlib import Path
from typing import Any

from tagclip.runtime.alerts import StandingQuery
from tagclip.runtime.errors import OutputError
from tagclip.runtime.files import write_atomic

FORGOTTEN_S = 90 * 86_400.0  # a query that was not looked for in so long is forgotten

log = logging.getLogger(__name__)


def name_of(query: StandingQuery) -> str:
    """By which a query is remembered: q1 of one run is not q1 of the next."""
    return hashlib.sha256(f"{query.id}\n{query.text}".encode()).hexdigest()[:32]


class Memory:
    """Up to which key of a store each query was put to everybody: a file beside it, STORE.searched.json.

    A file that is damaged, or of a store that was at this place before, counts for nothing: then everybody is searched.

    Args:
        store: the store's file.
    """

    def __init__(self, store: Path) -> None:
        self._path, self._store = store.with_name(store.name + ".searched.json"), store.stat().st_ino
        self.upto: dict[str, int] = {}
        self._armed_s: dict[str, float] = {}
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            self._read(json.loads(self._path.read_bytes()))

    def _read(self, found: Any) -> None:
        if found["version"] == 1 and found["store"] == self._store:
            upto = {str(name): int(row["upto"]) for name, row in found["queries"].items()}
            armed_s = {str(name): float(row["armed_s"]) for name, row in found["queries"].items()}
            self.upto, self._armed_s = upto, armed_s

    def begin(self, name: str, last_key: int) -> int:
        """After which key to search; `last_key` is the store's."""
        upto = self.upto.get(name, 0)
        return upto if upto <= last_key else 0

    def keep(self, upto: dict[str, int]) -> None:
        """Remember these, by name; a disk that refuses is said, and only costs a search after the next start."""
        now_s = time.time()
        self.upto |= upto
        self._armed_s |= dict.fromkeys(upto, now_s)
        rows = {
            name: {"upto": key, "armed_s": round(self._armed_s.get(name, now_s))}
            for name, key in self.upto.items()
            if now_s - self._armed_s.get(name, now_s) < FORGOTTEN_S
        }
        try:
            data = json.dumps({"version": 1, "store": self._store, "queries": rows})
            write_atomic(self._path, data.encode("ascii"))
        except OutputError as error:
            log.warning("%s", error)

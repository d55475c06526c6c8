"""A real station for chaos: `tagclip station` in a process, devices made known to it, and what it has in the end.

Run as a program it is a station that is broken on purpose, for the tests of the tests:

    python -m chaos.station hasty|NORMAL|OFF station --data ... (as `tagclip`)

hasty acknowledges first and commits half a second later; NORMAL and OFF are SQLite's `synchronous`.
"""

from __future__ import annotations

import json
import socket
import sqlite3
import sys
import threading
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from chaos.child import Child
from chaos.hits import ENCODER, hit, jpeg

from tagclip.runtime import cli
from tagclip.runtime.station.database import Database
from tagclip.runtime.station.station import RECORDS, enrolment
from tagclip.runtime.station.store import Store
from tagclip.runtime.sync_enrol import enrol

HASTY_S = 0.5


def free_address() -> str:
    """Of this machine, with a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


class Ground:
    """A station, its lives one after another: the real command unless it is to be broken.

    Args:
        broken: see above; or empty.
        more: options of the command.
    """

    def __init__(
        self,
        data: Path,
        address: str,
        broken: str = "",
        log: Path | None = None,
        more: tuple[object, ...] = (),
    ) -> None:
        self._command: list[object] = ["-m", "chaos.station", broken] if broken else ["-m", "tagclip.runtime"]
        self._command += ["station", "--data", data, "--listen", address]
        self._command += ["--name", address.partition(":")[0], *more]
        self._log = log
        self.start()

    def start(self) -> None:
        self.child = Child(self._command, "station on https", log=self._log)

    def again(self) -> None:
        """Kill it and start it anew."""
        self.close()
        self.start()

    def close(self) -> None:
        self.child.kill()


def make_known(data: Path, names: list[str], folder: Path) -> list[Path]:
    """Enrol devices at the running station of `data`; their folders."""
    database = Database(data / RECORDS)
    store = Store(database)
    folders = [folder / name for name in names]
    for name, place in zip(names, folders, strict=True):
        code, _ = store.make_code(name, "chaos")
        enrol(enrolment(data, code), name, place, ENCODER)
    database.close()
    return folders


@dataclass(frozen=True)
class Count:
    """What became of the hits that were put.

    Attributes:
        put: that devices said were on their disks.
        lost: of those, the ones that the station lacks, or whose picture it lacks, or that are not as they were.
        doubled: hits, pictures and messages beyond the one of each.
        strange: hits that nobody put.
    """

    put: int
    lost: int
    doubled: int
    strange: int

    def good(self) -> bool:
        return self.put > 0 and (self.lost, self.doubled, self.strange) == (0, 0, 0)

    def to_json(self) -> dict[str, int]:
        return asdict(self)


def count(data: Path, put: set[int], maybe: set[int]) -> Count:
    """Of a station that does not run.

    Args:
        maybe: numbers that a device died with; either is right.

    Raises:
        sqlite3.DatabaseError, AssertionError: its file is not sound.
    """
    with sqlite3.connect(data / RECORDS) as records:
        assert records.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = records.execute("SELECT id, document FROM hits").fetchall()
        pictures = records.execute("SELECT hit_id, jpeg FROM pictures").fetchall()
        (messages,) = records.execute("SELECT count(*) FROM messages").fetchone()
    records.close()
    seen = {uuid.UUID(id_).int: json.loads(document) for id_, document in rows}
    shown = {uuid.UUID(id_).int: content for id_, content in pictures}
    whole = {n for n, found in seen.items() if found == hit(n).to_json() and shown.get(n) == jpeg(n)}
    extra = len(rows) - len(seen) + len(pictures) - len(shown) + max(messages - len(seen) - len(shown), 0)
    return Count(len(put), len(put - whole), extra, len((seen.keys() | shown.keys()) - put - maybe))


def _break(how: str) -> None:
    if how == "hasty":
        take = Store.take

        def late(store: Store, batch: object) -> object:
            from tagclip.runtime.sync_messages import Answer, id_of

            threading.Timer(HASTY_S, take, (store, batch)).start()
            return Answer(tuple(id_of(row) or "" for row in batch.rows), {}, 0)  # type: ignore[attr-defined]

        Store.take = late  # type: ignore[assignment, method-assign]
    else:
        opened = Database.__init__

        def careless(database: Database, path: Path) -> None:
            opened(database, path)
            database._writer.execute(f"PRAGMA synchronous = {how}")

        Database.__init__ = careless  # type: ignore[method-assign]


if __name__ == "__main__":
    _break(sys.argv[1])
    cli.main(sys.argv[2:])

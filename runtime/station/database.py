"""The station's records: their tables, in one SQLite file or (postgres.py) in a PostgreSQL database, and transactions
that are durable when they return.

Every statement is written once, in what both engines understand; postgres.py translates the few words that differ.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from tagclip.runtime.errors import StoreError

BUSY_MS = 10_000  # `tagclip station enrol` writes to the file of a station that runs

_FORM_1 = (
    """CREATE TABLE devices(
      name TEXT PRIMARY KEY, token BLOB NOT NULL UNIQUE, enrolled_s REAL NOT NULL, seen_s REAL,
      status TEXT, revision INTEGER NOT NULL DEFAULT 0, version TEXT NOT NULL, encoder_id TEXT)""",
    """CREATE TABLE enrolments(
      code BLOB PRIMARY KEY, device TEXT NOT NULL, made_by TEXT NOT NULL, expires_s REAL NOT NULL, used_s REAL)""",
    """CREATE TABLE messages(
      device TEXT NOT NULL, id TEXT NOT NULL, received_s REAL NOT NULL, PRIMARY KEY(device, id)) WITHOUT ROWID""",
    "CREATE INDEX messages_age ON messages(received_s)",
    """CREATE TABLE hits(
      place INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, device TEXT NOT NULL, query_id TEXT NOT NULL,
      revision INTEGER NOT NULL, best_s REAL NOT NULL, received_s REAL NOT NULL, document TEXT NOT NULL,
      review TEXT NOT NULL DEFAULT 'unreviewed', reviewed_by TEXT, reviewed_s REAL)""",
    "CREATE INDEX hits_query ON hits(query_id, place)",
    "CREATE INDEX hits_device ON hits(device, place)",
    "CREATE INDEX hits_age ON hits(received_s)",
    """CREATE TABLE pictures(
      hit_id TEXT NOT NULL, device TEXT NOT NULL, revision INTEGER NOT NULL, received_s REAL NOT NULL,
      jpeg BLOB NOT NULL, PRIMARY KEY(hit_id, device))""",
    "CREATE INDEX pictures_age ON pictures(received_s)",
    """CREATE TABLE quarantine(
      digest BLOB PRIMARY KEY, device TEXT NOT NULL, received_s REAL NOT NULL, reason TEXT NOT NULL,
      raw TEXT NOT NULL)""",
    "CREATE INDEX quarantine_age ON quarantine(received_s)",
    """CREATE TABLE queries(
      id TEXT PRIMARY KEY, added_s REAL NOT NULL, added_by TEXT NOT NULL, expires_s REAL, document TEXT NOT NULL)""",
    """CREATE TABLE query_set(
      one INTEGER PRIMARY KEY CHECK(one = 1), revision INTEGER NOT NULL, document BLOB NOT NULL)""",
    """CREATE TABLE users(
      name TEXT PRIMARY KEY, password TEXT NOT NULL, role TEXT NOT NULL, disabled INTEGER NOT NULL DEFAULT 0,
      must_change INTEGER NOT NULL, made_s REAL NOT NULL)""",
    """CREATE TABLE sessions(
      token BLOB PRIMARY KEY, user TEXT NOT NULL REFERENCES users(name), csrf BLOB, expires_s REAL NOT NULL)""",
    "CREATE INDEX sessions_user ON sessions(user)",
    "CREATE TABLE audit(row INTEGER PRIMARY KEY, hash BLOB NOT NULL, entry TEXT NOT NULL)",
)
# What form 2 adds to files of form 1: one statement an entry, new tables and columns (those need a DEFAULT) alone.
_FORM_2: tuple[str, ...] = (
    """CREATE TABLE bundles(
      digest TEXT PRIMARY KEY, name TEXT NOT NULL, encoder_id TEXT NOT NULL, bytes BIGINT NOT NULL,
      pushed_s REAL NOT NULL, pushed_by TEXT NOT NULL)""",
    """CREATE TABLE bundle_orders(
      revision BIGINT PRIMARY KEY, digest TEXT, devices TEXT, document TEXT NOT NULL)""",
    "CREATE TABLE closed_queries(id TEXT PRIMARY KEY, closed_s REAL NOT NULL)",
    "CREATE TABLE deleted_hits(id TEXT PRIMARY KEY, deleted_s REAL NOT NULL)",
    "CREATE TABLE picture_keys(id TEXT PRIMARY KEY)",
    """CREATE TABLE tracks(
      place INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, device TEXT NOT NULL, camera TEXT NOT NULL,
      view TEXT NOT NULL, encoder_id TEXT NOT NULL, start_s REAL NOT NULL, end_s REAL NOT NULL, latitude_deg REAL,
      longitude_deg REAL, received_s REAL NOT NULL, boot_id TEXT NOT NULL, seq BIGINT NOT NULL,
      document TEXT NOT NULL, vector BLOB NOT NULL)""",
    "CREATE INDEX tracks_age ON tracks(received_s)",
    "CREATE INDEX tracks_camera ON tracks(device, camera, start_s, end_s)",
    """CREATE TABLE wanted_pictures(
      track_id TEXT PRIMARY KEY, device TEXT NOT NULL, asked_s REAL NOT NULL, gone INTEGER NOT NULL)""",
    "CREATE INDEX wanted_device ON wanted_pictures(device, gone, asked_s)",
    """CREATE TABLE webhooks(
      name TEXT PRIMARY KEY, hit_place BIGINT NOT NULL, audit_row BIGINT NOT NULL, given_up BIGINT NOT NULL)""",
    """CREATE TABLE webhook_queue(
      webhook TEXT NOT NULL, id TEXT NOT NULL, kind TEXT NOT NULL, hit_id TEXT NOT NULL, facts TEXT NOT NULL,
      made_s REAL NOT NULL, tries BIGINT NOT NULL, next_s REAL NOT NULL, PRIMARY KEY(webhook, id))""",
    # What the page counts, without reading the hits themselves.
    "CREATE INDEX hits_review ON hits(review, place)",
    "CREATE INDEX hits_query_review ON hits(query_id, review, place)",
)
# A file is brought from its form to the newest by every statement in between, in one transaction; so is a new one.
FORMS = (_FORM_1, _FORM_2)
VERSION = len(FORMS)


class Rows(Protocol):
    """What a statement found, and how many rows it changed."""

    @property
    def rowcount(self) -> int: ...

    def fetchone(self) -> Any: ...

    def fetchall(self) -> list[Any]: ...


class Connection(Protocol):
    """What statements are executed on: part of `sqlite3.Connection`, which is one."""

    @property
    def in_transaction(self) -> bool: ...

    def execute(self, statement: str, values: Sequence[Any] = ..., /) -> Rows: ...

    def executemany(self, statement: str, values: Iterable[Sequence[Any]], /) -> Rows: ...

    def close(self) -> None: ...


class Database:
    """One writer and one reader of a file; each may be used by any thread.

    Args:
        path: the file; made with its tables when absent, readable by nobody else.

    Raises:
        StoreError: no such folder, of a newer tagclip, damaged, or not a station's file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._write_lock, self._read_lock = threading.Lock(), threading.Lock()
        try:
            path.touch(mode=0o600)
            self._writer: Connection = _connect(path)
            self._make(str(path))
            self._reader: Connection = _connect(path)
            self._reader.execute("PRAGMA query_only = ON")
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"{path} cannot be opened as a station's records ({error}); name the right --data"
            ) from error

    def _make(self, where: str) -> None:
        with self.write() as connection:
            found = self._form(connection)
            if found > VERSION:
                raise StoreError(
                    f"{where} is of a newer tagclip (form {found}, this one knows {VERSION}); upgrade"
                )
            for form in FORMS[found:]:
                for statement in form:
                    connection.execute(statement)
            if found < VERSION:
                self._set_form(connection, VERSION)

    def _form(self, connection: Connection) -> int:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])

    def _set_form(self, connection: Connection, form: int) -> None:
        connection.execute(f"PRAGMA user_version = {form}")

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction; when the block has ended without an error, what it wrote survives a power cut.

        Nobody else's transaction is in between, another process's neither.

        Raises:
            sqlite3.Error: disk full, for one; then nothing of it was written.
            StoreError: PostgreSQL is out of reach or refuses. If that happened while it ended, it may have been
                written all the same.
        """
        with self._write_lock:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that cannot write; each statement sees what was committed before it."""
        with self._read_lock:
            yield self._reader

    def fold(self) -> None:
        """Leave nothing of what was deleted in SQLite's write-ahead log."""
        with self._write_lock:
            if isinstance(self._writer, sqlite3.Connection):
                self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Waits for whoever reads or writes."""
        with self._write_lock, self._read_lock:
            self._reader.close()
            self._writer.close()


def _connect(path: Path) -> sqlite3.Connection:
    # Autocommit: transactions are begun by hand, so that none begins without taking the write lock at once.
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
    connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA secure_delete = ON")  # what retention deletes does not lie on in free pages
    connection.execute("PRAGMA journal_size_limit = 16777216")
    return connection

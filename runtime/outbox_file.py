"""The SQLite file of an outbox: opened by one process, durable when a transaction returns, errors by name."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tagclip.runtime.errors import StoreError, StoreFullError
from tagclip.runtime.files import sync_folder
from tagclip.runtime.sqlite_file import FULL_BYTES, transaction

APPLICATION_ID = 0x74616F62  # "taob"
SCHEMA = 2
WAL_PAGES = (
    256  # a megabyte; then the write-ahead log is folded into the file, and written from its start again
)
WAL_BYTES = 4 << 20  # a longer one is cut to this
BALLAST_BYTES = 4 << 20  # given up when the disk is full: room for all of the log's pages, and to delete
BUSY_S = 1.0

_TABLES = """
CREATE TABLE messages (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    rank INTEGER NOT NULL,
    p_value REAL NOT NULL,
    score REAL NOT NULL,
    about TEXT NOT NULL,
    revision INTEGER NOT NULL,
    made_s REAL NOT NULL,
    boot_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    content BLOB NOT NULL
) STRICT;
CREATE INDEX by_rank ON messages (rank, p_value, score DESC, key);
CREATE INDEX by_waste ON messages (rank DESC, p_value DESC, score, key);
CREATE INDEX by_about ON messages (about);
CREATE TABLE rejected (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    rank INTEGER NOT NULL,
    about TEXT NOT NULL,
    revision INTEGER NOT NULL,
    at_s REAL NOT NULL,
    reason TEXT NOT NULL
) STRICT;
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
"""
# Form 1 knew hits (0) and their pictures (1); ranks between and behind them came with form 2.
_FROM_1 = """
ALTER TABLE messages RENAME COLUMN picture TO rank;
ALTER TABLE messages RENAME COLUMN hit TO about;
ALTER TABLE rejected RENAME COLUMN picture TO rank;
ALTER TABLE rejected RENAME COLUMN hit TO about;
UPDATE messages SET rank = 2 WHERE rank = 1;
UPDATE rejected SET rank = 2 WHERE rank = 1
"""


class OutboxFile:
    """The open file; `lock` is held around everything that is done with `db`.

    Raises:
        StoreError: it is no outbox, damaged, of a newer tagclip, held by another process, or cannot be opened.
        StoreFullError: the disk is full.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.RLock()
        if not path.exists():
            self._make()
        with self.named():
            self.db = sqlite3.connect(
                path.resolve().as_uri(),
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                timeout=BUSY_S,
            )
        try:
            self._prepare()
        except StoreFullError:
            if not self.give_ballast():
                self.db.close()
                raise
            self._prepare()
        except BaseException:
            self.db.close()
            raise
        self.lay_ballast()

    def close(self) -> None:
        """Fold the log into the file and close it."""
        with self.lock:
            self.db.close()

    def one(self, statement: str, *values: object) -> Any:
        """The first value of the first row."""
        return self.db.execute(statement, values).fetchone()[0]

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; on the disk when it returns.

        Raises:
            StoreFullError, StoreError.
        """
        with self.lock, self.named():
            with transaction(self.db):
                yield

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """SQLite's errors as ours."""
        try:
            yield
        except sqlite3.Error as error:
            text = str(error)
            if "full" in text or ("I/O" in text and self.free_bytes() < FULL_BYTES):
                raise StoreFullError(f"{self.path}: the disk is full; free room") from error
            if "locked" in text:
                raise StoreError(
                    f"{self.path} is held by another process; end that `tagclip run`, or name another folder"
                ) from error
            raise StoreError(
                f"{self.path} cannot be used as an outbox: {text}; move it away to begin anew"
            ) from error

    def checkpoint(self) -> None:
        """Fold the log into the file; its own room is kept, for what comes next."""
        with self.lock, self.named():
            self.db.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()

    def give_ballast(self) -> bool:
        """Give up the room that was kept for a full disk; whether there was any."""
        try:
            self._ballast.unlink()
        except OSError:
            return False
        return True

    def lay_ballast(self) -> None:
        """Keep room for when the disk is full; none where it is full already."""
        try:
            handle = os.open(self._ballast, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except OSError:
            return
        try:
            os.posix_fallocate(handle, 0, BALLAST_BYTES)
        except OSError:
            self._ballast.unlink(missing_ok=True)
        finally:
            os.close(handle)

    def _make(self) -> None:
        """An empty file that only its owner may read: it will hold pictures of people."""
        try:
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            sync_folder(self.path.parent)
        except OSError as error:
            raise StoreError(
                f"cannot make the outbox {self.path}: {error.strerror or error}; name another place"
            ) from error

    def _prepare(self) -> None:
        with self.named():
            # One process: a second would send everything twice, and count its quota by itself.
            self.db.execute("PRAGMA locking_mode = EXCLUSIVE")
            mark, version = (int(self.one(f"PRAGMA {name}")) for name in ("application_id", "user_version"))
            fresh = mark == 0 and version == 0 and not self.one("SELECT count(*) FROM sqlite_master")
            if mark != APPLICATION_ID and not fresh:
                raise StoreError(f"{self.path} is no outbox of tagclip; name another file")
            if version > SCHEMA:
                raise StoreError(f"{self.path} was made by a newer tagclip (form {version}); update this one")
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = FAST"):
                self.db.execute(f"PRAGMA {pragma}")
            self.db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
            self.db.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
            if not fresh and (found := self.one("PRAGMA quick_check(1)")) != "ok":
                raise StoreError(f"{self.path} is damaged ({found}); move it away to begin anew")
        with self.transaction():  # takes the lock, even where nothing is to be made
            if version < SCHEMA:
                for statement in (_TABLES if fresh else _FROM_1).split(";"):
                    self.db.execute(statement)
                self.db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                self.db.execute(f"PRAGMA user_version = {SCHEMA}")

    @property
    def _ballast(self) -> Path:
        return self.path.with_name(self.path.name + ".ballast")

    def free_bytes(self) -> int:
        """Of the disk."""
        with contextlib.suppress(OSError):
            return shutil.disk_usage(self.path.parent).free
        return 0

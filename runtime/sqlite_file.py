"""What every SQLite file of ours does alike."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

FULL_BYTES = 256 << 10  # a disk with less is full


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All or nothing, on a connection in autocommit."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # a full disk ends some transactions by itself
            db.execute("ROLLBACK")
        raise


def disk_is_full(path: Path) -> bool:
    """SQLite calls it an I/O error where there is no room for its files beside `path`."""
    with contextlib.suppress(OSError):
        return shutil.disk_usage(path.parent).free < FULL_BYTES
    return False


def lay_ballast(path: Path, size_bytes: int) -> None:
    """A file that is given up when the disk is full: SQLite needs room to delete. None where it is full already."""
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except OSError:
        return
    try:
        os.posix_fallocate(handle, 0, size_bytes)
    except OSError:
        path.unlink(missing_ok=True)
    finally:
        os.close(handle)

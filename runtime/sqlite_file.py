"""What every SQLite file of ours does alike."""

from __future__ import annotations

import contextlib
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

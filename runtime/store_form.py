"""The form of a store's file: what it is known by, and its tables."""

from __future__ import annotations

import os
from pathlib import Path

from tagclip.runtime.errors import StoreError

APPLICATION_ID = 0x74616763  # "tagc": what `file` and we know a store by
SCHEMA = 1
SEALED_SCHEMA = 2  # a store with encrypted pictures, which an older tagclip would take for damaged
CROPS_SCHEMA = 3  # one with pictures of hits (and the table of keys), which an older tagclip would not delete
NEWEST = CROPS_SCHEMA
HEADER = b"SQLite format 3\x00"

TABLES = """
CREATE TABLE tracks (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
    camera TEXT NOT NULL,
    view TEXT NOT NULL,
    start_s REAL NOT NULL,
    end_s REAL NOT NULL,
    best_s REAL NOT NULL,
    frame INTEGER NOT NULL,
    x_px REAL NOT NULL, y_px REAL NOT NULL, w_px REAL NOT NULL, h_px REAL NOT NULL,
    latitude_deg REAL, longitude_deg REAL, error_m REAL,
    encoder_id TEXT NOT NULL,
    vector BLOB NOT NULL
) STRICT;
CREATE INDEX tracks_by_end ON tracks (end_s);
CREATE TABLE thumbnails (
    key INTEGER PRIMARY KEY REFERENCES tracks ON DELETE CASCADE,
    jpeg BLOB NOT NULL
) STRICT;
"""
# Ids of the keys that pictures may be encrypted with; only in a store that has such.
KEYS_TABLE = "CREATE TABLE IF NOT EXISTS picture_keys (id TEXT PRIMARY KEY) STRICT"
# The pictures that made a hit's score. They outlive a track's being replaced, so the store deletes them itself.
CROPS_TABLE = """
CREATE TABLE hit_crops (
    hit_id BLOB NOT NULL CHECK (length(hit_id) = 16),
    number INTEGER NOT NULL,
    track_id BLOB NOT NULL,
    frame INTEGER NOT NULL,
    weight REAL NOT NULL,
    jpeg BLOB NOT NULL,
    PRIMARY KEY (hit_id, number)
) STRICT
"""


def is_store(path: Path) -> bool:
    """Whether a file looks like a store."""
    try:
        with path.open("rb") as file:
            head = file.read(72)
    except OSError:
        return False
    return head.startswith(HEADER) and head[68:72] == APPLICATION_ID.to_bytes(4, "big")


def make_private(path: Path) -> None:
    """An empty file that only its owner may read: it will hold pictures of people."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except OSError as error:
        raise StoreError(
            f"cannot make the store {path}: {error.strerror or error}; name another place"
        ) from error

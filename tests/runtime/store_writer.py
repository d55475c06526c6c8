"""Adds tracks to a store, one transaction each, and says on stdout which are kept: a child for tests that kill it.

    python store_writer.py STORE FIRST [SYNCHRONOUS]

The number of a track is its `frame`; SYNCHRONOUS other than FULL is for the test of the tests.
"""

import sys
import uuid
from pathlib import Path

import numpy as np

from tagclip.runtime.store import TrackStore
from tagclip.runtime.store_track import StoredTrack

THUMBNAIL = bytes(range(256)) * 20


def track(number: int) -> StoredTrack:
    """The track of a number: the same wherever it is made."""
    vector = np.random.default_rng(number).standard_normal(64)
    vector /= np.linalg.norm(vector)
    at_s = 1_700_000_000.0 + number
    box = (1.0, 2.0, 30.0, 60.0)
    return StoredTrack(
        uuid.UUID(int=number), "cam", "aerial", at_s, at_s + 4, at_s + 2, number, box, "a" * 64, vector
    )


def main() -> None:
    store = TrackStore(Path(sys.argv[1]))
    if len(sys.argv) > 3:
        store._db.execute(f"PRAGMA synchronous = {sys.argv[3]}")
    print("ready", flush=True)
    number = int(sys.argv[2])
    while True:
        store.add([(track(number), THUMBNAIL)])
        print("kept", number, flush=True)
        number += 1


if __name__ == "__main__":
    main()

"""Puts hits into an outbox and says on stdout which are kept, and since when (monotonic clock, nanoseconds); every
fourth round it also removes what was sent first, and says that too: a child for tests that kill it.

    python outbox_writer.py OUTBOX FIRST [SYNCHRONOUS]

The number of a hit is its `frame`; SYNCHRONOUS other than FULL is for the test of the tests.
"""

import random
import sys
import time
import uuid
from pathlib import Path

from tagclip.runtime.hit import Hit
from tagclip.runtime.outbox import Outbox


def hit(number: int, revision: int = 1) -> Hit:
    """The hit of a number: the same wherever it is made."""
    at_s = 1_700_000_000.0 + number % 1_000_000
    p_value = (number * 7919 % 1000 + 1) / 1e6
    return Hit(
        *(uuid.UUID(int=number), revision, "q1", "a man", uuid.UUID(int=number), "cam", "aerial", "e" * 64),
        *(0.3, p_value, None, 0.2, at_s, at_s + 4, at_s + 2, number, (1.0, 2.0, 30.0, 60.0), (640, 480)),
    )


def jpeg(number: int) -> bytes:
    """The picture of a number: 3,000 bytes."""
    return b"\xff\xd8\xff\xe0" + random.Random(number).randbytes(2996)


def main() -> None:
    outbox = Outbox(Path(sys.argv[1]), "drone-1")
    if len(sys.argv) > 3:
        outbox._file.db.execute(f"PRAGMA synchronous = {sys.argv[3]}")
    print("ready", flush=True)
    number = int(sys.argv[2])
    while True:
        outbox.put(hit(number), jpeg(number))
        print("put", number, time.monotonic_ns(), flush=True)
        if number % 4 == 3:
            first = outbox.take(1, 1)
            print("acking", first[0].body["frame"], time.monotonic_ns(), flush=True)
            outbox.acked([first[0].id])
        number += 1


if __name__ == "__main__":
    main()

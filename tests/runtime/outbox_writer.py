"""Puts hits into an outbox and says on stdout which are kept; every fourth round it also removes what was sent first,
and says that too: a child for tests that kill it.

    python outbox_writer.py OUTBOX FIRST [SYNCHRONOUS]

The number of a hit is its `frame`; SYNCHRONOUS other than FULL is for the test of the tests.
"""

import sys
from pathlib import Path

from tagclip.runtime.outbox import Outbox

sys.path.insert(0, str(Path(__file__).parent.parent))
from chaos.hits import hit, jpeg


def main() -> None:
    outbox = Outbox(Path(sys.argv[1]), "drone-1")
    if len(sys.argv) > 3:
        outbox._file.db.execute(f"PRAGMA synchronous = {sys.argv[3]}")
    print("ready", flush=True)
    number = int(sys.argv[2])
    while True:
        outbox.put(hit(number), jpeg(number))
        print("put", number, flush=True)
        if number % 4 == 3:
            first = outbox.take(1, 1)
            print("acking", first[0].body["frame"], flush=True)
            outbox.acked([first[0].id])
        number += 1


if __name__ == "__main__":
    main()

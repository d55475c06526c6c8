"""A device without a camera: it finds people of known numbers, keeps them in its outbox, and tells its station.

    python -m chaos.device FOLDER FIRST COUNT EVERY_S [SYNCHRONOUS]

FOLDER is enrolled. It says `put NUMBER` when a hit and its picture are on its disk, and from then on they must not be
lost; after COUNT of them it says `empty` when the station has them all, and waits to be ended. SYNCHRONOUS other than
FULL is for the test of the tests.
"""

import sys
import time
from pathlib import Path

from chaos.hits import ENCODER, hit, jpeg

from tagclip.runtime.health import Health
from tagclip.runtime.sync_link import StationLink

MOST_WAITING = 2000  # messages, when no pace is asked for


def main() -> None:
    folder, first, count, every_s = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    health = Health(camera="c", detector="d", provider="cpu", encoder_id=ENCODER)
    with StationLink(folder, ENCODER, health) as link:
        if len(sys.argv) > 5:
            link.outbox._file.db.execute(f"PRAGMA synchronous = {sys.argv[5]}")
        print("ready", flush=True)
        for number in range(first, first + count):
            while len(link.outbox) > MOST_WAITING and not every_s:
                time.sleep(0.01)
            if not link.outbox.put(hit(number), jpeg(number)):
                raise RuntimeError(f"no room for hit {number}")
            print("put", number, link.client.counts.resent, flush=True)
            time.sleep(every_s)
        while len(link.outbox):
            time.sleep(0.02)
        print("empty", flush=True)
        while True:
            time.sleep(60)


if __name__ == "__main__":
    main()

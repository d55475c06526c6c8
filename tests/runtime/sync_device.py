"""A device that finds people without end and tells its station, and on stdout whom it has kept: a child for tests that
kill it.

    python sync_device.py FOLDER FIRST EVERY_S

FOLDER is enrolled; the number of a hit is its `frame`.
"""

import importlib.util
import sys
import time
from pathlib import Path

from tagclip.runtime.health import Health
from tagclip.runtime.sync_link import StationLink

spec = importlib.util.spec_from_file_location("outbox_writer", Path(__file__).parent / "outbox_writer.py")
assert spec and spec.loader
writer = importlib.util.module_from_spec(spec)
spec.loader.exec_module(writer)


def main() -> None:
    folder, first, every_s = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    health = Health(camera="c", detector="d", provider="cpu", encoder_id="e" * 64)
    with StationLink(folder, "e" * 64, health) as link:
        print("ready", flush=True)
        number = first
        while True:
            link.tell(writer.hit(number), writer.jpeg(number))
            assert not health.reasons().get("outbox")
            print(number, flush=True)
            number += 1
            time.sleep(every_s)


if __name__ == "__main__":
    main()

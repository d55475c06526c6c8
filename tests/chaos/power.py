"""The power fails at the device, at the station or at both, while hits come home: is anything lost or doubled?

    PYTHONPATH=tests python -m chaos.power --cuts 100
    PYTHONPATH=tests python -m chaos.power --cuts 20 --synchronous NORMAL

Each end has a disk of its own, which loses what was not yet written (disk.py). With NORMAL, the test of this test,
SQLite does not wait for the disk at either end, and hits must be lost.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from chaos.disk import Disk, cut
from chaos.fleet import Device
from chaos.station import Ground, count, free_address, make_known

DISK_BYTES = 2 << 30  # a file with holes
EVERY_S = 0.02
ENDS = ("device", "station", "both")
DRAIN_S = 300.0


def power_cuts(
    folder: Path, cuts: int, *, most_s: float = 3.0, synchronous: str = "FULL", seed: int = 1
) -> dict[str, Any]:
    """One run; what came of it.

    Args:
        folder: empty.
        most_s: between two cuts; at least a tenth of it.

    Raises:
        OSError: no file system can be mounted or shut down here.
    """
    rng = random.Random(seed)
    made = dict.fromkeys(ENDS, 0)
    address = free_address()
    broken, more = ("", ()) if synchronous == "FULL" else (synchronous, (synchronous,))
    with Disk(folder / "air", DISK_BYTES) as air, Disk(folder / "ground", DISK_BYTES) as below:
        with contextlib.ExitStack() as ends:
            data = below.place / "station"
            ground = Ground(data, address, broken, folder / "station.log")
            ends.callback(ground.close)
            (place,) = make_known(data, ["drone"], air.place)
            if broken:  # it would lose the device's enrolment, too, and refuse it
                os.sync()
            device = Device(place, 1, 1_000_000, EVERY_S, more=more)
            ends.callback(device.close)
            for number in range(cuts):
                time.sleep(rng.uniform(most_s / 10, most_s))
                end = "both" if number == 0 else rng.choice(ENDS)
                made[end] += 1
                disks = {"device": [air], "station": [below], "both": [air, below]}[end]
                dead = {"device": [device], "station": [ground], "both": [device, ground]}[end]
                cut(disks, [part.child for part in dead])
                for part in dead:
                    part.again()
            device.rest()
            drained = device.drained(DRAIN_S)
            device.ended()
        counted = count(data, device.put, device.maybe)
    return {**counted.to_json(), "drained": drained, "cuts": made, "resent_at_least": device.resent}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cuts", type=int, default=100)
    parser.add_argument("--synchronous", default="FULL", choices=["FULL", "NORMAL", "OFF"])
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        found = power_cuts(Path(place), asked.cuts, synchronous=asked.synchronous, seed=asked.seed)
    print(json.dumps(found))
    sound = found["drained"] and not (found["lost"] or found["doubled"] or found["strange"])
    sys.exit(0 if sound else 1)


if __name__ == "__main__":
    main()

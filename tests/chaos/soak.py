"""A hundred thousand hits through one station: do memory, files and the write-ahead logs stay as they were?

    PYTHONPATH=tests python -m chaos.soak --hits 100000 --devices 2

Devices find people as fast as the station takes them. `--json` prints the rows that the table is made of.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sqlite3
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from chaos.fleet import Device
from chaos.station import Ground, count, free_address, make_known

from tagclip.runtime.station.station import RECORDS
from tagclip.runtime.sync_enrol import OUTBOX
from tagclip.runtime.terminal import aligned

MOST_S = 7200.0
COLUMNS = {
    "hits": "hits",
    "seconds": "s",
    "station_mb": "station, MB",
    "station_files": "its files",
    "station_wal_mb": "its WAL, MB",
    "device_mb": "device, MB",
    "device_files": "its files",
    "device_wal_mb": "its WAL, MB",
}


def soak(folder: Path, hits: int, devices: int = 2, rows: int = 20) -> dict[str, Any]:
    """One run.

    Args:
        folder: empty.
        rows: samples, evenly over the hits.

    Returns:
        "rows": of COLUMNS, those of devices being the largest of any; "per_s": hits; and what `count` says.
    """
    address = free_address()
    data = folder / "ground"
    ground = Ground(data, address, log=folder / "station.log")
    fleet: list[Device] = []
    found: list[dict[str, Any]] = []
    try:
        places = make_known(data, [f"drone-{n}" for n in range(devices)], folder)
        begun_s = time.monotonic()
        fleet += [Device(place, n + 1, hits // devices, 0.0) for n, place in enumerate(places)]
        wals = [Path(f"{place / OUTBOX}-wal") for place in places]
        while True:
            stored = _stored(data)
            if stored >= hits * len(found) / rows:
                of_devices = [_of(device.child.process.pid) for device in fleet]
                memory, files = _of(ground.child.process.pid)
                found.append(
                    {
                        "hits": stored,
                        "seconds": round(time.monotonic() - begun_s),
                        "station_mb": memory,
                        "station_files": files,
                        "station_wal_mb": _mb(Path(f"{data / RECORDS}-wal")),
                        "device_mb": max(each[0] for each in of_devices),
                        "device_files": max(each[1] for each in of_devices),
                        "device_wal_mb": max(map(_mb, wals)),
                    }
                )
            if stored >= hits // devices * devices and all(d.drained(0.0) for d in fleet):
                break
            if time.monotonic() - begun_s > MOST_S:
                raise RuntimeError(f"only {stored} of {hits} hits arrived within {MOST_S:g} s")
            time.sleep(0.1)
        took_s = time.monotonic() - begun_s
    finally:
        for device in fleet:
            device.ended()
        ground.close()
    counted = count(data, set().union(*(d.put for d in fleet)), set()).to_json()
    return {**counted, "per_s": round(hits / took_s, 1), "rows": found}


def _stored(data: Path) -> int:
    with contextlib.closing(sqlite3.connect(data / RECORDS, timeout=30)) as records:
        return int(records.execute("SELECT ifnull(max(place), 0) FROM hits").fetchone()[0])


def _of(pid: int) -> tuple[float, int]:
    """Resident MB and open files of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1), len(os.listdir(f"/proc/{pid}/fd"))


def _mb(path: Path) -> float:
    return round(path.stat().st_size / 1e6, 1) if path.exists() else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hits", type=int, default=100_000)
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        found = soak(Path(place), asked.hits, asked.devices)
    if asked.json:
        print(json.dumps(found))
    else:
        rows = [
            tuple(COLUMNS.values()),
            *(tuple(str(row[name]) for name in COLUMNS) for row in found["rows"]),
        ]
        print(aligned(rows, set()))
        print({name: value for name, value in found.items() if name != "rows"})
    sys.exit(1 if found["lost"] or found["doubled"] or found["strange"] else 0)


if __name__ == "__main__":
    main()

"""Station and devices are killed at random, the link between them is cut, slow and lossy: is anything lost or doubled?

    PYTHONPATH=tests python -m chaos.kills --devices 10 --hits 10000

Every device is a process in a network namespace of its own, with a real outbox and the real client; see wire.py for the
link. `--broken hasty` is the test of this test: a station that acknowledges before it commits, which must lose.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from chaos.fleet import Device
from chaos.station import count, make_known, station
from chaos.wire import FAIR, Wire, any_weather

DRAIN_S = 300.0  # for what is left, when the weather is fair


def chaos(
    folder: Path,
    *,
    devices: int,
    hits: int,
    seconds: float,
    station_s: tuple[float, float],
    device_s: tuple[float, float],
    seed: int = 1,
    broken: str = "",
) -> dict[str, Any]:
    """One run; what came of it.

    Args:
        folder: empty.
        hits: of all devices together, found within `seconds` if nobody were killed.
        station_s, device_s: how long a life of the station, and of a device, lasts: from, to.
        broken: see station.py.

    Raises:
        OSError: no network namespaces here.
    """
    rng, over = random.Random(seed), threading.Event()
    data = folder / "ground"
    killed = {"station": 0, "device": 0, "weather": 0}
    with Wire(devices, seed) as wire:
        address = f"{wire.address}:8443"
        ground = station(data, address, broken, folder / "station.log")
        folders = make_known(data, [f"drone-{n}" for n in range(devices)], folder)
        each = hits // devices
        fleet = [
            Device(place, n + 1, each, seconds / each, wire.within(n)) for n, place in enumerate(folders)
        ]

        def shift_weather() -> None:
            while not over.wait(rng.uniform(0.2, 2.0) / devices):
                wire.weather[rng.randrange(devices)] = any_weather(rng)
                killed["weather"] += 1

        weather = threading.Thread(target=shift_weather)
        weather.start()
        begun_s = time.monotonic()
        station_at_s = begun_s + rng.uniform(*station_s)
        device_at_s = [begun_s + rng.uniform(*device_s) for _ in fleet]
        try:
            while not all(device.done() for device in fleet):
                time.sleep(0.02)
                now_s = time.monotonic()
                if now_s > station_at_s:
                    ground.kill()
                    killed["station"] += 1
                    ground = station(data, address, broken, folder / "station.log")
                    station_at_s = time.monotonic() + rng.uniform(*station_s)
                for n, device in enumerate(fleet):
                    if now_s > device_at_s[n]:
                        device.again()
                        killed["device"] += 1
                        device_at_s[n] = time.monotonic() + rng.uniform(*device_s)
            chaos_s = time.monotonic() - begun_s
            over.set()
            weather.join()
            wire.weather[:] = [FAIR] * devices
            drained = all([device.drained(DRAIN_S) for device in fleet])
        finally:
            over.set()
            for device in fleet:
                device.ended()
            ground.kill()
    put = set().union(*(device.put for device in fleet))
    maybe = set().union(*(device.maybe for device in fleet))
    return {
        **count(data, put, maybe).to_json(),
        "drained": drained,
        "station_kills": killed["station"],
        "device_kills": killed["device"],
        "weather_changes": killed["weather"],
        "packets_passed": wire.passed,
        "packets_lost": wire.lost,
        "resent_at_least": sum(device.resent for device in fleet),
        "seconds": round(chaos_s, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--devices", type=int, default=10)
    parser.add_argument("--hits", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--broken", default="", choices=["", "hasty"])
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        found = chaos(
            Path(place),
            devices=asked.devices,
            hits=asked.hits,
            seconds=asked.seconds,
            station_s=(1.0, 15.0),
            device_s=(5.0, 60.0),
            seed=asked.seed,
            broken=asked.broken,
        )
    print(json.dumps(found))
    sound = found["drained"] and not (found["lost"] or found["doubled"] or found["strange"])
    sys.exit(0 if sound else 1)


if __name__ == "__main__":
    main()

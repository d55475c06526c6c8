"""Station and devices are killed at random, the link between them is cut, slow and lossy: is anything lost or doubled?

    PYTHONPATH=tests python -m chaos.kills --devices 10 --hits 10000
    PYTHONPATH=tests python -m chaos.kills --devices 10 --hits 10000 --mqtt

With --mqtt all of it goes over a mosquitto, which is killed, too.
Every device is a process in a network namespace of its own, with a real outbox and the real client; see wire.py for the
link. `--broken hasty` is the test of this test: a station that acknowledges before it commits, which must lose.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from chaos.broker import Broker
from chaos.fleet import Device
from chaos.station import Ground, count, make_known
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
    mqtt: bool = False,
) -> dict[str, Any]:
    """One run; what came of it.

    Args:
        folder: empty.
        hits: of all devices together, found within `seconds` if nobody were killed.
        station_s, device_s: how long a life of the station, and of a device, lasts: from, to.
        broken: see station.py.
        mqtt: over a broker, whose lives last as long as the station's.

    Raises:
        OSError: no network namespaces here, or no broker.
    """
    rng, over = random.Random(seed), threading.Event()
    data, log = folder / "ground", folder / "station.log"
    killed = {"station": 0, "device": 0, "broker": 0, "weather": 0}
    with Wire(devices, seed) as wire, contextlib.ExitStack() as ends:
        broker = Broker(data, wire.address) if mqtt else None
        if broker:
            ends.callback(broker.close)
        ground = Ground(data, f"{wire.address}:8443", broken, log, broker.options if broker else ())
        ends.callback(ground.close)
        folders = make_known(data, [f"drone-{n}" for n in range(devices)], folder)
        if broker:
            broker.know_devices()
        count_each, fleet = hits // devices, []
        for n, place in enumerate(folders):
            fleet.append(Device(place, n + 1, count_each, seconds / count_each, wire.within(n)))
            ends.callback(fleet[n].close)

        def shift_weather() -> None:
            while not over.wait(rng.uniform(0.2, 2.0) / devices):
                wire.weather[rng.randrange(devices)] = any_weather(rng)
                killed["weather"] += 1

        def kill(kind: str, parts: list[Any], life_s: tuple[float, float]) -> None:
            """Each in its time, and one at least."""
            ends_s = [time.monotonic() + rng.uniform(*life_s) for _ in parts]
            while not over.wait(0.02) or not killed[kind]:
                for n, part in enumerate(parts):
                    if time.monotonic() > ends_s[n] or over.is_set() and not killed[kind]:
                        part.again()
                        killed[kind] += 1
                        ends_s[n] = time.monotonic() + rng.uniform(*life_s)

        begun_s = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            work = [pool.submit(shift_weather), pool.submit(kill, "station", [ground], station_s)]
            work += [pool.submit(kill, "device", fleet, device_s)]
            work += [pool.submit(kill, "broker", [broker], station_s)] if broker else []
            try:
                while not all(device.done() for device in fleet) and not any(each.done() for each in work):
                    time.sleep(0.05)
            finally:
                over.set()
        for each in work:
            each.result()
        chaos_s = time.monotonic() - begun_s
        wire.weather[:] = [FAIR] * devices
        drained = all([device.drained(DRAIN_S) for device in fleet])
        for device in fleet:
            device.ended()
    put = set().union(*(device.put for device in fleet))
    maybe = set().union(*(device.maybe for device in fleet))
    return {
        **count(data, put, maybe).to_json(),
        "drained": drained,
        "station_kills": killed["station"],
        "device_kills": killed["device"],
        "broker_kills": killed["broker"],
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
    parser.add_argument("--mqtt", action="store_true")
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
            mqtt=asked.mqtt,
        )
    print(json.dumps(found))
    sound = found["drained"] and not (found["lost"] or found["doubled"] or found["strange"])
    sys.exit(0 if sound else 1)


if __name__ == "__main__":
    main()

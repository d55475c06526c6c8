"""`tagclip station`, from its options to its end."""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from tagclip.runtime.errors import ConfigError, MachineError
from tagclip.runtime.health_server import parse_listen
from tagclip.runtime.picture_key import read_picture_keys
from tagclip.runtime.service import Notifier, Stop
from tagclip.runtime.station.mqtt import MqttSide
from tagclip.runtime.station.mqtt_access import access_of
from tagclip.runtime.station.out import Out, ways_out
from tagclip.runtime.station.page_tiles import Tiles
from tagclip.runtime.station.records import choose_database
from tagclip.runtime.station.server import KEEP_EVERY_S, Housekeeping, Server
from tagclip.runtime.station.station import TLS, Encoder, Station, hold, say_address
from tagclip.runtime.station.tls import Identity, given_identity, own_identity
from tagclip.runtime.station.vectors_qdrant import open_qdrant

log = logging.getLogger(__name__)


def run_station(
    data: Path,
    listen: str,
    names: tuple[str, ...],
    bundle: Path | None,
    cert: Path | None,
    key: Path | None,
    days: float,
    max_gb: float,
    keep_confirmed_days: float,
    picture_keys: tuple[Path, ...],
    mbtiles: Path | None,
    mqtt: str | None,
    mqtt_password: str | None,
    mqtt_password_file: Path | None,
    mqtt_ca: Path | None,
    tell: Callable[[str], None],
    database: str | None = None,
    vectors: str | None = None,
    out: Out | None = None,
) -> None:
    """Be the station in the folder `data` until SIGTERM or SIGINT; see `tagclip station --help`.

    Args:
        tell: is given what a person has to read.

    Raises:
        TagclipError: what cannot be used; nothing was begun.
    """
    host, port = parse_listen(listen, exposed=True)  # everything but /health asks who it is
    if (cert is None) != (key is None):
        raise ConfigError("--cert and --key belong together; give both, or neither for the station's own")
    keys = read_picture_keys(picture_keys)
    ways = ways_out(out or Out())
    lock = hold(data)
    try:
        if database is not None:
            choose_database(data, database)
        known_by = list(names) or [_name(host)]
        every_name = [*known_by, host, socket.gethostname(), "127.0.0.1"]
        named = [name for name in every_name if name not in ("0.0.0.0", "::")]

        def identify() -> Identity:
            if cert is not None and key is not None:
                return given_identity(cert, key, data / TLS)
            return own_identity(data / TLS, named)

        with Stop() as stop:
            station = Station(data, identify(), Encoder(bundle), keys)
            try:
                if vectors is not None:
                    station.vectors = open_qdrant(vectors, station.key.public.raw, station.database)
                sides = ways(station)
                if mqtt is not None:
                    access = access_of(
                        mqtt, mqtt_password, mqtt_password_file, mqtt_ca or station.identity.ca
                    )
                    sides.append(MqttSide(station, access))
                    station.broker = access.told
                station.tiles = Tiles(mbtiles) if mbtiles else None
                _run(
                    station,
                    (host, port),
                    known_by[0],
                    days,
                    int(max_gb * 1e9),
                    keep_confirmed_days,
                    identify,
                    sides,
                    stop,
                    tell,
                )
            finally:
                station.close()
            if stop.failed:
                raise MachineError(f"{stop.reason}; the log says why")
    finally:
        os.close(lock)


def _run(
    station: Station,
    address: tuple[str, int],
    name: str,
    days: float,
    max_bytes: int,
    confirmed_days: float,
    identify: Callable[[], Identity],
    sides: list[AbstractContextManager[object]],
    stop: Stop,
    tell: Callable[[str], None],
) -> None:
    notifier = Notifier()
    with Server(station, address) as server, ExitStack() as entered:
        for side in sides:
            entered.enter_context(side)
        at = f"[{name}]:{server.port}" if ":" in name else f"{name}:{server.port}"
        say_address(station.data, at, station.identity.fingerprint())
        first = station.first_admin()
        tell(f"station on https://{at}, authority {station.identity.fingerprint()}")
        if first:
            tell(f"first start: user {first[0]}, one-time password {first[1]} (it is shown this once)")
        keeper = Housekeeping(station, server, days, max_bytes, confirmed_days, identify)
        notifier.ready()
        next_s = 0.0
        while not stop.wait(1.0):
            notifier.alive()
            if not server.alive():
                stop.request("the station's server ended", failed=True)
            elif time.monotonic() >= next_s:
                keeper.work()
                next_s = time.monotonic() + KEEP_EVERY_S
        notifier.stopping()
    notifier.close()
    log.info("stopped by %s", stop.reason)


def _name(host: str) -> str:
    """What to tell devices when nobody said how they reach the station."""
    return socket.gethostname() if ipaddress.ip_address(host).is_unspecified else host

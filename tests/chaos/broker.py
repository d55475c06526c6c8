"""A mosquitto as docs/link.md sets it up, for devices in other network namespaces."""

from __future__ import annotations

import socket
from pathlib import Path

from beside import load

from tagclip.runtime.station.database import Database
from tagclip.runtime.station.mqtt_access import passwords
from tagclip.runtime.station.station import RECORDS, TLS
from tagclip.runtime.station.store import Store
from tagclip.runtime.station.tls import own_identity


class Broker:
    """Beside a station in `data`, on the address that devices reach it by.

    Attributes:
        options: of the station, so that it uses the broker.
    """

    def __init__(self, data: Path, host: str) -> None:
        ground = load("mqtt_ground")
        if ground.BINARY is None or ground.PASSWD is None:
            raise OSError("mosquitto is not installed (apt install mosquitto)")
        identity = own_identity(data / TLS, [host, socket.gethostname(), "127.0.0.1"])
        self._broker = ground.Broker(data.with_name("broker"), identity.certificate, identity.key)
        conf = self._broker.folder / "conf"
        conf.write_text(conf.read_text().replace(f"{self._broker.port} 127.0.0.1", f"{self._broker.port}"))
        secret = self._broker.folder / "station's password"
        secret.write_text(ground.PASSWORD)
        secret.chmod(0o600)
        url = f"mqtts://{host}:{self._broker.port}"
        self.options: tuple[object, ...] = ("--mqtt", url, "--mqtt-password-file", secret)
        self._data = data
        self._broker.start()

    def know_devices(self) -> None:
        """Let those in that are enrolled by now; takes a new start."""
        database = Database(self._data / RECORDS)
        self._broker.users(list(passwords(Store(database))))
        database.close()
        self.again()

    def again(self) -> None:
        """Kill it and start it."""
        self._broker.kill()
        self._broker.start()

    def close(self) -> None:
        self._broker.kill()

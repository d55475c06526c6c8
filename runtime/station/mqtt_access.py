"""Who may use the broker: the station, by what `--mqtt` says, and every device, by a password made out of its token."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tagclip.runtime.errors import ConfigError
from tagclip.runtime.station.store import Store
from tagclip.runtime.sync_https import context_of, split_address
from tagclip.runtime.sync_seal import Seal

DEFAULT_USER = "~station"  # no device can have this name


@dataclass(frozen=True)
class BrokerAccess:
    """Where the broker is, for the station and its devices alike, and as whom the station goes there.

    Attributes:
        address: HOST:PORT.
        ca_pem: the one certificate authority that is trusted for it.
    """

    address: str
    user: str
    password: str
    ca_pem: str

    @property
    def told(self) -> dict[str, str]:
        """What devices are told when they are enrolled."""
        return {"address": self.address, "ca": self.ca_pem}


def access_of(url: str, password: str | None, password_file: Path | None, ca: Path) -> BrokerAccess:
    """What `--mqtt` and its options say.

    Args:
        url: mqtts://USER@HOST:PORT.
        password: of the environment.
        password_file: whose first line is the password.
        ca: PEM file of the authority.

    Raises:
        ConfigError: one of them cannot be used.
    """
    parts = urlsplit(url)
    if parts.password is not None:
        raise ConfigError(
            "--mqtt: a password on the command line is seen by everybody on this machine; "
            "put it into a file, --mqtt-password-file, or into TAGCLIP_MQTT_PASSWORD"
        )
    if parts.scheme != "mqtts" or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ConfigError(
            f"--mqtt: expected mqtts://USER@HOST:PORT, found {url[:80]!r}; MQTT is used over TLS only"
        )
    address = parts.netloc.rpartition("@")[2]
    if not address.rpartition("]")[2].count(":"):
        address += ":8883"
    try:
        split_address(address)
        if password_file is not None:
            password = password_file.read_text(encoding="utf-8").partition("\n")[0]
        ca_pem = ca.read_text(encoding="ascii")
        context_of(ca_pem)
    except (OSError, ValueError, ssl.SSLError) as error:
        raise ConfigError(f"--mqtt: {error}") from error
    if not password:
        raise ConfigError("--mqtt: no password; give --mqtt-password-file, or set TAGCLIP_MQTT_PASSWORD")
    return BrokerAccess(address, unquote(parts.username or "") or DEFAULT_USER, password, ca_pem)


def passwords(store: Store) -> Iterator[str]:
    """A line NAME:PASSWORD for every device, as brokers' password files have them before they are hashed."""
    for device in store.devices():
        if (secret := store.secret_of(device["name"])) is not None:
            yield f"{device['name']}:{Seal(secret).password}"

"""Making a device known to a station, once: what an operator copies over becomes a folder that `tagclip run` takes.

The string that is copied is `tagclip-enrol:HOST:PORT:CODE:FINGERPRINT`. The code works once and not for long; the
fingerprint is the SHA-256 of the certificate authority that the station's certificate comes from, so that nobody in
between can pose as the station, not even at this first time.
"""

from __future__ import annotations

import hashlib
import hmac
import importlib.metadata
import json
import os
import re
import ssl
from dataclasses import dataclass
from pathlib import Path

from tagclip.runtime.errors import (
    ConfigError,
    CredentialError,
    KeyFileError,
    LinkError,
    OutputError,
    SyncError,
)
from tagclip.runtime.keys import PublicKey, is_private, read_public_key
from tagclip.runtime.sync_carrier import Carrier
from tagclip.runtime.sync_fields import DEVICE_NAME, Row, parse, sync_errors
from tagclip.runtime.sync_https import (
    Channel,
    HttpsBundles,
    HttpsCarrier,
    answer_detail,
    context_of,
    split_address,
)
from tagclip.runtime.sync_mqtt import MqttCarrier
from tagclip.runtime.sync_queries import write_private

CA, TOKEN, KEY, STATION = "ca.pem", "token", "station.pub", "station.json"
OUTBOX, QUERIES = "outbox.db", "queries.json"
MAX_FILE_BYTES = 64 << 10
TIMEOUT_S = 20.0

_STRING = re.compile(r"tagclip-enrol:(\S+:[0-9]+):([A-Za-z0-9._~-]{4,128}):([0-9a-fA-F]{64})")
_TOKEN = re.compile(r"[\x21-\x7e]{16,512}")


@dataclass(frozen=True)
class Enrolment:
    """What a device knows of its station.

    Attributes:
        address: HOST:PORT.
        device: its name there.
        ca_pem: the certificate authority that is trusted.
        token: what the device proves itself with.
        key: what query sets are signed with.
        broker: address and certificate authority of the MQTT broker that messages go over; None: HTTPS.
    """

    address: str
    device: str
    ca_pem: str
    token: str
    key: PublicKey
    broker: tuple[str, str] | None = None

    def carrier(self) -> Carrier:
        """The way to the station; nothing is connected yet.

        Raises:
            MissingExtraError: paho-mqtt is not installed, and a broker is on the way.
        """
        if self.broker is not None:
            return MqttCarrier(*self.broker, self.device, self.token)
        return HttpsCarrier(self.address, self.ca_pem, self.token)

    def bundles(self) -> HttpsBundles:
        """The way that bundles take; nothing is connected yet."""
        return HttpsBundles(self.address, self.ca_pem, self.token)


def enrol(string: str, device: str, folder: Path, encoder_id: str | None = None) -> Enrolment:
    """Make `device` known to the station of `string`, and keep what it says in `folder`, for the owner alone.

    Args:
        string: as the station's operator hands it out.
        device: a name of DEVICE_NAME.
        folder: made if it is not there. One that was enrolled before is enrolled anew and keeps its outbox.
        encoder_id: of the device's bundle.

    Raises:
        ConfigError: the string or the name is none.
        OutputError: the folder cannot be written to; the code is still good.
        SyncError: the station is another one, out of reach (LinkError), or refuses the code (CredentialError).
    """
    match = _STRING.fullmatch(string.strip())
    if match is None:
        raise ConfigError(
            f"expected tagclip-enrol:HOST:PORT:CODE:FINGERPRINT, found {string[:24]!r}...; copy all of the line "
            "that the station shows"
        )
    address, code, fingerprint = match[1], match[2], match[3].lower()
    if not DEVICE_NAME.fullmatch(device):
        raise ConfigError(
            f"expected a name of 1 to 63 letters, digits, dots, hyphens and underscores, found {device[:80]!r}"
        )
    try:
        split_address(address)
    except ValueError as error:
        raise ConfigError(f"the enrolment string: {error}") from error
    _make(folder)
    ca_pem = _fetch_ca(address, fingerprint)
    public = {"version": importlib.metadata.version("tagclip"), "encoder_id": encoder_id}
    asked = json.dumps({"code": code, "device": device, "public": public}).encode("ascii")
    headers = {"Content-Type": "application/json"}
    channel = Channel(address, context_of(ca_pem), {"User-Agent": "tagclip"})
    try:
        status, _, data = channel.request("POST", "/api/v1/enrol", asked, headers, TIMEOUT_S, MAX_FILE_BYTES)
    finally:
        channel.drop()
    if status == 403:
        raise CredentialError(
            f"station {address} refuses the code ({answer_detail(data)}); ask for a new one"
        )
    if status != 200:
        raise LinkError(f"station {address} answers {status}: {answer_detail(data)}")
    with sync_errors():
        fields = Row(parse(data, "enrolment", MAX_FILE_BYTES), "enrolment")
        if (given := fields.device()) != device:
            fields.refuse("device", f"{device!r}")
        token, pem = fields.line("token", most=512), fields.any("station_public_key")
        broker = _broker(fields)
        fields.close()
    if not _TOKEN.fullmatch(token) or not isinstance(pem, str) or not pem.isascii():
        raise SyncError(f"station {address} gives no token or no public key; ask its operator to look at it")
    mqtt = {"mqtt": {"address": broker[0], "ca": broker[1]}} if broker else {}
    about = json.dumps({"address": address, "device": given, **mqtt}).encode("ascii")
    for name, content in (
        (CA, ca_pem.encode()),
        (TOKEN, token.encode()),
        (KEY, pem.encode()),
        (STATION, about),
    ):
        write_private(folder / name, content)
    return read_enrolment(folder)


def read_enrolment(folder: Path) -> Enrolment:
    """What `enrol` kept in `folder`.

    Raises:
        KeyFileError: a file is missing or damaged, or others can read the token.
        MissingExtraError: cryptography is not installed.
    """
    try:
        contents = {name: _read(folder / name) for name in (STATION, CA, TOKEN)}
        private = is_private(folder / TOKEN)
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(
            f"{folder} is not enrolled with a station ({error}); get a code there, then `tagclip enrol`"
        ) from error
    if not private:
        raise KeyFileError(f"{folder / TOKEN} can be read by others; chmod 600 it, and better enrol anew")
    again = f"{folder} is damaged; enrol the device anew"
    try:
        with sync_errors():
            fields = Row(parse(contents[STATION].encode(), STATION, MAX_FILE_BYTES), STATION)
            address, device = fields.text("address"), fields.device()
            broker = _broker(fields)
        split_address(address)
        context_of(contents[CA])
    except (SyncError, ValueError, ssl.SSLError) as error:
        raise KeyFileError(f"{again} ({error})") from error
    if not _TOKEN.fullmatch(contents[TOKEN]):
        raise KeyFileError(f"{again} ({TOKEN} is no token)")
    return Enrolment(address, device, contents[CA], contents[TOKEN], read_public_key(folder / KEY), broker)


def _broker(fields: Row) -> tuple[str, str] | None:
    """The field `mqtt`, where there is one: address and authority of a broker."""
    if "mqtt" not in fields.keys():
        return None
    mqtt = Row(fields.free("mqtt"), "mqtt")
    address, ca_pem = mqtt.text("address"), mqtt.any("ca")
    mqtt.close()
    try:
        split_address(address)
        if not isinstance(ca_pem, str):
            raise ValueError("no text")
        context_of(ca_pem)
    except (ValueError, ssl.SSLError) as error:
        raise SyncError(
            f"mqtt: expected a broker's address and its authority, found neither ({error})"
        ) from error
    return address, ca_pem


def _fetch_ca(address: str, fingerprint: str) -> str:
    """The station's certificate authority, from whoever answers; believed by its fingerprint alone."""
    channel = Channel(address, context_of(None), {"User-Agent": "tagclip"})
    try:
        status, _, data = channel.request("GET", "/api/v1/ca.pem", None, {}, TIMEOUT_S, MAX_FILE_BYTES)
    finally:
        channel.drop()
    if status != 200:
        raise LinkError(f"station {address} answers {status}: {answer_detail(data)}")
    try:
        pem = data.decode("ascii").strip()
        der = ssl.PEM_cert_to_DER_cert(pem)
        # Exactly one: a second certificate in the file would be trusted with the first.
        if pem.count("-----BEGIN ") != 1:
            raise ValueError("more than one certificate")
    except ValueError as error:
        raise SyncError(
            f"station {address} has no certificate authority ({error}); is it a tagclip station?"
        ) from error
    found = hashlib.sha256(der).hexdigest()
    if not hmac.compare_digest(found, fingerprint):
        raise SyncError(
            f"{address} is another station than the enrolment string says: expected the fingerprint "
            f"{fingerprint[:16]}..., found {found[:16]}...; do not go on, and ask the operator"
        )
    return ssl.DER_cert_to_PEM_cert(der)


def _make(folder: Path) -> None:
    """The folder, for its owner alone; before the code is used up."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chmod(folder, 0o700)
        if not os.access(folder, os.W_OK):
            raise PermissionError(13, "not writable")
    except OSError as error:
        raise OutputError(
            f"cannot use the folder {folder}: {error.strerror or error}; name another"
        ) from error


def _read(path: Path) -> str:
    with open(path, "rb") as file:
        return file.read(MAX_FILE_BYTES).decode("ascii")

"""Asking a station from a program: TLS against a pinned certificate, JSON, a token."""

from __future__ import annotations

import http.client
import json
import re
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from tagclip.runtime.errors import ConfigError, KeyFileError, SyncError, one_line
from tagclip.runtime.station.tls import MAX_PEM_BYTES, fingerprint, write_private
from tagclip.runtime.sync_fields import Row, parse

TIMEOUT_S = 30.0
MAX_ANSWER_BYTES = 16 << 20


class Client:
    """One station.

    Args:
        url: https://HOST:PORT
        ca: PEM of the certificate that the station's has to come from; None for those that this machine trusts.
        token: of `tagclip query login`.

    Raises:
        ConfigError: no such URL.
        KeyFileError: `ca` holds no certificate.
    """

    def __init__(self, url: str, ca: str | None, token: str = "") -> None:
        self.url, self.ca, self._token = url, ca, token
        self._address = _address(url)
        self._context = ssl.create_default_context()
        if ca is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self._context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            try:
                self._context.load_verify_locations(cadata=ca)
            except (ssl.SSLError, ValueError) as error:
                raise KeyFileError(
                    f"the certificate of {url} cannot be read ({error}); log in again"
                ) from error

    def ask(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """The station's answer.

        Raises:
            ConfigError: the station cannot be reached, or its certificate is not the pinned one's.
            SyncError: it refuses; the message is the station's.
        """
        value, _ = self.exchange(method, path, body, headers)
        return value

    def exchange(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> tuple[dict[str, Any], str]:
        """The same, with the cookie that came with it."""
        sent = {"Content-Type": "application/json", **(headers or {})}
        if self._token:
            sent["Authorization"] = f"Bearer {self._token}"
        connection = http.client.HTTPSConnection(*self._address, timeout=TIMEOUT_S, context=self._context)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), sent)
            answer = connection.getresponse()
            data = answer.read(MAX_ANSWER_BYTES + 1)
        except ssl.SSLCertVerificationError as error:
            raise ConfigError(
                f"{self.url} shows a certificate that is not of the station that was logged in to "
                f"({error.verify_message}); ask its admin for the fingerprint and log in again"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise ConfigError(
                f"{self.url} cannot be reached ({error}); is `tagclip station` running?"
            ) from error
        finally:
            connection.close()
        value = parse(data, f"the answer of {self.url}", MAX_ANSWER_BYTES) if data else {}
        if answer.status >= 400:
            raise SyncError(one_line(str(value.get("error", f"status {answer.status}")))[:2000])
        return value, answer.headers.get("Set-Cookie", "").partition(";")[0]


def fetch_ca(url: str, expected: str) -> str:
    """The certificate to pin, PEM, of a station whose fingerprint an admin told.

    Args:
        expected: SHA-256, 64 hexadecimal digits; `tagclip station` prints it.

    Raises:
        ConfigError: it cannot be reached, or shows another one.
    """
    if not re.fullmatch(r"[0-9a-f]{64}", expected := expected.lower().replace(":", "")):
        raise ConfigError("--fingerprint expects 64 hexadecimal digits, as `tagclip station` prints them")
    # Unverified, this once: what comes is compared with what the admin said.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection(*_address(url), timeout=TIMEOUT_S, context=context)
    try:
        connection.request("GET", "/api/v1/ca.pem")
        data = connection.getresponse().read(MAX_PEM_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise ConfigError(f"{url} cannot be reached ({error}); is `tagclip station` running?") from error
    finally:
        connection.close()
    found = fingerprint(data)
    if found != expected:
        raise ConfigError(f"{url} shows the fingerprint {found}, expected {expected}; somebody is in between")
    return data.decode("ascii")


def save_login(path: Path, client: Client, token: str) -> None:
    """Keep a token for `read_login`, readable by its owner alone. Raises: OutputError: it cannot be written."""
    value = {"station": client.url, "ca": client.ca, "token": token}
    write_private(path, json.dumps(value).encode("ascii"))


def read_login(path: Path, url: str | None) -> Client:
    """The station that a token file is for.

    Args:
        url: has to be the same; None takes the file's.

    Raises:
        ConfigError: no such file, or it is for another station.
    """
    way_out = "log in: tagclip query login --station URL --user NAME --fingerprint HEX"
    try:
        row = Row(parse(path.read_bytes(), str(path), MAX_PEM_BYTES), str(path))
        station, token = row.text("station"), row.text("token")
        ca = row.any("ca")
    except (OSError, SyncError) as error:
        raise ConfigError(f"{path} is no token of a station ({error}); {way_out}") from error
    if url is not None and url.rstrip("/") != station:
        raise ConfigError(f"{path} is for {station}, not for {url}; {way_out}")
    return Client(station, str(ca) if ca is not None else None, token)


def part(text: str) -> str:
    """Text as a part of a path."""
    return quote(text, safe="")


def _address(url: str) -> tuple[str, int]:
    try:
        parsed = urlsplit(url)
        if parsed.scheme == "https" and parsed.hostname and not (parsed.path.strip("/") or parsed.query):
            return parsed.hostname, parsed.port or 443
    except ValueError:
        pass
    raise ConfigError(f"--station {url[:80]!r}: expected https://HOST:PORT")

"""The station without its network: a folder of records and keys, and what works on them."""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from tagclip.runtime.errors import ConfigError, OutputError
from tagclip.runtime.files import write_atomic
from tagclip.runtime.keys import PrivateKey, read_private_key
from tagclip.runtime.picture_key import PictureKeys
from tagclip.runtime.station.bell import Bell
from tagclip.runtime.station.bundles import Bundles
from tagclip.runtime.station.candidates import Yardstick
from tagclip.runtime.station.database import Database
from tagclip.runtime.station.encrypt import check_keys
from tagclip.runtime.station.limits import Attempts
from tagclip.runtime.station.page_news import News
from tagclip.runtime.station.page_tiles import Tiles
from tagclip.runtime.station.queries import Queries
from tagclip.runtime.station.records import RECORDS as RECORDS
from tagclip.runtime.station.records import records_in
from tagclip.runtime.station.store import Store
from tagclip.runtime.station.tls import Identity, require_cryptography, write_private
from tagclip.runtime.station.tracks import Tracks
from tagclip.runtime.station.users import ADMIN, Users
from tagclip.runtime.station.vectors import LocalVectors, Vectors

SIGNING_KEY, ADDRESS, LOCK, TLS = "signing.key", "address", "lock", "tls"
BUNDLES = "bundles"
DEFAULT_DATA = "station"

log = logging.getLogger(__name__)


class Encoder:
    """The text tower of a bundle, so that devices need none; any thread may call.

    Args:
        bundle: folder of the bundle; None for the one that ships.

    Raises:
        BundleError, EngineError, MissingExtraError: it cannot be used.
    """

    def __init__(self, bundle: Path | None) -> None:
        from tagclip.runtime.bundle import open_bundle
        from tagclip.runtime.encoder import TextEncoder

        self._bundle = open_bundle(bundle)
        self._text = TextEncoder(self._bundle)
        self._lock = threading.Lock()
        self.encoder_id = self._bundle.encoder_id
        self._yardstick: Yardstick | None = None

    def yardstick(self) -> Yardstick:
        """What scores are measured by. Raises: BackgroundError, the bundle has no background."""
        from tagclip.runtime.alerts import TYPICAL
        from tagclip.runtime.background import read_background

        with self._lock:
            if self._yardstick is None:
                background = read_background(self._bundle, None)
                self._yardstick = Yardstick(background, self._text.embed(TYPICAL))
        return self._yardstick

    def vector(self, text: str) -> list[float]:
        """The unit vector of a query, with its terms if it has several.

        Raises:
            QueryError: it cannot be searched for.
            BackgroundError: it has several terms, and the bundle no background to weigh them by.
        """
        from tagclip.runtime.alerts import vector_of
        from tagclip.runtime.background import read_background
        from tagclip.runtime.terms import parse_terms

        terms = parse_terms(text)
        with self._lock:
            if len(terms) == 1:
                vector = self._text.embed([terms[0].text])[0]
            else:
                vector = vector_of(text, self._text, read_background(self._bundle, None))
        return [float(number) for number in vector]


class Station:
    """What the routes work with.

    Args:
        data: folder of the station; see `open_records`.
        identity: certificate and what devices pin.
        encoder: of the queries' texts.
        keys: of the pictures; None stores them as they are.

    Raises:
        StoreError, KeyFileError, OutputError: the folder cannot be used, or its pictures have another key.
        MissingExtraError: the extra `station` is not installed.
    """

    def __init__(
        self, data: Path, identity: Identity, encoder: Encoder, keys: PictureKeys | None = None
    ) -> None:
        self.data, self.identity, self.encoder = data, identity, encoder
        self.ca_pem = identity.ca.read_bytes()
        self.broker: dict[str, str] | None = None  # of MQTT: address and authority, for enrolments
        self.key = signing_key(data)
        self.bell, self.news = Bell(), News()  # of queries; of hits
        self.database = open_records(data, alone=True)
        try:
            check_keys(self.database, keys)
        except BaseException:
            self.database.close()
            raise
        self.store = Store(self.database, keys)
        self.tracks = Tracks(self.database, keys)
        self.vectors: Vectors = LocalVectors(self.database)
        self.trouble = ""  # with its room, for health
        self.webhooks: list[
            Callable[[], tuple[int, bool]]
        ] = []  # of each: events given up, whether some wait
        self.users = Users(self.database)
        self.bundles = bundles_of(data, self.database, self.key)
        self.tiles: Tiles | None = None  # the user's own map
        self.queries = Queries(self.database, self.key, self.bell.ring)
        # Of an address; of a name, from wherever.
        self.enrol_tries = Attempts(5)
        self.login_tries, self.name_tries = Attempts(20), Attempts(10)

    def first_admin(self) -> tuple[str, str] | None:
        """Name and one-time password of an admin who is made when there is no user at all, else None."""
        if self.users.users():
            return None
        return "admin", self.users.add("admin", ADMIN, "station")

    def public_pem(self) -> str:
        """The key that query sets are signed with, for devices."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        key = Ed25519PublicKey.from_public_bytes(self.key.public.raw)
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")

    def close(self) -> None:
        """Let go of the records."""
        if self.tiles is not None:
            self.tiles.close()
        self.database.close()


def open_records(data: Path, *, alone: bool = False) -> Database:
    """The records of the station in the folder `data`, which is made if it is absent, for its owner alone.

    Args:
        alone: be the station that works on them, which matters where they are on another machine.

    Raises:
        OutputError: it cannot be made.
        StoreError, ConfigError: the records cannot be used.
    """
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make {data}: {error.strerror or error}; choose another --data") from error
    return records_in(data, alone=alone)


def bundles_of(data: Path, database: Database, key: PrivateKey | None = None) -> Bundles:
    """The bundles in the folder `data`; `key` signs orders, None for the station's own, read when it is needed."""
    return Bundles(database, data / BUNDLES, lambda: key or signing_key(data))


def hold(data: Path) -> int:
    """Keep other stations off the folder for as long as the descriptor is open.

    Raises:
        ConfigError: one has it.
        OutputError: it cannot be made.
    """
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(data / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise OutputError(f"cannot use {data}: {error.strerror or error}; choose another --data") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise ConfigError(f"another station works on {data}; stop it, or choose another --data") from error
    return descriptor


def signing_key(data: Path) -> PrivateKey:
    """The key of query sets, made on first use. Raises: KeyFileError, OutputError, MissingExtraError."""
    require_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    path = data / SIGNING_KEY
    if not path.exists():
        key = Ed25519PrivateKey.generate()
        write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return read_private_key(path, lambda: "")


def say_address(data: Path, address: str, fingerprint: str) -> None:
    """Keep for `enrolment` what devices have to be told: HOST:PORT, and the pinned certificate's fingerprint.

    Raises:
        OutputError: it cannot be written.
    """
    write_atomic(data / ADDRESS, f"{address}\n{fingerprint}\n".encode("ascii"))


def enrolment(data: Path, code: str) -> str:
    """What an operator copies to a device, of the station that was started last in the folder `data`.

    Raises:
        ConfigError: it never was.
    """
    try:
        address, fingerprint = (data / ADDRESS).read_text(encoding="ascii").split()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{data} does not say how devices reach the station; start it once: tagclip station --data {data}"
        ) from error
    return f"tagclip-enrol:{address}:{code}:{fingerprint}"

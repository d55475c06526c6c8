"""A bundle order: which bundle a station wants on which devices, signed, and read by whoever it is for."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

from tagclip.runtime.bundle import MAX_FILE_BYTES, MAX_SUMS_BYTES
from tagclip.runtime.bundle_manifest import ENGINES, MANIFEST, SIGNATURE, SUMS, is_plain_name
from tagclip.runtime.keys import PrivateKey, PublicKey
from tagclip.runtime.signature import MAX_SIGNATURE_BYTES
from tagclip.runtime.sync_fields import DEVICE_NAME, Row, sync_errors
from tagclip.runtime.sync_signed import with_signature, without_signature

MAX_ORDER_BYTES = 256 << 10
MAX_FILES = 64
MAX_DEVICES = 1000

PREFIX = b"tagclip bundle order 1\n"

DIGEST = re.compile(r"[0-9a-f]{64}")
_YEAR_10000_S = 253_402_300_799.0
_MANY = 1 << 53


@dataclass(frozen=True)
class Ordered:
    """The bundle that is wanted.

    Attributes:
        digest: hexadecimal SHA-256 of its SHA256SUMS, which vouches for every other file but SIGNATURE.
        encoder_id, name: as its bundle.json says them.
        files: bytes by name, of all that travels: what SHA256SUMS lists, SHA256SUMS, and SIGNATURE if there is one.
    """

    digest: str
    encoder_id: str
    name: str
    files: dict[str, int]

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(self.files.values())


@dataclass(frozen=True)
class Order:
    """What a station wants.

    Attributes:
        revision: the greater one counts; a device refuses what is not greater than its own.
        issued_s: Unix time, UTC, by the station's clock.
        devices: names; None for every device, also those that are enrolled later.
        bundle: None: an earlier order is withdrawn, and the device keeps what it has.
    """

    revision: int
    issued_s: float
    devices: tuple[str, ...] | None
    bundle: Ordered | None

    def is_for(self, device: str) -> bool:
        """Whether it names the device."""
        return self.devices is None or device in self.devices


def digest_of(sums: bytes) -> str:
    """What a bundle is called in orders, out of the bytes of its SHA256SUMS."""
    return hashlib.sha256(sums).hexdigest()


def sign_order(order: Order, key: PrivateKey) -> dict[str, Any]:
    """The signed form, as JSON says it.

    Raises:
        SyncError: a value that no order may hold.
    """
    bundle = order.bundle
    document = {
        "revision": order.revision,
        "issued_s": order.issued_s,
        "devices": None if order.devices is None else list(order.devices),
        "bundle": None if bundle is None else dict(vars(bundle)),
    }
    _order_of(document)
    return with_signature(document, PREFIX, key)


def verify_order(document: object, key: PublicKey) -> Order:
    """The order of a signed document.

    Raises:
        SyncError: the owner of `key` did not sign it, or a field is absent, unknown, wrong or out of range.
        MissingExtraError: cryptography is not installed.
    """
    return _order_of(without_signature(document, PREFIX, key, root="order", what="bundle order"))


def _order_of(document: object) -> Order:
    with sync_errors():
        fields = Row(document, "order")
        revision = fields.integer("revision", low=1, high=_MANY)
        issued_s = fields.number("issued_s", low=0.0, high=_YEAR_10000_S)
        devices = None if fields.null("devices") else fields.items("devices")
        bundle = None if fields.null("bundle") else _ordered(Row(fields.free("bundle"), "order.bundle"))
        fields.close()
        if devices is not None and not (
            1 <= len(devices) <= MAX_DEVICES
            and all(isinstance(name, str) and DEVICE_NAME.fullmatch(name) for name in devices)
        ):
            fields.refuse("devices", f"1 to {MAX_DEVICES} names of devices, or null for all")
    return Order(revision, issued_s, None if devices is None else tuple(map(str, devices)), bundle)


def _ordered(fields: Row) -> Ordered:
    digest = fields.text("digest")
    if not DIGEST.fullmatch(digest):
        fields.refuse("digest", "64 hexadecimal digits")
    encoder_id, name = fields.text("encoder_id"), fields.line("name", most=100)
    files = fields.free("files")
    fields.close()
    if len(files) > MAX_FILES or SUMS not in files or MANIFEST not in files:
        fields.refuse("files", f"at most {MAX_FILES} files with {SUMS} and {MANIFEST} among them")
    for file, size in files.items():
        most = {SUMS: MAX_SUMS_BYTES, SIGNATURE: MAX_SIGNATURE_BYTES}.get(file, MAX_FILE_BYTES)
        if not is_plain_name(file) or file == ENGINES or type(size) is not int or not 0 <= size <= most:
            fields.refuse("files", f"plain names with their bytes, at most {most:,}")
    return Ordered(digest, encoder_id, name, files)

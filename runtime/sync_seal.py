"""What keeps a message whole and unread on its way over a broker: keys out of the device's token, AES-256-GCM.

Device and station share SHA-256 of the token and show it to nobody. Whoever runs the broker, or breaks into it, sees
who talks, when and how much, and can neither read a message nor make one that is believed, in either direction.
"""

from __future__ import annotations

import gzip
import hashlib
import hmac
import json
import os
from typing import Any

from tagclip.runtime.errors import CredentialError, MissingExtraError, SyncError
from tagclip.runtime.sync_fields import gunzip, parse

UP, DOWN = (
    "up",
    "down",
)  # from a device, to one: a message that is sent back to where it came from does not open
PASSWORD = "password"
SEALED = b"\x01"
REFUSED = b"\x00"  # reason in the clear, for whom no key is known
NONCE_BYTES, TAG_BYTES = 12, 16
MAX_HEAD_BYTES = 1024
OVERHEAD_BYTES = len(SEALED) + NONCE_BYTES + TAG_BYTES + MAX_HEAD_BYTES
LEAST_PACKED_BYTES = 512
GZIP_LEVEL = 1


class Seal:
    """Closes and opens the messages of one device.

    Args:
        secret: SHA-256 of the device's token.

    Attributes:
        password: of the device at the broker, which does not tell the secret.

    Raises:
        MissingExtraError: cryptography is not installed.
    """

    def __init__(self, secret: bytes) -> None:
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as error:
            raise MissingExtraError(
                "cryptography is not installed; MQTT needs: pip install 'tagclip[mqtt]'"
            ) from error
        self._ciphers = {way: AESGCM(_derived(secret, way)) for way in (UP, DOWN)}
        self._invalid = InvalidTag
        self.password = _derived(secret, PASSWORD).hex()

    def close(
        self, way: str, place: bytes, head: dict[str, Any], body: bytes, *, packed: bool = False
    ) -> bytes:
        """A sealed message.

        Args:
            way: UP or DOWN.
            place: what the message belongs to; it opens nowhere else.
            head: facts about the body, at most MAX_HEAD_BYTES as JSON.
            body: what it carries.
            packed: `body` is packed already.
        """
        if not packed and len(body) >= LEAST_PACKED_BYTES:
            body, packed = pack(body), True
        plain = json.dumps({**head, "packed": packed}).encode("ascii") + b"\n" + body
        nonce = os.urandom(NONCE_BYTES)
        return SEALED + nonce + self._ciphers[way].encrypt(nonce, plain, SEALED + place)

    def open(self, way: str, place: bytes, data: bytes, most_bytes: int) -> tuple[dict[str, Any], bytes]:
        """Head and body of a sealed message.

        Raises:
            CredentialError: it was not closed with the same token for the same way and place.
            SyncError: it is larger than `most_bytes`, or holds something else.
        """
        nonce, sealed = data[1 : 1 + NONCE_BYTES], data[1 + NONCE_BYTES :]
        if data[:1] != SEALED or len(sealed) < TAG_BYTES:
            raise CredentialError("expected a sealed message, found something else; enrol the device again")
        if len(data) > most_bytes + OVERHEAD_BYTES:
            raise SyncError(f"expected at most {most_bytes:,} bytes, found {len(data):,}; send less at once")
        try:
            plain = self._ciphers[way].decrypt(nonce, sealed, SEALED + place)
        except self._invalid as error:
            raise CredentialError(
                "a message was not sealed with the token of this device; enrol it again"
            ) from error
        line, feed, body = plain.partition(b"\n")
        if not feed:
            raise SyncError("expected a line of JSON in front of the message, found none")
        head = parse(line, "head", MAX_HEAD_BYTES)
        if head.pop("packed", None) is True:
            body = gunzip(body, most_bytes)
        return head, body


def secret_of(token: str) -> bytes:
    """What a device and its station share."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def pack(body: bytes) -> bytes:
    """A body as it travels."""
    return gzip.compress(body, GZIP_LEVEL, mtime=0)


def _derived(secret: bytes, purpose: str) -> bytes:
    return hmac.digest(secret, b"tagclip mqtt 1 " + purpose.encode("ascii"), "sha256")

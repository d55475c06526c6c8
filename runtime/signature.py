"""The file SIGNATURE: who vouches for SHA256SUMS. docs/format.md is the specification.

Three lines of ASCII, each ended by a line feed, and nothing else:

    tagclip-signature 1
    key-id <16 hexadecimal digits>
    ed25519 <128 hexadecimal digits>
"""

from __future__ import annotations

import re

from tagclip.runtime.bundle_manifest import SIGNATURE, SUMS
from tagclip.runtime.errors import BundleSignatureError
from tagclip.runtime.keys import PrivateKey, PublicKey

MAX_SIGNATURE_BYTES = 1024

# In front of the signed bytes: a signature that the same key gave for something else never fits a bundle.
PREFIX = b"tagclip bundle signature 1\n"

_VERSION = re.compile(rb"tagclip-signature ([1-9][0-9]{0,8})\n")
_FORM = re.compile(rb"tagclip-signature 1\nkey-id ([0-9a-f]{16})\ned25519 ([0-9a-f]{128})\n")
_AGAIN = "do not use this bundle; fetch it again from its maker"


def make_signature(sums: bytes, key: PrivateKey) -> bytes:
    """The content of SIGNATURE for the bytes of SHA256SUMS."""
    signature = key.sign(PREFIX + sums)
    return f"tagclip-signature 1\nkey-id {key.public.id}\ned25519 {signature.hex()}\n".encode("ascii")


def check_signature(sums: bytes, signature: bytes | None, key: PublicKey, where: str) -> None:
    """Refuse a bundle that the owner of `key` did not sign.

    Args:
        sums: the bytes of SHA256SUMS.
        signature: the bytes of SIGNATURE, None if there is no such file.
        key: whom to trust.
        where: what to call the bundle in messages.

    Raises:
        BundleSignatureError: absent, in another form, of a newer version, of another key, or not of these bytes.
        MissingExtraError: cryptography is not installed.
    """
    if signature is None:
        raise BundleSignatureError(
            f"{where} has no {SIGNATURE}, expected one of key {key.id}; "
            "ask its maker for a signed one (`tagclip bundle sign`)"
        )
    version = _VERSION.match(signature)
    if version is not None and version[1] != b"1":
        raise BundleSignatureError(
            f"{where}: {SIGNATURE} has version {int(version[1])}, this tagclip reads 1; upgrade tagclip"
        )
    match = _FORM.fullmatch(signature)
    if match is None:
        raise BundleSignatureError(
            f"{where}: {SIGNATURE} is damaged: expected three lines (tagclip-signature 1, key-id, ed25519), "
            f"found {signature[:60]!r}; {_AGAIN}"
        )
    found = match[1].decode("ascii")
    if found != key.id:
        raise BundleSignatureError(
            f"{where} is signed by key {found}, expected {key.id}; name the public key of its maker, or {_AGAIN}"
        )
    if not key.verifies(bytes.fromhex(match[2].decode("ascii")), PREFIX + sums):
        raise BundleSignatureError(
            f"{where}: {SIGNATURE} names key {key.id}, but that key did not sign this {SUMS}; {_AGAIN}"
        )

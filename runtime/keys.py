"""Ed25519 keys out of PEM files, as `openssl genpkey -algorithm ed25519` makes them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tagclip.runtime.errors import KeyFileError, MissingExtraError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MAX_KEY_BYTES = 16 * 1024


@dataclass(frozen=True)
class PublicKey:
    """What a device is told to trust: 32 bytes, as RFC 8032 encodes a public key."""

    raw: bytes

    @property
    def id(self) -> str:
        """16 hexadecimal digits of the SHA-256 of the key: a name for messages, no protection."""
        return hashlib.sha256(self.raw).hexdigest()[:16]

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature` (64 bytes) is this key's Ed25519 signature of `message`.

        Raises:
            MissingExtraError: cryptography is not installed.
        """
        _require_cryptography()
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class PrivateKey:
    """What signs; it never leaves the machine that makes bundles, and no message shows it."""

    _key: Ed25519PrivateKey = field(repr=False)

    @property
    def public(self) -> PublicKey:
        """The key that devices are told."""
        return PublicKey(self._key.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """The Ed25519 signature of `message`, 64 bytes; the same message always gives the same."""
        return self._key.sign(message)


def read_public_key(path: Path) -> PublicKey:
    """Read a PEM file `BEGIN PUBLIC KEY` (SubjectPublicKeyInfo).

    Raises:
        KeyFileError: absent, not one public key in PEM, or not Ed25519.
        MissingExtraError: cryptography is not installed.
    """
    _require_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    data = _read(path, "PUBLIC KEY")
    try:
        key = load_pem_public_key(data)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyFileError(f"{path} cannot be read as a public key ({error}); {_MAKE_PUBLIC}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFileError(f"{path} holds a key of another kind than Ed25519; {_MAKE}, then {_MAKE_PUBLIC}")
    return PublicKey(key.public_bytes_raw())


def read_private_key(path: Path, passphrase: Callable[[], str]) -> PrivateKey:
    """Read a PEM file `BEGIN PRIVATE KEY` or `BEGIN ENCRYPTED PRIVATE KEY` (PKCS #8).

    Args:
        path: the file.
        passphrase: asked for once if the key is encrypted, else never.

    Raises:
        KeyFileError: absent, not one private key in PEM, not Ed25519, or the passphrase is wrong.
        MissingExtraError: cryptography is not installed.
    """
    _require_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = _read(path, "PRIVATE KEY", "ENCRYPTED PRIVATE KEY")
    password = passphrase().encode() if b"BEGIN ENCRYPTED" in data else None
    try:
        key = load_pem_private_key(data, password)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        reason = "wrong passphrase, or damaged" if password is not None else str(error)
        raise KeyFileError(f"{path} cannot be read as a private key ({reason}); {_MAKE}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{path} holds a key of another kind than Ed25519; {_MAKE}")
    return PrivateKey(key)


def is_private(path: Path) -> bool:
    """Whether nobody but the owner of the file can read it."""
    return not path.stat().st_mode & 0o044


_MAKE = "make one with `openssl genpkey -algorithm ed25519 -out private.pem`"
_MAKE_PUBLIC = "make it with `openssl pkey -in private.pem -pubout -out public.pem`"


def _read(path: Path, *labels: str) -> bytes:
    """The bytes of a PEM file that holds one block, with one of `labels`."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_KEY_BYTES + 1)
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read ({error.strerror}); name a key in PEM form") from error
    found = [line.strip(b"-\r \t") for line in data.split(b"\n") if line.startswith(b"-----BEGIN ")]
    names = [name.removeprefix(b"BEGIN ").decode("ascii", "replace") for name in found]
    # Exactly one: of two keys in a file, a reader that takes the first would trust less than its owner believes.
    if len(data) > MAX_KEY_BYTES or len(names) != 1 or names[0] not in labels:
        expected = "BEGIN " + " or BEGIN ".join(labels)
        listed = ", ".join(f"BEGIN {name}" for name in names[:4])[:200] or "no PEM block"
        way_out = _MAKE_PUBLIC if labels[0] == "PUBLIC KEY" else _MAKE
        raise KeyFileError(f"{path}: expected one block {expected}, found {listed!r}; {way_out}")
    return data


def _require_cryptography() -> None:
    try:
        import cryptography.hazmat.primitives.asymmetric.ed25519  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            "cryptography is not installed; signatures need: pip install 'tagclip[signing]'"
        ) from error

"""Pictures encrypted at rest: AES-256-GCM, and the files that its keys lie in.

A sealed picture is MAGIC, the key's id (8 bytes), a random nonce (12), and the ciphertext with its tag (16). The
owner's id is authenticated with it, so that a picture cannot be put into another's row. What does not begin with MAGIC
is a picture that was stored before there was a key.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from tagclip.runtime.errors import KeyFileError, MissingExtraError, OutputError, StoreError
from tagclip.runtime.files import open_unfollowed, sync_folder

MAGIC = b"tagclip-picture\x01"
KEY_BYTES, ID_BYTES, NONCE_BYTES, TAG_BYTES = 32, 8, 12, 16
OVERHEAD_BYTES = len(MAGIC) + ID_BYTES + NONCE_BYTES + TAG_BYTES
HEAD_BYTES = len(MAGIC) + ID_BYTES  # says which key

_FORM = re.compile(rb"tagclip-picture-key 1\n([0-9a-f]{64})\n")
_MAKE = "make one with `tagclip key new FILE`"


class PictureKeys:
    """What pictures are sealed and opened with.

    Args:
        keys: 32 bytes each; the first seals, every one opens.

    Raises:
        MissingExtraError: cryptography is not installed.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as error:
            raise MissingExtraError(
                "cryptography is not installed; pictures encrypted at rest need: pip install 'tagclip[signing]'"
            ) from error
        # By the key's hash: a name for messages and for finding it, no protection.
        self._ciphers = {hashlib.sha256(b"id" + key).digest()[:ID_BYTES]: AESGCM(key) for key in keys}
        self._first = next(iter(self._ciphers))

    @property
    def id(self) -> str:
        """Of the key that seals, 16 hexadecimal digits."""
        return self._first.hex()

    @property
    def ids(self) -> frozenset[str]:
        """Of all of them."""
        return frozenset(name.hex() for name in self._ciphers)

    def seal(self, picture: bytes, owner: bytes) -> bytes:
        """A picture as it is stored; `owner` is the id of the row that it belongs to."""
        nonce = os.urandom(NONCE_BYTES)
        head = MAGIC + self._first
        return head + nonce + self._ciphers[self._first].encrypt(nonce, picture, head + owner)

    def open(self, sealed: bytes, owner: bytes, whose: str) -> bytes:
        """The picture again; `whose` begins messages.

        Raises:
            KeyFileError: another key sealed it.
            StoreError: it is not what was sealed for this owner.
        """
        from cryptography.exceptions import InvalidTag

        head, rest = sealed[:HEAD_BYTES], sealed[HEAD_BYTES:]
        cipher = self._ciphers.get(head[len(MAGIC) :])
        if cipher is None:
            raise missing_key(whose, {key_id(sealed) or ""}, self)
        try:
            return cipher.decrypt(rest[:NONCE_BYTES], rest[NONCE_BYTES:], head + owner)
        except (InvalidTag, ValueError) as error:  # ValueError: too short for a nonce
            raise StoreError(
                f"{whose}: the picture is not the one that was encrypted for it: damaged, or another's put in its "
                "place; restore it from a backup, or delete it"
            ) from error


def key_id(stored: bytes) -> str | None:
    """Which key sealed a stored picture, or its first HEAD_BYTES; None for a plain one."""
    return stored[len(MAGIC) : HEAD_BYTES].hex() if stored.startswith(MAGIC) else None


def sealed(picture: bytes, owner: bytes, keys: PictureKeys | None) -> bytes:
    """A picture as it is stored: as it is, where there are no keys."""
    return picture if keys is None else keys.seal(picture, owner)


def opened(stored: bytes, owner: bytes, keys: PictureKeys | None, whose: str) -> bytes:
    """A stored picture, sealed or plain. Raises: as `PictureKeys.open`; KeyFileError, sealed and no key is given."""
    name = key_id(stored)
    if name is None:
        return stored
    if keys is None:
        raise missing_key(whose, {name}, None)
    return keys.open(stored, owner, whose)


def missing_key(whose: str, names: set[str] | frozenset[str], keys: PictureKeys | None) -> KeyFileError:
    """The error of pictures that keys of these ids sealed, where only `keys` were given."""
    given = f"found {', '.join(sorted(keys.ids))}" if keys else "found none"
    return KeyFileError(
        f"{whose}: pictures are encrypted, expected key {', '.join(sorted(names))}, {given}; "
        "name its file with --picture-key (again for each further key)"
    )


def read_picture_keys(paths: Sequence[Path]) -> PictureKeys | None:
    """The keys in files, of which the first seals; None for no files.

    Raises:
        KeyFileError: absent, open to others than its owner, or no key.
        MissingExtraError: cryptography is not installed.
    """
    return PictureKeys([_read(path) for path in paths]) if paths else None


def new_picture_key(path: Path) -> str:
    """Make a key file for its owner alone, on the disk when this returns; the key's id.

    Raises:
        OutputError: there is such a file already, which stays, or it cannot be made.
        MissingExtraError: cryptography is not installed.
    """
    key = os.urandom(KEY_BYTES)
    name = PictureKeys([key]).id
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(b"tagclip-picture-key 1\n" + key.hex().encode("ascii") + b"\n")
            file.flush()
            os.fsync(file.fileno())
        sync_folder(path.parent)
    except OSError as error:
        raise OutputError(
            f"cannot make the key {path}: {error.strerror or error}; choose another name (a key that is lost or "
            "replaced takes its pictures with it)"
        ) from error
    return name


def _read(path: Path) -> bytes:
    try:
        with os.fdopen(open_unfollowed(path), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(200)
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read ({error.strerror or error}); {_MAKE}") from error
    if mode & 0o077:
        raise KeyFileError(
            f"{path}: expected a key that its owner alone can read (0600), found mode {mode & 0o777:04o}; "
            f"`chmod 600 {path}`, and a new key if others saw it"
        )
    match = _FORM.fullmatch(data)
    if match is None:
        raise KeyFileError(f"{path}: expected a key for pictures (two lines), found something else; {_MAKE}")
    return bytes.fromhex(match[1].decode("ascii"))

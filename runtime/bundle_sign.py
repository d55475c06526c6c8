"""Signing a bundle that exists: its SIGNATURE is made or replaced, nothing else is touched."""

from __future__ import annotations

from pathlib import Path

from tagclip.runtime.bundle import Bundle, open_bundle, sums_bytes
from tagclip.runtime.bundle_manifest import SIGNATURE
from tagclip.runtime.files import write_atomic
from tagclip.runtime.keys import PrivateKey
from tagclip.runtime.signature import make_signature


def sign_bundle(path: Path, key: PrivateKey) -> Bundle:
    """Check a bundle, sign what was checked, and open it again with the signature required.

    A kill at any moment leaves the old SIGNATURE (or none) or the new one, and a bundle that opens.

    Raises:
        BundleError: the bundle cannot be opened; nothing is signed.
        OutputError: the folder, or the one that it lies in, is not writable or full.
    """
    bundle = open_bundle(path)
    # Out of the hashes that were checked, not out of the file: it may have been swapped since.
    data = make_signature(sums_bytes(bundle.sha256), key)
    folder = path.resolve()
    # Beside the bundle: a temporary file that a kill leaves inside it would be an unlisted file.
    waiting = folder.with_name(f".{folder.name}.{SIGNATURE}.part")
    write_atomic(folder / SIGNATURE, data, waiting=waiting)
    return open_bundle(path, public_key=key.public)

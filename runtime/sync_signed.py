"""Documents that a station signs: sets of queries, orders of bundles. Ed25519 over a prefix and the canonical JSON."""

from __future__ import annotations

import base64
from typing import Any

from tagclip.runtime.errors import SyncError
from tagclip.runtime.fields import canonical_json
from tagclip.runtime.keys import PrivateKey, PublicKey
from tagclip.runtime.sync_fields import Row, sync_errors


def with_signature(document: dict[str, Any], prefix: bytes, key: PrivateKey) -> dict[str, Any]:
    """The document and its `signature`.

    Args:
        prefix: in front of the signed bytes, another for each kind of document: a signature that the same key gave for
            something else never fits.

    Raises:
        SyncError: a value that canonical JSON cannot say.
    """
    return {**document, "signature": base64.b64encode(key.sign(_bytes(document, prefix))).decode("ascii")}


def without_signature(
    document: object, prefix: bytes, key: PublicKey, *, root: str, what: str
) -> dict[str, Any]:
    """The document that the owner of `key` signed, its fields still unchecked.

    Args:
        root: how errors begin, such as "order".
        what: the kind of document, for the error.

    Raises:
        SyncError: no object, no signature, or somebody else's.
        MissingExtraError: cryptography is not installed.
    """
    with sync_errors():
        signature = Row(document, root).base64("signature", least=64, most=64)
    assert isinstance(document, dict)
    unsigned = {name: value for name, value in document.items() if name != "signature"}
    if not key.verifies(signature, _bytes(unsigned, prefix)):
        raise SyncError(f"{root}.signature: key {key.id} did not sign this {what}; enrol the device again")
    return unsigned


def _bytes(unsigned: dict[str, Any], prefix: bytes) -> bytes:
    with sync_errors():
        return prefix + canonical_json(unsigned)

"""Reading what came over a link: JSON of anybody's making, bounded, strict, complaints with the field's path."""

from __future__ import annotations

import base64
import binascii
import json
import re
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tagclip.runtime.errors import BundleManifestError, SyncError
from tagclip.runtime.fields import Fields, distinct, finite, no_constant

# A name that can stand in a URL, an MQTT topic and a log as it is.
DEVICE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
MAX_FACTS = 64


@contextmanager
def sync_errors() -> Iterator[None]:
    """What Fields raises, as SyncError."""
    try:
        yield
    except BundleManifestError as error:
        raise SyncError(str(error)) from error


def parse(data: bytes, name: str, most_bytes: int) -> dict[str, Any]:
    """One JSON object out of bytes that anybody may have made.

    Raises:
        SyncError: larger than `most_bytes`, not UTF-8, not JSON, a repeated key, NaN or Infinity, or not an object.
    """
    if len(data) > most_bytes:
        raise SyncError(
            f"{name}: expected at most {most_bytes:,} bytes, found {len(data):,}; send less at once"
        )
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=distinct, parse_constant=no_constant, parse_float=finite
        )
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)[:200]
        raise SyncError(f"{name}: not readable as JSON ({reason})") from error
    if not isinstance(value, dict):
        raise SyncError(f"{name}: expected an object, found {type(value).__name__}")
    return value


def gunzip(data: bytes, most_bytes: int) -> bytes:
    """The content of a gzip file, never more than `most_bytes` of memory.

    Raises:
        SyncError: it unpacks to more, or is damaged.
    """
    unpacker = zlib.decompressobj(31)
    try:
        content = unpacker.decompress(data, most_bytes + 1)
    except zlib.error as error:
        raise SyncError(f"expected gzip, found what cannot be unpacked ({error})") from error
    if len(content) > most_bytes:
        raise SyncError(f"expected at most {most_bytes:,} bytes when unpacked, found more; send less at once")
    if not unpacker.eof or unpacker.unused_data:
        raise SyncError("expected one gzip file, found half of one or something behind it; send it again")
    return content


class Row(Fields):
    """Fields, with the types that messages have. Every method raises BundleManifestError; see `sync_errors`."""

    def null(self, key: str) -> bool:
        """Whether null stands there; an absent field is not null."""
        if self._value.get(key, self) is not None:
            return False
        self._take(key, object, "null")
        return True

    def any(self, key: str) -> object:
        """Whatever stands there."""
        return self._take(key, object, "a value")

    def line(self, key: str, *, least: int = 1, most: int) -> str:
        """Printable text in any script; none at all if `least` is 0."""
        if least == 0 and self._value.get(key) == "":
            return self._take(key, str, "text")
        return self.text(key, max_length=most)

    def device(self) -> str:
        """The field `device`: a name of DEVICE_NAME."""
        value = self.text("device")
        if not DEVICE_NAME.fullmatch(value):
            self.refuse("device", "1 to 63 letters, digits, dots, hyphens and underscores")
        return value

    def uuid(self, key: str, version: int | None = None) -> str:
        """The one written form of a UUID, of `version` if given."""
        value = self.text(key)
        try:
            parsed = uuid.UUID(value)
        except ValueError:
            parsed = None
        if parsed is None or str(parsed) != value or (version is not None and parsed.version != version):
            kind = "" if version is None else f" of version {version}"
            self.refuse(key, f"a UUID{kind} such as 0190163d-8694-7396-a4cc-13e0f1a6c3f2")
        return value

    def base64(self, key: str, *, least: int, most: int) -> bytes:
        """The content, `least` to `most` bytes, of base64 in its one written form."""
        value = self.text(key, max_length=4 * (most + 2) // 3 + 4)
        try:
            data = base64.b64decode(value.encode("ascii"), validate=True)
        except (binascii.Error, UnicodeEncodeError):
            data = b""
        # Compared: two texts for one content would make two of one thing.
        if not least <= len(data) <= most or base64.b64encode(data).decode("ascii") != value:
            self.refuse(key, f"base64 of {least:,} to {most:,} bytes")
        return data

    def facts(self, key: str) -> dict[str, Any]:
        """An object of at most MAX_FACTS plain values by name: numbers, short texts, true, false and null."""
        value = self.free(key)
        if len(value) > MAX_FACTS:
            self.refuse(key, f"at most {MAX_FACTS} facts")
        for name, fact in value.items():
            if not (1 <= len(name) <= 64 and name.isprintable() and _is_plain(fact)):
                shown = repr(name[:64])[1:-1]
                raise BundleManifestError(
                    f"{self.where(key)}.{shown}: expected a number, text of up to 200 characters, true, false or null"
                )
        return value


def _is_plain(fact: object) -> bool:
    if isinstance(fact, str):
        return len(fact) <= 200 and (fact.isprintable() or not fact)
    if isinstance(fact, int):
        return abs(fact) <= 1 << 53
    return fact is None or isinstance(fact, float)

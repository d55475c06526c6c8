"""Reading untrusted JSON: bounded, strict, and every complaint names the field by its path."""

from __future__ import annotations

import json
from typing import Any, NoReturn, TypeVar

from tagclip.runtime.errors import BundleManifestError

# 20 times the largest bundle.json seen; keeps a hostile file from filling the memory of a small device.
MAX_JSON_BYTES = 256 * 1024
MAX_DEPTH = 64  # levels; Python reads more than it can write again, and `inspect` writes

T = TypeVar("T")


def parse_object(data: bytes, name: str) -> dict[str, Any]:
    """Parse `data` as one JSON object.

    Args:
        data: the bytes of the file, UTF-8.
        name: what to call the file in messages.

    Raises:
        BundleManifestError: too large, not UTF-8, not JSON, a repeated key, NaN or Infinity (1e999 is one),
            nested deeper than 64 levels, or not an object.
    """
    if len(data) > MAX_JSON_BYTES:
        raise BundleManifestError(
            f"{name}: more than {MAX_JSON_BYTES} bytes, which no bundle needs; fetch the bundle again"
        )
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=distinct,
            parse_constant=no_constant,
            parse_float=finite,
        )
        _check_depth(value)
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise BundleManifestError(
            f"{name}: not readable as JSON ({reason}); fetch the bundle again"
        ) from error
    if not isinstance(value, dict):
        raise BundleManifestError(f"{name}: expected an object, found {_kind(value)}")
    return value


def canonical_json(value: object) -> bytes:
    """The one byte form of a JSON value: sorted keys, two spaces, ASCII, a final newline.

    Raises:
        BundleManifestError: the value holds something JSON cannot say (NaN, bytes, an array, a cycle).
    """
    try:
        return (json.dumps(value, sort_keys=True, indent=2, allow_nan=False) + "\n").encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise BundleManifestError(
            f"not writable as JSON: {error}; use text, finite numbers and lists"
        ) from error


class Fields:
    """One JSON object whose fields are taken by name and type; `close` refuses what nobody took.

    Every method raises BundleManifestError with the field's path when it is absent or wrong.
    """

    def __init__(self, value: object, path: str) -> None:
        if not isinstance(value, dict):
            raise BundleManifestError(f"{path}: expected an object, found {_kind(value)}")
        self.path = path
        self._value: dict[str, Any] = value
        self._taken: set[str] = set()

    def where(self, key: str) -> str:
        """The path of field `key`, as messages give it."""
        return f"{self.path}.{key}"

    def refuse(self, key: str, expected: str) -> NoReturn:
        """Raise BundleManifestError for field `key`, saying what was expected and what stands there."""
        found = repr(self._value.get(key))
        found = found if len(found) <= 80 else found[:77] + "..."
        raise BundleManifestError(f"{self.where(key)}: expected {expected}, found {found}")

    def text(self, key: str, *, choices: tuple[str, ...] | None = None, max_length: int = 200) -> str:
        """A printable string of 1 to `max_length` characters, one of `choices` if given."""
        value = self._take(key, str, "text")
        if choices is not None and value not in choices:
            self.refuse(key, "one of " + ", ".join(choices))
        # Printable only: control characters in a name could rewrite the operator's terminal.
        if not 1 <= len(value) <= max_length or not value.isprintable():
            self.refuse(key, f"1 to {max_length} printable characters")
        return value

    def integer(self, key: str, *, low: int, high: int) -> int:
        """A whole number in [low, high]; true and false are not numbers."""
        value = self._take(key, int, "a whole number")
        if isinstance(value, bool) or not low <= value <= high:
            self.refuse(key, f"a whole number from {low} to {high}")
        return value

    def number(self, key: str, *, low: float, high: float) -> float:
        """A finite number in [low, high]; true and false are not numbers."""
        value = self._take(key, object, "a number")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            self.refuse(key, f"a number from {low:g} to {high:g}")
        return float(value)

    def items(self, key: str) -> list[Any]:
        """A list of anything."""
        return self._take(key, list, "a list")

    def object(self, key: str) -> Fields:
        """A nested object."""
        return Fields(self._take(key, dict, "an object"), self.where(key))

    def object_or_null(self, key: str) -> Fields | None:
        """A nested object, or None where null stands."""
        value = self._take(key, object, "an object or null")
        return None if value is None else Fields(value, self.where(key))

    def free(self, key: str) -> dict[str, Any]:
        """A nested object of the writer's own making."""
        return self._take(key, dict, "an object")

    def keys(self) -> list[str]:
        """The names present, sorted."""
        return sorted(self._value)

    def close(self) -> None:
        """Refuse fields that nobody took: what this version does not know, it must not ignore."""
        unknown = sorted(set(self._value) - self._taken)
        if unknown:
            raise BundleManifestError(
                # Quoted and cut: the key is the writer's, and could rewrite the operator's terminal.
                f"{self.path}.{repr(unknown[0][:80])[1:-1]}: unknown field; expected only {sorted(self._taken)}"
            )

    def _take(self, key: str, kind: type[T], expected: str) -> T:
        if key not in self._value:
            raise BundleManifestError(f"{self.where(key)}: missing, expected {expected}")
        self._taken.add(key)
        value = self._value[key]
        if not isinstance(value, kind):
            self.refuse(key, expected)
        return value


def _kind(value: object) -> str:
    return {dict: "an object", list: "a list", str: "text", type(None): "null"}.get(
        type(value), repr(value)[:40]
    )


def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For json's object_pairs_hook. Raises: ValueError, a key appears twice."""
    # Two readers may disagree on which of two equal keys counts; a signed text must mean one thing.
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key appears twice in one object")
    return result


def finite(text: str) -> float:
    """For json's parse_float. Raises: ValueError, it is too large for a double."""
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:40]} is too large for a number")
    return value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        inner = [item for item in level if isinstance(item, (dict, list))]
        level = [part for item in inner for part in (item.values() if isinstance(item, dict) else item)]
        if not level:
            return
    if any(isinstance(item, (dict, list)) for item in level):
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")


def no_constant(name: str) -> NoReturn:
    """For json's parse_constant. Raises: ValueError, NaN and Infinity are no JSON."""
    raise ValueError(f"{name} is not JSON")

"""The fields of annotations' `attributes`, whatever they are, and how often each value occurs.

Nothing here knows which attributes there are: a new one shows up by itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

from tagclip.runtime.errors import DataError
from tagclip.train.synth.palette import RGB, basic_name

ABSENT = "(none)"  # stands for a field that a person does not have: no hat, no second colour
MOST_NESTED = 8
LARGEST = 1e15


class Leaf(NamedTuple):
    """A value of a field: text, a yes or no, how long a list is, a number that is none of these, or a colour."""

    kind: Literal["text", "flag", "length", "number", "colour"]
    value: str | int | float | RGB

    def __str__(self) -> str:
        """As it is shown: a colour by its basic name."""
        return basic_name(self.value) if isinstance(self.value, tuple) else str(self.value)


Found = list[tuple[str, Leaf | None]]


def leaves(value: Any, where: str, path: str = "", depth: int = 0) -> Iterator[tuple[str, Leaf | None]]:
    """The values in `value` with their paths, such as `top.kind` or `bags[].side`; None where JSON has null.

    A list of three whole numbers from 0 to 255 is a colour; any other is one value, its length, and those of what is
    in it.

    Args:
        where: annotation file and row, for messages.
        path: of `value` itself, empty at the top.

    Raises:
        DataError: nested too deep, or a number that is not finite or absurdly large.
    """
    if depth > MOST_NESTED:
        raise DataError(f"{where}: attributes may be {MOST_NESTED} deep, found more at {path[:80]}")
    if value is None:
        yield path, None
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, where, f"{path}.{key}" if path else key, depth + 1)
    elif isinstance(value, list) and len(value) == 3 and all(type(v) is int and 0 <= v <= 255 for v in value):
        yield path, Leaf("colour", (value[0], value[1], value[2]))
    elif isinstance(value, list):
        yield path, Leaf("length", len(value))
        for inner in value:
            yield from leaves(inner, where, f"{path}[]", depth + 1)
    elif isinstance(value, bool):
        yield path, Leaf("flag", "yes" if value else "no")
    elif isinstance(value, str):
        yield path, Leaf("text", value)
    elif -LARGEST < value < LARGEST:
        yield path, Leaf("number", value)
    else:
        raise DataError(f"{where}: attributes {path[:80]} must be a number below {LARGEST:.0e}")


class Fields:
    """Counts the values of every field: by people, or by pictures where it differs between pictures of a person."""

    def __init__(self) -> None:
        self.people: dict[int, dict[str, frozenset[Leaf]]] = {}  # as in the first picture of each
        self.images = 0
        self._by_picture: dict[str, Counter[frozenset[Leaf]]] = {}
        self._changing: set[str] = set()
        self._same: dict[frozenset[Leaf], frozenset[Leaf]] = {}  # one object for all equal sets

    def add(self, identity: int, found: Iterable[tuple[str, Leaf | None]]) -> None:
        """Count one picture, of which `leaves` gave `found`."""
        gathered: dict[str, set[Leaf]] = {}
        for path, leaf in found:
            gathered.setdefault(path, set()).update(() if leaf is None else (leaf,))
        sets = {path: frozenset(values) for path, values in gathered.items()}
        values = {path: self._same.setdefault(some, some) for path, some in sets.items()}
        self.images += 1
        for path, some in values.items():
            self._by_picture.setdefault(path, Counter())[some] += 1
        first = self.people.setdefault(identity, values)
        if first != values:
            nothing = frozenset[Leaf]()
            paths = first.keys() | values.keys()
            self._changing |= {p for p in paths if first.get(p, nothing) != values.get(p, nothing)}

    def of_people(self, path: str) -> list[str]:
        """A field of every person, in the order of their first pictures; ABSENT for those without."""
        found = (person.get(path, frozenset()) for person in self.people.values())
        return ["+".join(sorted(map(str, some))) or ABSENT for some in found]

    def shares(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Tables by path: `attributes` (text, yes or no, length of a list), `colours` and `numbers`.

        Each row has `of`, "people" or "pictures", and `having_percent`, how many of these have a value. A person may
        have several values in a list, so shares of a path with [] may add up to more than 100 %.
        """
        out: dict[str, dict[str, dict[str, Any]]] = {"attributes": {}, "colours": {}, "numbers": {}}
        for path in sorted(self._by_picture):
            of, total, by_leaf, having = self._counts(path)
            if not by_leaf and any(p.startswith((f"{path}.", f"{path}[]")) for p in self._by_picture):
                continue  # an object that nobody has as a value: its fields tell
            head = {"of": of, "having_percent": percent(having, total)}
            kinds: dict[str, Counter[Leaf]] = {}
            for leaf, n in by_leaf.items():
                kinds.setdefault(leaf.kind, Counter())[leaf] = n
            colours, numbers = kinds.pop("colour", None), kinds.pop("number", None)
            if colours:
                out["colours"][path] = head | {"percent_of_having": ordered(colours, having)}
            if numbers:
                out["numbers"][path] = head | _spread(numbers)
            if kinds or not by_leaf:
                words = Counter[Leaf]()
                for part in kinds.values():
                    words += part
                rest = {ABSENT: percent(total - having, total)} if having < total else {}
                # Of yes and no, yes is an attribute that one has; how many there are of something is none.
                values = len(kinds.get("text", ())) + ("flag" in kinds)
                out["attributes"][path] = head | {"values": values, "percent": ordered(words, total) | rest}
        return out

    def _counts(self, path: str) -> tuple[str, int, Counter[Leaf], int]:
        """What is counted, how many there are, how many have each value, how many have any."""
        if path in self._changing:
            of, total, by_set = "pictures", self.images, self._by_picture[path]
        else:
            of, total = "people", len(self.people)
            by_set = Counter(person[path] for person in self.people.values() if path in person)
        by_leaf = Counter[Leaf]()
        for values, n in by_set.items():
            by_leaf.update(dict.fromkeys(values, n))
        return of, total, by_leaf, sum(n for values, n in by_set.items() if values)


def percent(part: float, whole: float) -> float:
    """Share in percent to two decimals, 0 of nothing."""
    return round(100 * part / whole, 2) if whole else 0.0


def ordered(counts: Counter[Leaf] | Counter[str], whole: int) -> dict[str, float]:
    """Shares in percent by name, the largest first, equal ones by name."""
    named = Counter[str]()
    for value, n in counts.items():
        named[str(value)] += n
    return {
        name: percent(n, whole) for name, n in sorted(named.items(), key=lambda item: (-item[1], item[0]))
    }


def _spread(numbers: Counter[Leaf]) -> dict[str, float]:
    values = {float(leaf.value): n for leaf, n in numbers.items() if not isinstance(leaf.value, tuple)}
    mean = sum(value * n for value, n in sorted(values.items())) / sum(values.values())
    return {"lowest": min(values), "mean": round(mean, 2), "highest": max(values)}

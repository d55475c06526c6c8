"""Where a camera was and where it looked, over the time of its footage: from a file beside it, or fixed.

Angles: pitch is below the horizon (0 level, 90 straight down), yaw clockwise from north, roll positive with the right
side down. Altitude is over the ground where the people are; drones measure it from where they took off.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tagclip.runtime.errors import SourceError

LONGEST_GAP_S = (
    2.0  # between two lines, or before the first and after the last; farther away nothing is known
)
MOST_BYTES = 256 << 20
LIMITS = {
    "time_s": (-1e7, 1e10),
    "latitude_deg": (-90, 90),
    "longitude_deg": (-180, 180),
    "altitude_m": (-500, 20_000),
    "pitch_deg": (-90, 90),
    "yaw_deg": (-720, 720),
    "roll_deg": (-180, 180),
    "field_of_view_deg": (1, 175),
}


@dataclass(frozen=True)
class CameraPose:
    """What is known of the camera at one time; None for what is not. field_of_view_deg is the horizontal one."""

    latitude_deg: float | None = None
    longitude_deg: float | None = None
    altitude_m: float | None = None
    pitch_deg: float | None = None
    yaw_deg: float | None = None
    roll_deg: float | None = None
    field_of_view_deg: float | None = None


NAMES = tuple(field.name for field in fields(CameraPose))
_TURNS = {"yaw_deg", "roll_deg", "longitude_deg"}  # that jump from one end of their range to the other
_ANGLES = {"pitch_deg", "yaw_deg", "roll_deg"}
LEAP_DEG = 45.0  # of roll between two lines: no camera rolls so fast


class Poses(Protocol):
    """Whatever knows of the camera over the time of the footage."""

    def at(self, time_s: float) -> CameraPose:
        """The pose at a time of the footage; None for what is not known then."""


class Telemetry:
    """Poses over time, between which is interpolated.

    Args:
        lines: time_s, seconds from the start of the footage, and any of CameraPose's fields.
        fixed: for what no line tells.

    Raises:
        SourceError: a number is out of its range.
    """

    def __init__(self, lines: Iterable[Mapping[str, float]] = (), fixed: CameraPose | None = None) -> None:
        self._fixed = fixed or CameraPose()
        for name in NAMES:
            _checked(name, getattr(self._fixed, name), "the pose given")
        rows = sorted(lines, key=lambda line: line["time_s"])
        self._series: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for name in NAMES:
            told = [(line["time_s"], line[name]) for line in rows if line.get(name) is not None]
            if told:
                times, values = np.array(told, np.float64).T
                if name in _TURNS:
                    values = np.rad2deg(np.unwrap(np.deg2rad(values)))
                self._series[name] = (times, values)

    def at(self, time_s: float) -> CameraPose:
        """The pose at a time of the footage; what is farther than LONGEST_GAP_S from any line is not known."""
        found: dict[str, float | None] = {}
        steady_s = self._steady(time_s)
        for name in NAMES:
            fixed = getattr(self._fixed, name)
            if fixed is not None or name not in self._series:
                found[name] = fixed
                continue
            times, values = self._series[name]
            after = int(np.searchsorted(times, time_s))
            near = [abs(times[k] - time_s) for k in (after - 1, after) if 0 <= k < len(times)]
            value = float(np.interp(steady_s if name in _ANGLES else time_s, times, values))
            found[name] = (
                ((value + 180) % 360 - 180 if name in _TURNS else value)
                if min(near) <= LONGEST_GAP_S
                else None
            )
        return CameraPose(**found)

    def _steady(self, time_s: float) -> float:
        """When to look for the angles: a camera that swings through straight down turns its yaw and roll over at once.

        Half way between two such lines is neither; there the nearer line is taken.
        """
        times, rolls = self._series.get("roll_deg", (np.zeros(0), np.zeros(0)))
        after = int(np.searchsorted(times, time_s))
        if not 0 < after < len(times) or abs(rolls[after] - rolls[after - 1]) <= LEAP_DEG:
            return time_s
        return float(min(times[after - 1 : after + 1], key=lambda near_s: abs(near_s - time_s)))


def read_telemetry(path: Path, fixed: CameraPose | None = None, start_s: float = 0.0) -> Telemetry:
    """Telemetry from a file: DJI's subtitles (.srt), a ground station's MAVLink log (.tlog), .csv or .json.

    The last two have the names of CameraPose and time_s.

    Args:
        start_s: Unix time of the footage's time 0; a log's times are Unix times, those of the others are the footage's.

    Raises:
        SourceError: missing, too large, of another form, or a number out of its range; with the line.
    """
    if path.suffix.lower() == ".tlog":
        return _of_log(path, fixed or CameraPose(), start_s)
    try:
        if path.stat().st_size > MOST_BYTES:
            raise SourceError(
                f"{path} has more than {MOST_BYTES >> 20} MB, which is no telemetry; name another file"
            )
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise SourceError(f"cannot read the telemetry {path}: {error.strerror or error}") from error
    readers = {".srt": _srt, ".csv": _csv, ".json": _json}
    if path.suffix.lower() not in readers:
        raise SourceError(
            f"{path}: expected telemetry as .srt, .tlog, .csv or .json, found {path.suffix or 'no suffix'}"
        )
    lines = list(readers[path.suffix.lower()](text, path))
    if not any(line.keys() - {"time_s"} for line in lines):
        raise SourceError(f"{path} tells nothing of a camera; docs/store.md shows the forms that are read")
    return Telemetry(lines, fixed)


def _of_log(path: Path, fixed: CameraPose, start_s: float) -> Telemetry:
    from tagclip.runtime.mavlink import read_tlog

    # The pitch that is given is that of a camera fixed to the craft, whose own comes to it.
    rest = CameraPose(**{name: value for name, value in vars(fixed).items() if name != "pitch_deg"})
    rows = read_tlog(path, fixed.pitch_deg or 0.0)
    return Telemetry([row | {"time_s": row["time_s"] - start_s} for row in rows], rest)


def _checked(name: str, value: Any, where: str) -> float | None:
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise SourceError(f"{where}: {name} must be a number, found {value!r}") from error
    low, high = LIMITS[name]
    if not low <= number <= high:
        raise SourceError(f"{where}: {name} must be {low:g} to {high:g}, found {number:g}")
    return number


def _rows(rows: Iterable[Any], path: Path, first: int) -> Iterable[dict[str, float]]:
    for k, row in enumerate(rows, first):
        where = f"{path}:{k}"
        if not isinstance(row, Mapping) or row.get("time_s") in (None, ""):
            raise SourceError(f"{where}: expected time_s and any of {', '.join(NAMES)}")
        line = {name: _checked(name, row.get(name), where) for name in ("time_s", *NAMES)}
        yield {name: value for name, value in line.items() if value is not None}


def _csv(text: str, path: Path) -> Iterable[dict[str, float]]:
    return _rows(csv.DictReader(text.splitlines()), path, 2)


def _json(text: str, path: Path) -> Iterable[dict[str, float]]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path} is not JSON: {error}") from error
    if not isinstance(rows, list):
        raise SourceError(f"{path}: expected a list of objects with time_s, found {type(rows).__name__}")
    return _rows(rows, path, 1)


_CLOCK = re.compile(r"(\d+):(\d\d):(\d\d)[,.](\d{1,3})\s*-->")
_NUMBER = r"([-+]?\d+(?:\.\d+)?)"
# Newer drones write [name: value] pairs, older ones GPS (longitude, latitude, ...) and the height as H or BAROMETER.
_PAIRS = {
    "latitude_deg": re.compile(rf"latitude\s*:\s*{_NUMBER}"),
    "longitude_deg": re.compile(rf"long?t?itude\s*:\s*{_NUMBER}"),  # some firmware writes longtitude
    "altitude_m": re.compile(rf"(?:rel_alt\s*:|BAROMETER\s*:|\bH:?)\s*{_NUMBER}"),
    "pitch_deg": re.compile(rf"gb_pitch\s*:\s*{_NUMBER}"),
    "yaw_deg": re.compile(rf"gb_yaw\s*:\s*{_NUMBER}"),
    "roll_deg": re.compile(rf"gb_roll\s*:\s*{_NUMBER}"),
    "field_of_view_deg": re.compile(rf"focal_len\s*:\s*{_NUMBER}"),
}
_GPS = re.compile(rf"GPS\s*\(\s*{_NUMBER}\s*,\s*{_NUMBER}")


def _srt(text: str, path: Path) -> Iterable[dict[str, float]]:
    """One line a subtitle; its time is when it begins to show."""
    starts = list(_CLOCK.finditer(text))
    ends = [*(following.start() for following in starts[1:]), len(text)]
    for found, end in zip(starts, ends, strict=False):  # no start, one end: an empty file
        hours, minutes, seconds, fraction = found.groups()
        said = text[found.end() : end]
        line: dict[str, Any] = {
            "time_s": 3600 * int(hours)
            + 60 * int(minutes)
            + int(seconds)
            + int(fraction.ljust(3, "0")) / 1000
        }
        for name, pattern in _PAIRS.items():
            if told := pattern.search(said):
                line[name] = float(told[1])
        if gps := _GPS.search(said):
            line.setdefault("longitude_deg", float(gps[1]))
            line.setdefault("latitude_deg", float(gps[2]))
        if line.get("latitude_deg") == 0 == line.get("longitude_deg"):  # no fix yet
            del line["latitude_deg"], line["longitude_deg"]
        if "pitch_deg" in line:
            line["pitch_deg"] = -line["pitch_deg"]  # a gimbal that looks down has a negative one
        if "field_of_view_deg" in line:  # a focal length, as of film 36 mm wide
            focal_mm = line.pop("field_of_view_deg")
            if 5 <= focal_mm <= 500:
                line["field_of_view_deg"] = math.degrees(2 * math.atan(18 / focal_mm))
        where = f"{path}: the subtitle at {found[0].removesuffix('-->').strip()}"
        yield {
            name: number
            for name, value in line.items()
            if (number := _checked(name, value, where)) is not None
        }

"""The devices: whether they are in reach, what they still owe, what they lost, how they are."""

from __future__ import annotations

import re
import time
from typing import Any

from tagclip.runtime.station import page_records
from tagclip.runtime.station.page_shell import HTML, page, render
from tagclip.runtime.station.web import EVERY_ROLE, Answer, Ask, Route

REACH_S = 90.0  # a device asks for queries at least every 30 s
LATE_S = 900.0
CLOCK_S = 30.0  # a clock that is further off is said
HOT_C = 85.0


def fleet(ask: Ask) -> Answer:
    """The page."""
    return page(ask, "fleet.html", here="fleet", devices=_devices(ask))


def rows(ask: Ask) -> Answer:
    """The table alone, for the page that looks again every few seconds."""
    return Answer(data=render(ask.user, "_fleet.html", devices=_devices(ask)).encode(), kind=HTML)


def _devices(ask: Ask) -> list[dict[str, Any]]:
    hits = page_records.counts_by_device(ask.station.database)
    revision, now_s = ask.station.queries.current()[0], time.time()
    return [
        told(device, revision, now_s) | {"hits": hits.get(device["name"], 0)}
        for device in sorted(ask.station.bundles.shown(ask.station.store.devices()), key=_order)
    ]


def _order(device: dict[str, Any]) -> list[tuple[str, int]]:
    """drone-2 before drone-10."""
    return [(text, int(digits or 0)) for text, digits in re.findall(r"([^0-9]*)([0-9]*)", device["name"])]


def told(device: dict[str, Any], revision: int, now_s: float) -> dict[str, Any]:
    """What is shown of a device.

    Args:
        device: as `Bundles.shown` gives it. Its status is what the device says, so it may hold anything or nothing.
        revision: of the newest set of queries.
        now_s: Unix time.

    Returns:
        name, seen_s, and "link", "queries", "clock", "heat", "bundle": each (class of a state, text) or None; numbers
        of the status by name, None where the device does not say.
    """
    status = device["status"] or {}
    seen_s = device["seen_s"]
    numbers = {
        name: value if isinstance(value := status.get(name), (int, float)) else None
        for name in (
            "depth",
            "bytes",
            "oldest_s",
            "dropped_hits",
            "dropped_pictures",
            "dropped_tracks",
            "rejected",
            "temperature_c",
        )
    }
    off_s = status["now_s"] - seen_s if seen_s and isinstance(status.get("now_s"), (int, float)) else 0.0
    heat = numbers["temperature_c"]
    return {
        "name": device["name"],
        "seen_s": seen_s,
        "version": device["version"],
        "bundle": _bundle(device["bundle"]),
        "encoder_id": status.get("encoder_id") or device["encoder_id"],
        "link": _link(seen_s, now_s),
        "queries": ("good", "newest")
        if device["queries_revision"] >= revision
        else ("warn", f"set {device['queries_revision']} of {revision}"),
        # The status may be older than the last sign of life, by what a device takes between two.
        "clock": ("warn", "its clock is wrong") if abs(off_s) > CLOCK_S + 60 else None,
        "heat": None if heat is None else ("bad" if heat >= HOT_C else "good", f"{heat:.0f} °C"),
        **numbers,
    }


def _bundle(bundle: dict[str, Any]) -> tuple[str, str]:
    """Of what `Bundles.shown` adds: the bundle that a device uses, and whether it is the ordered one."""
    digest, state = str(bundle["digest"] or "")[:12], str(bundle["state"] or "")[:40]
    if bundle["ordered"] and bundle["ordered"] != bundle["digest"]:
        percent = f", {bundle['percent']:.0f} %" if isinstance(bundle["percent"], (int, float)) else ""
        return "warn", f"{digest} another is ordered: {state or 'waiting'}{percent}".strip()
    return "good", digest


def _link(seen_s: float | None, now_s: float) -> tuple[str, str]:
    if seen_s is None:
        return "warn", "never reported"
    if now_s - seen_s < REACH_S:
        return "good", "in reach"
    return ("warn", "silent") if now_s - seen_s < LATE_S else ("bad", "out of reach")


PAGES = (Route("GET", "/fleet", EVERY_ROLE, fleet, "The devices."),)
PARTS = (Route("GET", "/fleet/rows", EVERY_ROLE, rows, "The devices' table."),)

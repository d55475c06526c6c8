"""What admins alone see: users, enrolments, the audit log, quarantine. Changes go through the API."""

from __future__ import annotations

from tagclip.runtime.station import page_records
from tagclip.runtime.station.page_shell import page
from tagclip.runtime.station.users import ROLES
from tagclip.runtime.station.web import ONLY_ADMIN, Answer, Ask, Refusal, Route

LINES = 100  # of the log at once


def users(ask: Ask) -> Answer:
    """Who may ask the station."""
    return page(
        ask, "admin_users.html", here="admin", tab="users", users=ask.station.users.users(), roles=ROLES
    )


def devices(ask: Ask) -> Answer:
    """Enrol devices, and end their tokens."""
    return page(ask, "admin_devices.html", here="admin", tab="devices", devices=ask.station.store.devices())


def audit(ask: Ask) -> Answer:
    """Who did what, the newest first."""
    before = ask.query.get("before", "")
    if before and not (before.isascii() and before.isdigit() and len(before) < 16):
        raise Refusal(400, f"before: expected the number of a row, found {before[:40]!r}")
    rows = page_records.audit(ask.station.database, int(before or 1 << 53), LINES)
    older = rows[-1]["row"] if rows and rows[-1]["row"] > 1 else None
    return page(ask, "admin_audit.html", here="admin", tab="audit", rows=rows, older=older, newest=not before)


def quarantine(ask: Ask) -> Answer:
    """What devices sent that no station will ever take."""
    return page(
        ask, "admin_quarantine.html", here="admin", tab="quarantine", rows=ask.station.store.quarantine()
    )


PAGES = (
    Route("GET", "/admin", ONLY_ADMIN, users, "The users."),
    Route("GET", "/admin/devices", ONLY_ADMIN, devices, "Enrolments."),
    Route("GET", "/admin/audit", ONLY_ADMIN, audit, "The log.", query={"before": "number of a row"}),
    Route("GET", "/admin/quarantine", ONLY_ADMIN, quarantine, "What was refused."),
)

"""Sessions for everybody; users, enrolments and the audit log for admins."""

from __future__ import annotations

import shutil
import time
from typing import Any

from tagclip.runtime.station.audit import audit_page
from tagclip.runtime.station.limits import network
from tagclip.runtime.station.openapi import describe
from tagclip.runtime.station.station import enrolment
from tagclip.runtime.station.store import CODE_MINUTES
from tagclip.runtime.station.users import MOST_PASSWORD, ROLES
from tagclip.runtime.station.web import ANYONE, COOKIE, EVERY_ROLE, ONLY_ADMIN, Answer, Ask, Refusal, Route

MAX_ROWS = 1000
LEAST_FREE_BYTES = 64 << 20  # of the disk; a write of SQLite may need its log's length and more
_SET = "Path=/; Secure; HttpOnly; SameSite=Strict"


def health(ask: Ask) -> Answer:
    """That it answers, whether it and its disk have room, and whether webhooks take events; anybody may ask."""
    with ask.station.database.read() as connection:
        connection.execute("SELECT 1 FROM query_set").fetchone()
    reasons = {"room": ask.station.trouble} if ask.station.trouble else {}
    free = shutil.disk_usage(ask.station.data).free
    if free < LEAST_FREE_BYTES:
        reasons["disk"] = f"{free / 1e6:,.0f} MB left; devices keep their hits while nothing can be written"
    states = [state() for state in ask.station.webhooks]
    if any(slow for _, slow in states):
        reasons["webhooks"] = "one takes no events; the log says why"
    told: dict[str, Any] = {"webhooks_given_up": sum(count for count, _ in states)} if states else {}
    if reasons:
        return Answer({"status": "degraded", "reasons": reasons, **told})
    return Answer({"status": "ok", **told})


def ca_pem(ask: Ask) -> Answer:
    """What devices pin, after they compared its fingerprint with the one that they were told."""
    return Answer(data=ask.station.ca_pem, kind="application/x-pem-file")


def login(ask: Ask) -> Answer:
    """A cookie for a browser, or a token for a program."""
    fields = ask.fields()
    name = fields.text("name", max_length=63)
    password = fields.text("password", max_length=MOST_PASSWORD)
    kind = fields.text("kind", choices=("session", "token")) if "kind" in fields.keys() else "session"
    fields.close()
    station, address = ask.station, network(ask.address)
    for tries, key in ((station.login_tries, address), (station.name_tries, name)):
        if wait_s := tries.take(key):
            raise Refusal(429, "too many log-ins that failed; wait", wait_s=wait_s)
    login = station.users.login(name, password, ask.address, token=kind == "token")
    if login is None:
        raise Refusal(
            403, "wrong name or password, or a one-time password, which gets no token before it is changed"
        )
    station.login_tries.forgive(address)
    station.name_tries.forgive(name)
    value = {"name": name, "role": login.user.role, "expires_s": round(login.expires_s)}
    if kind == "token":
        return Answer(value | {"token": login.secret})
    value |= {"csrf": login.csrf, "must_change_password": login.user.must_change}
    left_s = round(login.expires_s - time.time())
    return Answer(value, headers={"set-cookie": f"{COOKIE}={login.secret}; Max-Age={left_s}; {_SET}"})


def logout(ask: Ask) -> Answer:
    """The session or token ends."""
    ask.station.users.logout(ask.secret)
    return Answer({}, headers={"set-cookie": f"{COOKIE}=; Max-Age=0; {_SET}"})


def me(ask: Ask) -> Answer:
    """Who asks."""
    assert ask.user is not None
    return Answer(
        {"name": ask.user.name, "role": ask.user.role, "must_change_password": ask.user.must_change}
    )


def password(ask: Ask) -> Answer:
    """A user's own choice; all sessions and tokens of the user end."""
    fields = ask.fields()
    old, new = (fields.text(key, max_length=MOST_PASSWORD) for key in ("old", "new"))
    fields.close()
    if wait_s := ask.station.name_tries.take(ask.by):
        raise Refusal(429, "too many wrong passwords; wait", wait_s=wait_s)
    if not ask.station.users.set_password(ask.by, old, new):
        raise Refusal(403, "the old password is wrong")
    ask.station.name_tries.forgive(ask.by)
    return Answer({})


def enrolments(ask: Ask) -> Answer:
    """A one-time code, as the text that is copied to the device."""
    fields = ask.fields()
    device = fields.device()
    minutes = (
        fields.number("minutes", low=1, high=7 * 24 * 60) if "minutes" in fields.keys() else CODE_MINUTES
    )
    fields.close()
    station = ask.station
    code, expires_s = station.store.make_code(device, ask.by, minutes)
    text = enrolment(station.data, code)
    return Answer({"device": device, "enrolment": text, "expires_s": round(expires_s)}, 201)


def remove_device(ask: Ask) -> Answer:
    """Its token ends; what it sent stays."""
    if not ask.station.store.dismiss(ask.path["name"], ask.by):
        raise Refusal(404, "there is no such device")
    return Answer({})


def quarantine(ask: Ask) -> Answer:
    """Messages that no station will ever take, and why."""
    return Answer({"quarantine": ask.station.store.quarantine()})


def audit(ask: Ask) -> Answer:
    """Rows of the log, oldest first."""
    after, limit = (_whole(ask, name, default) for name, default in (("after", 0), ("limit", 100)))
    if not 1 <= limit <= MAX_ROWS:
        raise Refusal(400, f"limit: expected 1 to {MAX_ROWS}")
    return Answer({"rows": audit_page(ask.station.database, after, limit)})


def users(ask: Ask) -> Answer:
    """All of them."""
    return Answer({"users": ask.station.users.users()})


def add_user(ask: Ask) -> Answer:
    """A new user with a one-time password, which this answer alone tells."""
    fields = ask.fields()
    name, role = fields.text("name"), fields.text("role", choices=ROLES)
    fields.close()
    one_time = ask.station.users.add(name, role, ask.by)
    return Answer({"name": name, "role": role, "one_time_password": one_time}, 201)


def change_user(ask: Ask) -> Answer:
    """Another role, disabled or not, a new one-time password."""
    fields = ask.fields()
    given = fields.keys()
    role = fields.text("role", choices=ROLES) if "role" in given else None
    flags: dict[str, Any] = {key: fields.any(key) for key in ("disabled", "reset_password") if key in given}
    fields.close()
    for key, value in flags.items():
        if not isinstance(value, bool):
            raise Refusal(400, f"body.{key}: expected true or false")
    if not given:
        raise Refusal(400, "expected role, disabled or reset_password")
    name = ask.path["name"]
    one_time = ask.station.users.change(
        name, ask.by, role=role, disabled=flags.get("disabled"), reset=flags.get("reset_password", False)
    )
    return Answer({"name": name, **({"one_time_password": one_time} if one_time else {})})


def openapi(_: Ask) -> Answer:
    """What can be asked, as OpenAPI 3.1."""
    from tagclip.runtime.station.app import ROUTES as ALL

    return Answer(describe(ALL))


def _whole(ask: Ask, name: str, default: int) -> int:
    text = ask.query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise Refusal(400, f"{name}: expected a whole number, found {text[:40]!r}")
    return int(text)


def _body(required: tuple[str, ...], **properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": properties}


_TEXT: dict[str, Any] = {"type": "string"}
_ROLE: dict[str, Any] = {"enum": list(ROLES)}
_V1 = "/api/v1"

ROUTES = (
    Route("GET", f"{_V1}/health", ANYONE, health, "Whether the station answers."),
    Route("GET", f"{_V1}/ca.pem", ANYONE, ca_pem, "The certificate that devices pin."),
    Route(
        "POST",
        f"{_V1}/login",
        ANYONE,
        login,
        "A session cookie and its csrf text, or a token for a program.",
        body=_body(("name", "password"), name=_TEXT, password=_TEXT, kind={"enum": ["session", "token"]}),
    ),
    Route("POST", f"{_V1}/logout", EVERY_ROLE, logout, "End the session or token.", first_password=True),
    Route("GET", f"{_V1}/me", EVERY_ROLE, me, "Who asks.", first_password=True),
    Route(
        "POST",
        f"{_V1}/password",
        EVERY_ROLE,
        password,
        "Choose another password; all sessions and tokens of the user end.",
        body=_body(("old", "new"), old=_TEXT, new=_TEXT),
        first_password=True,
    ),
    Route("GET", f"{_V1}/openapi.json", EVERY_ROLE, openapi, "This description."),
    Route(
        "POST",
        f"{_V1}/enrolments",
        ONLY_ADMIN,
        enrolments,
        "A one-time code for a device, as the text to copy to it.",
        body=_body(("device",), device=_TEXT, minutes={"type": "number", "minimum": 1}),
    ),
    Route("DELETE", f"{_V1}/devices/{{name}}", ONLY_ADMIN, remove_device, "End a device's token."),
    Route("GET", f"{_V1}/quarantine", ONLY_ADMIN, quarantine, "Messages that were refused for good."),
    Route(
        "GET",
        f"{_V1}/audit",
        ONLY_ADMIN,
        audit,
        "The log of who did what, oldest first.",
        query={"after": "number of a row", "limit": f"at most {MAX_ROWS}, default 100"},
    ),
    Route("GET", f"{_V1}/users", ONLY_ADMIN, users, "The users."),
    Route(
        "POST",
        f"{_V1}/users",
        ONLY_ADMIN,
        add_user,
        "Add a user with a one-time password.",
        body=_body(("name", "role"), name=_TEXT, role=_ROLE),
    ),
    Route(
        "PATCH",
        f"{_V1}/users/{{name}}",
        ONLY_ADMIN,
        change_user,
        "Change a user; the user's sessions and tokens end.",
        body=_body((), role=_ROLE, disabled={"type": "boolean"}, reset_password={"type": "boolean"}),
    ),
)

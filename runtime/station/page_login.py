"""The pages for coming in: log in, and choose a password."""

from __future__ import annotations

from tagclip.runtime.station.page_shell import HTML, page
from tagclip.runtime.station.web import ANYONE, EVERY_ROLE, Answer, Ask, Route


def start(_: Ask) -> Answer:
    """The hits are the first page."""
    return Answer(data=b"", status=303, kind=HTML, headers={"location": "/hits"})


def login(ask: Ask) -> Answer:
    """The form; the API's log-in does the work."""
    return page(ask, "login.html")


def password(ask: Ask) -> Answer:
    """Choose another one; the only page of a user who has a one-time password."""
    return page(ask, "password.html", here="password")


PAGES = (
    Route("GET", "/", EVERY_ROLE, start, "To the hits."),
    Route("GET", "/login", ANYONE, login, "Log in.", query={"next": "where to go from there"}),
    Route("GET", "/password", EVERY_ROLE, password, "Choose a password.", first_password=True),
)

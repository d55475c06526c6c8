"""The people who may ask the station, their passwords and sessions."""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tagclip.runtime.errors import ConfigError
from tagclip.runtime.station.audit import record
from tagclip.runtime.station.database import Database
from tagclip.runtime.station.store import digest

OPERATOR, REVIEWER, ADMIN = "operator", "reviewer", "admin"
ROLES = (OPERATOR, REVIEWER, ADMIN)
SESSION_S = 12 * 3600.0
TOKEN_S = 30 * 86400.0
TURN_S = (
    1.0  # how long to wait for a turn at hashing; longer, and whoever logs in would take the devices' threads
)
MAX_SESSIONS = 32  # of one user; the one that ends first gives way
LEAST_PASSWORD, MOST_PASSWORD = 12, 200  # characters

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True)
class User:
    """Who asks.

    Attributes:
        name, role: role of ROLES.
        must_change: has a password that somebody else made, and may do nothing but change it.
        csrf: hash of what a page has to send with every change; None of a token, which no browser sends by itself.
    """

    name: str
    role: str
    must_change: bool
    csrf: bytes | None = None


@dataclass(frozen=True)
class Login:
    """What proves who somebody is from now on: `secret` goes into the cookie or the header Authorization."""

    user: User
    secret: str
    csrf: str | None
    expires_s: float


class BusyError(Exception):
    """More log in at once than there is memory and time for."""


class Users:
    """Passwords are kept as argon2id hashes; sessions and tokens, which are random, as SHA-256.

    Args:
        database: that of the station.

    Raises:
        ImportError: argon2-cffi is not installed.
    """

    def __init__(self, database: Database) -> None:
        import argon2

        self._database = database
        self._hasher = argon2.PasswordHasher()
        # A hash takes 64 MiB for a moment; a hundred at once would be an attack that works.
        self._turn = threading.BoundedSemaphore(2)
        # Checked where no user is: an unknown name has to take as long as a wrong password.
        self._nobody = ""

    def add(self, name: str, role: str, by: str) -> str:
        """Add a user. Returns a one-time password: the user has to choose another one first of all.

        Raises:
            ConfigError: the name is taken or cannot be one, or no such role.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{name[:80]!r} cannot name a user; expected 1 to 63 letters, digits, dots, hyphens, underscores"
            )
        _check_role(role)
        password = secrets.token_urlsafe(12)
        hashed = self._hash(password)
        with self._database.write() as connection:
            new = connection.execute(
                "INSERT INTO users(name, password, role, must_change, made_s) VALUES(?, ?, ?, 1, ?)"
                " ON CONFLICT DO NOTHING",
                (name, hashed, role, time.time()),
            ).rowcount
            if not new:
                raise ConfigError(f"there is a user {name} already; choose another name")
            record(connection, by, "user.add", user=name, role=role)
        return password

    def change(
        self,
        name: str,
        by: str,
        *,
        role: str | None = None,
        disabled: bool | None = None,
        reset: bool = False,
    ) -> str | None:
        """Change what is given. Returns a new one-time password with `reset`, else None. All sessions end.

        Raises:
            ConfigError: no such user or role, or nobody would be left who may administer.
        """
        if role is not None:
            _check_role(role)
        password = secrets.token_urlsafe(12) if reset else None
        hashed = self._hash(password) if password else None
        with self._database.write() as connection:
            found = connection.execute(
                "UPDATE users SET role = coalesce(?, role), disabled = coalesce(?, disabled),"
                " password = coalesce(?, password), must_change = CASE WHEN ? = 1 THEN 1 ELSE must_change END"
                " WHERE name = ?",
                (role, disabled, hashed, reset, name),
            ).rowcount
            if not found:
                raise ConfigError(f"there is no user {name[:80]!r}")
            left = connection.execute(
                "SELECT 1 FROM users WHERE role = ? AND disabled = 0", (ADMIN,)
            ).fetchone()
            if not left:
                raise ConfigError(f"{name} is the last admin; make another one first")
            connection.execute("DELETE FROM sessions WHERE user = ?", (name,))
            record(connection, by, "user.change", user=name, role=role, disabled=disabled, reset=reset)
        return password

    def users(self) -> list[dict[str, Any]]:
        """All, by name; never their passwords."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT name, role, disabled, must_change FROM users ORDER BY name"
            ).fetchall()
        return [
            {"name": name, "role": role, "disabled": bool(disabled), "must_change_password": bool(must)}
            for name, role, disabled, must in rows
        ]

    def login(self, name: str, password: str, address: str, *, token: bool = False) -> Login | None:
        """Check a password and begin a session, or make a token for a program; None if it is wrong."""
        self._nobody = self._nobody or self._hash(secrets.token_hex())
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT password, role, must_change FROM users WHERE name = ? AND disabled = 0", (name,)
            ).fetchone()
        good = self._verify(row[0] if row else self._nobody, password) and row is not None
        # A password that somebody else has seen makes no token that lasts for weeks.
        if not good or (token and row[2]):
            with self._database.write() as connection:
                record(connection, "", "login.refused", user=name[:63], address=address)
            return None
        now_s, secret = time.time(), secrets.token_urlsafe(32)
        csrf = None if token else secrets.token_urlsafe(24)
        expires_s = now_s + (TOKEN_S if token else SESSION_S)
        with self._database.write() as connection:
            connection.execute("DELETE FROM sessions WHERE expires_s < ?", (now_s,))
            connection.execute(
                "DELETE FROM sessions WHERE user = ? AND token IN"
                " (SELECT token FROM sessions WHERE user = ? ORDER BY expires_s DESC LIMIT -1 OFFSET ?)",
                (name, name, MAX_SESSIONS - 1),
            )
            connection.execute(
                "INSERT INTO sessions(token, user, csrf, expires_s) VALUES(?, ?, ?, ?)",
                (digest(secret), name, digest(csrf) if csrf else None, expires_s),
            )
            record(connection, name, "login", address=address, token=token)
        user = User(name, row[1], bool(row[2]), digest(csrf) if csrf else None)
        return Login(user, secret, csrf, expires_s)

    def user_of(self, secret: str, *, cookie: bool) -> User | None:
        """Whose session (`cookie`) or token it is; None once it has ended or the user was disabled."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT name, role, must_change, csrf FROM sessions JOIN users ON user = name"
                " WHERE token = ? AND expires_s > ? AND disabled = 0 AND CASE WHEN csrf IS NULL THEN 0 ELSE 1 END = ?",
                (digest(secret), time.time(), cookie),
            ).fetchone()
        return User(row[0], row[1], bool(row[2]), row[3]) if row else None

    def logout(self, secret: str) -> None:
        """End a session or token."""
        with self._database.write() as connection:
            connection.execute("DELETE FROM sessions WHERE token = ?", (digest(secret),))

    def set_password(self, name: str, old: str, new: str) -> bool:
        """A user's own choice; all sessions of the user end. False if `old` is wrong.

        Raises:
            ConfigError: the new one is too short, too long or the old one.
        """
        if not LEAST_PASSWORD <= len(new) <= MOST_PASSWORD or new == old or new == name:
            raise ConfigError(
                f"the new password: expected {LEAST_PASSWORD} to {MOST_PASSWORD} characters, another one than the old"
            )
        with self._database.read() as connection:
            row = connection.execute("SELECT password FROM users WHERE name = ?", (name,)).fetchone()
        if row is None or not self._verify(row[0], old):
            with self._database.write() as connection:
                record(connection, name, "password.refused")
            return False
        hashed = self._hash(new)
        with self._database.write() as connection:
            connection.execute(
                "UPDATE users SET password = ?, must_change = 0 WHERE name = ?", (hashed, name)
            )
            connection.execute("DELETE FROM sessions WHERE user = ?", (name,))
            record(connection, name, "password.change")
        return True

    def _hash(self, password: str) -> str:
        with self._in_turn():
            return self._hasher.hash(password)

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        if not self._turn.acquire(timeout=TURN_S):
            raise BusyError("too many log in at once; try again")
        try:
            yield
        finally:
            self._turn.release()

    def _verify(self, hashed: str, password: str) -> bool:
        from argon2.exceptions import VerificationError

        try:
            with self._in_turn():
                return self._hasher.verify(hashed, password)
        except VerificationError:
            return False


def _check_role(role: str) -> None:
    if role not in ROLES:
        raise ConfigError(f"role: expected one of {', '.join(ROLES)}, found {role[:40]!r}")

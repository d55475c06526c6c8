"""Where a PostgreSQL database is, and how to get in: the URL of --database, the password, the certificate."""

from __future__ import annotations

import getpass
import os
import ssl
import stat
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from tagclip.runtime.errors import ConfigError

PORT = 5432
SOCKETS = "/var/run/postgresql"  # Debian's
SCHEMES = ("postgresql", "postgres")
VERIFY, DISABLE = "verify-full", "disable"
_EXPECTED = (
    "expected postgresql://USER@HOST:PORT/DATABASE or postgresql://USER@/DATABASE?host=FOLDER_OF_THE_SOCKET"
)


@dataclass(frozen=True)
class Address:
    """A database.

    Attributes:
        url: as it was given; it holds no password.
        host: name or IP address; None with a socket file.
        socket: the socket file, None with a host.
        tls: whether the link is encrypted and the server's certificate checked.
        authority: PEM file of whom to believe; None for whom this machine believes.
    """

    url: str
    user: str
    database: str
    host: str | None
    port: int
    socket: str | None
    tls: bool
    authority: Path | None

    def context(self) -> ssl.SSLContext | None:
        """How TLS is spoken, None if it is not.

        Raises:
            ConfigError: the authority's file cannot be read.
        """
        if not self.tls:
            return None
        try:
            return ssl.create_default_context(cafile=self.authority)
        except OSError as error:  # ssl.SSLError is one
            raise ConfigError(
                f"sslrootcert={self.authority} cannot be used ({error}); expected PEM"
            ) from error

    def password(self) -> str | None:
        """That of PGPASSWORD, else of the file PGPASSFILE (~/.pgpass), else None, which a socket file may do with.

        Raises:
            ConfigError: others can read the file.
        """
        if "PGPASSWORD" in os.environ:
            return os.environ["PGPASSWORD"]
        path = Path(os.environ.get("PGPASSFILE") or Path.home() / ".pgpass")
        try:
            mode, text = path.stat().st_mode, path.read_text(encoding="utf-8")
        except FileNotFoundError:
            if "PGPASSFILE" in os.environ:
                raise ConfigError(f"PGPASSFILE: there is no {path}") from None
            return None
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} cannot be read ({error}); see PGPASSFILE") from error
        if stat.S_IMODE(mode) & 0o077:
            raise ConfigError(f"others can read {path}: chmod 600 {path}")
        # libpq's name for its socket's default folder, too.
        hosts = {self.host or str(Path(str(self.socket)).parent), *(() if self.host else ("localhost",))}
        for line in text.splitlines():
            fields = _fields(line)
            if line.startswith("#") or len(fields) != 5:
                continue
            wanted = (hosts, {str(self.port)}, {self.database}, {self.user})
            if all(field == "*" or field in these for field, these in zip(fields[:-1], wanted, strict=True)):
                return fields[-1]
        return None


def parse_address(url: str) -> Address:
    """The address that `url` gives.

    Raises:
        ConfigError: it is none, or has a password in it.
    """
    try:
        parts = urlsplit(url)
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True) if parts.query else []
        port = parts.port or PORT
    except ValueError as error:
        raise ConfigError(f"--database: {error}; {_EXPECTED}") from error
    if parts.password is not None:
        raise ConfigError(
            "--database: a password there is seen by everybody on this machine; put it into the file that PGPASSFILE"
            " names (HOST:PORT:DATABASE:USER:PASSWORD, chmod 600) or into PGPASSWORD"
        )
    options, database = dict(pairs), unquote(parts.path[1:])
    unknown = sorted(set(options) - {"host", "sslmode", "sslrootcert"})
    if parts.scheme not in SCHEMES or parts.fragment or not database or "/" in database or unknown:
        found = f"unknown option {unknown[0][:40]!r}" if unknown else f"found {url[:100]!r}"
        raise ConfigError(f"--database: {found}; {_EXPECTED}, then ?sslmode=, sslrootcert=")
    host = parts.hostname or options.get("host") or SOCKETS
    if parts.hostname and "host" in options:
        raise ConfigError("--database: a host stands twice; give one")
    if (mode := options.get("sslmode", VERIFY)) not in (VERIFY, DISABLE):
        raise ConfigError(f"--database: sslmode: expected {VERIFY} or {DISABLE}, found {mode[:40]!r}")
    file = host.startswith("/")
    authority = options.get("sslrootcert")
    return Address(
        url=url,
        user=unquote(parts.username) if parts.username else getpass.getuser(),
        database=database,
        host=None if file else host,
        port=port,
        socket=f"{host}/.s.PGSQL.{port}" if file else None,
        tls=not file and mode == VERIFY,
        authority=Path(authority) if authority else None,
    )


def _fields(line: str) -> list[str]:
    r"""Those of a line of .pgpass: \: and \\ stand for the characters themselves."""
    fields, escaped = [""], False
    for character in line:
        if escaped or character not in "\\:":
            fields[-1] += character
            escaped = False
        elif character == "\\":
            escaped = True
        else:
            fields.append("")
    return fields

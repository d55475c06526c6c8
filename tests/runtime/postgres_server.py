"""A PostgreSQL of Debian for tests: real, durable, on a socket file in a temporary folder, for whoever asks for it."""

from __future__ import annotations

import getpass
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

USER = "tagclip"


def programs() -> Path | None:
    """Folder of the newest version's programs, which Debian keeps off the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return found[-1].parent if found else None


class Server:
    """A server of its own: fsync on, on a socket file alone. It refuses root, for whom it runs as `postgres`."""

    def __init__(self) -> None:
        bin_ = programs()
        if bin_ is None:
            pytest.skip("no PostgreSQL here: apt-get install postgresql")
        self._bin = bin_
        # Not pytest's folder: `postgres` may not enter that, and a socket's path has at most 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="tagclip-pg-"))
        self._as = "postgres" if os.geteuid() == 0 else getpass.getuser()
        if os.geteuid() == 0:
            os.chown(self.folder, pwd.getpwnam(self._as).pw_uid, -1)
        # -N: only what initdb itself writes is not synced.
        self._run(
            "initdb", "-N", "-D", str(self.data), "-U", USER, "-A", "trust", "-E", "UTF8", "--no-locale"
        )
        rules = (
            "local all secret scram-sha-256",
            "local all all trust",
            "hostssl all all 127.0.0.1/32 trust",
        )
        (self.data / "pg_hba.conf").write_text("\n".join(rules) + "\n")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def url(self) -> str:
        """Of the database `postgres`."""
        return self.url_of("postgres")

    def url_of(self, database: str, **options: str) -> str:
        more = "".join(f"&{name}={value}" for name, value in options.items())
        return f"postgresql://{USER}@/{database}?host={self.folder}{more}"

    def start(self, *settings: str) -> None:
        """Settings are such as "port=5433"."""
        given = [
            f"unix_socket_directories={self.folder}",
            "listen_addresses=",
            "max_connections=40",
            *settings,
        ]
        port = next(
            (setting.partition("=")[2] for setting in settings if setting.startswith("port=")), "5432"
        )
        options = [part for setting in given for part in ("-c", setting)]
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [str(self._bin / "postgres"), "-D", str(self.data), *options],
                user=self._as if os.geteuid() == 0 else None,
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )
        end_s = time.monotonic() + 60
        while self._run("pg_isready", "-q", "-h", str(self.folder), "-p", port, "-U", USER, check=False):
            assert time.monotonic() < end_s and self._process.poll() is None, (
                self.folder / "log"
            ).read_text()
            time.sleep(0.05)

    def kill(self) -> None:
        """As the machine's end would: nobody is told. Its children notice, and end too; until then none can start."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        self._process.kill()
        self._process.wait(60)
        end_s = time.monotonic() + 60
        while any(Path(f"/proc/{child}").exists() for child in children):
            assert time.monotonic() < end_s, f"of PostgreSQL are still there: {children}"
            time.sleep(0.01)

    def stop(self) -> None:
        """In order, but without waiting for who is connected."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(60)

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def sql(self, text: str, database: str = "postgres") -> str:
        """What psql prints."""
        done = subprocess.run(
            [self._bin / "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", self.folder, "-U", USER, "-c", text, database],
            check=True, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        return done.stdout.strip()

    def empty(self) -> None:
        """As if it were new."""
        self.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tagclip station';"
            " DROP SCHEMA public CASCADE; CREATE SCHEMA public"
        )

    def _run(self, program: str, *arguments: str, check: bool = True) -> int:
        done = subprocess.run(
            [str(self._bin / program), *arguments],
            user=self._as if os.geteuid() == 0 else None,
            cwd=self.folder,
            check=check,
            capture_output=True,
            timeout=120,
        )
        return done.returncode

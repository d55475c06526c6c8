"""A mosquitto of Debian's with the configuration that docs/link.md tells, on a free port of the loopback."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs" / "link.md"
BINARY = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
PASSWD = shutil.which("mosquitto_passwd", path="/usr/bin:/usr/local/bin")
STATION, PASSWORD = "~station", "the station's, long enough"
START_S = 20.0


def told(kind: str) -> str:
    """The fenced text of `kind` in docs/link.md."""
    (text,) = re.findall(rf"```{kind}\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    return text


class Broker:
    """Started by `start`; ends by `kill` (SIGKILL) or `stop`.

    Args:
        folder: of its files.
        certificate, key: PEM files of the server.
        acl: other rules than those of the docs.
    """

    def __init__(self, folder: Path, certificate: Path, key: Path, acl: str | None = None) -> None:
        folder.mkdir(exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.folder, self.log = folder, folder / "log"
        shutil.copy(certificate, folder / "server.pem")
        shutil.copy(key, folder / "server.key")
        (folder / "acl").write_text(told("acl") if acl is None else acl)
        conf = told("mosquitto").replace("/etc/mosquitto/tagclip", str(folder))
        conf = conf.replace("listener 8883", f"listener {self.port} 127.0.0.1")
        (folder / "conf").write_text(f"{conf}user root\nlog_dest stderr\n")  # as root, for files in /tmp
        self.process: subprocess.Popen[bytes] | None = None
        self.users([])

    def users(self, lines: list[str]) -> None:
        """Who may connect besides the station: lines NAME:PASSWORD; in force from the next start on."""
        path = self.folder / "passwords"
        path.write_text("\n".join([f"{STATION}:{PASSWORD}", *lines]) + "\n")
        path.chmod(0o600)
        assert PASSWD is not None
        subprocess.run([PASSWD, "-U", path], check=True, timeout=60)
        assert PASSWORD not in path.read_text()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        assert BINARY is not None
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([BINARY, "-c", self.folder / "conf"], stdout=log, stderr=log)
        end_s = time.monotonic() + START_S
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self.process.poll() is None and time.monotonic() < end_s, self.log.read_text()
            time.sleep(0.02)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(20)
            self.process = None

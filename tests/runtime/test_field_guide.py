"""docs/field-guide.md and docs/admin-guide.md do what they say: their own commands, a real station, a real device.

The blocks are taken out of the pages. What is changed in them: the port 8443 is a free one, the folder is a temporary
one (the home folder too), and the password is typed. Blocks that begin with "```sh install" need a network and are not
run; "```sh station" stays in its terminal.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

for package in ("onnxruntime", "starlette", "uvicorn", "argon2", "cryptography"):
    pytest.importorskip(package)

ROOT = Path(__file__).parent.parent.parent
PORT = "8443"  # of the pages
PASSWORD = "long enough to keep"
LONG_S = 300.0  # only a broken test waits for it


def blocks(page: str, *kinds: str) -> list[str]:
    """The shell blocks of a page whose word behind ```sh is one of `kinds`."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return [body for kind, body in re.findall(r"(?ms)^```sh ?(\w*)\n(.*?)^```$", text) if kind in kinds]


class Terminals:
    """A folder as home, in which commands of the pages are typed; stations that they start run on until the end."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = str(free.getsockname()[1])
        self.folder = folder
        (folder / "runtime").symlink_to(ROOT / "runtime")
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = {**os.environ, "HOME": str(folder), "PATH": path}
        self.environment.pop("XDG_CONFIG_HOME", None)
        self.station: subprocess.Popen[bytes] | None = None

    def start(self, command: str) -> str:
        """Type what goes on; returns what it had printed when the station was there."""
        log = self.folder / "station.log"
        with log.open("wb") as told:
            typed = f"exec {command.replace(PORT, self.port)}"
            self.station = subprocess.Popen(
                ["bash", "-c", typed], cwd=self.folder, env=self.environment, stdout=told, stderr=told
            )
        end_s = time.monotonic() + LONG_S
        while "station on https" not in log.read_text():
            assert self.station.poll() is None and time.monotonic() < end_s, log.read_text()
            time.sleep(0.05)
        time.sleep(0.05)  # the second line follows the first
        return log.read_text()

    def type(self, commands: list[str], answers: str = "") -> str:
        """One after the other in one terminal, up to the first that fails."""
        done = subprocess.run(
            ["bash", "-euc", "\n".join(commands).replace(PORT, self.port)],
            cwd=self.folder,
            env=self.environment,
            input=answers,
            capture_output=True,
            text=True,
            timeout=LONG_S,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def stop(self) -> None:
        if self.station is not None:
            self.station.send_signal(signal.SIGTERM)
            try:
                assert self.station.wait(LONG_S) == 0
            finally:
                self.station.kill()
                self.station = None


@pytest.mark.skipif(shutil.which("curl") is None, reason="the page needs curl")
def test_from_nothing_to_a_confirmed_hit(tmp_path: Path) -> None:
    terminals = Terminals(tmp_path)
    (start,) = blocks("field-guide.md", "station")
    try:
        told = terminals.start(start)
        (one_time,) = re.findall(r"one-time password (\S+)", told)
        terminals.type(blocks("field-guide.md", ""), f"{one_time}\n{PASSWORD}\n")
        (hit,) = json.loads((tmp_path / "confirmed.json").read_text())["hits"]
        assert (hit["review"], hit["reviewed_by"], hit["device"]) == ("confirmed", "admin", "drone-1")
        assert "dark red jacket" in hit["query"] and hit["place"]["latitude_deg"] == pytest.approx(47.37, abs=0.01)
        assert (tmp_path / "picture.jpg").read_bytes()[:2] == b"\xff\xd8"
        assert hit["id"] in (tmp_path / "hits.geojson").read_text()
    finally:
        terminals.stop()


def test_what_is_to_be_installed_exists() -> None:
    extras = re.findall(r"'\.\[([\w,]+)\]'", (ROOT / "docs" / "field-guide.md").read_text(encoding="utf-8"))
    settings = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    known = settings.partition("[options.extras_require]")[2].partition("\n[")[0]
    assert extras and blocks("field-guide.md", "install")
    for extra in ",".join(extras).split(","):
        assert re.search(rf"(?m)^{extra}\b", known), extra

"""docs/field-guide.md and docs/admin-guide.md do what they say: their own commands, a real station, a real device.

The blocks are taken out of the pages. What is changed in them: the port 8443 is a free one, the folder is a temporary
one (the home folder too), and the password is typed. Blocks that begin with "```sh install" need a network and are not
run; "```sh station" stays in its terminal.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
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


MISSING = [tool for tool in ("bash", "curl", "sqlite3", "tar") if shutil.which(tool) is None]


@pytest.mark.skipif(bool(MISSING), reason=f"the pages need {', '.join(MISSING)}")
def test_from_nothing_to_a_confirmed_hit_and_back_from_a_backup(tmp_path: Path) -> None:
    terminals = Terminals(tmp_path)
    (start,), (again,) = blocks("field-guide.md", "station"), blocks("admin-guide.md", "restored")
    try:
        told = terminals.start(start)
        (one_time,) = re.findall(r"one-time password (\S+)", told)
        terminals.type(blocks("field-guide.md", ""), f"{one_time}\n{PASSWORD}\n")
        check_confirmed(terminals)
        assert (tmp_path / "picture.jpg").read_bytes()[:2] == b"\xff\xd8"
        assert "jacket" in (tmp_path / "confirmed.kml").read_text()

        enrol = (
            "tagclip enrol $(tagclip station enrol drone-2 --data ground) --device drone-2 --folder link-2"
        )
        terminals.type([enrol, *blocks("admin-guide.md", "")])
        actions = [json.loads(line)["action"] for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
        assert {"user.add", "user.change", "device.remove", "query.add", "hit.review"} <= set(actions)
        assert (device_asks(terminals, "link"), device_asks(terminals, "link-2")) == (401, 200)

        # The back-up was made while the station ran; what became of the original is of no matter.
        terminals.stop()
        terminals.type(blocks("admin-guide.md", "restore"))
        shutil.rmtree(tmp_path / "ground")
        assert terminals.start(again).split()[3:5] == told.split()[3:5]  # "authority", and its fingerprint
        (tmp_path / "ground").symlink_to("restored")
        (tmp_path / "confirmed.csv").unlink()
        *_, last = [block for block in blocks("field-guide.md", "") if "confirmed.csv" in block]
        terminals.type([blocks("admin-guide.md", "")[2].splitlines()[0], last])
        check_confirmed(terminals)
        assert (device_asks(terminals, "link"), device_asks(terminals, "link-2")) == (401, 200)
    finally:
        terminals.stop()


def check_confirmed(terminals: Terminals) -> None:
    """The exported file has the one hit, and a person's decision."""
    (hit,) = csv.DictReader((terminals.folder / "confirmed.csv").read_text("utf-8-sig").splitlines())
    assert (hit["review"], hit["reviewed_by"], hit["device"]) == ("confirmed", "admin", "drone-1")
    assert "dark red jacket" in hit["query"]
    assert float(hit["latitude_deg"]) == pytest.approx(47.37, abs=0.01)


def device_asks(terminals: Terminals, folder: str) -> int:
    """Status of the answer to an enrolled device that asks for its queries."""
    request = urllib.request.Request(
        f"https://127.0.0.1:{terminals.port}/api/v1/device/queries?revision=0&wait_s=0",
        headers={"Authorization": f"Bearer {(terminals.folder / folder / 'token').read_text().strip()}"},
    )
    trusted = ssl.create_default_context(cafile=str(terminals.folder / folder / "ca.pem"))
    try:
        with urllib.request.urlopen(request, context=trusted) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_what_is_to_be_installed_exists() -> None:
    extras = re.findall(r"'\.\[([\w,]+)\]'", (ROOT / "docs" / "field-guide.md").read_text(encoding="utf-8"))
    settings = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    known = settings.partition("[options.extras_require]")[2].partition("\n[")[0]
    assert extras and blocks("field-guide.md", "install")
    for extra in ",".join(extras).split(","):
        assert re.search(rf"(?m)^{extra}\b", known), extra

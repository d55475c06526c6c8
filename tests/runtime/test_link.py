"""From a query at the station to a hit at home: the real station, the real device, the shipped bundle and clip.

The station is a process of its own, the device and the operator are this one; in test_field_guide.py all of them are.
"""

from __future__ import annotations

import io
import json
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

for package in ("onnxruntime", "starlette", "uvicorn", "argon2", "cryptography"):
    pytest.importorskip(package)

from tagclip.runtime.bundle import shipped_bundle_path

CLIP = shipped_bundle_path().parent / "example.mp4"
WANTED = (
    "a woman in a dark red jacket and light blue trousers with a yellow backpack"  # as `make demo` looks for
)
START_S = 60


class Station:
    """A running station: its address, its authority's fingerprint, the admin's one-time password."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.folder, self.log = folder, folder.with_name("station.log")
        self.process: subprocess.Popen[bytes] | None = None
        self.start()
        told = self.log.read_text()
        self.fingerprint = re.findall(r"authority ([0-9a-f]{64})", told)[0]
        self.password = re.findall(r"one-time password (\S+)", told)[0]

    def start(self) -> None:
        command = [sys.executable, "-m", "tagclip.runtime", "station", "--data", str(self.folder)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--listen", self.address, "--name", "127.0.0.1"], stdout=log, stderr=log
            )
        end_s = time.monotonic() + START_S
        while "station on https" not in self.log.read_text():
            assert self.process.poll() is None and time.monotonic() < end_s, self.log.read_text()
            time.sleep(0.1)

    def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        finally:
            self.process.kill()


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    running = Station(tmp_path / "ground")
    yield running
    running.stop()


def test_a_query_goes_up_and_a_hit_comes_home(
    station: Station,
    tmp_path: Path,
    run: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def said(*arguments: object) -> str:
        status, out, err = run(*arguments)
        assert status == 0, err
        return out

    token, link, store = tmp_path / "token.json", tmp_path / "link", tmp_path / "north.db"
    enrolment = said("station", "enrol", "north", "--data", station.folder).strip()
    said("enrol", enrolment, "--device", "north", "--folder", link)
    passwords = f"{station.password}\nlong enough to keep\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(passwords))
    url = f"https://{station.address}"
    login = ("--user", "admin", "--fingerprint", station.fingerprint, "--token-file", token)
    said("query", "login", "--station", url, *login)
    said("query", "add", WANTED, "--reason", "demo", "--alarms-per-1000", "10", "--token-file", token)

    def hits() -> list[dict[str, Any]]:
        kept = json.loads(token.read_text())
        request = urllib.request.Request(
            f"{url}/api/v1/hits", headers={"Authorization": f"Bearer {kept['token']}"}
        )
        with urllib.request.urlopen(request, context=ssl.create_default_context(cadata=kept["ca"])) as answer:
            found: list[dict[str, Any]] = json.load(answer)["hits"]
        return found

    told = said("run", CLIP, "--store", store, "--station", link, "--json")
    (row,) = {line["id"]: line for line in map(json.loads, told.splitlines())}.values()
    (home,) = hits()
    assert (home["id"], home["revision"], home["device"], home["picture"]) == (
        row["id"],
        row["revision"],
        "north",
        True,
    )
    assert home["query"] == WANTED

    # Out of reach: the last set stays in force, the hit waits, and comes home when the station is back.
    station.stop()
    again = said("run", CLIP, "--store", tmp_path / "second.db", "--station", link, "--json")
    assert again.strip()
    station.start()
    said("run", CLIP, "--store", tmp_path / "third.db", "--station", link)
    assert len(hits()) == 3 and len({hit["id"] for hit in hits()}) == 3

    # A code is good once, and a stranger's enrolment is refused.
    status, _, err = run("enrol", enrolment, "--device", "north", "--folder", tmp_path / "other")
    assert status == 1 and "Traceback" not in err
    assert said("station", "audit", "verify", "--data", station.folder).split()[0].isdigit()

"""Enrolling at a real HTTPS station, whom the device trusts from then on, and a device that is killed."""

from __future__ import annotations

import os
import random
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cryptography")
from chaos.hits import ENCODER, hit, jpeg
from chaos.side import until
from chaos.sync_station import TOKEN, Authority

from tagclip.runtime.errors import (
    ConfigError,
    CredentialError,
    KeyFileError,
    LinkError,
    OutputError,
    SyncError,
)
from tagclip.runtime.health import Health
from tagclip.runtime.keys import PrivateKey
from tagclip.runtime.sync_enrol import enrol, read_enrolment
from tagclip.runtime.sync_https import HttpsCarrier, split_address
from tagclip.runtime.sync_link import StationLink
from tagclip.runtime.sync_messages import HIT


def string(station: Any, port: int | None = None, code: str = "", fingerprint: str = "") -> str:
    ca = fingerprint or station.authority.fingerprint
    return f"tagclip-enrol:127.0.0.1:{port or station.port}:{code or station.code}:{ca}"


def test_a_device_enrols_and_is_known(tmp_path: Path, station: Any, key: PrivateKey) -> None:
    folder = tmp_path / "new" / "station"
    known = enrol(string(station) + "\n", "drone-1", folder, ENCODER)
    assert read_enrolment(folder) == known
    assert (known.device, known.address, known.key) == ("drone-1", f"127.0.0.1:{station.port}", key.public)
    modes = {path.name: path.stat().st_mode & 0o777 for path in [folder, *folder.iterdir()]}
    assert modes == {
        "station": 0o700,
        "ca.pem": 0o600,
        "token": 0o600,
        "station.pub": 0o600,
        "station.json": 0o600,
    }
    health = Health(camera="c", detector="d", provider="cpu", encoder_id=ENCODER)
    station.publish(1, [])
    with StationLink(folder, ENCODER, health) as link:
        link.tell(hit(1), jpeg(1))
        assert station.wait(lambda: len(station.stored) == 2, 5)
        assert until(lambda: link.client.revision == 1)
        new = link.new_queries()
        assert new is not None and new.revision == 1 and link.new_queries() is None
        link.tell(hit(2), jpeg(2))
    assert len(station.stored) == 4  # drained at the end
    enrol(string(station), "drone-1", folder)  # again, over the old
    os.chmod(folder / "token", 0o644)
    with pytest.raises(KeyFileError, match="can be read by others"):
        read_enrolment(folder)
    with pytest.raises(KeyFileError, match="is not enrolled"):
        read_enrolment(tmp_path / "other")


def test_enrolling_trusts_nobody_by_chance(tmp_path: Path, station: Any) -> None:
    with pytest.raises(SyncError, match="another station than the enrolment string says"):
        enrol(string(station, fingerprint="0" * 64), "drone-1", tmp_path / "a")
    assert station.enrols == 0  # it was told nothing
    with pytest.raises(CredentialError, match="refuses the code .wrong or used code."):
        enrol(string(station, code="wrong-code"), "drone-1", tmp_path / "b")
    with pytest.raises(LinkError, match="refused"):
        enrol(string(station, port=1), "drone-1", tmp_path / "c")
    for wrong in (
        "",
        "tagclip-enrol:h:1:code",
        string(station)[:-1],
        string(station).replace("127.0.0.1", "a b"),
    ):
        with pytest.raises(ConfigError, match="copy all of the line"):
            enrol(wrong, "drone-1", tmp_path / "d")
    with pytest.raises(ConfigError, match="name"):
        enrol(string(station), "a/b", tmp_path / "d")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        enrol(string(station), "drone-1", tmp_path / "file")
    assert station.enrols == 1
    assert not any((tmp_path / name / "token").exists() for name in "abcd")


def test_a_device_that_is_killed_again_and_again(tmp_path: Path, station: Any) -> None:
    """TAGCLIP_KILLS sets how often: whatever it had kept arrives once, at a station that fails now and then."""
    rng = random.Random(8)
    faults = ["", "", "", "lost", "drop", "500", "twice"]
    station.fault = lambda number: rng.choice(faults)
    folder, kept = tmp_path / "station", set()
    enrol(string(station), "drone-1", folder, ENCODER)
    for number in range(int(os.environ.get("TAGCLIP_KILLS", "5"))):
        command = [
            sys.executable,
            str(Path(__file__).parent / "sync_device.py"),
            str(folder),
            str(10_000 * number),
            "0.01",
        ]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert child.stdout and child.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0.1, 0.6))
        child.kill()
        kept |= {int(line) for line in child.stdout.read().split("\n")[:-1]}
        child.stdout.close()
        child.wait()
    health = Health(camera="c", detector="d", provider="cpu", encoder_id=ENCODER)
    with StationLink(folder, ENCODER, health) as link:
        assert link.client.drain(20) and link.outbox.facts()["dropped_hits"] == 0
    frames = [m.body["frame"] for m in station.stored.values() if m.kind == HIT]
    pictures = {m.body["hit_id"] for m in station.stored.values() if m.kind != HIT}
    assert len(frames) == len(set(frames)) and kept <= set(frames) and len(frames) - len(kept) <= number + 1
    assert pictures == set(station.hits)


def test_another_authority_is_not_trusted(tmp_path: Path, station: Any) -> None:
    other = Authority(tmp_path, "other")
    carrier = HttpsCarrier(f"127.0.0.1:{station.port}", other.pem, TOKEN)
    with pytest.raises(LinkError, match="not of the station that this device was enrolled with"):
        carrier.exchange(b"{}", 5)
    named = HttpsCarrier(f"localhost:{station.port}", station.authority.pem, TOKEN)
    with pytest.raises(LinkError, match="enrolled with"):
        named.exchange(b"{}", 5)
    assert station.posts == 0


@pytest.mark.parametrize(
    ("address", "expected"), [("h:1", ("h", 1)), ("[::1]:443", ("::1", 443)), ("a.b:65535", ("a.b", 65535))]
)
def test_addresses(address: str, expected: tuple[str, int]) -> None:
    assert split_address(address) == expected


@pytest.mark.parametrize(
    "address", ["", "h", "h:", ":1", "h:0", "h:65536", "::1:443", "h/x:1", "u@h:1", "h:٣"]
)
def test_no_addresses(address: str) -> None:
    with pytest.raises(ValueError, match="found"):
        split_address(address)


def test_tls_is_not_old(authority: Any) -> None:
    from tagclip.runtime.sync_https import context_of

    context = context_of(authority.pem)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert (
        context.check_hostname
        and context.verify_mode == ssl.CERT_REQUIRED
        and len(context.get_ca_certs()) == 1
    )

"""A bundle goes from a real station over real HTTPS into a device's slot, or is refused with its reason."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

for _package in ("argon2", "cryptography", "onnxruntime", "starlette", "uvicorn"):
    pytest.importorskip(_package)

import argon2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tagclip.runtime import cli, sync_bundle
from tagclip.runtime.bundle import Bundle, open_bundle, shipped_bundle_path, sums_bytes
from tagclip.runtime.bundle_order import Order, Ordered, digest_of, sign_order
from tagclip.runtime.bundle_sign import sign_bundle
from tagclip.runtime.bundle_slots import BundleSlots
from tagclip.runtime.bundle_write import write_bundle
from tagclip.runtime.errors import BundleError, ConfigError, LinkError, SyncError
from tagclip.runtime.health import Health
from tagclip.runtime.keys import PrivateKey
from tagclip.runtime.station.audit import audit_page
from tagclip.runtime.station.client import Client
from tagclip.runtime.station.server import Server
from tagclip.runtime.station.station import Encoder, Station, enrolment, say_address
from tagclip.runtime.station.tls import own_identity
from tagclip.runtime.sync_bundle import BundleSync
from tagclip.runtime.sync_enrol import enrol, read_enrolment

SHIPPED = digest_of((shipped_bundle_path() / "SHA256SUMS").read_bytes())
PASSWORD = "correct horse battery"
KILLS = int(os.environ.get("TAGCLIP_KILLS", "2"))


@pytest.fixture(scope="module")
def station(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Station]:
    folder = tmp_path_factory.mktemp("ground") / "data"
    station = Station(folder, own_identity(folder / "tls", ["127.0.0.1"]), Encoder(tiny_bundle.path))
    station.users._hasher = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    with Server(station, ("127.0.0.1", 0)) as server:
        say_address(folder, f"127.0.0.1:{server.port}", station.identity.fingerprint())
        yield station
    station.close()


@pytest.fixture
def make(tiny_parts: dict[str, Any], tmp_path: Path) -> Callable[..., Path]:
    """Write a bundle under a name, which makes its digest another one."""

    def make(name: str, **change: Any) -> Path:
        return write_bundle(tmp_path / name, **(tiny_parts | {"name": name} | change)).path

    return make


@pytest.fixture
def folder(station: Station, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Of a device that was enrolled, named after the test."""
    return enrolled(station, tmp_path / "link", f"d{abs(hash(request.node.name)) % 10**9}")


def enrolled(station: Station, folder: Path, name: str) -> Path:
    code, _ = station.store.make_code(name, "test")
    enrol(enrolment(station.data, code), name, folder)
    return folder


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while Way.open:
        Way.open.pop().close()


class Way:
    """The real way to the station; it counts, and breaks when it is told to."""

    open: list[Way] = []

    def __init__(self, folder: Path) -> None:
        self.open.append(self)
        self.real, self.bytes, self.parts, self.breaks_at = read_enrolment(folder).bundles(), 0, 0, -1

    def order(self, revision: int) -> dict[str, Any] | None:
        return self.real.order(revision)

    def part(self, digest: str, name: str, offset: int, most: int, timeout_s: float) -> bytes:
        if self.parts == self.breaks_at:
            raise LinkError("cut")
        data = self.real.part(digest, name, offset, most, timeout_s)
        self.parts, self.bytes = self.parts + 1, self.bytes + len(data)
        return data

    def close(self) -> None:
        self.real.close()


class Device:
    """A device's bundle and its way, without a camera; `turn` is what the thread does again and again."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self.slots = BundleSlots(folder, read_enrolment(folder))
        self.slots.begin()
        self.way = Way(folder)
        self.health = Health(camera="c", detector="d", provider="cpu", encoder_id="e")
        self.sync = BundleSync(self.slots, self.way, self.health, **more)
        self.calls: list[str] = []
        self.slots.on_ready = lambda: self.calls.append("ready")

    def turn(self) -> dict[str, Any]:
        try:
            self.sync._turn()
        finally:
            self.sync._tell()
        return self.sync.facts()


def shown(station: Station, name: str, facts: dict[str, Any]) -> dict[str, Any]:
    """What operators see of a device that says `facts`."""
    with station.database.write() as connection:
        connection.execute("UPDATE devices SET status = ? WHERE name = ?", (json.dumps(facts), name))
    (device,) = [row for row in station.bundles.shown(station.store.devices()) if row["name"] == name]
    bundle: dict[str, Any] = device["bundle"]
    return bundle


def test_a_pushed_bundle_becomes_the_one_in_use(
    station: Station, folder: Path, make: Callable[..., Path]
) -> None:
    device = Device(folder)
    name = device.slots.device
    assert device.slots.running == SHIPPED and device.turn()["bundle_state"] == "none"
    order = station.bundles.push(make("one"), (name,), "root")
    assert order.bundle is not None
    assert shown(station, name, device.sync.facts())["state"] == "waiting"
    assert device.turn()["bundle_state"] == "ready" and device.calls == ["ready"]
    # The process that runs goes on with what it has, and takes nothing else before it is started again.
    assert device.slots.running == SHIPPED and device.turn()["bundle_state"] == "ready"

    again = Device(folder)
    assert again.slots.running == order.bundle.digest and again.turn()["bundle_state"] == "trial"
    again.slots.works()
    facts = again.turn()
    assert facts["bundle_state"] == "active" and again.way.parts == 0
    assert shown(station, name, facts) == {
        "digest": order.bundle.digest,
        "ordered": order.bundle.digest,
        "revision": order.revision,
        "state": "active",
        "percent": None,
        "reason": None,
    }
    assert again.health.reasons().get("bundle") is None
    rows = [row for row in audit_page(station.database, 0, 1000) if row["action"] == "bundle.push"]
    assert rows[-1]["who"] == "root" and rows[-1]["facts"]["bundle"] == order.bundle.digest

    # Withdrawn: who has it keeps it.
    assert station.bundles.withdraw(order.bundle.digest, "root")
    facts = again.turn()
    assert facts["bundle_state"] == "none" and facts["bundle_revision"] > order.revision
    assert BundleSlots(folder, read_enrolment(folder)).begin().manifest.name == "one"


def test_a_link_that_breaks_is_gone_on_from(
    station: Station, folder: Path, make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync_bundle, "LEAST_PART_BYTES", 512)
    monkeypatch.setattr(sync_bundle, "MOST_PART_BYTES", 512)
    monkeypatch.setattr(BundleSync, "_install", lambda self, ordered: done.append(ordered.digest))
    done: list[str] = []
    order = station.bundles.push(make("one"), (read_enrolment(folder).device,), "root")
    assert order.bundle is not None
    fetched = breaks = 0
    while not done:
        device = Device(folder)
        device.sync._part_bytes = 512
        device.way.breaks_at = 5
        try:
            device.turn()
        except LinkError:
            breaks += 1
            facts = device.sync.facts()
            assert facts["bundle_state"] == "downloading" and 0 <= facts["bundle_percent"] < 100
        fetched += device.way.bytes
    assert done == [order.bundle.digest] and breaks >= 3
    assert fetched == order.bundle.bytes  # nothing twice
    came = folder / "bundles" / "incoming" / order.bundle.digest
    assert {path.name: path.stat().st_size for path in came.iterdir()} == order.bundle.files
    assert open_bundle(came).manifest.name == "one"
    # After a power cut a file may have its length and not its content: it is fetched again.
    (came / "text.onnx").write_bytes(bytes((came / "text.onnx").stat().st_size))
    device = Device(folder)
    device.turn()
    assert len(done) == 2 and device.way.bytes == order.bundle.files["text.onnx"]


def test_what_is_here_already_is_not_fetched(
    station: Station, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """12 MB of graphs stay what they were; a description changed."""
    from tagclip.runtime.bundle_write import rewrite_bundle

    monkeypatch.setattr(BundleSync, "_install", lambda self, ordered: None)
    changed = rewrite_bundle(open_bundle(None), tmp_path / "changed", {"note.txt": b"new"})
    order = station.bundles.push(changed.path, (read_enrolment(folder).device,), "root")
    device = Device(folder)
    device.turn()
    assert order.bundle is not None and order.bundle.bytes > 5_000_000 and device.way.bytes < 2_000


def test_signer(
    station: Station, folder: Path, make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that is told a maker's key takes only what the maker signed, whoever orders it."""
    monkeypatch.setattr(BundleSync, "_install", lambda self, ordered: done.append(ordered.name))
    done: list[str] = []
    name = read_enrolment(folder).device
    maker, other = (PrivateKey(Ed25519PrivateKey.generate()) for _ in range(2))
    pem = Ed25519PublicKey.from_public_bytes(maker.public.raw)
    (folder / "signer.pub").write_bytes(pem.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    device = Device(folder)
    unsigned, wrong, right = make("unsigned"), make("wrong"), make("right")
    sign_bundle(wrong, other)
    sign_bundle(right, maker)
    for bundle, reason in ((unsigned, "has no SIGNATURE"), (wrong, "is signed by key")):
        station.bundles.push(bundle, (name,), "root")
        facts = device.turn()
        assert facts["bundle_state"] == "refused" and reason in facts["bundle_reason"]
    station.bundles.push(right, (name,), "root")
    device.turn()
    assert done == ["right"]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("altered", "image-ground.onnx was altered"),
        ("truncated", "text.onnx is truncated: expected .* bytes, the station has 100"),
        ("sums", "SHA256SUMS was altered"),
        ("large", "this device takes 1,000"),
        ("probe", "cosine to the expected vectors"),
    ],
)
def test_refused_with_its_reason_and_not_tried_again(
    station: Station,
    folder: Path,
    make: Callable[..., Path],
    tiny_parts: dict[str, Any],
    fault: str,
    reason: str,
) -> None:
    graphs = dict(tiny_parts["graphs"])
    if fault == "probe":  # opens, and both views have the graph of one
        graphs["image-aerial"] = graphs["image-ground"]
    name = read_enrolment(folder).device
    order = station.bundles.push(make(f"bad-{fault}", graphs=graphs), (name,), "root")
    assert order.bundle is not None
    kept = station.data / "bundles" / order.bundle.digest
    if fault == "altered":
        data = bytearray((kept / "image-ground.onnx").read_bytes())
        data[50] ^= 1
        (kept / "image-ground.onnx").write_bytes(data)
    elif fault == "truncated":
        os.truncate(kept / "text.onnx", 100)
    elif fault == "sums":
        (kept / "SHA256SUMS").write_bytes((kept / "SHA256SUMS").read_bytes().replace(b"a", b"b"))
    device = Device(folder, max_bytes=1000 if fault == "large" else 1 << 30)
    facts = device.turn()
    assert facts["bundle_state"] == "refused" and facts["bundle_digest"] == SHIPPED
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(facts["bundle_reason"])
    seen = shown(station, name, facts)
    assert seen["state"] == "refused" and seen["reason"] == facts["bundle_reason"]
    assert device.health.reasons()["bundle"].startswith("refused: ")
    assert not list((folder / "bundles").glob("slot-*")) and not list((folder / "bundles").glob("incoming/*"))
    # Not again, in this process or the next; but a new order of the same bundle is a new try.
    before = device.way.parts
    device.turn()
    assert device.way.parts == before
    again = Device(folder, max_bytes=1000)
    assert again.turn()["bundle_state"] == "refused" and again.way.parts == 0
    station.bundles.push(kept if fault in ("large", "probe") else make("good"), (name,), "root")
    assert again.slots.take(again.way.order(order.revision)).revision > order.revision
    assert again.slots.wanted() is not None


def test_orders_that_nobody_may_give(station: Station, folder: Path) -> None:
    """Another key's, another device's, an older one, one that was changed."""
    known = read_enrolment(folder)
    slots = BundleSlots(folder, known)
    slots.begin()
    bundle = Ordered("0" * 64, "e", "n", {"SHA256SUMS": 10, "bundle.json": 10})

    def order(
        revision: int, devices: tuple[str, ...] | None, key: PrivateKey = station.key
    ) -> dict[str, Any]:
        return sign_order(Order(revision, 1.0, devices, bundle), key)

    slots.take(order(5, (known.device,)))
    stranger = PrivateKey(Ed25519PrivateKey.generate())
    changed = order(7, None) | {"revision": 8}
    more = order(7, None) | {"more": 1}
    for document, reason in (
        (order(6, None, stranger), "did not sign this bundle order"),
        (changed, "did not sign this bundle order"),
        (more, "did not sign this bundle order"),
        (order(6, ("somebody-else",)), "is not for d"),
        (order(5, None), "order.revision: expected more than 5, found 5"),
        (order(4, None), "order.revision: expected more than 5, found 4"),
        ({}, "order.signature: missing"),
        ([], "expected an object"),
    ):
        with pytest.raises(SyncError, match=reason):
            slots.take(document)
        assert slots.order is not None and slots.order.revision == 5
    # It survives the process; for a device that was enrolled with another station it counts for nothing.
    assert BundleSlots(folder, known).order == slots.order
    (folder / "bundles" / "state.json").write_text("{")
    assert BundleSlots(folder, known).order is None
    for files in (
        {"SHA256SUMS": 1},
        {"SHA256SUMS": 1, "bundle.json": 1, "../x": 1},
        {"SHA256SUMS": 1, "bundle.json": -1},
    ):
        with pytest.raises(SyncError, match="order.bundle.files"):
            sign_order(Order(1, 1.0, None, Ordered("0" * 64, "e", "n", files)), station.key)


def test_the_newest_order_counts(
    station: Station, folder: Path, make: Callable[..., Path], tmp_path: Path
) -> None:
    one, two = read_enrolment(folder).device, "the-other"
    enrolled(station, tmp_path / "other", two)
    bundles = station.bundles

    def wants() -> list[str | None]:
        return [found[1] if (found := bundles.order_of(name)) else None for name in (one, two, "later")]

    a, b = (
        order.bundle.digest
        for order in (bundles.push(make("a"), None, "r"), bundles.push(make("b"), (one,), "r"))
        if order.bundle
    )
    assert wants() == [b, a, a]
    # A device gets what is ordered for it, and nothing else.
    assert bundles.part(one, b, "text.onnx", 0, 4) and bundles.part(two, b, "text.onnx", 0, 4) is None
    assert bundles.part(one, b, "records.sqlite", 0, 4) is None
    by_digest = {row["digest"]: row["devices"] for row in bundles.listed()}
    assert by_digest[a] is None and by_digest[b] == [one]
    assert bundles.withdraw(a, "r") and not bundles.withdraw(a, "r")
    assert (
        wants() == [b, None, None] and bundles.order_of(one) and not (station.data / "bundles" / a).exists()
    )
    bundles.push(make("c"), None, "r")
    assert len(set(wants())) == 1 and None not in wants()
    with pytest.raises(ConfigError, match="'nobody' is not enrolled; there are .*the-other"):
        bundles.push(make("e"), ("nobody",), "r")
    with pytest.raises(BundleError):
        bundles.push(tmp_path, None, "r")
    assert bundles.withdraw(str(wants()[0]), "r")


def test_over_http(station: Station, folder: Path, make: Callable[..., Path]) -> None:
    one_time = station.users.add("hanna", "admin", "test")
    station.users.set_password("hanna", one_time, PASSWORD)
    login = station.users.login("hanna", PASSWORD, "test", token=True)
    assert login
    url = "https://" + (station.data / "address").read_text().split()[0]
    client = Client(url, station.ca_pem.decode(), login.secret)
    name, bundle = read_enrolment(folder).device, open_bundle(make("http"))
    digest = digest_of(sums_bytes(bundle.sha256))
    with pytest.raises(SyncError, match="no bundle .* was uploaded"):
        client.ask("POST", "/api/v1/bundles", {"digest": digest, "devices": [name]})
    put = Upload(client)
    for file in (*bundle.sha256, "SHA256SUMS"):
        data = (bundle.path / file).read_bytes()
        for start in range(0, len(data), 1000):
            assert put(f"/{digest}/{file}?offset={start}", data[start : start + 1000])[0] == 200
    assert put(f"/{digest}/text.onnx?offset=7", b"x")[0] == 400
    for path in (f"/{digest}/..", f"/{digest}/%2e%2e%2fx", "/short/text.onnx", f"/{digest}/engines"):
        assert put(path, b"x")[0] in (400, 404)
    told = client.ask("POST", "/api/v1/bundles", {"digest": digest, "devices": [name]})
    assert (told["digest"], told["devices"], told["name"]) == (digest, [name], "http")
    assert not list((station.data / "bundles").glob(".upload-*"))
    (row,) = [row for row in client.ask("GET", "/api/v1/bundles")["bundles"] if row["digest"] == digest]
    assert row["pushed_by"] == "hanna" and row["devices"] == [name]
    (device,) = [row for row in client.ask("GET", "/api/v1/devices")["devices"] if row["name"] == name]
    assert device["bundle"]["ordered"] == digest
    client.ask("DELETE", f"/api/v1/bundles/{digest}")
    # One that cannot be used is not kept.
    put(f"/{digest}/SHA256SUMS?offset=0", (bundle.path / "SHA256SUMS").read_bytes())
    with pytest.raises(SyncError, match="has no bundle.json"):
        client.ask("POST", "/api/v1/bundles", {"digest": digest})
    assert not (station.data / "bundles" / digest).exists()
    put.connection.close()


class Upload:
    """PUT of bytes, which the client of the command line does not do."""

    def __init__(self, client: Client) -> None:
        import http.client

        self._client = client
        self.connection = http.client.HTTPSConnection(*client._address, timeout=30, context=client._context)

    def __call__(self, path: str, data: bytes) -> tuple[int, bytes]:
        self.connection.request(
            "PUT", f"/api/v1/bundles{path}", data, {"Authorization": f"Bearer {self._client._token}"}
        )
        answer = self.connection.getresponse()
        return answer.status, answer.read()


def test_commands(
    station: Station, folder: Path, make: Callable[..., Path], run: Callable[..., tuple[int, str, str]]
) -> None:
    data, name = ("--data", station.data), read_enrolment(folder).device
    status, out, err = run("station", "bundle", "push", make("cli"), "--device", name, *data)
    assert (
        status == 0
        and "warning: devices cannot look for anybody with it" in err
        and out.startswith("cli, 0.0 MB, encoder tc1-")
        and f"for {name}\n" in out
    )
    digest = out.splitlines()[1]
    assert f"{digest[:16]}  " in run("station", "bundle", "list", *data)[1]
    assert run("station", "bundle", "withdraw", digest[:12], *data)[1] == f"withdrawn: {digest}\n"
    status, _, err = run("station", "bundle", "withdraw", digest, *data)
    assert status == 1 and "begins 0 digests" in err
    status, _, err = run("station", "bundle", "push", station.data, *data)
    assert status == 1 and "has no bundle.json" in err
    assert cli.main is not None


def test_killed_at_any_moment_a_good_bundle_is_left(
    station: Station, folder: Path, make: Callable[..., Path]
) -> None:
    """TAGCLIP_KILLS=100 for more."""
    name, chance = read_enrolment(folder).device, random.Random(1)
    bundles = [make("even"), make("odd")]
    good = {SHIPPED, *(digest_of((path / "SHA256SUMS").read_bytes()) for path in bundles)}
    command = [sys.executable, str(Path(__file__).with_name("bundle_device.py")), "sync", str(folder)]
    ended = set()
    for turn in range(KILLS):
        station.bundles.push(bundles[turn % 2], (name,), "root")
        child = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
        assert child.stdout is not None
        try:
            running = child.stdout.readline().decode().strip()
            assert running in good
            ended.add(running)
            time.sleep(chance.uniform(0.0, 3.0))
        finally:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            child.stdout.close()
        slots = BundleSlots(folder, read_enrolment(folder))
        bundle = slots.begin()
        assert digest_of(sums_bytes(bundle.sha256)) in good and not slots.given_up
        slots.works()
    if KILLS >= 20:
        assert len(ended) == 3  # some came to their end

"""A bundle that does not start is left for the one before, whatever is killed when."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("cryptography")

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tagclip.runtime.bundle import Bundle, open_bundle, shipped_bundle_path, sums_bytes
from tagclip.runtime.bundle_order import Order, Ordered, digest_of, sign_order
from tagclip.runtime.bundle_slots import BundleSlots
from tagclip.runtime.bundle_write import rewrite_bundle, write_bundle
from tagclip.runtime.errors import BackgroundError, SourceError
from tagclip.runtime.keys import PrivateKey
from tagclip.runtime.slots import install
from tagclip.runtime.sync_enrol import Enrolment

KEY = PrivateKey(Ed25519PrivateKey.from_private_bytes(bytes(32)))
KNOWN = Enrolment("127.0.0.1:1", "d1", "", "", KEY.public)
CLIP = shipped_bundle_path().parent / "example.mp4"


def digest(bundle: Bundle) -> str:
    return digest_of(sums_bytes(bundle.sha256))


def ordered(bundle: Bundle) -> Ordered:
    files = {name: (bundle.path / name).stat().st_size for name in (*bundle.sha256, "SHA256SUMS")}
    return Ordered(digest(bundle), bundle.encoder_id, bundle.manifest.name, files)


def switch(folder: Path, bundle: Bundle, revision: int) -> BundleSlots:
    """As sync_bundle does it, in this process: order, trial, switch."""
    slots = BundleSlots(folder, KNOWN)
    slots.take(sign_order(Order(revision, 1.0, ("d1",), ordered(bundle)), KEY))
    slots.begin_trial(ordered(bundle))
    install(bundle.path, slots.path)
    return slots


def begun(folder: Path) -> tuple[BundleSlots, str]:
    slots = BundleSlots(folder, KNOWN)
    return slots, slots.begin().manifest.name


@pytest.fixture
def make(tiny_parts: dict[str, Any], tmp_path: Path) -> Callable[[str], Bundle]:
    return lambda name: write_bundle(tmp_path / name, **(tiny_parts | {"name": name}))


def child(folder: Path, step: int = 0) -> tuple[int, str]:
    """A process that begins, and is killed at a step or ends without a word."""
    script = str(Path(__file__).with_name("bundle_device.py"))
    command = [sys.executable, script, "begin", str(folder), str(step), KEY.public.raw.hex()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode in (7, 9), done.stderr
    return done.returncode, done.stdout.strip()


def test_a_bundle_that_works_is_kept(tmp_path: Path, make: Callable[[str], Bundle]) -> None:
    one, two = make("one"), make("two")
    switch(tmp_path / "link", one, 1)
    for _ in range(2):
        slots, name = begun(tmp_path / "link")
        assert name == "one" and slots.on_trial and slots.wanted() is None
    slots.works()
    for _ in range(4):
        slots, name = begun(tmp_path / "link")
        assert name == "one" and not slots.on_trial and slots.given_up is None
    # The trial of a next one is announced before the switch; if that never comes, nothing is amiss.
    slots.take(sign_order(Order(2, 1.0, None, ordered(two)), KEY))
    slots.begin_trial(ordered(two))
    for _ in range(4):
        slots, name = begun(tmp_path / "link")
        assert name == "one" and not slots.on_trial and slots.wanted() == ordered(two)


def test_two_starts_without_a_word_and_it_is_left(tmp_path: Path, make: Callable[[str], Bundle]) -> None:
    folder, one, two = tmp_path / "link", make("one"), make("two")
    switch(folder, one, 1)
    begun(folder)[0].works()
    switch(folder, two, 2)
    for _ in range(2):
        assert child(folder) == (7, digest(two))
    slots, name = begun(folder)
    assert name == "one" and slots.wanted() is None and not slots.on_trial
    assert slots.given_up == {
        "digest": digest(two),
        "revision": 2,
        "state": "rolled back",
        "reason": "it did not work in 2 starts: it ended without a word",
    }
    assert len(list(slots.path.glob("slot-*"))) == 1
    # A new order is a new try, also of the same bundle; then there is nothing of the old refusal.
    switch(folder, two, 3)
    slots, name = begun(folder)
    assert name == "two" and slots.given_up is None
    slots.works()
    assert begun(folder)[1] == "two"


def test_killed_at_every_step_of_going_back(tmp_path: Path, make: Callable[[str], Bundle]) -> None:
    folder, one, two = tmp_path / "link", make("one"), make("two")
    switch(folder, one, 1)
    begun(folder)[0].works()
    switch(folder, two, 2)
    for _ in range(2):
        begun(folder)
    shutil.copytree(folder, tmp_path / "kept", symlinks=True)
    step, code = 0, 9
    while code == 9:
        step += 1
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "kept", folder, symlinks=True)
        code, _ = child(folder, step)
        slots, name = begun(folder)
        assert (name, slots.on_trial) == ("one", False), step
        assert slots.given_up is not None and slots.given_up["digest"] == digest(two)
        assert begun(folder)[1] == "one"
    assert step >= 4


@pytest.mark.parametrize(
    ("error", "starts"),
    [(BackgroundError("no yardstick"), 1), (MemoryError(), 1), (SourceError("no camera"), 0)],
)
def test_only_what_is_its_fault_counts(
    tmp_path: Path, make: Callable[[str], Bundle], error: Exception, starts: int
) -> None:
    switch(tmp_path / "link", make("one"), 1)
    slots, _ = begun(tmp_path / "link")
    with pytest.raises(type(error)), slots.blamed():
        raise error
    again = BundleSlots(tmp_path / "link", KNOWN)
    assert again.trial is not None and again.trial["starts"] == starts
    if isinstance(error, BackgroundError):
        begun(tmp_path / "link")
        slots, _ = begun(tmp_path / "link")
        assert slots.given_up is not None and slots.given_up["reason"].endswith("2 starts: no yardstick")


def test_damaged_ones_are_left(tmp_path: Path, make: Callable[[str], Bundle]) -> None:
    folder = tmp_path / "link"
    for number, name in enumerate(("one", "two"), 1):
        switch(folder, make(name), number)
        begun(folder)[0].works()
    for link in ("current", "previous"):
        path = folder / "bundles" / link / "text.onnx"
        path.write_bytes(path.read_bytes()[:-1])
    slots, name = begun(folder)
    assert name == open_bundle(None).manifest.name and slots.given_up is not None
    assert "text.onnx was truncated or altered" in slots.given_up["reason"]
    switch(folder, make("three"), 3)
    assert begun(folder)[1] == "three"
    (folder / "bundles" / "current").unlink(missing_ok=True)
    (folder / "bundles" / "current").symlink_to("/etc")
    assert begun(folder)[1] == open_bundle(None).manifest.name


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"order": null, "trial": {}, "given_up": null}', '{"order": {}}', "x" * 400_000],
)
def test_a_state_that_is_none(tmp_path: Path, make: Callable[[str], Bundle], text: str) -> None:
    switch(tmp_path / "link", make("one"), 1)
    (tmp_path / "link" / "bundles" / "state.json").write_text(text)
    slots, name = begun(tmp_path / "link")
    assert name == "one" and slots.order is None and not slots.on_trial


def test_a_device_whose_start_fails_goes_back(tmp_path: Path) -> None:
    """The real program: the self-test passes, and what scores are measured by cannot be read."""
    pytest.importorskip("starlette")
    from tagclip.runtime.station.tls import own_identity

    folder = tmp_path / "link"
    bad = rewrite_bundle(open_bundle(None), tmp_path / "bad", {"background.npz": b"no zip"})
    switch(folder, bad, 1)
    public = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()
    write_enrolment(folder, own_identity(tmp_path / "tls", ["127.0.0.1"]).ca.read_bytes(), public)

    def run() -> tuple[int, str]:
        command = [
            sys.executable,
            "-m",
            "tagclip.runtime",
            "run",
            str(CLIP),
            "--store",
            str(tmp_path / "s.db"),
        ]
        whole = [*command, "--station", str(folder)]
        lines = []
        with subprocess.Popen(whole, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line)
                if "watching" in line and "seen from" in line:  # it looks: that is enough
                    process.terminate()
        return process.returncode, "".join(lines)

    for _ in range(2):
        code, told = run()
        assert code == 1 and "background.npz" in told and "Traceback" not in told
    code, told = run()
    assert code == 0 and "is rolled back: it did not work in 2 starts: " in told, told


def write_enrolment(folder: Path, ca: bytes, public: Any) -> None:
    """As `tagclip enrol` leaves it, of a station that is out of reach."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    folder.mkdir(exist_ok=True)
    for name, data in (
        ("ca.pem", ca),
        ("token", b"t" * 32),
        ("station.pub", public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)),
        ("station.json", b'{"address": "127.0.0.1:1", "device": "d1"}'),
    ):
        (folder / name).write_bytes(data)
        (folder / name).chmod(0o600)

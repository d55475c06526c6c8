"""A device keeps the last good bundle, and goes back to it loudly."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tagclip.runtime import slots
from tagclip.runtime.bundle import Bundle, open_bundle
from tagclip.runtime.bundle_write import write_bundle
from tagclip.runtime.errors import (
    BundleIntegrityError,
    BundleSelfTestError,
    BundleSignatureError,
    BundleSlotsError,
    MissingExtraError,
    OutputError,
)
from tagclip.runtime.slots import install, open_slots, rollback

pytest.importorskip("onnxruntime")


@pytest.fixture
def make(tiny_parts: dict[str, Any], tmp_path: Path) -> Callable[..., Path]:
    """Write a bundle under a name."""

    def make(name: str, **change: Any) -> Path:
        return write_bundle(tmp_path / name, **(tiny_parts | {"name": name} | change)).path

    return make


@pytest.fixture
def bad(make: Callable[..., Path], tiny_parts: dict[str, Any]) -> Path:
    """Opens, and fails its self-test: both views have the graph of one."""
    graphs = dict(tiny_parts["graphs"])
    graphs["image-aerial"] = graphs["image-ground"]
    return make("bad", graphs=graphs)


def state(folder: Path) -> dict[str, str]:
    """Link -> name of the bundle that it leads to; and how many slots there are."""
    links = {link: folder / link for link in ("current", "previous")}
    found = {link: open_bundle(path).manifest.name for link, path in links.items() if os.path.lexists(path)}
    return found | {"slots": str(len(list(folder.glob("slot-*"))))}


def damage(folder: Path) -> None:
    with open(folder / "text.onnx", "r+b") as file:
        file.seek(100)
        file.write(b"\xff\xff")


def test_three_installs_keep_two(make: Callable[..., Path], tmp_path: Path) -> None:
    device = tmp_path / "device"
    for name, expected in (
        ("one", {"current": "one", "slots": "1"}),
        ("two", {"current": "two", "previous": "one", "slots": "2"}),
        ("three", {"current": "three", "previous": "two", "slots": "2"}),
    ):
        slot = install(make(name), device)
        assert slot.bundle.manifest.name == name and slot.warning is None
        assert min(slot.min_cosine.values()) >= 0.999
        assert state(device) == expected
        opened = open_slots(device)
        assert (opened.bundle.manifest.name, opened.link, opened.warning) == (name, "current", None)
        assert opened.bundle.path == device / os.readlink(device / "current")


def test_a_bundle_that_fails_its_self_test_leaves_the_one_in_use(
    make: Callable[..., Path], bad: Path, tmp_path: Path
) -> None:
    device = tmp_path / "device"
    install(make("one"), device)
    before = os.readlink(device / "current")
    with pytest.raises(BundleSelfTestError, match="cosine to the expected vectors"):
        install(bad, device)
    assert state(device) == {"current": "one", "slots": "1"} and os.readlink(device / "current") == before


def test_a_first_bundle_that_fails_leaves_nothing(bad: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleSelfTestError):
        install(bad, tmp_path / "device")
    assert list((tmp_path / "device").iterdir()) == []


def test_a_damaged_source_is_refused_before_it_is_copied(make: Callable[..., Path], tmp_path: Path) -> None:
    source = make("one")
    damage(source)
    with pytest.raises(BundleIntegrityError):
        install(source, tmp_path / "device")
    assert not (tmp_path / "device").exists()


def test_what_the_copy_is_not_is_found(
    make: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that writes something else than it was given."""
    copy = slots.copy_bundle

    def bad_disk(bundle: Bundle, target: Path) -> None:
        copy(bundle, target)
        damage(target)

    monkeypatch.setattr(slots, "copy_bundle", bad_disk)
    with pytest.raises(BundleIntegrityError, match="text.onnx was truncated or altered"):
        install(make("one"), tmp_path / "device")
    assert list((tmp_path / "device").iterdir()) == []


@pytest.mark.parametrize("damaged", ["hash", "self-test", "gone", "no link", "another place"])
def test_start_up_goes_back_and_says_why(
    make: Callable[..., Path], bad: Path, tmp_path: Path, damaged: str
) -> None:
    device = tmp_path / "device"
    for name in ("one", "two"):
        install(make(name), device)
    slot = device / os.readlink(device / "current")
    reason = "current: "
    if damaged == "hash":
        damage(slot)
        reason += ".*text.onnx was truncated or altered"
    elif damaged == "self-test":  # as after an upgrade of the engine
        shutil.rmtree(slot)
        shutil.copytree(bad, slot)
        reason += ".*cosine to the expected vectors"
    elif damaged == "gone":
        shutil.rmtree(slot)
        reason += ".*is not a folder"
    elif damaged == "no link":
        (device / "current").unlink()
        reason += ".*has no link 'current'"
    else:
        (device / "current").unlink()
        (device / "current").symlink_to(bad)
        reason += ".*leads to .*expected a folder slot-"
    opened = open_slots(device)
    assert (opened.bundle.manifest.name, opened.link) == ("one", "previous")
    assert opened.warning is not None
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(opened.warning)
    # It changed nothing: the next start says it again, and a rollback ends it.
    assert open_slots(device).link == "previous"
    assert rollback(device).bundle.manifest.name == "one"
    assert (open_slots(device).link, open_slots(device).warning) == ("current", None)


def test_a_device_that_may_not_write_still_goes_back(make: Callable[..., Path], tmp_path: Path) -> None:
    device = tmp_path / "device"
    for name in ("one", "two"):
        install(make(name), device)
    damage(device / "current")
    before = {path: path.lstat().st_mtime_ns for path in [device, *device.rglob("*")]}
    open_slots(device)
    assert {path: path.lstat().st_mtime_ns for path in [device, *device.rglob("*")]} == before


def test_both_damaged_is_a_named_error(make: Callable[..., Path], tmp_path: Path) -> None:
    device = tmp_path / "device"
    with pytest.raises(
        BundleSlotsError, match="no bundle that can be used; install one .*has no link 'current'"
    ):
        open_slots(device)
    for name in ("one", "two"):
        install(make(name), device)
    damage(device / "current")
    damage(device / "previous")
    with pytest.raises(BundleSlotsError, match="current: .*altered.*previous: .*altered"):
        open_slots(device)


def test_a_missing_engine_is_no_reason_to_go_back(
    make: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    device = tmp_path / "device"
    for name in ("one", "two"):
        install(make(name), device)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError):
        open_slots(device)


def test_a_damaged_bundle_never_becomes_the_last_good_one(make: Callable[..., Path], tmp_path: Path) -> None:
    device = tmp_path / "device"
    for name in ("one", "two"):
        install(make(name), device)
    damage(device / "current")
    slot = install(make("three"), device)
    assert slot.warning is not None and "the bundle that was in use is not kept: " in slot.warning
    assert state(device) == {"current": "three", "previous": "one", "slots": "2"}


def test_rollback_and_again(make: Callable[..., Path], tmp_path: Path) -> None:
    device = tmp_path / "device"
    install(make("one"), device)
    with pytest.raises(BundleSlotsError, match="has no link 'previous'"):
        rollback(device)
    install(make("two"), device)
    assert rollback(device).bundle.manifest.name == "one"
    assert state(device) == {"current": "one", "previous": "two", "slots": "2"}
    rollback(device)
    assert state(device) == {"current": "two", "previous": "one", "slots": "2"}
    damage(device / "previous")
    with pytest.raises(BundleIntegrityError):
        rollback(device)
    assert open_slots(device).bundle.manifest.name == "two"


def test_rollback_after_a_kill_between_its_two_links(make: Callable[..., Path], tmp_path: Path) -> None:
    device = tmp_path / "device"
    for name in ("one", "two"):
        install(make(name), device)
    (device / "current").unlink()
    (device / "current").symlink_to(os.readlink(device / "previous"))
    with pytest.raises(BundleSlotsError, match="previous is the bundle in use already"):
        rollback(device)
    assert open_slots(device).bundle.manifest.name == "one"


def test_a_signature_is_required_on_the_copy_too(make: Callable[..., Path], tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from tagclip.runtime.bundle_sign import sign_bundle
    from tagclip.runtime.keys import PrivateKey

    key = PrivateKey(Ed25519PrivateKey.from_private_bytes(bytes(32)))
    source, device = make("one"), tmp_path / "device"
    with pytest.raises(BundleSignatureError, match="has no SIGNATURE"):
        install(source, device, public_key=key.public)
    sign_bundle(source, key)
    install(source, device, public_key=key.public)
    assert open_slots(device, public_key=key.public).warning is None
    (device / "current" / "SIGNATURE").unlink()
    with pytest.raises(BundleSlotsError, match="has no SIGNATURE"):
        open_slots(device, public_key=key.public)
    assert open_slots(device).warning is None


def test_engines_stay_behind(make: Callable[..., Path], tmp_path: Path) -> None:
    """They are code of another machine, and nothing vouches for them."""
    source = make("one")
    (source / "engines" / "x").mkdir(parents=True)
    (source / "engines" / "x" / "text.engine").write_bytes(b"code")
    install(source, tmp_path / "device")
    assert not (tmp_path / "device" / "current" / "engines").exists()


def test_only_one_process_changes_the_slots(make: Callable[..., Path], tmp_path: Path) -> None:
    device = tmp_path / "device"
    for name in ("one", "two"):
        install(make(name), device)
    other = os.open(device, os.O_RDONLY)
    try:
        fcntl.flock(other, fcntl.LOCK_EX)
        for change in (lambda: install(make("three"), device), lambda: rollback(device)):
            with pytest.raises(OutputError, match="another process is changing"):
                change()
        assert open_slots(device).bundle.manifest.name == "two"  # readers do not wait
    finally:
        os.close(other)


def test_a_place_that_cannot_be_written(make: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write into .*file"):
        install(make("one"), tmp_path / "file")


def test_only_slots_are_ever_removed(make: Callable[..., Path], tmp_path: Path) -> None:
    device = tmp_path / "device"
    for name in ("slot-abcdefgh", "slot-kept", "slots", "SLOT-abcdefgh"):
        (device / name).mkdir(parents=True)
    (device / "slot-linkedto").symlink_to(tmp_path)
    install(make("one"), device)
    kept = {path.name for path in device.iterdir()} - {"current", os.readlink(device / "current")}
    assert kept == {"slot-kept", "slots", "SLOT-abcdefgh", "slot-linkedto"}


def test_an_array_larger_than_the_device_is_a_reason_to_go_back(
    make: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = tmp_path / "device"
    for name in ("one", "two"):
        install(make(name), device)
    probe = slots.run_probe

    def run_probe(bundle: Bundle) -> dict[str, float]:
        if bundle.manifest.name == "two":
            np.empty(1 << 62, np.uint8)
        return probe(bundle)

    monkeypatch.setattr(slots, "run_probe", run_probe)
    assert open_slots(device).link == "previous"


# The command line.


def test_commands(
    run: Callable[..., tuple[int, str, str]], make: Callable[..., Path], bad: Path, tmp_path: Path
) -> None:
    device = tmp_path / "device"
    one = make("one")
    id_one = open_bundle(one).encoder_id
    status, out, err = run("bundle", "install", one, "--slots", device)
    assert (status, out, err) == (0, f"installed one, {id_one}; it is {device}/current from now on\n", "")
    status, out, err = run("bundle", "install", bad, "--slots", device)
    assert (status, out) == (1, "")
    assert err.startswith(
        f"{bad} is not installed; {device}/current is what it was\nerror: image-aerial: cosine to"
    )
    status, out, err = run("bundle", "install", make("three"), "--slots", device, "--json")
    value = json.loads(out)
    assert (status, err) == (0, "") and (value["name"], value["warning"]) == ("three", None)
    assert value["slot"] == f"{device}/{os.readlink(device / 'current')}"
    damage(device / "current")
    status, out, err = run("bundle", "rollback", "--slots", device)
    assert (status, out, err) == (0, f"back to one, {id_one}; it is {device}/current from now on\n", "")
    status, out, err = run("bundle", "rollback", "--slots", tmp_path / "nowhere")
    assert (status, out) == (1, "") and "has no link 'previous'" in err
    assert not (tmp_path / "nowhere").exists()

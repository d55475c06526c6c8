"""A device's slots: the bundle in use, the last good one, and a switch between them that a kill cannot break.

    DIR/current   -> slot-k3v9x2ab     symbolic link to the bundle in use
    DIR/previous  -> slot-p0q8w7er     symbolic link to the one before, which passed its self-test on this machine
    DIR/slot-*                         copies of bundles

Links are only ever replaced by rename, so each names a whole, checked bundle at every moment.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from tagclip.runtime.bundle import Bundle, copy_bundle, open_bundle
from tagclip.runtime.errors import BundleSlotsError, MissingExtraError, OutputError, TagclipError
from tagclip.runtime.files import sync_folder, sync_tree
from tagclip.runtime.keys import PublicKey
from tagclip.runtime.selftest import run_probe

CURRENT, PREVIOUS = "current", "previous"

# What a bundle that cannot be used makes the checks raise; the last is an array larger than the device.
_UNFIT = (TagclipError, MemoryError)

_SLOT = re.compile(r"slot-[a-z0-9_]{8}")  # as mkdtemp names them


@dataclass(frozen=True)
class Slot:
    """A bundle that opened and passed its self-test on this machine."""

    bundle: Bundle  # its path is the slot's folder, not the link: a later install does not swap it
    min_cosine: dict[str, float]  # tower name -> as `run_probe` returns it
    link: str = CURRENT  # "previous" when `open_slots` went back
    # Why it went back, or why there is nothing to go back to; somebody has to be told.
    warning: str | None = None


def open_slots(slots: Path, *, public_key: PublicKey | None = None) -> Slot:
    """Open the bundle in use; if it is damaged or fails its self-test, the last good one. Changes nothing.

    So a fault that passes heals itself at the next start, and one that stays is reported at every start until
    `install` or `rollback` ends it.

    Raises:
        BundleSlotsError: neither can be used, or nothing was ever installed.
        MissingExtraError: a package is missing, which no other bundle can mend.
    """
    reasons = []
    for link in (CURRENT, PREVIOUS):
        try:
            slot = _try(_slot_of(slots, link), public_key)
        except MissingExtraError:
            raise
        except _UNFIT as error:
            reasons.append(f"{link}: {error}")
        else:
            return replace(slot, link=link, warning=reasons[0] if reasons else None)
    raise BundleSlotsError(
        f"{slots} has no bundle that can be used; install one with `tagclip bundle install`. "
        + "; ".join(reasons)
    )


def install(source: Path, slots: Path, *, public_key: PublicKey | None = None) -> Slot:
    """Copy a bundle into a fresh slot, check it there, run its self-test on this machine, and switch to it.

    Whatever goes wrong, and whenever the process is killed, `current` stays what it was or is the new bundle.
    The former one becomes `previous` if it is still sound, else `previous` stays; other slots are removed. A process
    that uses one of those has to be started again.

    Args:
        source: the new bundle. What lies in its `engines` stays behind: no hash and no signature vouches for that.
        slots: the device's folder, made if it is absent.
        public_key: whose signature is required.

    Raises:
        BundleError, EngineError, MissingExtraError: why the new bundle is refused; its copy is removed.
        OutputError: the folder cannot be written, or another process is changing it.
    """
    opened = open_bundle(source, public_key=public_key)  # nothing is copied of what would be refused anyway
    with _changing(slots):
        fresh = Path(tempfile.mkdtemp(prefix="slot-", dir=slots))
        try:
            os.chmod(fresh, 0o755)
            copy_bundle(opened, fresh)
            sync_tree(fresh)
            slot = _try(fresh, public_key)
            former, warning = _former(slots)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        if former is not None:
            _point(slots, PREVIOUS, former)
        _point(slots, CURRENT, fresh)
        _sweep(slots)
    return replace(slot, warning=warning)


def rollback(slots: Path) -> Slot:
    """Make the last good bundle the one in use, and the other way round; it has to pass its self-test first.

    Raises:
        BundleSlotsError: there is no other bundle to go back to.
        BundleError, EngineError, MissingExtraError: it cannot be used; nothing is changed.
        OutputError: the folder cannot be written, or another process is changing it.
    """
    _slot_of(slots, PREVIOUS)  # where there is nothing to go back to, nothing is made
    with _changing(slots):
        back = _slot_of(slots, PREVIOUS)
        former = None
        with suppress(BundleSlotsError):
            former = _slot_of(slots, CURRENT)
        if former == back:
            raise BundleSlotsError(f"{slots}: {PREVIOUS} is the bundle in use already; install another one")
        slot = _try(back, None)
        # A kill between these two leaves both links on the good one.
        _point(slots, CURRENT, back)
        if former is not None:
            _point(slots, PREVIOUS, former)
    return slot


def current_slot(slots: Path) -> Path | None:
    """The folder of the bundle in use, which may be damaged or gone; None if nothing was ever installed."""
    if not os.path.lexists(slots / CURRENT):
        return None
    return _slot_of(slots, CURRENT)


def leave(slots: Path) -> None:
    """Leave the bundle in use for the one before it, without a look at either; without one, for none at all.

    For a bundle that passes its self-test and yet does not run. It is removed, and nothing is left to go back to.

    Raises:
        OutputError: the folder cannot be written, or another process is changing it.
    """
    with _changing(slots):
        bad = back = None
        with suppress(BundleSlotsError):
            bad = _slot_of(slots, CURRENT)
        with suppress(BundleSlotsError):
            back = _slot_of(slots, PREVIOUS)
        if back is None or back == bad or not back.is_dir():
            (slots / CURRENT).unlink(missing_ok=True)
        else:
            _point(slots, CURRENT, back)
        (slots / PREVIOUS).unlink(missing_ok=True)
        sync_folder(slots)
        _sweep(slots)


def _try(folder: Path, public_key: PublicKey | None) -> Slot:
    bundle = open_bundle(folder, public_key=public_key)
    return Slot(bundle, run_probe(bundle))


def _former(slots: Path) -> tuple[Path | None, str | None]:
    """The slot in use, which the new one replaces; None and why if it is not worth to go back to."""
    if not os.path.lexists(slots / CURRENT):
        return None, None
    try:
        return _try(_slot_of(slots, CURRENT), None).bundle.path, None
    except _UNFIT as error:
        return None, f"the bundle that was in use is not kept: {error}"


def _slot_of(slots: Path, link: str) -> Path:
    """The folder that a link names; a link that leads anywhere else than to a slot is refused."""
    try:
        name = os.readlink(slots / link)
    except OSError as error:
        raise BundleSlotsError(
            f"{slots} has no link {link!r}; `tagclip bundle install BUNDLE --slots {slots}` makes one"
        ) from error
    if not _SLOT.fullmatch(name):
        raise BundleSlotsError(
            f"{slots / link} leads to {name!r}, expected a folder slot-* beside it; install again"
        )
    return slots / name


def _point(slots: Path, link: str, slot: Path) -> None:
    """Let a link name another slot; a reader finds the old one or the new one."""
    waiting = slots / f".{link}.part"
    waiting.unlink(missing_ok=True)
    waiting.symlink_to(slot.name)
    os.replace(waiting, slots / link)
    sync_folder(slots)


def _sweep(slots: Path) -> None:
    """Remove the slots that no link names: older bundles, and what a killed install left."""
    keep = set()
    for link in (CURRENT, PREVIOUS):
        with suppress(BundleSlotsError):
            keep.add(_slot_of(slots, link).name)
    for entry in list(os.scandir(slots)):
        if _SLOT.fullmatch(entry.name) and entry.name not in keep and entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)


@contextmanager
def _changing(slots: Path) -> Iterator[None]:
    """One process at a time; the lock ends with the process, however that ends."""
    try:
        slots.mkdir(parents=True, exist_ok=True)
        lock = os.open(slots, os.O_RDONLY)
    except OSError as error:
        raise OutputError(f"cannot write into {slots}: {error.strerror or error}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(f"another process is changing {slots}; wait until it is done") from error
        yield
    except OSError as error:
        raise OutputError(f"cannot write into {slots}: {error.strerror or error}") from error
    finally:
        os.close(lock)

"""Fetching the bundle that a station orders: in parts, on from where the link broke, proved before it is switched to.

It comes after everything else: half of the link's time at most, and a quarter while hits wait. What is here already, in
a bundle on this device, is not fetched. The self-test runs in a process of its own, so that a graph which brings the
runtime down does not bring the device down.
"""

from __future__ import annotations

import hashlib
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tagclip.runtime.bundle import parse_sums
from tagclip.runtime.bundle_manifest import SIGNATURE, SUMS
from tagclip.runtime.bundle_order import Ordered
from tagclip.runtime.bundle_slots import INCOMING, BundleSlots
from tagclip.runtime.errors import (
    BundleError,
    BundleIntegrityError,
    CredentialError,
    LinkError,
    OutputError,
    TagclipError,
    one_line,
)
from tagclip.runtime.files import sync_folder
from tagclip.runtime.health import Health
from tagclip.runtime.signature import check_signature
from tagclip.runtime.sync_carrier import BundleCarrier

POLL_S = 30.0
FIRST_PAUSE_S, MOST_PAUSE_S = 1.0, 120.0
LEAST_PART_BYTES, MOST_PART_BYTES = 16 << 10, 1 << 20
PART_S = 2.0  # what is lost when the link breaks
PART_TIMEOUT_S = 60.0
MAX_BUNDLE_BYTES = 1 << 30
FREE_BYTES = 256 << 20  # are left on the disk for hits and people
CHECK_S = 900.0
_INTERRUPTED = (-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP)

log = logging.getLogger(__name__)


class BundleSync:
    """Asks for orders and carries them out, from `start` until `close`, in a thread of its own.

    Args:
        slots: after `begin`.
        carrier: the way; closed by `close`.
        health: is told with the cause "bundle".
        hits_wait: whether something more urgent has to go over the link.
        poll_s: how often an order is asked for.
        max_bytes: of a bundle; a larger one is refused.
    """

    def __init__(
        self,
        slots: BundleSlots,
        carrier: BundleCarrier,
        health: Health,
        *,
        hits_wait: Callable[[], bool] = lambda: False,
        poll_s: float = POLL_S,
        max_bytes: int = MAX_BUNDLE_BYTES,
    ) -> None:
        self._slots, self._carrier, self._health = slots, carrier, health
        self._hits_wait, self._poll_s, self._max_bytes = hits_wait, poll_s, max_bytes
        self._part_bytes = 64 << 10
        self._doing, self._percent, self._trouble = "", 0, ""
        self._sound: set[str] = set()  # digest/name of files that are all there
        self._stop = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="sync-bundle", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._tell()
        self._thread.start()

    def close(self, timeout_s: float = 5.0) -> None:
        """End within `timeout_s`; what has come lies ready for the next start."""
        self._stop.set()
        self._carrier.close()
        child = self._child
        if child is not None:
            with suppress(OSError):
                child.terminate()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def facts(self) -> dict[str, Any]:
        """For the heartbeat: bundle_digest that runs, bundle_revision of the order in force, bundle_state,
        bundle_percent and bundle_reason."""
        slots, order, gone = self._slots, self._slots.order, self._slots.given_up
        state, reason = self._doing or "waiting", self._trouble
        if slots.wanted() is None:
            state = "trial" if slots.on_trial else "active" if order and order.bundle else "none"
            if gone and (order is None or gone["revision"] in (0, order.revision)):
                state, reason = gone["state"], gone["reason"]
        return {
            "bundle_digest": slots.running,
            "bundle_revision": order.revision if order else 0,
            "bundle_state": state,
            "bundle_percent": self._percent if state == "downloading" else None,
            "bundle_reason": one_line(reason)[:200],
        }

    def _run(self) -> None:
        pause_s = 0.0
        while not self._stop.is_set():
            try:
                self._turn()
            except (LinkError, CredentialError) as error:  # which the sender of hits tells of
                log.debug("bundles: %s", error)
            except Exception as error:
                if not isinstance(error, TagclipError):
                    log.exception("unexpected; bundles are tried again")
                self._trouble = str(error)
                self._tell()
            else:
                pause_s, self._trouble = 0.0, ""
                self._tell()
                self._stop.wait(self._poll_s * random.uniform(0.8, 1.2))
                continue
            pause_s = min(max(2 * pause_s, FIRST_PAUSE_S), MOST_PAUSE_S)
            self._stop.wait(pause_s * random.uniform(0.5, 1.0))

    def _turn(self) -> None:
        """Ask for an order, and work on what is wanted until it is done, or time to ask again."""
        slots = self._slots
        while not self._stop.is_set():
            document = self._carrier.order(slots.order.revision if slots.order else 0)
            if document is not None:
                order = slots.take(document)
                wanted = order.bundle.name if order.bundle else "none; the one in use stays"
                log.info("order %d of the station: bundle %s", order.revision, wanted)
            ordered = slots.wanted()
            if ordered is None:
                self._clean(keep=None)
                return
            # One change at a time: a slot that runs, or is on trial, is not to be swept away.
            if slots.on_trial:
                return
            if slots.switched():
                self._doing = "ready"
                return
            try:
                if self._fetch(ordered, time.monotonic() + self._poll_s):
                    self._install(ordered)
                    return
            except BundleError as error:
                slots.refuse(str(error))
                self._clean(keep=None)
                return

    def _tell(self) -> None:
        gone = self._slots.given_up
        text = self._trouble or (f"{gone['state']}: {gone['reason']}" if gone else "")
        if not text:
            self._health.recover("bundle")
        elif self._health.degrade("bundle", text) and self._trouble:
            log.warning("bundle: %s", text)

    # ---- fetching

    def _fetch(self, ordered: Ordered, until_s: float) -> bool:
        """Bring what is missing; False when it is time to ask for orders again.

        Raises:
            BundleError: it is not what was ordered, or too large.
            OutputError: there is no room.
            LinkError: as ever.
        """
        if ordered.bytes > self._max_bytes:
            raise BundleIntegrityError(
                f"the bundle has {ordered.bytes:,} bytes, this device takes {self._max_bytes:,}; order a smaller one"
            )
        self._clean(keep=ordered.digest)
        folder = self._slots.path / INCOMING / ordered.digest
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._make_room(ordered, folder)
            if not self._file(ordered, folder, SUMS, ordered.digest, until_s):
                return False
            listed = parse_sums(folder, (folder / SUMS).read_bytes())
            if set(listed) | {SUMS} != set(ordered.files) - {SIGNATURE}:
                raise BundleIntegrityError(f"{SUMS} lists other files than the order; push the bundle again")
            if SIGNATURE in ordered.files and not self._file(ordered, folder, SIGNATURE, None, until_s):
                return False
            self._check_signer(ordered, folder)
            for name in sorted(listed, key=lambda name: ordered.files[name]):
                if not self._file(ordered, folder, name, listed[name], until_s):
                    return False
            sync_folder(folder)
        except OSError as error:
            raise OutputError(f"cannot write into {folder}: {error.strerror or error}") from error
        return True

    def _check_signer(self, ordered: Ordered, folder: Path) -> None:
        """Before much is fetched that would be refused; the self-test asks again."""
        if self._slots.signer is not None:
            path = folder / SIGNATURE
            signature = path.read_bytes() if SIGNATURE in ordered.files else None
            check_signature(
                (folder / SUMS).read_bytes(), signature, self._slots.signer, f"bundle {ordered.name}"
            )

    def _file(self, ordered: Ordered, folder: Path, name: str, digest: str | None, until_s: float) -> bool:
        """Bring one file, from a bundle on this device or over the link; `digest` of it, None: nobody knows."""
        if f"{ordered.digest}/{name}" in self._sound:
            return True
        path, size = folder / name, ordered.files[name]
        resumed = path.exists()
        if not resumed and digest is not None and name != SUMS and self._copied(digest, path):
            resumed = True
        while True:
            have = path.stat().st_size if path.exists() else 0
            if have < size or not path.exists():
                self._doing = "downloading"
                self._count(ordered, folder)
                if time.monotonic() >= until_s or self._stop.is_set():
                    return False
                self._part(ordered, path, have, min(size - have, self._part_bytes))
                continue
            if have == size and (digest is None or _sha256(path) == digest):
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
                self._sound.add(f"{ordered.digest}/{name}")
                return True
            path.unlink()
            if not resumed:  # a file that was begun before a power cut may hold anything
                raise BundleIntegrityError(
                    f"{name} was altered: its SHA-256 is not the one that was ordered; push the bundle again"
                )
            resumed = False

    def _part(self, ordered: Ordered, path: Path, offset: int, most: int) -> None:
        begun_s = time.monotonic()
        if not most:
            path.touch()
            return
        try:
            data = self._carrier.part(ordered.digest, path.name, offset, most, PART_TIMEOUT_S)
        except LinkError:
            self._part_bytes = max(self._part_bytes // 2, LEAST_PART_BYTES)
            raise
        if not data:
            raise BundleIntegrityError(
                f"{path.name} is truncated: expected {ordered.files[path.name]:,} bytes, the station has "
                f"{offset:,}; push the bundle again"
            )
        with open(path, "ab") as file:
            file.write(data)
        took_s = time.monotonic() - begun_s
        fitting = int(self._part_bytes * PART_S / max(took_s, 1e-3))
        self._part_bytes = max(LEAST_PART_BYTES, min(fitting, 2 * self._part_bytes, MOST_PART_BYTES))
        self._stop.wait(took_s * (3 if self._hits_wait() else 1))

    def _copied(self, digest: str, path: Path) -> bool:
        """Whether a bundle on this device has that very file, which is copied then."""
        bundle = self._slots.bundle
        for name, found in (bundle.sha256 if bundle else {}).items():
            if found == digest and bundle is not None:
                shutil.copyfile(bundle.path / name, path)
                return True
        return False

    def _make_room(self, ordered: Ordered, folder: Path) -> None:
        missing = ordered.bytes - sum(path.stat().st_size for path in folder.iterdir())
        free, needed = shutil.disk_usage(folder).free, max(missing, 0) + ordered.bytes + FREE_BYTES
        if free < needed:
            raise OutputError(
                f"the bundle needs {needed:,} bytes of disk, {free:,} are free at {folder}; make room"
            )

    def _count(self, ordered: Ordered, folder: Path) -> None:
        have = sum(path.stat().st_size for path in folder.iterdir())
        self._percent = min(100 * have // max(ordered.bytes, 1), 99)

    def _clean(self, keep: str | None) -> None:
        """Remove what came of other bundles."""
        incoming = self._slots.path / INCOMING
        if not incoming.is_dir():
            return
        for path in incoming.iterdir():
            if path.name != keep:
                shutil.rmtree(path, ignore_errors=True)
                self._sound = {name for name in self._sound if not name.startswith(path.name)}

    # ---- installing

    def _install(self, ordered: Ordered) -> None:
        """Prove it, and switch to it; the running process goes on with the old one.

        Raises:
            BundleError: it is refused.
            OutputError: the slots cannot be written.
        """
        slots, folder = self._slots, self._slots.path / INCOMING / ordered.digest
        self._doing = "checking"
        key = ["--public-key", str(slots.signer_path)] if slots.signer_path else []
        code, text = self._ran("verify", str(folder), *key)
        if code:
            raise BundleIntegrityError(text)
        slots.begin_trial(ordered)
        code, text = self._ran("install", str(folder), *key, "--slots", str(slots.path))
        if code:
            raise OutputError(text)
        self._doing = "ready"
        self._clean(keep=None)
        log.info("bundle %s is in its slot", ordered.name)
        slots.on_ready()

    def _ran(self, *arguments: str) -> tuple[int, str]:
        """Exit status and last words of `tagclip bundle`. Raises: LinkError: it was asked to end."""
        command = [sys.executable, "-m", "tagclip.runtime", "bundle", *arguments]
        # A session of its own: Ctrl-C is for the device, which ends it in order.
        none = subprocess.DEVNULL
        with subprocess.Popen(
            command, stdin=none, stdout=none, stderr=subprocess.PIPE, start_new_session=True
        ) as child:
            self._child = child
            if self._stop.is_set():
                child.terminate()
            try:
                _, told = child.communicate(timeout=CHECK_S)
            except subprocess.TimeoutExpired:
                child.kill()
                return 1, f"its check takes more than {CHECK_S:g} s on this device"
            finally:
                self._child = None
        code = child.returncode
        if self._stop.is_set() or code in _INTERRUPTED:
            raise LinkError("the check was interrupted")
        lines = told.decode("utf-8", "replace").strip().splitlines()
        last = lines[-1].removeprefix("error: ") if lines else ""
        return code, last or f"its check ended with status {code}"


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()

"""Hostile bundles out of a seed, and what became of each. test_generated.py runs this file as a program of its own.

    python generate.py WORLD SEED COUNT      one JSON object a case on stdout, in order

WORLD holds `good` (a sound bundle, signed), `trusted.pem`, `stranger.pem` (private keys) and `outside` (canaries).
What an attacker can do, the attacks do: hashes and the encoder id are made right again where they would stop it early.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from pathlib import Path
from typing import Any

from attacks import entries, models, paths, signatures, sizes, transit, unknown  # noqa: F401  they fill ATTACKS
from attacks.attacker import ATTACKS, TRUSTED


class Watch:
    """What Python opens, and what anybody in this process opens among the canaries."""

    EVENTS = (
        "subprocess.",
        "socket.",
        "os.exec",
        "os.fork",
        "os.posix_spawn",
        "os.system",
        "shutil.",
        "os.rename",
    )

    def __init__(self, canaries: Path) -> None:
        import ctypes

        self.folder: str | None = None
        self.found: list[str] = []
        libc = ctypes.CDLL(None, use_errno=True)
        self.inotify = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        every_access = 0x1 | 0x20  # IN_ACCESS, IN_OPEN
        assert libc.inotify_add_watch(self.inotify, os.fsencode(canaries), every_access) >= 0
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, int):
                return
            name = os.fsdecode(path)
            inside = os.path.normpath(name).startswith(self.folder + os.sep)
            if not (inside and os.path.dirname(name) == self.folder and flags & os.O_NOFOLLOW):
                self.found.append(f"open {name!r} flags {flags:o}")
        elif event.startswith(self.EVENTS):
            self.found.append(f"{event} {arguments!r}"[:200])

    def touched(self) -> list[str]:
        """The canaries that were opened since the last call, by the kernel's word."""
        try:
            events = os.read(self.inotify, 65536)
        except BlockingIOError:
            return []
        names, at = [], 0
        while at < len(events):
            length = int.from_bytes(events[at + 12 : at + 16], "little")
            names.append(events[at + 16 : at + 16 + length].rstrip(b"\0").decode())
            at += 16 + length
        return [name for name in names if name]


def attempt(folder: Path, public_key: Any) -> tuple[str, str, str]:
    """(stage, error, message); the error is "" when the bundle was accepted."""
    from tagclip.runtime.bundle import open_bundle
    from tagclip.runtime.errors import TagclipError
    from tagclip.runtime.selftest import run_probe

    stage = "open"
    try:
        bundle = open_bundle(folder, public_key=public_key)
        stage = "selftest"
        run_probe(bundle, threads=1)
    except TagclipError as error:
        return stage, type(error).__name__, str(error)
    except BaseException as error:  # a traceback would have reached the user
        return stage, f"CRASH {type(error).__name__}", str(error)
    return stage, "", ""


def main(world: Path, seed: int, count: int) -> None:
    import resource
    import time

    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    from tagclip.runtime.keys import PublicKey

    private: Any = load_pem_private_key((world / TRUSTED).read_bytes(), None)
    trusted = PublicKey(private.public_key().public_bytes_raw())
    watch = Watch(world / "outside")
    for key in (None, trusted):  # imports everything, and proves that the good one is good
        assert attempt(world / "good", key)[1] == "", attempt(world / "good", key)
    (world / "outside" / "canary").read_bytes()
    assert watch.touched(), "the watch over the canaries is blind"
    # So that what is far larger than any device fails here too, whatever this machine promises.
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + (4 << 30), -1))
    names = list(ATTACKS)
    for number in range(count):
        name = names[number % len(names)]
        rng = random.Random(f"{seed}/{number}")
        folder = Path(shutil.copytree(world / "good", world / "cases" / str(number)))
        expected = ATTACKS[name](folder, rng, world)
        watch.touched()
        watch.found, watch.folder = [], str(folder)
        start = time.perf_counter()
        stage, error, message = attempt(folder, trusted if expected.key else None)
        seconds = time.perf_counter() - start
        watch.folder = None
        result = {
            "number": number,
            "attack": name,
            "expected": expected._asdict(),
            "stage": stage,
            "error": error,
            "message": message,
            "seconds": seconds,
            "opened": watch.found + watch.touched(),
            "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
        print(json.dumps(result), flush=True)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

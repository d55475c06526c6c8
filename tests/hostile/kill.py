"""Kills a process that writes, at every moment, and tells what it left. test_kill.py runs this file as a program.

    python kill.py MODE GOOD WORK STEP ROUNDS SEED     one JSON object a killed process on stdout

MODE: export (write_bundle over an older bundle), fallback (the same where two names cannot be exchanged), sign,
install. GOOD is a sound bundle, WORK an empty folder.

First a process is killed before the first thing it asks of the file system, the next STEP things later, and so on
until one gets through: with STEP 1 every state that a kill can leave, except within one call. Then ROUNDS processes
are killed at random times, which takes care of the insides.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime  # noqa: F401  before the fork: each process needs it
import tokenizers  # noqa: F401

from tagclip.runtime import files
from tagclip.runtime.bundle import Bundle, open_bundle
from tagclip.runtime.bundle_sign import sign_bundle
from tagclip.runtime.bundle_write import write_bundle
from tagclip.runtime.errors import BundleError
from tagclip.runtime.keys import PrivateKey
from tagclip.runtime.slots import install, open_slots

ASKS = ("open", "os.", "shutil.", "tempfile.", "fcntl.", "ctypes.call", "ctypes.dlsym")


def parts_of(bundle: Bundle) -> dict[str, Any]:
    """The arguments of write_bundle that make `bundle` again."""
    manifest = bundle.manifest
    graphs = {name: bundle.read_file(tower.file) for name, tower in manifest.towers.items()}
    return {
        "towers": {name: tower.facts for name, tower in manifest.towers.items()},
        "graphs": graphs,
        "tokenizer_json": bundle.read_file("tokenizer.json"),
        "preprocess": manifest.preprocess,
        "embedding_dim": manifest.embedding_dim,
        "context_length": manifest.tokenizer.context_length,
        "pad_id": manifest.tokenizer.pad_id,
        "licence": manifest.licence,
        "provenance": {},
        "extra_files": {"probe.npz": bundle.read_file("probe.npz")},
    }


def die_before(moment: int) -> None:
    """From here on, kill this process before it asks the file system for the `moment`-th thing."""
    count = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event.startswith(ASKS) and event != "os.kill":  # our own
            count += 1
            if count > moment:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def in_child(
    action: Callable[[], object], *, moment: int | None = None, seconds: float | None = None
) -> bool:
    """Whether a process that does `action` was killed."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if moment is not None:
                die_before(moment)
            action()
            status = 0
        finally:
            os._exit(status)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the action itself failed"
    return os.WIFSIGNALED(status)


def found(look: Callable[[], str]) -> str:
    try:
        return look()
    except BundleError as error:
        return f"{type(error).__name__}: {error}"


def rounds(
    begin: Callable[[int], Callable[[], object]],
    look: Callable[[], str],
    step: int,
    count: int,
    rng: random.Random,
) -> None:
    """Kill and look, again and again; `begin(n)` prepares what writes "n"."""

    def tell(number: int, when: str, was: str, killed: bool) -> str:
        now = found(look)
        print(
            json.dumps({"when": when, "was": was, "writes": str(number), "found": now, "killed": killed}),
            flush=True,
        )
        return now

    start = time.perf_counter()
    assert not in_child(begin(0))
    whole = time.perf_counter() - start
    was, number, killed = found(look), 0, True
    assert was == "0", was
    while killed:
        number += 1
        moment = (number - 1) * step
        killed = in_child(begin(number), moment=moment)
        was = tell(number, f"before event {moment}", was, killed)
    for _ in range(count):
        number += 1
        seconds = rng.uniform(0, whole)
        killed = in_child(begin(number), seconds=seconds)
        was = tell(number, f"after {seconds * 1000:.1f} ms", was, killed)
    assert not in_child(begin(number + 1))
    print(json.dumps({"last": found(look), "writes": str(number + 1)}))


def main(mode: str, good: Path, work: Path, step: int, count: int, seed: int) -> None:
    rng = random.Random(seed)
    parts = parts_of(open_bundle(good))
    target = work / "bundle"
    if mode in ("export", "fallback"):
        if mode == "fallback":
            files._exchange = lambda one, other: False  # type: ignore[assignment]
        rounds(
            lambda n: lambda: write_bundle(target, name=str(n), **parts, replace=True),
            lambda: open_bundle(target).manifest.name,
            step,
            count,
            rng,
        )
        left = [path.name for path in work.iterdir()]
    elif mode == "sign":
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        keys = {}
        shutil.copytree(good, target)

        def begin(n: int) -> Callable[[], object]:
            key = PrivateKey(Ed25519PrivateKey.from_private_bytes(n.to_bytes(32, "big")))
            keys[key.public.id] = str(n), key.public
            return lambda: sign_bundle(target, key)

        def signer() -> str:
            name, key = keys[(target / "SIGNATURE").read_text().split()[3]]
            open_bundle(target, public_key=key)
            return name

        rounds(begin, signer, step, count, rng)
        left = [path.name for path in work.iterdir()]
    else:
        assert mode == "install"
        slots = work / "slots"

        def source(n: int) -> Callable[[], object]:
            path = work / f"source-{n % 2}"
            write_bundle(path, name=str(n), **parts, replace=True)
            return lambda: install(path, slots)

        def in_use() -> str:
            slot = open_slots(slots)
            assert slot.warning is None, slot.warning
            if os.path.lexists(slots / "previous"):
                open_bundle(slots / "previous")
            return slot.bundle.manifest.name

        rounds(source, in_use, step, count, rng)
        left = [path.name for path in slots.iterdir()]
    print(json.dumps({"left": sorted(left)}))


if __name__ == "__main__":
    main(
        sys.argv[1],
        Path(sys.argv[2]),
        Path(sys.argv[3]),
        int(sys.argv[4]),
        int(sys.argv[5]),
        int(sys.argv[6]),
    )

"""A device's bundle in a process that tests kill.

python bundle_device.py sync FOLDER             fetch and install whatever the station orders, without end
python bundle_device.py begin FOLDER STEP KEY   begin; ended at the STEP-th change of a name on the disk, 0: never
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tagclip.runtime.bundle_slots import BundleSlots
from tagclip.runtime.health import Health
from tagclip.runtime.keys import PublicKey
from tagclip.runtime.sync_bundle import BundleSync
from tagclip.runtime.sync_enrol import Enrolment, read_enrolment


def sync(folder: Path) -> None:
    known = read_enrolment(folder)
    slots = BundleSlots(folder, known)
    bundle = slots.begin()
    slots.works()
    health = Health(camera="c", detector="d", provider="cpu", encoder_id=bundle.encoder_id)
    BundleSync(slots, known.bundles(), health, poll_s=0.1).start()
    print(slots.running, flush=True)
    time.sleep(600)


def begin(folder: Path, step: int, key: PublicKey) -> None:
    left = [step]

    def cut(name: str) -> None:
        real: Callable[..., Any] = getattr(os, name)

        def changed(*arguments: Any, **more: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os._exit(9)
            return real(*arguments, **more)

        setattr(os, name, changed)

    for name in ("replace", "unlink", "symlink", "rmdir"):
        cut(name)
    slots = BundleSlots(folder, Enrolment("127.0.0.1:1", "d1", "", "", key))
    slots.begin()
    print(slots.running, flush=True)
    os._exit(7)  # it runs, and ends without a word


if __name__ == "__main__":
    if sys.argv[1] == "sync":
        sync(Path(sys.argv[2]))
    else:
        begin(Path(sys.argv[2]), int(sys.argv[3]), PublicKey(bytes.fromhex(sys.argv[4])))

"""The folder in which a data set grows until it is complete, so that an interrupted run can go on.

`.OUT.unfinished` beside OUT holds `synth.json`, the settings that the bytes depend on, and `parts/000012.tar`, the
pictures and annotations of a few people each. A part is written whole or not at all. OUT itself appears once, complete.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tagclip.runtime.errors import OutputError
from tagclip.runtime.files import check_target, write_atomic

SETTINGS = "synth.json"


@contextmanager
def unfinished(out: Path, settings: Mapping[str, Any]) -> Iterator[Path]:
    """Yield the folder to work in, new or as an earlier run left it, and remove it when the block succeeds.

    A lock that ends with the process keeps two runs apart.

    Args:
        out: the folder to make in the end.
        settings: what the result depends on; an earlier run must have had the same.

    Raises:
        OutputError: `out` is there already, another run is writing it, an earlier run had other settings, or the
            place cannot be written.
    """
    work = _beside(out)
    with suppress(OSError):
        # A run that was killed between its last two steps: OUT stands, and the same people lie here once more.
        if (out / SETTINGS).read_bytes() == (work / SETTINGS).read_bytes():
            shutil.rmtree(work, ignore_errors=True)
    check_target(out)
    lock = _locked(out, work)
    try:
        check_target(out)  # another run may have ended since
        _same_settings(out, work, settings)
        _tidy(work / "parts")
        yield work
        shutil.rmtree(work, ignore_errors=True)
    finally:
        os.close(lock)


def part_path(work: Path, number: int) -> Path:
    """Where a part lies in the folder of `unfinished`."""
    return work / "parts" / f"{number:06d}.tar"


def _beside(out: Path) -> Path:
    whole = Path(os.path.abspath(out))  # of ".", too
    # Not `.part`: that is what the next write of OUT takes for a leftover and removes.
    return whole.parent / f".{whole.name}.unfinished"


def _locked(out: Path, work: Path) -> int:
    """A descriptor of `work`, made if need be, whose lock says that this process writes there."""
    while True:
        try:
            work.mkdir(parents=True, exist_ok=True)
            lock = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise OutputError(
                f"cannot write {work}: {error.strerror or error}; choose another place"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise OutputError(
                f"another run is writing {out}: it holds {work}; wait until it ends, or choose another name"
            ) from error
        except OSError as error:
            os.close(lock)
            raise OutputError(
                f"{work} cannot be locked ({error.strerror or error}), and two runs at once would spoil each other; "
                "choose a place on a local disk"
            ) from error
        # The other run may have ended, and removed the folder, between the two calls.
        with suppress(OSError):
            if os.path.samestat(os.fstat(lock), os.stat(work)):
                return lock
        os.close(lock)


def _same_settings(out: Path, work: Path, settings: Mapping[str, Any]) -> None:
    path = work / SETTINGS
    if not path.exists():
        write_atomic(path, as_json(settings))
        return
    ways_out = f"start it with the settings that it had, or remove {work} to begin anew"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        before = {str(k): v for k, v in found.items()}
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise OutputError(f"{path} cannot be read ({error}); remove {work} to begin anew") from error
    keys = [k for k in {**before, **settings} if before.get(k) != settings.get(k)]
    if keys:
        others = ", ".join(f"{k} {before.get(k)} (now {settings.get(k)})" for k in keys)
        raise OutputError(f"an unfinished run for {out} had other settings: {others}; {ways_out}")


def as_json(settings: Mapping[str, Any]) -> bytes:
    """The content of synth.json."""
    return (json.dumps(settings, indent=1) + "\n").encode()


def _tidy(parts: Path) -> None:
    """Make the folder of parts; remove what a killed process had begun to write in it."""
    try:
        parts.mkdir(exist_ok=True)
        for path in parts.iterdir():
            if path.name.startswith("."):
                path.unlink()
    except OSError as error:
        raise OutputError(f"cannot write {parts}: {error.strerror or error}; choose another place") from error

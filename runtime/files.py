"""Writing files so that a reader sees the old content or the new, never half of it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tagclip.runtime.errors import OutputError


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path` by temporary name, fsync and rename.

    Raises:
        OutputError: the folder is absent, not writable or full; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):  # not even a folder to look into
            temporary.unlink(missing_ok=True)
        raise OutputError(f"cannot write {path}: {error.strerror or error}; choose another place") from error


@contextmanager
def folder_atomic(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `target` that takes its name when the block ends well.

    Args:
        target: the folder to make; its parents are made too.
        replace: an existing `target` is swapped out (kept until the new one stands), else refused when not empty.

    Raises:
        OutputError: `target` exists and `replace` is off, or the place cannot be written; no half folder is left.
    """
    if target.exists() and not target.is_dir():
        raise OutputError(f"{target} is a file, expected a folder to make; choose another name")
    if target.exists() and any(target.iterdir()) and not replace:
        raise OutputError(f"{target} exists and is not empty; remove it or choose another name")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
        os.chmod(work, 0o755)
    except OSError as error:
        raise OutputError(f"cannot write beside {target}: {error.strerror or error}") from error
    try:
        yield work
        for path in work.rglob("*"):
            if path.is_file():
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
        old = None
        if target.exists():
            old = target.with_name(f".{target.name}.{os.getpid()}.old")
            os.replace(target, old)
        os.replace(work, target)
        sync_folder(target.parent)
        if old is not None:
            shutil.rmtree(old)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)

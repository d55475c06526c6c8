"""Writing files and folders so that a reader sees the old content or the new, never half of it, never nothing."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tagclip.runtime.errors import OutputError

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
# What a kernel or a file system says that cannot exchange two names.
_NO_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM)


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_unfollowed(path: Path) -> int:
    """A descriptor for reading a file that somebody else may have put there: follows no link, waits on no pipe.

    Raises:
        OSError: absent, a link, or not readable. Whether it is a regular file is the caller's to ask.
    """
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def write_atomic(path: Path, data: bytes, *, waiting: Path | None = None) -> None:
    """Write `data` to `path` by temporary name, fsync and rename.

    Args:
        path: the file to make or replace.
        data: all of its content.
        waiting: the temporary name, in the same file system; None takes one beside `path`.

    Raises:
        OutputError: the folder is absent, not writable or full; nothing is left behind.
    """
    temporary = waiting or path.with_name(f".{path.name}.{os.getpid()}.part")
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


def check_target(target: Path, *, replace: bool = False) -> None:
    """Whether `target` is a name under which a folder can be made; to ask before long work.

    Args:
        replace: a folder that is not empty will do.

    Raises:
        OutputError: a symbolic link, a file, or (without `replace`) a folder that is not empty.
    """
    if target.is_symlink():
        raise OutputError(f"{target} is a symbolic link; name the folder that it stands for")
    if target.exists() and not target.is_dir():
        raise OutputError(f"{target} is a file, expected a folder to make; choose another name")
    if target.exists() and any(target.iterdir()) and not replace:
        raise OutputError(f"{target} exists and is not empty; remove it or choose another name")


@contextmanager
def folder_atomic(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `target` and swap it in when the block succeeds.

    A kill at any moment leaves the old folder or the new one under the name `target` (Linux; see `swap`). What
    a killed process left beside it is removed by the next write to the same target.

    Args:
        target: folder to make; its parents are made too.
        replace: an existing `target` is swapped out (kept until the new one stands), else refused when not empty.

    Raises:
        OutputError: `target` exists and `replace` is off, or the place cannot be written; no half folder is left.
    """
    check_target(target, replace=replace)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _clean(target)
        work, lock = _make(target)
    except OSError as error:
        raise OutputError(f"cannot write beside {target}: {error.strerror or error}") from error
    try:
        yield work
        sync_tree(work)
        if replace and target.exists():
            swap(work, target)
        else:
            os.replace(work, target)  # onto nothing or an empty folder
        sync_folder(target.parent)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)  # the old folder, or the half-made one
        os.close(lock)


def sync_tree(folder: Path) -> None:
    """Make all that lies in `folder` survive a power cut."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        elif path.is_dir() and not path.is_symlink():
            sync_folder(path)
    sync_folder(folder)


def swap(one: Path, other: Path) -> None:
    """Let two existing names in one folder change places.

    On Linux in one step (renameat2), so that neither name is ever absent. Where the C library or the file system
    cannot do that (before glibc 2.28; some network file systems), in three, the first of which moves `other` to
    `.<name>.old`: a kill between the first and the second leaves `other` absent, and the next `folder_atomic` of
    that name puts it back.
    """
    if _exchange(one, other):
        return
    old = _old(other)
    os.replace(other, old)
    os.replace(one, other)
    os.replace(old, one)


def _exchange(one: Path, other: Path) -> bool:
    """Whether the two names changed places in one step; False if that cannot be done here."""
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        return False
    function.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    if function(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(other))


def _make(target: Path) -> tuple[Path, int]:
    """A new work folder beside `target`, and the descriptor whose lock says that its maker lives."""
    while True:
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
        with suppress(FileNotFoundError):  # another writer took it for a leftover before it was locked
            lock = os.open(work, os.O_RDONLY)
            with suppress(OSError):  # network file systems without locks: nobody can clean there either
                fcntl.flock(lock, fcntl.LOCK_EX)
            if work.exists():
                os.chmod(work, 0o755)
                return work, lock
            os.close(lock)


def _clean(target: Path) -> None:
    """Put back or remove what a killed process left beside `target`; leave what a living one is writing."""
    old = _old(target)
    if old.is_dir() and not target.exists():
        os.replace(old, target)
    shutil.rmtree(old, ignore_errors=True)
    start = f".{target.name}."
    for path in target.parent.iterdir():
        if not (path.name.startswith(start) and path.name.endswith(".part")) or path.is_symlink():
            continue
        # Nothing but mkdtemp's eight characters between: `.b.xxxxxxxx.part` is not a leftover of `.b.c`.
        if not path.is_dir() or "." in path.name[len(start) : -len(".part")]:
            continue
        with suppress(OSError):
            lock = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)


def _old(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")

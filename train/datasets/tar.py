"""Members of uncompressed tar files, read where they lie: the pictures of a set that is kept in tar shards.

A path such as `images/train-000000.tar/000020_a0.jpg` leads into a tar. Its headers are read once, then every
member is one `pread`; nothing is ever unpacked to the disk.
"""

from __future__ import annotations

import os
import tarfile
import threading
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tagclip.runtime.errors import DataError

BLOCK = 512  # bytes; a tar is made of such blocks, and one of zeros follows the last member

Places = dict[str, tuple[int, int]]  # member -> where its data begin, how long they are; bytes


@dataclass(frozen=True)
class _Index:
    """What is known of a tar whose inode, time and size are `stamp`: its members, or why it cannot be used."""

    stamp: tuple[int, int, int]
    places: Places = field(default_factory=dict)
    problem: str = ""


_indices: dict[Path, _Index] = {}
_lock = threading.Lock()


def split_member(path: Path) -> tuple[Path, str] | None:
    """The tar and the member's name where `path` leads into a tar file, else None."""
    if ".tar/" not in path.as_posix():
        return None
    for parent in path.parents:
        if parent.suffix == ".tar" and parent.is_file():
            return parent, path.relative_to(parent).as_posix()
    return None


def has_member(tar: Path, name: str) -> bool:
    """Whether a tar holds a member.

    Raises:
        DataError: the tar cannot be used, see `scan`.
    """
    return name in _index(tar)


def read_member(tar: Path, name: str) -> bytes:
    """The bytes of a member. Safe to call from several threads.

    Raises:
        DataError: there is no such member, or the tar cannot be used, see `scan`.
    """
    place = _index(tar).get(name)
    if place is None:
        raise DataError(f"missing file: expected {name} in {tar}, found no such member")
    offset, size = place
    try:
        # Opened for each read: a large set has more shards than a process may hold open.
        descriptor = os.open(tar, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.pread(descriptor, size, offset)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise DataError(f"missing file: {tar} cannot be read: {error.strerror or error}") from error
    if len(data) != size:
        raise DataError(_cut(tar))
    return data


def _index(tar: Path) -> Places:
    """The members of a tar, from a scan that is done once as long as the file stays as it is."""
    try:
        stat = tar.stat()
    except OSError as error:
        raise DataError(f"missing file: {tar} cannot be read: {error.strerror or error}") from error
    stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
    found = _indices.get(tar)
    if found is None or found.stamp != stamp:
        with _lock:  # threads that ask for the same tar at once wait for one scan
            found = _indices.get(tar)
            if found is None or found.stamp != stamp:
                try:
                    found = _Index(stamp, scan(tar))
                except DataError as error:  # kept, or each of a thousand pictures would scan again
                    found = _Index(stamp, problem=str(error))
                _indices[tar] = found
    if found.problem:
        raise DataError(found.problem)
    return found.places


def scan(tar: Path) -> Places:
    """Members of a tar in their order, from its headers alone.

    Raises:
        DataError: unreadable, compressed, cut off or damaged; or a member that is no plain file, has a name that
            leaves the tar, or is there twice.
    """
    places: Places = {}
    try:
        with tarfile.open(tar, "r:") as opened:
            for member in opened:
                if member.isdir():
                    continue
                name = _plain(tar, member)
                if name in places:
                    raise DataError(f"broken tar: {tar} holds {name} twice; make it again")
                places[name] = (member.offset_data, member.size)
            end = opened.offset
        with open(tar, "rb") as file:
            file.seek(end)
            last = file.read(BLOCK)
    except tarfile.ReadError as error:
        if "unexpected end" in str(error):
            raise DataError(_cut(tar)) from error
        raise DataError(f"broken tar: {tar} is no uncompressed tar ({error}); make it again") from error
    except OSError as error:
        raise DataError(f"missing file: {tar} cannot be read: {error.strerror or error}") from error
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        raise DataError(f"broken tar: {tar} cannot be read as a tar: {error}; make it again") from error
    # tarfile takes a cut or a damaged header for the end of the archive.
    if len(last) < BLOCK:
        raise DataError(_cut(tar))
    if any(last):
        raise DataError(f"broken tar: {tar} is damaged at byte {end}; make it again")
    return places


def _plain(tar: Path, member: tarfile.TarInfo) -> str:
    """The member's name, if it is a plain file under a plain relative path."""
    name = member.name.removeprefix("./")
    if not member.isreg() or member.sparse is not None or member.size < 0:
        raise DataError(f"broken tar: {tar} holds {name!r}, a link or device; expected plain files only")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or path.as_posix() != name or name == ".":
        raise DataError(f"broken tar: {tar} holds {name!r}; expected plain relative names only")
    return name


def _cut(tar: Path) -> str:
    return f"truncated tar: {tar} ends too early; fetch or make it again"

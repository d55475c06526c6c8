"""A file of hits: one JSON object a line, only ever added to, so that a power cut costs at most the hit being written.

A hit is written again, with a higher revision, when more is learnt of it; reading gives the newest of each.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from array import array
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from tagclip.runtime.errors import BundleManifestError, HitError, StoreFullError
from tagclip.runtime.fields import parse_object
from tagclip.runtime.files import sync_folder
from tagclip.runtime.hit import Hit, hit_of

MAX_LINE_BYTES = 200_000  # the longest that `hit_of` allows, every letter of it written as \uXXXX
MAX_HITS = 1_000_000  # of one file: what is remembered of each while reading takes about 200 bytes
CHUNK_BYTES = 1 << 16

_FIRST = b'{"id"'  # how each line begins
_AGAIN = "move it away to begin anew"


class HitLog:
    """An open file of hits, for the one process that writes it.

    Args:
        path: made when it is not there, for its owner alone: it says who was where.

    Attributes:
        cut_bytes: of a half-written hit that a power cut left at the end, removed when it was opened; else 0.

    Raises:
        HitError: it is no file of hits, another process writes to it, or it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cut_bytes = 0
        try:
            with suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
                sync_folder(path.parent)
            self._file: BinaryIO = open(path, "r+b", buffering=0)
        except OSError as error:
            raise HitError(
                f"cannot open the hits {path}: {error.strerror or error}; name another file"
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._mend()
        except OSError as error:
            self._file.close()
            busy = error.errno in (errno.EAGAIN, errno.EACCES)
            why = "another process writes to it" if busy else error.strerror or str(error)
            raise HitError(f"cannot write hits to {path}: {why}; name another file") from error
        except HitError:
            self._file.close()
            raise

    def append(self, hit: Hit) -> None:
        """Add a hit, or the newer revision of one; it is on the disk when this returns.

        Raises:
            HitError: a field breaks the form, or the disk refuses; the file is as it was.
            StoreFullError: the disk is full; the file is as it was.
        """
        row = hit.to_json()
        hit_of(row)  # nothing is written that could not be read again
        line = (json.dumps(row) + "\n").encode("ascii")
        end = self._file.seek(0, os.SEEK_END)
        try:
            self._write(line)
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(end)
            text = f"cannot write hits to {self.path}: {error.strerror or error}"
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StoreFullError(f"{text}; free room") from error
            raise HitError(f"{text}; name another file") from error

    def close(self) -> None:
        """Let others write to it."""
        self._file.close()

    def __enter__(self) -> HitLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        os.fsync(self._file.fileno())

    def _mend(self) -> None:
        """Bring the end back to that of a whole line; a hit that lacks nothing but its line's end keeps its place."""
        _check_start(self._file, self.path)
        size = self._file.seek(0, os.SEEK_END)
        start, last = _last_line(self._file, size)
        if size - start > MAX_LINE_BYTES:
            raise HitError(f"{self.path}: {size - start:,} bytes at its end are no hit; {_AGAIN}")
        if not last or _whole(last):
            if last and not last.endswith(b"\n"):
                self._write(b"\n")
            return
        self.cut_bytes = size - start
        self._file.truncate(start)
        os.fsync(self._file.fileno())


class HitReader:
    """The hits of a file, the newest revision of each, in the order in which they first came.

    The whole file is checked when it is opened; what is added later is not seen. Iterating again starts over. At any
    time one hit is in memory, and of the others their ids and places in the file.

    Attributes:
        lines: hits and revisions of them.
        torn_bytes: of a half-written hit at the end, which is left out; else 0. A writer may be just writing it.

    Raises:
        HitError: no such file, no file of hits, more than MAX_HITS of them, or damage; the message has the line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = 0
        self.torn_bytes = 0
        self._starts = array("q")  # in the file, of the newest revision, by order of first appearance
        if not path.is_file():
            raise HitError(f"expected a file of hits at {path}, found none")
        with self._open() as file:
            _check_start(file, path)
            self._index(file)

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[Hit]:
        with self._open() as file:
            for start in self._starts:
                file.seek(start)
                yield _hit(file.readline(MAX_LINE_BYTES), f"{self.path}, byte {start}")

    def _open(self) -> BinaryIO:
        try:
            return open(self.path, "rb")
        except OSError as error:
            raise HitError(f"cannot read the hits {self.path}: {error.strerror or error}") from error

    def _index(self, file: BinaryIO) -> None:
        numbers: dict[bytes, int] = {}
        revisions = array("q")
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        at = 0
        while line := file.readline(MAX_LINE_BYTES):
            start, at = at, at + len(line)
            if at >= size and not _whole(line):
                self.torn_bytes = len(line)
                return
            self.lines += 1
            hit = _hit(line, f"{self.path}, line {self.lines}")
            number = numbers.setdefault(hit.id.bytes, len(numbers))
            if number == len(revisions):
                if number == MAX_HITS:
                    raise HitError(f"{self.path} holds more than {MAX_HITS:,} hits; split it")
                revisions.append(hit.revision)
                self._starts.append(start)
            elif hit.revision > revisions[number]:
                revisions[number], self._starts[number] = hit.revision, start


def _check_start(file: BinaryIO, path: Path) -> None:
    """Refuse a file that is something else before its end is cut."""
    file.seek(0)
    head = file.read(len(_FIRST)) or b""
    blank = head.startswith(b"\0") and not head.strip(
        b"\0\n"
    )  # a first hit of which only the size reached the disk
    if not (_FIRST.startswith(head) or blank):
        raise HitError(
            f"{path} is no file of hits: expected one JSON object a line, as `tagclip run` writes them"
        )


def _last_line(file: BinaryIO, size: int) -> tuple[int, bytes]:
    """Where the last line starts, and its bytes, at most MAX_LINE_BYTES; (0, b"") for an empty file."""
    start = max(size - 1, 0)  # a line's end as the very last byte ends the last line
    while start > 0:
        begin = max(start - CHUNK_BYTES, 0)
        file.seek(begin)
        found = (file.read(start - begin) or b"").rfind(b"\n")
        if found >= 0:
            start = begin + found + 1
            break
        start = begin
    file.seek(start)
    return start, file.read(MAX_LINE_BYTES) or b""


def _whole(line: bytes) -> bool:
    """Whether a line is a JSON object, be it of a newer tagclip: that is no power cut's work."""
    try:
        parse_object(line, "hit")
    except BundleManifestError:
        return False
    return True


def _hit(line: bytes, where: str) -> Hit:
    """Raises: HitError, naming `where`."""
    try:
        return hit_of(parse_object(line, "hit"))
    except BundleManifestError as error:
        said = str(error).removesuffix("; fetch the bundle again")
        raise HitError(f"{where}: damaged: {said}; {_AGAIN}, or remove the line") from error
    except HitError as error:
        raise HitError(f"{where}: {error}") from error

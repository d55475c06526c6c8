"""A disk whose power can be cut: an ext4 in a file. Root and a loop device are needed.

A cut is a real loss of what the kernel had not yet written: the process is stopped, the file system is shut down
without flushing its log (the ioctl of xfstests' godown), the process is killed, and the file system is mounted again,
which replays its journal. What it leaves out: drives that lie about what they flushed, and torn sectors.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

from chaos.child import Child

EXT4_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, u32)
NO_LOG_FLUSH = (2).to_bytes(4, "little")


class Disk:
    """Mounted while it is entered.

    Attributes:
        place: where.

    Raises:
        OSError: by `__enter__` and `cut`, where that is not possible.
    """

    def __init__(self, folder: Path, size_bytes: int) -> None:
        self.place = folder / "disk"
        self._image = folder / "disk.img"
        self._size_bytes = size_bytes

    def __enter__(self) -> Disk:
        self.place.mkdir(parents=True)
        self._image.touch()
        os.truncate(self._image, self._size_bytes)
        _run("mkfs.ext4", "-q", "-F", str(self._image))
        self.mount()
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "-l", str(self.place)], check=False)

    def cut(self, *children: Child) -> None:
        """See `cut`."""
        cut([self], children)

    def shut_down(self) -> None:
        handle = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, EXT4_IOC_SHUTDOWN, NO_LOG_FLUSH)
        finally:
            os.close(handle)

    def mount(self) -> None:
        _run("mount", "-o", "loop", str(self._image), str(self.place))


def cut(disks: Iterable[Disk], children: Iterable[Child]) -> None:
    """The power of `disks` fails, and of the processes that work on them.

    What these said before, they said with the power on.
    """
    for child in children:
        child.stop()
    try:
        for disk in disks:
            disk.shut_down()
    finally:
        for child in children:
            child.kill()
    for disk in disks:
        _run("umount", str(disk.place))
        disk.mount()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")

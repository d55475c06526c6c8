"""Is a picture whole? Decoded as training does it, many at a time."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.errors import DataError
from tagclip.train.datasets.tar import has_member, read_member, split_member

BATCH = 256  # pictures between two calls of `tick`


@dataclass(frozen=True)
class Picture:
    """Size in pixels of a picture that decodes, and a digest of the file's bytes."""

    width_px: int
    height_px: int
    digest: bytes


def is_there(path: Path) -> bool:
    """Whether a picture is there, as a file or as a member of a tar.

    Raises:
        DataError: the tar cannot be used.
    """
    inside = split_member(path)
    return path.is_file() if inside is None else has_member(*inside)


def read_bytes(path: Path) -> bytes:
    """The bytes of a picture that is a file, or a member of a tar that `path` leads into.

    Raises:
        DataError: missing, or the tar cannot be used.
    """
    inside = split_member(path)
    if inside is not None:
        return read_member(*inside)
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"missing file: expected the image {path}, found none") from error
    except OSError as error:
        raise DataError(f"missing file: {path} cannot be read: {error.strerror or error}") from error


def decode(path: Path) -> tuple[NDArray[np.uint8], bytes]:
    """The pixels (H, W, 3) of a picture, BGR as OpenCV has them, and the file's bytes.

    Args:
        path: a file, or a member of a tar such as `train-000000.tar/000020_a0.jpg`.

    Raises:
        DataError: missing, truncated, or nothing that can be decoded; the message says which and names the file.
    """
    data = read_bytes(path)
    # Some versions of OpenCV decode half a file without a word, so the end is looked for first.
    if _cut(data):
        raise DataError(f"truncated image: {path} ends too early; fetch or make it again")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if image is None:
        raise DataError(f"broken image: {path} cannot be decoded; fetch or make it again")
    return np.asarray(image, np.uint8), data


def read_picture(path: Path) -> Picture:
    """Decode a picture. Raises: DataError, as `decode`."""
    image, data = decode(path)
    return Picture(image.shape[1], image.shape[0], hashlib.blake2b(data, digest_size=16).digest())


def _cut(data: bytes) -> bool:
    """Whether a JPEG lacks its end marker after its last scan, or a PNG its last chunk."""
    if data.startswith(b"\xff\xd8"):
        return data.rfind(b"\xff\xd9") < max(1, data.rfind(b"\xff\xda"))
    return data.startswith(b"\x89PNG") and b"IEND" not in data[8:]


def read_pictures(paths: Sequence[Path], tick: Callable[[int, int], None]) -> Iterator[Picture | DataError]:
    """`read_picture` of each path in order, by a thread a core; the error instead where there is one."""

    def read(path: Path) -> Picture | DataError:
        try:
            return read_picture(path)
        except DataError as error:
            return error

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for done, found in enumerate(pool.map(read, paths), 1):
            yield found
            if done % BATCH == 0 or done == len(paths):
                tick(done, len(paths))

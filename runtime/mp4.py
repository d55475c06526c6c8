"""Writing an MP4 so that its name stands for a complete file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2

from tagclip.runtime.errors import OutputError
from tagclip.runtime.source import Image


@contextmanager
def mp4_atomic(path: Path, fps: float, size_px: tuple[int, int]) -> Iterator[Callable[[Image], Any]]:
    """Yield write(bgr) for BGR uint8 (H, W, 3) frames of `size_px` (width, height); `path` appears at the end.

    Raises:
        OutputError: this OpenCV cannot write MP4, or the place cannot be written; nothing is left behind.
    """
    # The suffix tells the writer the format.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part.mp4")
    try:
        writer = cv2.VideoWriter(str(temporary), cv2.VideoWriter.fourcc(*"mp4v"), fps, size_px)
        if not writer.isOpened():
            raise OutputError(f"cannot write {path}: not writable, or this OpenCV has no MP4 writer")
        try:
            yield writer.write
        finally:
            writer.release()
        if not temporary.exists() or temporary.stat().st_size == 0:
            raise OutputError(f"cannot write {path}: no data was written; is the disk full?")
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
